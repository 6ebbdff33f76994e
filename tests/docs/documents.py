"""The documents of this repository, as their tests see them: pages, links, commands, what is written as code."""
import dataclasses, pathlib, re

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"(build/release/isthmus|isthmus|script/[a-z]+|bench/[a-z_]+\.py|"
                     r"\.venv/bin/python bench/[a-z_]+\.py)(\s|$)")


def pages():
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
            *sorted(page for top in ("deploy", "docs") for page in (ROOT / top).rglob("*.md"))]


@dataclasses.dataclass
class Command:
    page: pathlib.Path
    line: int
    text: str
    # What the last comment before its block says (tests/docs/commands.py).
    notes: list


def lines(page):
    """(number, line, whether it belongs to a block of code), fences and their languages left out."""
    fenced = indented = False
    before = ""
    for number, line in enumerate(page.read_text().split("\n"), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        # An indented block begins after an empty line, and not inside a list.
        indented = line.startswith("    ") and (indented or not before.strip()) or indented and not line.strip()
        before = line
        yield number, line, fenced or indented


def commands(page):
    """The commands in blocks of code, in order, without prompts and remarks."""
    found, notes, whole, block = [], [], "", False
    for number, line, code in lines(page):
        if block and not code and line.strip():
            notes = []
        block = code
        note = re.fullmatch(r"<!-- test: (.*) -->", line.strip())
        if note:
            notes = [item.strip() for item in re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', note[1])]
        if not code:
            continue
        whole += re.sub(r"\s{2,}#.*$", "", line.strip())
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        if COMMAND.match(whole):
            found.append(Command(page, number, whole, notes))
        whole = ""
    return found


def spans(page):
    """(line, text) of everything between backticks outside blocks."""
    for number, line, code in lines(page):
        if not code:
            yield from ((number, span) for span in re.findall(r"`([^`]+)`", line))


def links(page):
    """(line, target) of links and pictures into this repository."""
    for number, line, code in lines(page):
        if not code:
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if not re.match(r"[a-z]+://", target):
                    yield number, target


def anchors(page):
    """The names that a page's headings have, as GitHub makes them."""
    found = set()
    for _, line, code in lines(page):
        heading = None if code else re.match(r"#+ (.*)", line)
        if heading:
            name = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
            found.add(name)
    return found
