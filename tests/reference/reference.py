#!/usr/bin/env python3
"""Independent reference of the model in every form of the boundary, written from the equations in
docs/design/boundary.md.

usage: reference.py DUMP_MODEL      (the program built from tests/model/dump_model.cpp)

DUMP_MODEL cuts the model into stages and passes tensors and their gradients between them. Here the same model is one
autograd graph at full width. Logits, every gradient, ten training losses and the weights after them have to agree:
1e-4 relative.
"""
import json, math, os, subprocess, sys, tempfile

import numpy as np
import torch
import torch.nn.functional as F

TOLERANCE = 1e-4

CASES = [
    "boundary.codec=identity pipeline.stages=1",
    "boundary.codec=subspace pipeline.stages=1 boundary.factored_layers=2",
    "boundary.codec=identity",
    "boundary.codec=subspace",
    "boundary.codec=subspace train.writer_learning_rate=2 boundary.factored_layers=3",
    "boundary.codec=narrow",
    "boundary.codec=projected",
    "boundary.codec=bottleneck",
    "boundary.codec=learned",
    "boundary.codec=projection",
    "boundary.codec=identity model.token_path=window",
    "boundary.codec=subspace model.token_path=window",
    "boundary.codec=projected model.token_path=window",
    "boundary.codec=subspace model.token_path=table",
    "boundary.codec=bottleneck model.token_path=table",
    "boundary.codec=subspace train.optimizer=muon",
    "boundary.codec=projected train.optimizer=muon model.token_path=window",
]

WRITERS = ("attention_out", "down")
STACKED = {"qkv": 3, "gate_up": 2}


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


def rms(x, weight):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def newton_schulz(matrix):
    """Five rounds of X <- aX + b(XX')X + c(XX')^2 X from X = M/|M|: a polynomial of the singular values."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / (s.norm() + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s ** 3 + 2.0315 * s ** 5
    return ((u * s) @ vt).float()


def orthonormal(matrix):
    """Gram-Schmidt: W L'^-1 with the Cholesky factor L of W'W."""
    wide = matrix.double()
    lower = torch.linalg.cholesky(wide.T @ wide)
    return torch.linalg.solve_triangular(lower, wide.T, upper=False).T.float()


class Reference:
    def __init__(self, run, tensors):
        self.model, self.optimizer, self.form = run["model"], run["train"], run["boundary"]["codec"]
        self.factored = run["boundary"]["factored_layers"] or 0
        self.stages = [tuple(map(int, s["layers"].split(":"))) for s in run["pipeline"]["stage"]]
        self.w = {n[len("initial."):]: t.clone().requires_grad_() for n, t in tensors.items()
                  if n.startswith("initial.")}
        self.U, self.E = tensors["basis"], tensors["embedding"]
        self.ids = tensors["ids"].long()

    def attention(self, x, qkv):
        batch, length, width = x.shape
        heads = self.model["heads"]
        q, k, v = (x @ qkv.T).split(width, dim=-1)
        q, k, v = (t.reshape(batch, length, heads, -1).permute(0, 2, 1, 3) for t in (q, k, v))
        size = width // heads
        theta = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * theta[None]
        cos, sin = (torch.cat([f(angle)] * 2, -1).float() for f in (torch.cos, torch.sin))
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        scores = q @ k.transpose(-1, -2) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        return (scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(batch, length, width)

    def mlp(self, x, gate_up):
        gate, up = (x @ gate_up.T).chunk(2, dim=-1)
        return gate * torch.sigmoid(gate) * up

    def token_path(self, first, tokens):
        """What the stage that begins with layer `first` makes of the token ids; the first stage makes nothing."""
        kind, name = self.model["token_path"], f"token_path.{first}."
        if first == 0 or kind == "none":
            return 0
        if kind == "table":
            return self.w[name + "table"][tokens]
        rows = torch.zeros(*tokens.shape, self.model["token_window"], self.model["token_width"])
        for back in range(self.model["token_window"]):
            rows[:, back:, back] = self.w[name + "table"][tokens[:, : tokens.shape[1] - back]]
        return gelu_tanh(rows.flatten(2) @ self.w[name + "in"].T) @ self.w[name + "out"].T

    def crossing(self, at, z, rest):
        """What is left of the stream, z and full width, behind the boundary in front of layer `at`."""
        if self.form in ("projected", "projection"):
            return z, rest @ (self.U @ self.U.T)
        if self.form in ("bottleneck", "learned"):
            return z, rest @ self.w[f"border.{at}.encoder.matrix"] @ self.w[f"border.{at}.decoder.matrix"].T
        return z, rest

    def logits(self):
        tokens = self.ids[:, :-1]
        ordinary = self.form in ("identity", "projection")
        coefficients = self.form in ("subspace", "narrow")
        # The stream is base + z B' + rest: z in the basis B of the stage, rest at full width.
        z, rest = torch.zeros(*tokens.shape, self.U.shape[1]), torch.zeros(*tokens.shape, self.E.shape[1])
        if coefficients:
            z = z + self.w["embedding.table"][tokens]
        else:
            rest = rest + self.w["embedding.table"][tokens]
        for first, end in self.stages:
            B = self.w[f"basis.{first}.matrix"] if self.form == "narrow" else self.U
            if first > 0:
                z, rest = self.crossing(first, z, rest)
            # An ordinary model has one stream and no base: what the token path adds stays in it.
            path = self.token_path(first, tokens)
            base = 0 if ordinary else self.E[tokens] + path
            rest = rest + path if ordinary else rest
            for l in range(first, end):
                p = {n.split(".", 2)[2]: t for n, t in self.w.items() if n.startswith(f"layer.{l}.")}
                mixers = ((self.attention, "attention_norm", "qkv", "attention_out"),
                          (self.mlp, "mlp_norm", "gate_up", "down"))
                for mixer, norm, inner, outer in mixers:
                    written = mixer(rms(base + z @ B.T + rest, p[norm]), p[inner]) @ p[outer].T
                    if coefficients and l < self.factored:
                        z = z + written
                    else:
                        rest = rest + written
        return rms(base + z @ B.T + rest, self.w["head.norm"]) @ self.w["head.matrix"].T

    def loss(self, logits):
        return F.cross_entropy(logits.flatten(0, 1), self.ids[:, 1:].flatten())

    def below_factored(self, name):
        parts = name.split(".")
        return parts[0] == "layer" and parts[2] in WRITERS and int(parts[1]) < self.factored

    def decays(self, name):
        return self.w[name].ndim == 2 and name.split(".")[0] not in ("basis", "border")

    def share_of_step(self, name):
        return self.optimizer["writer_learning_rate"] if name.split(".")[-1] in WRITERS else 1.0

    def is_muons(self, name):
        part = name.split(".")[-1]
        return (self.optimizer["optimizer"] == "muon"
                and part in ("qkv", "attention_out", "gate_up", "down", "in", "out"))

    def settle(self):
        """What holds after every step, whatever the optimizer did."""
        for name, weight in self.w.items():
            if self.form == "projected" and name == "embedding.table":
                weight.copy_(weight @ self.U @ self.U.T)
            if self.form == "projected" and self.below_factored(name):
                weight.copy_(self.U @ (self.U.T @ weight))
            if self.form == "learned" and name.startswith("border."):
                weight.copy_(orthonormal(weight))

    def adamw(self, name, weight, g, step, moments):
        rate, decay = self.optimizer["learning_rate"], self.optimizer["weight_decay"] if self.decays(name) else 0.0
        m, v = moments
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.95).add_(0.05 * g * g)
        weight.mul_(1 - rate * decay)
        deviation = (v / (1 - 0.95 ** step)).sqrt() + 1e-8
        weight.sub_(rate * self.share_of_step(name) * (m / (1 - 0.9 ** step)) / deviation)

    def muon(self, name, weight, g, momentum):
        rate, share = self.optimizer["learning_rate"], self.optimizer["momentum"]
        momentum.mul_(share).add_(g)
        weight.mul_(1 - rate * self.optimizer["weight_decay"])
        rate *= self.share_of_step(name)
        rows = weight.shape[0] // STACKED.get(name.split(".")[-1], 1)
        for at in range(0, weight.shape[0], rows):
            turned = newton_schulz((g + share * momentum)[at : at + rows])
            weight[at : at + rows] -= rate * 0.2 * math.sqrt(max(turned.shape)) * turned

    def moments(self):
        return {n: (torch.zeros_like(t), torch.zeros_like(t)) for n, t in self.w.items()}

    def update(self, loss, step, moments):
        grads = dict(zip(self.w, torch.autograd.grad(loss, list(self.w.values()))))
        norm = math.sqrt(sum(g.double().square().sum().item() for g in grads.values()))
        with torch.no_grad():
            for name, weight in self.w.items():
                g = grads[name] * min(1.0, 1.0 / norm)
                if self.is_muons(name):
                    self.muon(name, weight, g, moments[name][0])
                else:
                    self.adamw(name, weight, g, step, moments[name])
            self.settle()

    def train(self, steps):
        moments = self.moments()
        losses = []
        for step in range(1, steps + 1):
            loss = self.loss(self.logits())
            losses.append(loss.item())
            self.update(loss, step, moments)
        return losses


def load(folder):
    index = json.load(open(os.path.join(folder, "index.json")))
    read = lambda n, s: torch.from_numpy(np.fromfile(os.path.join(folder, n + ".f32"), dtype=np.float32)).reshape(s)
    return index, {n: read(n, s) for n, s in index["tensors"].items()}


def relative(ours, reference):
    return ((ours - reference).norm() / (reference.norm() + 1e-30)).item()


def compare(folder, case):
    index, tensors = load(folder)
    reference = Reference(index["run"], tensors)
    logits = reference.logits()
    found = {"logits": relative(tensors["logits"], logits.detach().flatten(0, 1))}
    grads = torch.autograd.grad(reference.loss(logits), list(reference.w.values()))
    for name, gradient in zip(reference.w, grads):
        found["gradient of " + name] = relative(tensors["gradient." + name], gradient)
    for step, (ours, theirs) in enumerate(zip(index["losses"], reference.train(len(index["losses"])))):
        found[f"loss {step + 1}"] = abs(ours - theirs) / abs(theirs)
    for name, weight in reference.w.items():
        found["final " + name] = relative(tensors["final." + name], weight.detach())
    found["U'U - 1"] = (reference.U.T @ reference.U - torch.eye(reference.U.shape[1])).abs().max().item()
    worst = max(found, key=found.get)
    print(f"{case}: {len(found)} quantities, worst relative difference {found[worst]:.1e} ({worst})", flush=True)
    return [f"{case}: {name} differs by {value:.1e}" for name, value in found.items() if not value < TOLERANCE]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder, *CASES], check=True)
        problems = [problem for i, case in enumerate(CASES)
                    for problem in compare(os.path.join(folder, str(i)), case)]
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
