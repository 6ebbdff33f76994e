#!/usr/bin/env python3
"""Rows of configs/convergence/bytes-256.toml, trained again by an independent PyTorch model.

usage: bench/reference_rows.py SWEEP_OUT [SEED…]      (the sweep's --out; seeds 1 and 2)

Model and optimizer are those of tests/reference/reference.py. Initial weights, subspace, order of the data and rounding
noise are drawn anew, so the losses can only agree as those of two seeds do: the means have to lie within the larger
spread (most - least) of the two, or 1 %. Finished runs are kept in SWEEP_OUT/reference.jsonl; an interrupted one begins
again.
"""
import glob, json, math, os, re, statistics, sys, time, tomllib

import numpy as np
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.append(os.path.join(ROOT, "tests/reference"))
import reference

ROWS = ["dense-bf16", "dense-bf16-window", "subspace-16-bf16-window", "subspace-60-int4-window",
        "subspace-15-int4-window"]
CONVERGENCE = os.path.join(ROOT, "configs/convergence")
HEADER_BYTES, BLOCK, LEAST_TOLERANCE = 64, 64, 0.01


def read_toml(path):
    with open(path, "rb") as file:
        return tomllib.load(file)


def resolved(row):
    """The row's run: the schema's defaults, the base file, the sweep's and the row's overrides, and what the loader
    derives."""
    sweep = read_toml(os.path.join(CONVERGENCE, "bytes-256.toml"))
    base = read_toml(os.path.join(CONVERGENCE, sweep["base"]))
    schema = json.load(open(os.path.join(ROOT, "configs/run.schema.json")))["properties"]
    run = {}
    for section in ("run", "model", "data", "train", "boundary", "pipeline"):
        defaults = {key: field.get("default") for key, field in schema[section]["properties"].items()}
        run[section] = defaults | base.get(section, {})
    for override in sweep.get("set", []) + next(r["set"] for r in sweep["row"] if r["name"] == row):
        name, text = override.split("=")
        section, key = name.split(".")
        try:
            run[section][key] = json.loads(text)
        except json.JSONDecodeError:
            run[section][key] = text
    model, stages = run["model"], run["pipeline"]["stages"]
    if model["layers"] % stages:
        sys.exit(f"{model['layers']} layers in {stages} stages, expected equal stages")
    model["mlp"] = model["mlp"] or math.ceil(8 / 3 * model["hidden"] / 32) * 32
    each = model["layers"] // stages
    run["pipeline"]["stage"] = [{"layers": f"{first}:{first + each}"} for first in range(0, model["layers"], each)]
    coefficients = run["boundary"]["codec"] == "subspace"
    if run["boundary"]["factored_layers"] is None or not coefficients:
        run["boundary"]["factored_layers"] = model["layers"] - each if coefficients else 0
    run["boundary"]["gradient_values"] = run["boundary"]["gradient_values"] or run["boundary"]["values"]
    return run


def initial_tensors(run, seed):
    """Names and deviations are those of src/spec/stage_tensors.cpp."""
    torch.manual_seed(seed)
    m, rank, factored = run["model"], run["boundary"]["rank"], run["boundary"]["factored_layers"]
    d, mlp, vocabulary, layers = m["hidden"], m["mlp"], m["vocabulary"], m["layers"]
    coefficients = run["boundary"]["codec"] == "subspace"
    widen, output = math.sqrt(d / rank), 0.02 / math.sqrt(2 * layers)
    normal = lambda rows, columns, deviation: torch.randn(rows, columns) * deviation
    table = normal(vocabulary, rank, 0.02 * widen) if coefficients else normal(vocabulary, d, 0.02)
    tensors = {"embedding.table": table}
    for stage in run["pipeline"]["stage"][1:]:
        unit = "token_path." + stage["layers"].split(":")[0]
        if m["token_path"] == "window":
            tensors[unit + ".table"] = normal(vocabulary, m["token_width"], 0.5)
            tensors[unit + ".in"] = normal(d, m["token_window"] * m["token_width"], 0.05)
            tensors[unit + ".out"] = normal(d, d, 0.01)
    for layer in range(layers):
        rows, deviation = (rank, output * widen) if layer < factored else (d, output)
        writer = lambda columns: normal(rows, columns, deviation)
        tensors |= {f"layer.{layer}.{part}": t for part, t in {
            "attention_norm": torch.ones(d), "qkv": normal(3 * d, d, 0.02), "attention_out": writer(d),
            "mlp_norm": torch.ones(d), "gate_up": normal(2 * mlp, d, 0.02), "down": writer(mlp)}.items()}
    tensors |= {"head.norm": torch.ones(d), "head.matrix": normal(vocabulary, d, 0.02)}
    # A dense stream has no z: one column of zeros stands for it.
    basis = torch.linalg.qr(torch.randn(d, rank))[0] if coefficients else torch.zeros(d, 1)
    return {"initial." + n: t for n, t in tensors.items()} | {"basis": basis, "embedding": normal(vocabulary, d, 0.02)}


def rounded(x, values, stochastic):
    """What the other side reads of x. Blocks run through a microbatch, which is a whole number of them."""
    if values == "bf16":
        return x.bfloat16().float()
    limit = {"int8": 127, "int4": 7}[values]
    blocks = x.float().reshape(-1, BLOCK)
    # The largest magnitude as bf16, rounded up.
    scale = ((blocks.abs().amax(1, keepdim=True).view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    steps = blocks * torch.where(scale > 0, limit / scale, 0.0)
    codes = (steps + torch.rand_like(steps)).floor() if stochastic else steps.round()
    return (codes.clamp(-limit, limit) * (scale / limit)).reshape(x.shape)


class Wire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, values, gradient_values):
        ctx.gradient_values = gradient_values
        return rounded(x, values, False)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient, ctx.gradient_values, True), None, None


class Pipeline(reference.Reference):
    def __init__(self, run, seed):
        super().__init__(run, initial_tensors(run, seed) | {"ids": torch.zeros(1, 2)})
        self.formats = run["boundary"]["values"], run["boundary"]["gradient_values"]

    def crossing(self, at, z, rest):
        if self.form == "subspace":
            return Wire.apply(z, *self.formats), rest
        return z, Wire.apply(rest, *self.formats)

    def loss_of(self, windows):
        self.ids = windows
        with torch.autocast("cpu", torch.bfloat16, enabled=AUTOCAST):
            return self.loss(self.logits())


def newton_schulz(matrix):
    """As the reference's, by multiplications: a singular value decomposition of each matrix takes longer than the
    step."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (x / (x.norm() + 1e-7)).to(torch.bfloat16 if AUTOCAST else torch.float32)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()


AUTOCAST = True
reference.newton_schulz = newton_schulz


class Shard:
    def __init__(self, path, context):
        self.ids, self.length = np.memmap(path, np.uint8, "r", HEADER_BYTES), context + 1

    def windows(self, starts):
        return torch.from_numpy(np.stack([self.ids[s : s + self.length] for s in starts])).long()


def learning_rate(run, step):
    train, warmup = run["train"], run["train"]["warmup_steps"]
    if step <= warmup:
        return train["learning_rate"] * step / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (run["run"]["steps"] - warmup)))
    return train["learning_rate"] * (train["final_learning_rate"] + (1 - train["final_learning_rate"]) * cosine)


def train(run, row, seed):
    context, t = run["model"]["context"], run["train"]
    training, held_out = (Shard(os.path.join(CONVERGENCE, run["data"][part]), context)
                          for part in ("train", "validation"))
    sequences = t["sequences_per_microbatch"] * t["microbatches_per_step"]
    pipeline, order, begun = Pipeline(run | {"train": dict(t)}, seed), np.random.default_rng(seed), time.monotonic()
    moments, losses = pipeline.moments(), []
    for step in range(1, run["run"]["steps"] + 1):
        # Every microbatch weighs the same, so the mean over the step's is that over one batch.
        loss = pipeline.loss_of(training.windows(order.integers(0, len(training.ids) - context, sequences)))
        pipeline.optimizer["learning_rate"] = learning_rate(run, step)
        pipeline.update(loss, step, moments)
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"{row} seed {seed} step {step}: loss {losses[-1]:.4f}, "
                  f"{(time.monotonic() - begun) / step:.2f} s a step",
                  file=sys.stderr, flush=True)
    count = t["evaluation_microbatches"] * t["sequences_per_microbatch"]
    last_start = len(held_out.ids) - context - 1
    starts = [n * last_start // count for n in range(count)]
    with torch.no_grad():
        batches = [starts[at : at + sequences] for at in range(0, count, sequences)]
        total = sum(pipeline.loss_of(held_out.windows(batch)).item() * len(batch) for batch in batches)
    return {"validation_loss": total / count, "losses": losses, "seconds": time.monotonic() - begun}


def lines(path):
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def differences(run, config):
    """Settings in which the sweep's resolved run is another one than this file's."""
    ours = {"steps": run["run"]["steps"], "stage": [s["layers"] for s in run["pipeline"]["stage"]]}
    theirs = {"steps": config["run"]["steps"], "stage": [s["layers"] for s in config["pipeline"]["stage"]]}
    for section in ("model", "train", "boundary"):
        ours, theirs = ours | run[section], theirs | config[section]
    # The loader drops a rank that nothing uses.
    unused = {"rank"} if run["boundary"]["codec"] == "identity" else set()
    return [f"{key} = {theirs[key]} there, {ours[key]} here" for key in theirs.keys() - unused
            if ours[key] != theirs[key]]


def sweep_losses(folder, row, run):
    """Of the sweep's finished runs of this row, by seed."""
    found = {line["seed"]: line for line in lines(os.path.join(folder, "results.jsonl")) if line["row"] == row}
    for path in glob.glob(os.path.join(folder, f"runs/{row}-seed*.json")):
        found[int(re.search(r"-seed(\d+)\.json$", path)[1])] = json.load(open(path))
    for seed, result in found.items():
        if differ := differences(run, result["config"]):
            sys.exit(f"{row} seed {seed} in {folder}: {', '.join(differ)}")
    return {seed: result["validation_loss"] for seed, result in sorted(found.items())}


def verdict(ours, theirs):
    if not theirs:
        return "not in the sweep yet"
    difference = statistics.mean(ours) - statistics.mean(theirs)
    allowed = max(max(l) - min(l) for l in (ours, theirs))
    allowed = max(allowed, LEAST_TOLERANCE * statistics.mean(theirs))
    agree = "agree" if abs(difference) <= allowed else "DISAGREE"
    return f"difference {difference:+.4f}, allowed {allowed:.4f}: " + agree


def figures(losses):
    each = ", ".join(f"{loss:.4f}" for loss in losses)
    return f"{statistics.mean(losses):.4f} spread {max(losses) - min(losses):.4f} ({each})" if losses else "–"


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        sys.exit(0 if {"-h", "--help"} & set(sys.argv[1:]) else 1)
    folder, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [1, 2]
    torch.set_num_threads(1)
    record = os.path.join(folder, "reference.jsonl")
    runs = {row: resolved(row) for row in ROWS}
    for row in ROWS:
        sweep_losses(folder, row, runs[row])  # ends here, not after the training, if the sweep is of other settings
    # A run that was made with other settings is made again.
    done = {(l["row"], l["seed"]): l["validation_loss"] for l in lines(record) if l["run"] == runs.get(l["row"])}
    os.makedirs(folder, exist_ok=True)
    for seed in seeds:
        for row in ROWS:
            if (row, seed) in done:
                continue
            result = train(runs[row], row, seed)
            done[row, seed] = result["validation_loss"]
            with open(record, "a") as out:
                out.write(json.dumps({"row": row, "seed": seed, "run": runs[row]} | result) + "\n")
            print(f"{row} seed {seed}: held-out loss {done[row, seed]:.4f} after {result['seconds']:.0f} s", flush=True)
    agree = True
    for row in ROWS:
        ours = [done[row, seed] for seed in seeds]
        theirs = list(sweep_losses(folder, row, runs[row]).values())
        said = verdict(ours, theirs)
        agree = agree and "DISAGREE" not in said
        print(f"{row}\n  PyTorch  {figures(ours)}\n  isthmus  {figures(theirs)}\n  {said}")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
