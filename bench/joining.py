#!/usr/bin/env python3
"""From pasting an invite to the first microbatch that counts, and what that costs the others. As root.

usage: bench/joining.py [--donors 4] [--bytes 1e6,1.2e9] [--down 80] [--up 20] [--rounds 1]      about ten minutes

Machines are network namespaces, homes with links of 80 Mb/s down and 20 up that token buckets limit. Some serve the
first stage of an emulated run, a server without a limit the second; one more home joins the first stage and fetches its
state from the others. Idle: they send next to nothing. Busy: training takes a third to a half of their uplinks. The
limit that a joiner is held to is 1.3 times the state over its downlink, and ten seconds.
"""
import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from figures import BINARY as ISTHMUS, machine, median
from machines import Machines

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--donors", type=int, default=4)
parser.add_argument("--bytes", default="1e6,1.2e9")
parser.add_argument("--down", type=float, default=80)
parser.add_argument("--up", type=float, default=20)
parser.add_argument("--rounds", type=int, default=1)
options = parser.parse_args()
DONORS = [f"home{d}" for d in range(options.donors)]


def lines(out):
    text = (out / "metrics.jsonl").read_text() if (out / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not in {seconds:.0f} s")
        time.sleep(0.05)


def gave(home):
    done = subprocess.run([ISTHMUS, "status", home, "--json"], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout).get("microbatches_given", 0)
    except ValueError:
        return 0


def figures(machines, folder, state, busy):
    """Seconds until the joiner counts, and steps' seconds before it came and while it fetched."""
    out = Path(folder) / f"run-{time.monotonic_ns()}"
    # Sixteen microbatches of 400 ms for four homes; busy, each of them sends 10 Mb/s meanwhile.
    microbatches = 4 * options.donors
    payload = int(options.up * 1e6 / 8 / 2 * 0.4) if busy else 1000
    sets = [
        "pipeline.stages=2", "run.steps=100000", f"train.microbatches_per_step={microbatches}",
        "link.emulate=false", f"link.bandwidth_mbps={options.down}", "link.latency_ms=1",
        "emulated.forward_ms=100", "emulated.input_gradient_ms=200", "emulated.weight_gradient_ms=100",
        f"emulated.forward_bytes={payload}", "emulated.backward_bytes=1000", f"emulated.state_bytes={int(state)}",
        f"pipeline.replicas={options.donors + 1}",
    ]

    def start(name, *command):
        return machines.start(name, [ISTHMUS, *command])

    coordinator = start("coordinator", "coordinator", "configs/emulated.toml", "--out", str(out),
                        "--listen", "203.0.113.1", "--no-relay", *[word for one in sets for word in ("--set", one)])
    started = [coordinator]
    try:
        wait_for("a coordinator", 30, lambda: (out / "join").exists())
        for name in DONORS:
            started.append(start(name, "join", str(out / "join"), "--home", f"{out}-{name}", "--stage", "0",
                                 "--up", str(options.up)))
        for n in range(options.donors + 1):
            started.append(start("server", "join", str(out / "join"), "--home", f"{out}-server{n}", "--stage", "1"))
        wait_for("the first steps", 60, lambda: len(lines(out)) >= 8)
        before = [line["step_seconds"] for line in lines(out)[3:]]
        first = len(lines(out))
        string = subprocess.run([ISTHMUS, "invite", str(out), "--trusted", "--stage", "0"], capture_output=True,
                                text=True, check=True).stdout.strip()
        began = time.monotonic()
        home = f"{out}-joiner"
        started.append(start("joiner", "join", string.split()[-1], "--home", home, "--up", str(options.up)))
        wait_for("the joiner's first microbatch", 60 + 4 * state * 8e-6 / options.down, lambda: gave(home) > 0)
        took = time.monotonic() - began
        meanwhile = [line["step_seconds"] for line in lines(out)[first:-1]]
        return took, before, meanwhile
    finally:
        for process in started:
            process.kill()
            process.wait()


with Machines(["coordinator", "server", "joiner", *DONORS]) as machines, tempfile.TemporaryDirectory() as folder:
    for name in ["joiner", *DONORS]:
        machines.limit(name, options.down, options.up, "burst 32kb latency 200ms")
    print(f"{options.donors} homes give, {options.down:.0f} Mb/s down and {options.up:.0f} up each; {machine()}")
    for state in map(float, options.bytes.split(",")):
        for busy in (False, True):
            rows = [figures(machines, folder, state, busy) for _ in range(options.rounds)]
            took = median([row[0] for row in rows])
            limit = 1.3 * state * 8e-6 / options.down + 10
            before = median([s for row in rows for s in row[1]])
            meanwhile = [s for row in rows for s in row[2]]
            slower = f"{median(meanwhile) / before:.3f}" if meanwhile else "no step"
            print(f"{state * 1e-6:7.0f} MB {'busy' if busy else 'idle'}: {took:6.1f} s, limit {limit:.1f}; "
                  f"a step {before:.2f} s before, meanwhile {slower} of it", flush=True)
