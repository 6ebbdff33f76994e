#!/usr/bin/env python3
"""Bytes on the link as the kernel counts them, against the numbers that have to cross. Needs root (network namespace).

usage: bench/wire.py

Two emulated stages in a network namespace of their own, so that its loopback carries this run and nothing else: TCP,
CURVE, frames, acknowledgements and control are all counted. Needed: 2·k + 2 bytes per token forward, 2·k back.
"""
import os, subprocess, sys
from figures import machine, train

if "--inside" not in sys.argv:
    os.execvp("unshare", ["unshare", "--net", sys.executable, os.path.abspath(__file__), "--inside"])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def received():
    line = next(l for l in open("/proc/net/dev") if l.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


print(machine())
for rank in (16, 41, 128):
    before = received()
    steps, _ = train("configs/emulated.toml", "run.steps=10", "pipeline.stages=2", f"boundary.rank={rank}",
                     "train.microbatches_per_step=8", "link.emulate=false", "emulated.forward_ms=5",
                     "emulated.input_gradient_ms=5", "emulated.weight_gradient_ms=5")
    kernel = (received() - before) / steps[-1]["tokens"]
    needed = 4 * rank + 2
    print(f"rank {rank:4}: kernel {kernel:7.2f} B per token, needed {needed:4}, ratio {kernel / needed:.4f}; "
          f"metrics.jsonl says {steps[-1]['wire_bytes_per_token_hop']:.2f}", flush=True)
