#!/usr/bin/env python3
"""A stage that has one replica beside stages that have more: the step before a replica moves there, and after.

usage: bench/moves.py [STEPS]          default 24; about 4 minutes

Four stages with 3, 1, 2 and 2 replicas, then with 3, 0 and so on: the only replica of stage 1 is killed for good.
Emulated devices, 80 Mb/s, 50 ms, 32 microbatches. Bounds are the slowest stage's compute alone. A reason to move has to
hold for 20 seconds; an empty stage is refilled at once.
"""
import json, os, signal, subprocess, sys, tempfile, time
from figures import BINARY, ROOT, machine, median, worker

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 24
M, SECONDS = 32, 0.2
RUN = f"""[run]
name = "moves"
steps = {STEPS}
[model]
layers = 4
hidden = 128
[data]
train = "none"
validation = "none"
[train]
microbatches_per_step = {M}
evaluate_every = 0
evaluation_microbatches = 0
[boundary]
rank = 16
[link]
bandwidth_mbps = 80
latency_ms = 50
emulate = true
[emulated]
forward_ms = 50
input_gradient_ms = 100
weight_gradient_ms = 50
[checkpoint]
every = 5
[recovery]
replace = false
[pipeline]
device = "emulated"
""" + "".join(f'[[pipeline.stage]]\nlayers = "{s}:{s + 1}"\nreplicas = {r}\n' for s, r in enumerate((3, 1, 2, 2)))


def read(folder, name):
    try:
        return [json.loads(line) for line in open(os.path.join(folder, "out", name)).read().split("\n")[:-1]]
    except FileNotFoundError:
        return []


def steps_of(folder):
    return [line for line in read(folder, "metrics.jsonl") if "loss" in line]


def run(kill):
    with tempfile.TemporaryDirectory() as folder:
        file, out = os.path.join(folder, "run.toml"), os.path.join(folder, "out")
        open(file, "w").write(RUN)
        process = subprocess.Popen([BINARY, "train", file, "--out", out], cwd=ROOT,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if kill:
            while len(steps_of(folder)) < 2 and process.poll() is None:
                time.sleep(0.05)
            os.kill(worker(folder, 4), signal.SIGKILL)
        output = process.communicate(timeout=1200)[0]
        if process.returncode != 0:
            sys.exit(output)
        return steps_of(folder), read(folder, "events.jsonl")


print(f"4 stages of 3, 1, 2, 2 replicas, 80 Mb/s, 50 ms, {M} microbatches; {machine()}")
for kill in (False, True):
    steps, events = run(kill)
    moved = next(e for e in events if e["event"] == "moved")
    arrived = next(e for e in events if e["event"] == "admitted" and e["peer"] == moved["peer"]
                   and e["time_us"] > moved["time_us"])
    at = {e["step"]: e["time_us"] for e in events if e["event"] == "committed"}
    before = [l["step_seconds"] for l in steps[1:] if at[l["step"]] < moved["time_us"]]
    after = [l["step_seconds"] for l in steps[1:] if at[l["step"]] > arrived["time_us"]][1:]
    away = (arrived["time_us"] - moved["time_us"]) / 1e6
    print(f"{'the only replica of stage 1 is killed' if kill else 'stage 1 holds up the step'}: {moved['reason']}\n"
          f"  step before {median(before):.2f} s (bound {M * SECONDS:.1f}); mover back after {away:.2f} s, "
          f"{'rolled back, ' if any(e['event'] == 'rolled back' for e in events) else ''}"
          f"longest step {max(l['step_seconds'] for l in steps[1:]):.2f} s; step after {median(after):.2f} s "
          f"(bound {M * SECONDS / (1 if kill else 2):.1f})", flush=True)
