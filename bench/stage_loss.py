#!/usr/bin/env python3
"""Every replica of a middle stage dies: time to exact recovery from the neighbours' journals against rolling all
stages back, as a function of the age of the stage's last checkpoint.

usage: bench/stage_loss.py [AGE…]        default 1 4 8 15; about 5 minutes

4 stages, emulated devices, 80 Mb/s, 50 ms. The worker is killed (kill -9) AGE steps after a checkpoint and started
again by `isthmus train`. Recovery: from the kill until the step that was running is committed, less what a step
takes anyhow. The same run without journals has to roll back. Both end with the same weights.
"""
import json, os, signal, subprocess, sys, tempfile, time
from figures import BINARY, ROOT, arguments, machine, median, worker

ages = [int(word) for word in sys.argv[1:]] or [1, 4, 8, 15]
EVERY = max(ages) + 1
steps = EVERY * (len(ages) + 1) + 2
settings = ["pipeline.stages=4", "link.latency_ms=50", "train.microbatches_per_step=8",
            "emulated.forward_ms=20", "emulated.input_gradient_ms=40", "emulated.weight_gradient_ms=20",
            f"checkpoint.every={EVERY}", "train.warmup_steps=1", f"run.steps={steps}"]


def committed(folder):
    """The metrics' lines of steps; a step that was repeated is there again."""
    try:
        lines = open(os.path.join(folder, "metrics.jsonl")).read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, lines) if "loss" in line]


def run(folder, *overrides):
    """Seconds of recovery by age, seconds of a step, weight hashes, number of rollbacks."""
    process = subprocess.Popen([BINARY, "train", "configs/emulated.toml", "--out", folder,
                                *arguments([*settings, *overrides])], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait_for(step, after=0):
        while process.poll() is None:
            if any(line["step"] >= step for line in committed(folder)[after:]):
                return time.time()
            time.sleep(.01)
        sys.exit(process.stdout.read())
    recoveries = []
    for i, age in enumerate(ages):
        last = EVERY * (i + 1) + age
        wait_for(last)
        lines = len(committed(folder))
        killed = time.time()
        os.kill(worker(folder, 2), signal.SIGKILL)
        recoveries.append(wait_for(last + 1, lines) - killed)
    output = process.communicate()[0]
    if process.returncode != 0:
        sys.exit(output)
    step = median([line["step_seconds"] for line in committed(folder)])
    summary = json.load(open(os.path.join(folder, "summary.json")))
    events = [json.loads(line) for line in open(os.path.join(folder, "events.jsonl"))]
    rollbacks = sum(e["event"] == "rolled back" for e in events)
    return [r - step for r in recoveries], step, summary["weights_hash"], rollbacks


with tempfile.TemporaryDirectory() as folder:
    exact, step, weights, none = run(os.path.join(folder, "journal"))
    back, _, same, rollbacks = run(os.path.join(folder, "rollback"), "recovery.journal_mb=0")
print(f"4 stages, 80 Mb/s, 50 ms, {step:.2f} s a step; {machine()}")
print(f"hashes equal: {weights == same}; rollbacks with the journal {none}, without {rollbacks}")
print(f"{'checkpoint age, steps':22} " + " ".join(f"{age:>8}" for age in ages))
print(f"{'from journals, s':22} " + " ".join(f"{s:8.2f}" for s in exact))
print(f"{'rolled back, s':22} " + " ".join(f"{s:8.2f}" for s in back))
