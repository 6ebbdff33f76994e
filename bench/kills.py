#!/usr/bin/env python3
"""A worker killed every 20 seconds: 4 stages × 2 replicas, 80 Mb/s, 50 ms, emulated devices.

usage: bench/kills.py [MINUTES]          default 30; the run without kills takes about as long again

One random worker gets SIGKILL every 20 s and is started again. The weights of an emulated stage depend on every
microbatch of every step, so equal hashes mean that none was lost or counted twice. Reported: detection (the
coordinator suspects or expels it) by its log's clock, time until it is a member again, goodput against the run
without kills, and goodput over what the remaining capacity of a stage with one of two replicas allows.
"""
import glob, json, os, random, signal, subprocess, sys, tempfile, time
from figures import BINARY, ROOT, arguments, machine, median

minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
STEP = 3.8  # seconds, about
steps = max(10, int(minutes * 60 / STEP))
settings = [f"run.steps={steps}", "pipeline.stages=4", "pipeline.replicas=2", "link.latency_ms=50", "train.microbatches_per_step=16",
            "emulated.forward_ms=50", "emulated.input_gradient_ms=100", "emulated.weight_gradient_ms=50", "checkpoint.every=20",
            "train.warmup_steps=1"]


def worker(folder, peer):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path).read().split("\0")
        except OSError:
            continue
        if "worker" in words and folder in " ".join(words) and f"--peer\0{peer}\0" in "\0".join(words):
            return int(path.split("/")[2])
    return None


def run(folder, kill):
    """Returns wall seconds of the steps, the summary, the events and [(time, peer)] of the kills."""
    process = subprocess.Popen([BINARY, "train", "configs/emulated.toml", "--out", folder, *arguments(settings)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    kills, draw, due = [], random.Random(7), time.time() + 10
    while process.poll() is None:
        time.sleep(.05)
        if not kill or time.time() < due or os.path.exists(os.path.join(folder, "summary.json")):
            continue
        peer = draw.randrange(1, 9)
        pid = worker(folder, peer)
        if pid is None:
            continue
        due += 20
        kills.append((time.time(), peer))
        os.kill(pid, signal.SIGKILL)
    output = process.stdout.read()
    if process.returncode != 0:
        sys.exit(output)
    read = lambda name: [json.loads(line) for line in open(os.path.join(folder, name))]
    metrics = [line for line in read("metrics.jsonl") if "loss" in line]
    return metrics, json.load(open(os.path.join(folder, "summary.json"))), read("events.jsonl"), kills


with tempfile.TemporaryDirectory() as folder:
    calm, calm_summary, _, _ = run(os.path.join(folder, "calm"), False)
    rough, rough_summary, events, kills = run(os.path.join(folder, "rough"), True)

detected, back = [], []
for at, peer in kills:
    later = [(e["time_us"] / 1e6 - at, e["event"]) for e in events if e["peer"] == peer and e["time_us"] / 1e6 >= at]
    detected += [t for t, event in later if event in ("suspected", "expelled")][:1]
    back += [t for t, event in later if event == "admitted"][:1]
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
print(f"kills {len(kills)}, hashes equal: {calm_summary['weights_hash'] == rough_summary['weights_hash']}, admissions of others: {others}")
print(f"(stage, microbatch) done again: {replayed}, of {steps * 16 * 4}")
print(f"detected after: median {1000 * median(detected):.0f} ms, worst {1000 * max(detected):.0f} ms")
print(f"a member again after: median {median(back):.2f} s, worst {max(back):.2f} s")
print(f"step: median {median([l['step_seconds'] for l in calm[1:]]):.2f} s calm, {median([l['step_seconds'] for l in rough[1:]]):.2f} s with kills")
print(f"goodput {goodput:.3f}, capacity left {capacity:.3f}, goodput over capacity {goodput / capacity:.3f}")
sys.exit(0 if calm_summary["weights_hash"] == rough_summary["weights_hash"] and others == 0 else 1)
