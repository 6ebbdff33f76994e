#!/usr/bin/env python3
"""What it costs four replicas of a stage to agree: bytes on the wire against the formula, and time lost at 80 Mb/s.

usage: bench/syncs.py bytes          every mode, a stage of a million numbers; a minute
       bench/syncs.py time [MILLIONS] default 100: numbers of a stage; four minutes, 2 GB of memory for each of eight
                                      workers

Two stages of four replicas each on emulated devices: real sockets, real payloads, emulated times. `time` compares the
steps that end with a sync with the others of the same run.
"""
import json, os, subprocess, sys, tempfile
from figures import BINARY, ROOT, machine, median

R, STAGES, TILE, KEPT, VALUE_BITS, INDEX_BITS = 4, 2, 4096, 64, 2, 12


def run(mode, parameters, every, steps, *overrides):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        settings = ["model.layers=2", "model.hidden=1024", "model.heads=8", "model.context=1024",
                    "model.vocabulary=256", "boundary.rank=64", "boundary.values=int4", "pipeline.stages=2",
                    f"pipeline.replicas={R}", "pipeline.credits=auto", "train.microbatches_per_step=16",
                    f"run.steps={steps}", f"emulated.parameters={parameters}", "link.latency_ms=20", *overrides]
        if mode:
            settings += [f"sync.mode={mode}", f"sync.every={every}"]
        words = [w for s in settings for w in ("--set", s)]
        done = subprocess.run([BINARY, "train", "configs/emulated.toml", "--out", out, *words], cwd=ROOT,
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        lines = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
        return json.load(open(os.path.join(out, "summary.json"))), [line for line in lines if "loss" in line]


def butterfly(numbers, width=2):
    """Of one replica: its update to two owners of every slice, and the agreement from one of them to those that do not
    own it."""
    return numbers * width * (2 * (R - 1) + (R - 2)) / R


def bytes_of(mode, parameters, share=0.05):
    if mode == "sparseloco":
        return (R - 1) * parameters * KEPT / TILE * (VALUE_BITS + INDEX_BITS) / 8
    return butterfly(parameters * (share if mode == "slices" else 1))


def bytes_on_the_wire():
    parameters, every, steps = 1_000_000, 4, 24
    regular = steps // every - 1
    # The last step only evaluates, for long enough to hear of every byte of the last sync.
    fast = ["emulated.forward_ms=20", "train.evaluation_microbatches=128", "emulated.input_gradient_ms=2",
            "emulated.weight_gradient_ms=2", "link.bandwidth_mbps=800", "link.latency_ms=2"]
    print("bytes a parameter, sync and replica (sent)    formula    measured    ratio of all that was sent")
    for mode in ("sparseloco", "diloco", "slices"):
        summary, _ = run(mode, parameters, every, steps, *fast)
        # The last sync takes every number.
        formula = R * STAGES * (regular * bytes_of(mode, parameters) + butterfly(parameters))
        measured = summary["sync_bytes"]
        a_sync = (measured / R / STAGES - butterfly(parameters)) / regular / parameters
        print(f"  {mode:<12}                                 {bytes_of(mode, parameters) / parameters:8.4f}    "
              f"{a_sync:8.4f}    {measured / formula:.3f}")
    print(machine())


def time_lost(parameters):
    every, steps = 3, 13
    # Eight workers share these cores, so everything emulated takes longer by as much: then each has a core's worth of
    # time of its own.
    slower = max(1, R * STAGES // os.cpu_count())
    normal = {"forward_ms": 200, "input_gradient_ms": 400, "weight_gradient_ms": 200}
    times = [f"emulated.{name}={ms * slower}" for name, ms in normal.items()]
    _, lines = run("sparseloco", parameters, every, steps, *times, f"link.bandwidth_mbps={80 / slower}",
                   f"link.latency_ms={20 * slower}")
    seconds = {line["step"]: line["step_seconds"] / slower for line in lines}
    syncs = [s for s in seconds if s > 1 and (s - 1) % every == 0]
    others = median([seconds[s] for s in seconds if s > 1 and s not in syncs])
    lost = [seconds[s] - others for s in syncs]
    print(f"{parameters / 1e6:.0f} M numbers, {R} replicas, sparseloco, steps of {others:.2f} s at 80 Mb/s "
          f"(run {slower} times slower):")
    print(f"  a sync costs {median(lost):.2f} s (of {', '.join(f'{x:.2f}' for x in lost)}): "
          f"{100 * median(lost) / (10 * others):.2f} % of the time at one every 10 steps,"
          f" {100 * median(lost) / (30 * others):.2f} % every 30")
    print(f"  the exact sum of every step would keep each uplink busy for "
          f"{8 * parameters * (R - 1) / R * 8 / 80e6:.0f} s")
    print(machine())


if len(sys.argv) < 2 or sys.argv[1] not in ("bytes", "time"):
    sys.exit(__doc__)
bytes_on_the_wire() if sys.argv[1] == "bytes" else time_lost(int(sys.argv[2] if len(sys.argv) > 2 else 100) * 1_000_000)
