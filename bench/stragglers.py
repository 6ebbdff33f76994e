#!/usr/bin/env python3
"""A replica becomes five times slower in mid-step: how much longer that step takes.

usage: bench/stragglers.py        about 3 minutes

3 stages × 2 replicas, emulated devices (operations of 50 ms), 80 Mb/s, 20 ms, 32 microbatches. The device becomes slow
in its fourth step, after four operations, and stays so. The second slow operation gives it away. What it has begun by
then it keeps, its sibling does the rest, and the step waits for the longer of both: the bound, with what passes until
it is found out and the first microbatch is elsewhere.
"""
from figures import machine, median, train

STEP, M, OPERATION, FACTOR, FAST, LATENCY = 4, 32, 0.05, 5, 4, 0.02
base = ["pipeline.stages=3", "pipeline.replicas=2", "link.latency_ms=20", f"train.microbatches_per_step={M}",
        "train.warmup_steps=1", f"run.steps={STEP + 2}",
        *(f"emulated.{name}_ms={OPERATION * 1000:g}" for name in ("forward", "input_gradient", "weight_gradient")),
        f"emulated.slow_step={STEP}", f"emulated.slow_after={FAST}"]


def bound(begun):
    """Of `begun` microbatches all operations but the first four are slow."""
    own, rest = (begun * 3 - FAST) * OPERATION * (FACTOR - 1), (M // 2 - begun) * 3 * OPERATION
    return max(own, rest) + 2 * FACTOR * OPERATION + 4 * LATENCY


print(f"3 stages × 2 replicas, one becomes {FACTOR}× slower in mid-step, {M} microbatches, 80 Mb/s, 20 ms; {machine()}")
print(f"{'credits':>8} {'slow replica in':16} {'step before s':>14} {'longer by s':>12} {'bound s':>8} "
      f"{'next step s':>12}")
for credits in (4, 32):
    # Until gradients come back a stage does forwards only; the last one has its gradient at once.
    for name, peer, begun in (("first stage", 1, FAST + 2), ("middle stage", 3, FAST + 2),
                              ("last stage", 5, (FAST + 2) // 2)):
        steps, _ = train("configs/emulated.toml", *base, f"pipeline.credits={credits}",
                         f"emulated.slow_peer={peer}", f"emulated.slow_factor={FACTOR}")
        seconds = {line["step"]: line["step_seconds"] for line in steps}
        before = median([seconds[step] for step in range(2, STEP)])
        print(f"{credits:8} {name:16} {before:14.2f} {seconds[STEP] - before:12.2f} {bound(begun):8.2f} "
              f"{seconds[STEP + 1]:12.2f}", flush=True)
