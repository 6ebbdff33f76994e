#!/usr/bin/env python3
"""Runs every command that a document shows, in order, in a folder of its own.

usage: commands.py ISTHMUS PAGE.md | --spans ISTHMUS

A comment before a block of code says how its commands are made short:

    <!-- test: --set run.steps=2 -->     more arguments for each of them
    <!-- test: help -->                  with --help alone: it would measure for minutes. Its files under configs/ are
                                         there
    <!-- test: begins -->                stopped when it has gone on for a moment without an error: it would measure for
                                         hours
    <!-- test: ci -->                    not at all: .ci/run starts it
    <!-- test: exit 78 -->               this exit code is expected
    <!-- test: together -->              all commands of the block at once, as in several terminals; all have to end
    <!-- test: before COMMAND -->        COMMAND first
    <!-- test: write FILE -->            FILE, some text, is there
    <!-- test: replace OLD NEW -->       NEW stands for OLD in the commands
    <!-- test: edit FILE OLD NEW -->     NEW stands for OLD in FILE

Several are separated by ";" outside quotes.
Every run of `train` and `coordinator` is shortened (SHORT). `--spans` starts nothing: it
checks that what stands between backticks, or behind "--", in all documents is a command, a program or an option that
there is.
"""
import os, pathlib, re, resource, shlex, shutil, signal, subprocess, sys, tempfile, time
from documents import COMMAND, ROOT, commands, pages, spans

# A small model, two steps, no waiting for emulated links. What a document sets itself comes behind and counts.
SHORT = ["run.steps=2", "train.evaluation_microbatches=1", "link.emulate=false", "model.hidden=64", "model.context=64",
         "boundary.rank=15"]
# What is wrong with a command's arguments, files or first lines shows in less.
A_MOMENT_S = 1
# A command that takes longer hangs; a busy machine takes its time.
LONGEST_S = 400


def text():
    """About half a megabyte that is there in every checkout."""
    return "\n".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.cpp")))[:500_000]


def scratch(isthmus):
    """A folder that looks like the repository after script/bootstrap, with other text in data/webster."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="isthmus-docs-"))
    for name in ("script", "bench", "tests", "docs"):
        (folder / name).symlink_to(ROOT / name)
    if (ROOT / ".venv").exists():
        (folder / ".venv").symlink_to(ROOT / ".venv")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "build/release").mkdir(parents=True)
    (folder / "build/release/isthmus").symlink_to(pathlib.Path(isthmus).resolve())
    (folder / "text").write_text(text())
    (folder / "data/webster").mkdir(parents=True)
    subprocess.run(["build/release/isthmus", "data", "pack", "--train", "data/webster/train.bin", "--validation",
                    "data/webster/validation.bin", "text"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def shortened(command, more):
    """The command as it is run."""
    words = command.split(" ")
    if words[1:2] in (["train"], ["coordinator"]):
        words[3:3] = [word for override in SHORT for word in ("--set", override)]
    return " ".join(words + more)


def processor_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(texts, folder, expected):
    """Whether all commands, started at the same time, end with the exit code that is expected."""
    began, used = time.monotonic(), processor_time()
    environment = {**os.environ, "PATH": f"{folder}/build/release:{os.environ['PATH']}", "NO_COLOR": "1"}
    started = []
    for command in texts:
        said = tempfile.TemporaryFile()
        started.append((command, said, subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment,
                                                        stdin=subprocess.DEVNULL, stdout=said, stderr=said)))
    good = True
    for command, said, process in started:
        try:
            code = process.wait(LONGEST_S if good else 1)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "none in time"
        print(f"{time.monotonic() - began:6.1f} s, {processor_time() - used:5.1f} of processor: {command}", flush=True)
        if code != expected:
            good = False
            said.seek(0)
            output = said.read().decode(errors="replace").splitlines()[-20:]
            print(f"exit code {code}, expected {expected}; the last it said:\n" + "\n".join(output))
    return good


def begins(command, folder):
    """Whether the command ends well or goes on."""
    said = tempfile.TemporaryFile()
    process = subprocess.Popen(["bash", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                               env={**os.environ, "PATH": f"{folder}/build/release:{os.environ['PATH']}"},
                               start_new_session=True)
    try:
        code = process.wait(A_MOMENT_S)
    except subprocess.TimeoutExpired:
        code = 0
        # As a terminal that is closed: what it has started ends as well.
        os.killpg(process.pid, signal.SIGHUP)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(f"began: {command}", flush=True)
    if code != 0:
        said.seek(0)
        output = said.read().decode(errors="replace").splitlines()[-20:]
        print(f"exit code {code}; the last it said:\n" + "\n".join(output))
    return code == 0


def run_page(isthmus, page):
    found = commands(page)
    if not found:
        print("no command in it")
        return True
    folder, good = scratch(isthmus), True
    ci = (ROOT / ".ci/run").read_text()
    try:
        at_once = []
        for command, following in zip(found, [*found[1:], None]):
            line, expected, more, together = command.text, 0, [], False
            for note in command.notes:
                kind, _, rest = note.partition(" ")
                if kind == "help":
                    for name in re.findall(r"configs/\S+", line):
                        if not (folder / name).exists():
                            print(f"{command.page.name}:{command.line}: there is no {name}")
                            good = False
                    line = re.match(r"\S*isthmus(?: [a-z]+)*|\S+python \S+|\S+", line)[0] + " --help"
                elif kind == "ci":
                    if line.split()[0] not in ci:
                        print(f"{command.page.name}:{command.line}: .ci/run does not start {line.split()[0]}")
                        good = False
                    line = ""
                elif kind == "begins":
                    if not begins(line, folder):
                        print(f"at {command.page.relative_to(ROOT)}:{command.line}")
                        good = False
                    line = ""
                elif kind == "exit":
                    expected = int(rest)
                elif kind == "before":
                    if command is next(c for c in found if c.notes is command.notes):
                        good &= run([shortened(rest, [])], folder, 0)
                elif kind == "write":
                    (folder / rest).write_text(text())
                elif kind == "edit":
                    name, old, new = shlex.split(rest)
                    whole = (folder / name).read_text()
                    if old not in whole and new not in whole:
                        print(f"{command.page.name}:{command.line}: no {old} in {name}")
                        good = False
                    (folder / name).write_text(whole.replace(old, new))
                elif kind == "replace":
                    line = line.replace(*shlex.split(rest))
                elif kind == "together":
                    together = True
                elif kind.startswith("--"):
                    more += note.split(" ")
                else:
                    print(f"{command.page.name}:{command.line}: `{note}` says nothing to {sys.argv[0]}")
                    good = False
            if not line:
                continue
            at_once.append(shortened(line, more))
            if together and following is not None and following.notes is command.notes:
                continue
            texts, at_once = at_once, []
            if not run(texts, folder, expected):
                print(f"at {command.page.relative_to(ROOT)}:{command.line}")
                good = False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(found)} commands, {processor_time():.1f} s of processor time")
    return good


def help_of(isthmus, words, known={}):
    """(options, subcommands, the text) of a command's --help."""
    if tuple(words) not in known:
        said = subprocess.run([isthmus, *words, "--help"], capture_output=True, text=True).stdout
        _, _, below = said.partition("Subcommands:")
        options, subcommands = re.findall(r"--[a-z][a-z-]*", said), re.findall(r"^  ([a-z]+) ", below, re.M)
        known[tuple(words)] = (set(options), set(subcommands), said)
    return known[tuple(words)]


def all_options(isthmus, words=()):
    options, below, _ = help_of(isthmus, list(words))
    return options.union(*(all_options(isthmus, (*words, word)) for word in below))


def check_spans(isthmus):
    wrong, seen = [], 0
    programs = [*(ROOT / "bench").glob("*.py"), *(ROOT / "script").iterdir(), *(ROOT / "tests").rglob("*.py")]
    elsewhere = {option for path in programs for option in re.findall(r"--[a-z][a-z-]*", path.read_text())}
    elsewhere |= {"--preset", "--build", "--gtest"}
    known = all_options(isthmus) | elsewhere
    for page in pages():
        for number, span in spans(page):
            where = f"{page.relative_to(ROOT)}:{number}: `{span}`"
            for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) - known:
                wrong.append(f"{where}: no command has {option}")
            if not COMMAND.match(span):
                continue
            seen += 1
            program, *words = span.split()
            if not program.endswith("isthmus"):
                if program.startswith(("script/", "bench/")) and not os.access(ROOT / program, os.X_OK):
                    wrong.append(f"{where}: cannot be started")
                continue
            path, options = [], set()
            for word in words:
                if word in help_of(isthmus, path)[1]:
                    path.append(word)
                elif re.fullmatch(r"[a-z]+", word) and not path:
                    wrong.append(f"{where}: no command `{word}`")
                elif re.fullmatch(r"configs/\S+\.toml", word) and not (ROOT / word).exists():
                    wrong.append(f"{where}: no file {word}")
                elif word.startswith("--"):
                    options.add(word.split("=")[0])
            for option in options - help_of(isthmus, path)[0]:
                wrong.append(f"{where}: `isthmus {' '.join(path)}` has no {option}")
    print("\n".join(wrong) or f"{seen} commands in the text, all there")
    return not wrong and seen > 20


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if sys.argv[1] == "--spans":
        return check_spans(sys.argv[2])
    return run_page(sys.argv[1], pathlib.Path(sys.argv[2]).resolve())


sys.exit(0 if main() else 1)
