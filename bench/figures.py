"""What the benchmarks share: running the program, reading its files, naming the machine."""
import datetime, glob, json, os, platform, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, "build/release/isthmus")
median = statistics.median

# Every benchmark says what it does.
if {"-h", "--help"} & set(sys.argv[1:]):
    sys.exit(print(sys.modules["__main__"].__doc__))


def machine():
    models = (l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    model = next(models, platform.machine())
    return f"{os.cpu_count()} × {model}, {datetime.date.today()}"


def arguments(overrides):
    return [word for override in overrides for word in ("--set", override)]


def train(config, *overrides, timeout=900):
    """Runs a training; returns the metrics of its steps, and its events."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        done = subprocess.run([BINARY, "train", config, "--out", out, *arguments(overrides)], cwd=ROOT,
                              capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        read = lambda name: [json.loads(line) for line in open(os.path.join(out, name))]
        return [line for line in read("metrics.jsonl") if "loss" in line], read("events.jsonl")


def plan(config, *overrides):
    done = subprocess.run([BINARY, "plan", config, "--json", *arguments(overrides)], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)


def worker(folder, peer):
    """Process of this worker of the run in this folder; None while there is none."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path).read().split("\0")
        except OSError:
            continue
        if "join" in words and folder in " ".join(words) and f"--name\0worker-{peer}\0" in "\0".join(words):
            return int(path.split("/")[2])
    return None
