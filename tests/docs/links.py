#!/usr/bin/env python3
"""What the documents point to is there: links, keys of a run file, source files, rooms, tests. Two of them keep their
length.

usage: links.py
"""
import fnmatch, json, re, sys
from documents import ROOT, anchors, links, pages, spans

# A page that people read first stays short; what grows has pages of its own.
LONGEST = {"README.md": 6_000, "docs/architecture.md": 15_000}


def keys(schema, prefix=""):
    """section.key of every value of a run file."""
    for name, value in schema.get("properties", {}).items():
        inner = value.get("items", value)
        yield prefix + name
        yield from keys(inner, prefix + name + ".")


def missing_files(span, files):
    """Source files that a span names and that are not there."""
    named = re.fullmatch(r"(?:[\w.-]+/)*[\w.-]+\.(?:h|cpp|py)", span)
    return [span] if named and not any(file == span or file.endswith("/" + span) for file in files) else []


def all_tests():
    """room.Suite.Name of every test, as ctest has it, without what a parameter adds."""
    for file in (ROOT / "tests").rglob("*_test.cpp"):
        for suite, name in re.findall(r"^(?:TYPED_)?TEST(?:_[FP])?\((\w+), (\w+)\)", file.read_text(), re.M):
            yield f"{file.parent.name}.{suite}.{name}"


def missing_tests(span, tests):
    """Tests that a span names (room.Suite.Name, room.Suite.*, …Name) and that are not there."""
    if not re.fullmatch(r"…[A-Z]\w+|[a-z]+\.(?:[\w*]+/)?[A-Z]\w*(?:\*|\.\w+(?:/\*)?|\.\*)", span):
        return []
    pattern = re.sub(r"^(\w+)\.[\w*]+/", r"\1.", span).removesuffix("/*").replace("…", "*")
    return [] if fnmatch.filter(tests, pattern) else [span]


def rooms():
    """The folders of src, those of scheduler one by one."""
    for folder in sorted((ROOT / "src").iterdir()):
        if folder.is_dir():
            yield from (f"scheduler/{inner.name}" for inner in folder.iterdir() if inner.is_dir()) \
                if folder.name == "scheduler" else [folder.name]


def main():
    wrong, seen = [], 0
    files = [str(file.relative_to(ROOT)) for top in ("src", "tests", "bench") for file in (ROOT / top).rglob("*.*")]
    tests = list(all_tests())
    architecture = (ROOT / "docs/architecture.md").read_text()
    wrong += [f"docs/architecture.md: no row for src/{room}" for room in rooms()
              if not re.search(rf"^\|.*`{room}`", architecture, re.M)]
    known = set(keys(json.loads((ROOT / "configs/run.schema.json").read_text())))
    tables = {key for key in known if "." not in key}
    for page in pages():
        where = page.relative_to(ROOT)
        for line, target in links(page):
            seen += 1
            path, _, anchor = target.partition("#")
            to = (page.parent / path).resolve() if path else page
            if not to.exists():
                wrong.append(f"{where}:{line}: {target}: no such file")
            elif anchor and anchor not in anchors(to):
                wrong.append(f"{where}:{line}: {target}: no such heading")
        for line, span in spans(page):
            wrong += [f"{where}:{line}: `{name}`: no such file" for name in missing_files(span, files)]
            wrong += [f"{where}:{line}: no test {name}" for name in missing_tests(span, tests)]
            for key in re.findall(r"^([a-z]+(?:\.[a-z_0-9]+)+)(?:$| ?=)", span):
                if key.split(".")[0] in tables and not re.search(r"\.(toml|json|bin|py)$", key) and key not in known:
                    wrong.append(f"{where}:{line}: `{key}`: no key of configs/run.schema.json")
    for name, most in LONGEST.items():
        size = len((ROOT / name).read_bytes())
        if size > most:
            wrong.append(f"{name}: {size} bytes, at most {most}")
    print("\n".join(wrong) or f"{seen} links lead somewhere")
    return 1 if wrong or seen < 50 else 0


sys.exit(main())
