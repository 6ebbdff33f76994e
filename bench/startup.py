#!/usr/bin/env python3
"""Time from `isthmus train` to the last worker's admission, when the first step begins.

usage: bench/startup.py [ROUNDS]
"""
import sys, time
from figures import machine, median, train

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
taken = []
for _ in range(rounds):
    start = time.time()
    _, events = train("configs/webster.toml", "run.steps=1", "train.evaluation_microbatches=0",
                      "checkpoint.every=0", "link.emulate=false")
    taken.append(max(e["time_us"] for e in events if e["event"] == "admitted") / 1e6 - start)
print(f"the first step begins after {median(taken):.2f} s (median of {rounds}; "
      f"four workers, model initialisation included); {machine()}")
