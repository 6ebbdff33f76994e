#!/usr/bin/env python3
"""Pipeline efficiency with eight emulated GPUs behind 80 Mb/s and 100 ms: M·(F+I+W) over the measured step.

usage: bench/pipeline.py [--quick]       about 8 minutes; --quick: M = 8 and no dense contrast, under a minute

Real processes, sockets and messages; only the arithmetic is replaced by its time. Beside each measurement stands what
`isthmus plan` predicted for it.
"""
import sys
from figures import machine, median, plan, train

quick = "--quick" in sys.argv
M = 8 if quick else 32
rows = [("deep, rank 41", M, ["run.steps=3"]), ("1F1B, rank 41", M, ["run.steps=2", "pipeline.schedule=1f1b"])]
if not quick:
    # Dense payloads are 33.5 MB: the links are the limit, however few microbatches there are.
    rows.append(("deep, dense bf16", 4, ["run.steps=1", "boundary.codec=identity"]))

print(f"P = 8, F .25 s, I .50 s, W .25 s, 80 Mb/s, 100 ms; {machine()}")
print(f"{'':18} {'M':>3} {'step s':>8} {'efficiency':>10} {'predicted':>10}")
for name, microbatches, overrides in rows:
    overrides = [*overrides, f"train.microbatches_per_step={microbatches}"]
    predicted = plan("configs/emulated.toml", *overrides)["efficiency"]
    steps, _ = train("configs/emulated.toml", *overrides)
    seconds = median([s["step_seconds"] for s in steps[1:] or steps])
    print(f"{name:18} {microbatches:3} {seconds:8.2f} {microbatches / seconds:10.3f} {predicted:10.3f}", flush=True)
