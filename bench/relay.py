#!/usr/bin/env python3
"""Throughput through a relay over direct, at 80 Mb/s each way, and what a relay costs per Gb/s. As root.

usage: bench/relay.py [--rounds 3] [--mbps 80]       about four minutes

Two workers, each a machine of its own (a network namespace whose link a token bucket limits), exchange tensors of
512 KiB both ways as fast as the links carry them: devices are emulated and take no time. A switch keeps the two apart
for the relayed runs, which are otherwise the same; the relay is a third machine, without a limit. Runs alternate.
"""
import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from figures import BINARY as ISTHMUS, machine, median
from machines import Machines

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--mbps", type=int, default=80)
options = parser.parse_args()
WORKERS = ["one", "two"]


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(machines, folder, apart):
    """Megabits per second each way, and the relay's processor seconds per gigabit that went through it."""
    for name in WORKERS:
        machines.keep_apart(name, apart)
    out = Path(folder) / f"{'relay' if apart else 'direct'}-{time.monotonic_ns()}"
    relay = machines.start("relay", [ISTHMUS, "relay", "--listen", "203.0.113.4:7010", "--home", f"{out}-relay"])
    name = Path(f"{out}-relay/name")
    while not name.exists():
        time.sleep(0.05)
    size, steps, microbatches = 512 * 1024, 4, 32
    sets = [
        "pipeline.stages=2", f"run.steps={steps}", f"train.microbatches_per_step={microbatches}",
        "link.emulate=false", f"link.bandwidth_mbps={options.mbps}", "link.latency_ms=1",
        "emulated.forward_ms=0", "emulated.input_gradient_ms=0", "emulated.weight_gradient_ms=0",
        f"emulated.forward_bytes={size}", f"emulated.backward_bytes={size}",
    ]
    command = [ISTHMUS, "coordinator", "configs/emulated.toml", "--out", str(out), "--listen", "203.0.113.1",
               "--no-relay", "--relay", str(name)]
    for one in sets:
        command += ["--set", one]
    coordinator = machines.start("coordinator", command)
    while not (out / "join").exists():
        time.sleep(0.05)
    workers = [
        machines.start(w, [ISTHMUS, "join", str(out / "join"), "--home", f"{out}-{w}"]) for w in WORKERS
    ]
    assert coordinator.wait() == 0, f"see {out}"
    used = processor_seconds(relay.pid)
    for process in [*workers, relay]:
        process.terminate()
        process.wait()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["step_seconds"] for line in lines if "step_seconds" in line]
    gigabits = 2 * steps * microbatches * size * 8e-9
    return microbatches * size * 8e-6 / median(seconds[1:]), used / gigabits


rows = {False: [], True: []}
with Machines(["coordinator", *WORKERS, "relay"]) as machines, tempfile.TemporaryDirectory() as folder:
    for name in WORKERS:
        machines.limit(name, options.mbps, options.mbps, "burst 64kb latency 100ms")
    for _ in range(options.rounds):
        for apart in rows:
            rows[apart].append(figures(machines, folder, apart))
direct, relayed = (median([mbps for mbps, _ in rows[apart]]) for apart in rows)
cost = median([per_gigabit for _, per_gigabit in rows[True]])
print(f"two workers, {options.mbps} Mb/s each way, medians of {options.rounds} interleaved runs; {machine()}")
print(f"direct           {direct:6.1f} Mb/s each way")
print(f"through a relay  {relayed:6.1f} Mb/s each way; {relayed / direct:.3f} of direct")
print(f"the relay's processor: {cost:.2f} s per Gb, that is {cost:.2f} cores for 1 Gb/s")
