#!/usr/bin/env python3
"""Seconds until a loss is reached over shaped links: dense bf16 against dense int8 against the default.

usage: bench/seconds_to_loss.py [LOSS [STEPS]]     default 2.3 nats per byte, at most 120 steps; about half an hour

Real processes and sockets; every process's up- and downlink is shaped (80 Mb/s and 20 Mb/s, 50 ms). The loss is that of
the training steps, smoothed over ten; all rows see the same text in the same order. A stage computes with one core's
share of this machine, so the seconds are those of slow devices: what the links add is what differs between the rows.
"""
import sys
from figures import machine, train

goal = float(sys.argv[1]) if len(sys.argv) > 1 else 2.3
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 120
rows = {
    "dense bf16": ["boundary.codec=identity", "boundary.values=bf16"],
    "dense int8": ["boundary.codec=identity", "boundary.values=int8"],
    "default": [],
}


def reached(metrics):
    """Seconds, steps and bytes until the mean of ten steps' losses is at most the goal; None: never."""
    seconds = sent = 0
    for i, line in enumerate(metrics):
        seconds += line["step_seconds"]
        sent += line["wire_bytes"]
        if i >= 9 and sum(l["loss"] for l in metrics[i - 9:i + 1]) / 10 <= goal:
            return seconds, i + 1, sent
    return None


print(f"seconds until the training loss (mean of ten steps) is at most {goal}; "
      f"configs/convergence/base.toml's model; {machine()}")
for mbps in (80, 20):
    first = None
    for name, overrides in rows.items():
        metrics, _ = train("configs/convergence/base.toml", f"run.steps={steps}", f"link.bandwidth_mbps={mbps}",
                           "link.latency_ms=50", "link.emulate=true", "train.evaluation_microbatches=0", *overrides,
                           timeout=3600)
        found = reached(metrics)
        if not found:
            print(f"{mbps} Mb/s  {name:<12} not within {steps} steps (last {metrics[-1]['loss']:.3f})", flush=True)
            continue
        seconds, count, sent = found
        first = first or seconds
        print(f"{mbps} Mb/s  {name:<12} {seconds:7.1f} s  {count:4d} steps  "
              f"{sent / 1e6:8.1f} MB on the wire  {first / seconds:.2f} × the first row's speed", flush=True)
