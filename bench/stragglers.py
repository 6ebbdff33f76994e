#!/usr/bin/env python3
"""A replica becomes five times slower in mid-step: how much longer that step takes.

usage: bench/stragglers.py        about 3 minutes

3 stages × 2 replicas, emulated devices (operations of 50 ms), 80 Mb/s, 20 ms, 32 microbatches. The device becomes slow in its fourth
step, after four forward operations, and stays so. The second slow operation gives it away; what it has begun by then it keeps. The
bound is what that takes it longer.
"""
from figures import machine, median, train

STEP, M, OPERATION, FACTOR, FORWARDS = 4, 32, 0.05, 5, 4
base = ["pipeline.stages=3", "pipeline.replicas=2", "link.latency_ms=20", f"train.microbatches_per_step={M}", "train.warmup_steps=1", f"run.steps={STEP + 2}",
        *(f"emulated.{name}_ms={OPERATION * 1000:g}" for name in ("forward", "input_gradient", "weight_gradient")),
        f"emulated.slow_step={STEP}", f"emulated.slow_after={FORWARDS}"]
bound = (FORWARDS + 2) * 3 * OPERATION * (FACTOR - 1)

print(f"3 stages × 2 replicas, one becomes {FACTOR}× slower in mid-step, {M} microbatches, 80 Mb/s, 20 ms; {machine()}")
print(f"{'credits':>8} {'slow replica in':16} {'step before s':>14} {'longer by s':>12} {'bound s':>8} {'next step s':>12}")
for credits in (4, 32):
    for name, peer in (("first stage", 1), ("middle stage", 3), ("last stage", 5)):
        steps, _ = train("configs/emulated.toml", *base, f"pipeline.credits={credits}", f"emulated.slow_peer={peer}", f"emulated.slow_factor={FACTOR}")
        seconds = {line["step"]: line["step_seconds"] for line in steps}
        before = median([seconds[step] for step in range(2, STEP)])
        print(f"{credits:8} {name:16} {before:14.2f} {seconds[STEP] - before:12.2f} {bound:8.2f} {seconds[STEP + 1]:12.2f}", flush=True)
