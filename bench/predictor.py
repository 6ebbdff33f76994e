#!/usr/bin/env python3
"""Predicted against measured seconds of a step: ten plans with emulated devices, real sockets, real messages.

usage: bench/predictor.py      about 4 minutes

`isthmus plan` knows the run file and nothing of the machine it runs on. Measured is the median step of a run without
its first two (connections, measured speeds). Uneven plans have a device that is slower than the others, or replicas.
"""
import sys
from figures import machine, median, plan, train

BASE = ["emulated.forward_ms=20", "emulated.input_gradient_ms=40", "emulated.weight_gradient_ms=20",
        "train.microbatches_per_step=16", "train.warmup_steps=1", "run.steps=10", "checkpoint.every=0",
        "train.evaluate_every=0", "train.evaluation_microbatches=1"]
PLANS = {
    "4 stages, 50 ms": ["pipeline.stages=4", "link.latency_ms=50"],
    "8 stages, 20 ms": ["pipeline.stages=8", "link.latency_ms=20"],
    "4 stages, 1F1B": ["pipeline.stages=4", "link.latency_ms=50", "pipeline.schedule=1f1b"],
    "4 stages × 2 replicas": ["pipeline.stages=4", "link.latency_ms=50", "pipeline.replicas=2"],
    "… one replica 3× slower": ["pipeline.stages=4", "link.latency_ms=50", "pipeline.replicas=2",
                                "emulated.slow_peer=3", "emulated.slow_factor=3"],
    "4 stages, one 2× slower": ["pipeline.stages=4", "link.latency_ms=50", "emulated.slow_peer=2",
                                "emulated.slow_factor=2"],
    "4 stages, 40 ms jitter": ["pipeline.stages=4", "link.latency_ms=50", "link.jitter_ms=40"],
    "4 stages, 1 % lost": ["pipeline.stages=4", "link.latency_ms=50", "link.loss=0.01"],
    "4 stages, 10 Mb/s": ["pipeline.stages=4", "link.latency_ms=50", "link.bandwidth_mbps=10",
                          "emulated.forward_bytes=100000", "emulated.backward_bytes=100000"],
    "6 stages, a quarter skipped": ["pipeline.stages=6", "link.latency_ms=50", "pipeline.skip_share=0.25"],
}

print(f"predicted and measured seconds of a step; {machine()}")
worst = 0
for name, settings in PLANS.items():
    predicted = plan("configs/emulated.toml", *BASE, *settings)["step_seconds"]
    steps, _ = train("configs/emulated.toml", *BASE, *settings)
    measured = median([line["step_seconds"] for line in steps[2:]])
    error = measured / predicted - 1
    worst = max(worst, abs(error))
    print(f"{name:30} {predicted:7.3f} {measured:7.3f}  {error:+6.1%}", flush=True)
print(f"worst {worst:.1%}")
