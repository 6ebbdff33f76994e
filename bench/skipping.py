#!/usr/bin/env python3
"""Every replica of a middle stage is gone for twenty steps: what the run loses, in time and in loss. Beside it, the
loss when stages are skipped on purpose.

usage: bench/skipping.py [SWEEP_OUT] [--steps N] [--svg FILE]      160 steps take about 6 minutes;
       SWEEP_OUT: of `isthmus bench convergence configs/convergence/skipping.toml`

Four stages of two replicas each train a small model on Webster's dictionary over emulated links (80 Mb/s, 20 ms). Both
replicas of stage 1 are killed (kill -9); whatever `isthmus train` starts in their place is stopped (SIGSTOP) until
twenty steps have gone without them. The same run without faults is beside it. FILE is drawn by gnuplot.
"""
import json, os, signal, subprocess, sys, tempfile, time
from figures import BINARY, ROOT, arguments, machine, median, worker

def option(name, default=None):
    if name not in sys.argv:
        return default
    at = sys.argv.index(name)
    value = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    return value


SVG = option("--svg")
STEPS, KILL_AT, GONE = int(option("--steps", 160)), 60, 20
SETTINGS = [f"run.steps={STEPS}", "pipeline.layout=auto", "pipeline.stages=4", "pipeline.replicas=2",
            "model.layers=4", "model.hidden=128", "model.heads=4", "model.context=128",
            "train.sequences_per_microbatch=2", "train.microbatches_per_step=8", "train.evaluate_every=20",
            "train.evaluation_microbatches=32", "checkpoint.every=40", "recovery.skip_after_s=1",
            "recovery.rebalance=false"]
VICTIMS = (3, 4)


def read(folder, kind):
    try:
        lines = open(os.path.join(folder, "metrics.jsonl")).read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [line for line in map(json.loads, lines) if kind in line]


def run(folder, outage):
    """Lines of the steps and of the evaluations."""
    file, out = os.path.join(folder, "run.toml"), os.path.join(folder, "out")
    process = subprocess.Popen([BINARY, "train", file, "--out", out, *arguments(SETTINGS)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(done):
        while process.poll() is None and not done():
            time.sleep(.02)
        if process.poll() is not None:
            sys.exit(process.stdout.read())

    if outage:
        wait(lambda: len(read(out, "loss")) >= KILL_AT)
        first = [worker(out, peer) for peer in VICTIMS]
        for process_id in first:
            os.kill(process_id, signal.SIGKILL)
        stopped = set()

        def gone_long_enough():
            for peer in VICTIMS:
                found = worker(out, peer)
                if found and found not in first and found not in stopped:
                    os.kill(found, signal.SIGSTOP)
                    stopped.add(found)
            return sum(line["coverage"][1] == 0 for line in read(out, "loss")) >= GONE
        wait(gone_long_enough)
        for process_id in stopped:
            os.kill(process_id, signal.SIGCONT)
    output = process.communicate()[0]
    if process.returncode != 0:
        sys.exit(output)
    return read(out, "loss"), read(out, "validation_loss")


def run_file(folder):
    """The demo's, without its layer map: the layout is a setting here."""
    text = open(os.path.join(ROOT, "configs/webster.toml")).read()
    text = text[: text.index("[[pipeline.stage]]")] + "[pipeline]\nlayout = \"auto\"\nstages = 4\n"
    open(os.path.join(folder, "run.toml"), "w").write(text.replace('"../data/', f'"{ROOT}/data/'))


def draw(file, curves, planned):
    with tempfile.TemporaryDirectory() as folder:
        series = {"out": [], "planned": []}
        for group, named in (("out", curves), ("planned", planned)):
            for name, points in named.items():
                path = os.path.join(folder, f"{group}-{len(series[group])}")
                open(path, "w").writelines(f"{x} {y}\n" for x, y in points)
                series[group].append(f'"{path}" with lines lw 1.6 title "{name}"')
        script = f"""set terminal svg size 900,400 background "white" font "sans,13"
set output "{file}"
set multiplot layout 1,{2 if planned else 1}
set grid lc rgb "#dddddd"
set border 3
set tics nomirror
set xlabel "step"
set ylabel "loss, nats per byte"
set title "A middle stage gone for {GONE} steps"
plot {", ".join(series["out"])}
"""
        if planned:
            script += f"""set title "Visits left out on purpose"
set xlabel "tokens"
set format x "%.0s%c"
set xtics 100000
plot {", ".join(series["planned"])}
"""
        subprocess.run(["gnuplot"], input=script, text=True, check=True)


with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as hurt:
    for folder in (whole, hurt):
        run_file(folder)
    calm, calm_losses = run(whole, False)
    steps, losses = run(hurt, True)
without = [line for line in steps if line["coverage"][1] == 0]
before = [line["step_seconds"] for line in steps if 10 < line["step"] <= KILL_AT]
first, last = without[0]["step"], without[-1]["step"]
outage = [line for line in steps if KILL_AT < line["step"] <= KILL_AT + GONE]
took = sum(line["step_seconds"] for line in outage) / len(outage)
after = [line["step_seconds"] for line in steps if line["step"] > last + 10]
print(f"4 stages × 2 replicas, 80 Mb/s, 20 ms, stage 1 gone after step {KILL_AT}; {machine()}")
print(f"seconds a step: before {median(before):.3f}; the {len(outage)} steps after the kill {took:.3f} on average "
      f"({took / median(before) - 1:+.1%}, the wait for the stage included), "
      f"{median([l['step_seconds'] for l in without]):.3f} in the median of those without the stage; "
      f"after {median(after):.3f}")
print(f"steps without the stage: {len(without)}, {first} to {last}; the step after the last of them has all stages")
print(f"{'validation loss after step':28}" + "".join(f"{line['step']:>8}" for line in losses))
print(f"{'undisturbed':28}" + "".join(f"{line['validation_loss']:8.4f}" for line in calm_losses))
print(f"{'with the outage':28}" + "".join(f"{line['validation_loss']:8.4f}" for line in losses))
# Both took the same batches, so their training losses tell apart what a few validation batches cannot.
calm_loss, loss = ({line["step"]: line["loss"] for line in lines} for lines in (calm, steps))
ends = [STEPS * i // 16 for i in range(17)]
gaps = [sum(loss[step] for step in stretch) / sum(calm_loss[step] for step in stretch) - 1
        for stretch in (range(begin + 1, end + 1) for begin, end in zip(ends, ends[1:]))]
print(f"{'training loss, stretch ends':28}" + "".join(f"{end:>8}" for end in ends[1:]))
print(f"{'above the undisturbed':28}" + "".join(f"{gap:8.2%}" for gap in gaps))
planned = {}
if len(sys.argv) > 1:
    for line in map(json.loads, open(os.path.join(sys.argv[1], "results.jsonl"))):
        planned[line["row"]] = [(point["tokens"], point["validation_loss"]) for point in line["curve"]
                                if "validation_loss" in point]
        print(f"left out on purpose: {line['row']:12} {line['validation_loss']:.4f}")
if SVG:
    draw(SVG, {"undisturbed": [(l["step"], l["validation_loss"]) for l in calm_losses],
               "stage 1 gone": [(l["step"], l["validation_loss"]) for l in losses]}, planned)
