#!/usr/bin/env python3
"""One of two replicas is three times slower: throughput against the optimum, round-robin beside it.

usage: bench/unequal.py [STEPS]          default 8; about 3 minutes

4 stages × 2 replicas, emulated devices, 80 Mb/s, 50 ms, 32 microbatches. `isthmus plan` knows the speeds and plays the
step with them; the run has to find them out by measuring. The bound is the slowest stage's compute alone: its
replicas do 1 and 1/3 microbatches in the time of one.
"""
import sys
from figures import machine, median, plan, train

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 8
M = 32
settings = ["pipeline.stages=4", "pipeline.replicas=2", "link.latency_ms=50", f"train.microbatches_per_step={M}",
            "emulated.forward_ms=50", "emulated.input_gradient_ms=100", "emulated.weight_gradient_ms=50",
            "train.warmup_steps=1", f"run.steps={steps}"]
print(f"4 stages × 2 replicas, one 3× slower, {M} microbatches, 80 Mb/s, 50 ms; {machine()}")
print(f"{'slow replica in':16} {'bound s':>8} {'planned s':>10} {'measured s':>11} {'planned/measured':>17} "
      f"{'round-robin s':>14}")
for name, peer in (("first stage", 2), ("a middle stage", 4), ("last stage", 8)):
    slow = [*settings, f"emulated.slow_peer={peer}", "emulated.slow_factor=3"]
    planned = plan("configs/emulated.toml", *slow)["step_seconds"]

    def measured(*more):
        lines, _ = train("configs/emulated.toml", *slow, *more)
        return median([line["step_seconds"] for line in lines[2:]])  # the first two steps find out who is slow
    ours, robin = measured(), measured("pipeline.routing=round_robin")
    print(f"{name:16} {M * .2 / (1 + 1 / 3):8.2f} {planned:10.2f} {ours:11.2f} {planned / ours:17.3f} "
          f"{robin:14.2f}", flush=True)
