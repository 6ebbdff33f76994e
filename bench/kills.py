#!/usr/bin/env python3
"""A worker killed every 20 seconds: 4 stages × 2 replicas, 80 Mb/s, 50 ms, emulated devices.

usage: bench/kills.py [MINUTES]          default 30; the run without kills takes about as long again, that with frozen
                                         workers a tenth of it

One random worker gets SIGKILL every 20 s and is started again. The weights of an emulated stage depend on every
microbatch of every step, so equal hashes mean that none was lost or counted twice. Reported: detection (the
coordinator suspects or expels it) by its log's clock, time until it is a member again, throughput lost per kill (how
much longer the run took, in seconds, over the kills), goodput against the run without kills, and goodput over what the
remaining capacity of a stage with one of two replicas allows. A third run freezes workers (SIGSTOP, six seconds) whose
connections stay open: only their silence gives them away.
"""
import json, os, random, signal, subprocess, sys, tempfile, time
from figures import BINARY, ROOT, arguments, machine, median, worker

minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
STEP = 3.8  # seconds, about
steps = max(10, int(minutes * 60 / STEP))
settings = ["pipeline.stages=4", "pipeline.replicas=2", "link.latency_ms=50", "train.microbatches_per_step=16",
            "emulated.forward_ms=50", "emulated.input_gradient_ms=100", "emulated.weight_gradient_ms=50",
            "checkpoint.every=20", "train.warmup_steps=1"]


def run(folder, harm=None, steps=steps):
    """Returns the metrics, the summary, the events and [(time, peer)] of the harm done, by signal `harm`."""
    process = subprocess.Popen([BINARY, "train", "configs/emulated.toml", "--out", folder,
                                *arguments([f"run.steps={steps}", *settings])], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    harmed, draw, due, frozen = [], random.Random(7), time.time() + 10, None
    while process.poll() is None:
        time.sleep(.05)
        if frozen and time.time() > harmed[-1][0] + 6:
            os.kill(frozen, signal.SIGCONT)
            frozen = None
        if not harm or time.time() < due or os.path.exists(os.path.join(folder, "summary.json")):
            continue
        peer = draw.randrange(1, 9)
        pid = worker(folder, peer)
        if pid is None:
            continue
        due += 20
        harmed.append((time.time(), peer))
        os.kill(pid, harm)
        if harm == signal.SIGSTOP:
            frozen = pid
    output = process.stdout.read()
    if process.returncode != 0:
        sys.exit(output)
    read = lambda name: [json.loads(line) for line in open(os.path.join(folder, name))]
    metrics = [line for line in read("metrics.jsonl") if "loss" in line]
    return metrics, json.load(open(os.path.join(folder, "summary.json"))), read("events.jsonl"), harmed


with tempfile.TemporaryDirectory() as folder:
    calm, calm_summary, _, _ = run(os.path.join(folder, "calm"))
    rough, rough_summary, events, kills = run(os.path.join(folder, "rough"), signal.SIGKILL)
    _, _, frozen_events, freezes = run(os.path.join(folder, "frozen"), signal.SIGSTOP, max(10, steps // 10))


def until(harmed, events, *names):
    """Seconds from each harm until the first of these events tells of the peer."""
    def waited(at, peer):
        told = (e["time_us"] / 1e6 - at for e in events if e["peer"] == peer and e["event"] in names)
        return next((t for t in told if t >= 0), float("inf"))

    return [waited(at, peer) for at, peer in harmed]


detected = until(kills, events, "suspected", "expelled")
silent = until(freezes, frozen_events, "suspected", "expelled")
back = [t for t in until(kills, events, "admitted") if t < float("inf")]  # the last one may come too late
first = {}
for e in events:
    if e["event"] == "admitted":
        first[e["peer"]] = first.get(e["peer"], 0) + 1
others = sum(n - 1 for peer, n in first.items()) - len(back)
seconds = lambda lines: sum(l["step_seconds"] for l in lines[1:])
goodput = seconds(calm) / seconds(rough)
capacity = 1 - sum(back) / 2 / seconds(rough)
replayed = sum(l["replayed_microbatches"] for l in rough)

print(f"4 stages × 2 replicas, 80 Mb/s, 50 ms, {steps} steps, a kill every 20 s; {machine()}")
print(f"kills {len(kills)}, hashes equal: {calm_summary['weights_hash'] == rough_summary['weights_hash']}, "
      f"admissions of others: {others}")
print(f"(stage, microbatch) done again: {replayed}, of {steps * 16 * 4}")
print(f"detected after: median {1000 * median(detected):.0f} ms, worst {1000 * max(detected):.0f} ms")
print(f"detected when frozen after: median {median(silent):.2f} s, worst {max(silent):.2f} s, of {len(silent)}")
print(f"a member again after: median {median(back):.2f} s, worst {max(back):.2f} s")
print(f"step: median {median([l['step_seconds'] for l in calm[1:]]):.2f} s calm, "
      f"{median([l['step_seconds'] for l in rough[1:]]):.2f} s with kills")
print(f"throughput lost per kill: {(seconds(rough) - seconds(calm)) / len(kills):.2f} s")
print(f"goodput {goodput:.3f}, capacity left {capacity:.3f}, goodput over capacity {goodput / capacity:.3f}")
sys.exit(0 if calm_summary["weights_hash"] == rough_summary["weights_hash"] and others == 0 else 1)
