#!/usr/bin/env python3
"""Independent reference of the decoder, written from the equations in docs/architecture.md.

usage: reference.py DUMP_MODEL      (the program built from tests/model/dump_model.cpp)

For the dense and the subspace model: takes the initial weights and one microbatch that DUMP_MODEL writes, computes
logits, loss, every gradient and ten losses of AdamW training in plain PyTorch fp32, and compares: 1e-4 relative.
"""
import json, math, os, subprocess, sys, tempfile

import numpy as np
import torch
import torch.nn.functional as F

TOLERANCE = 1e-4


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


def rms(x, weight):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


class Reference:
    def __init__(self, index, tensors):
        self.index = index
        self.w = {n[len("initial."):]: t.clone().requires_grad_() for n, t in tensors.items() if n.startswith("initial.")}
        self.U, self.E = tensors["basis"], tensors["embedding"]
        self.ids = tensors["ids"].long()

    def attention(self, x, qkv):
        batch, length, width = x.shape
        heads = self.index["heads"]
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

    def logits(self):
        tokens = self.ids[:, :-1]
        subspace = self.index["codec"] == "subspace"
        base = self.E[tokens] if subspace else 0
        # In the subspace x = E[token] + U z and a factored layer writes U A f(x); written out at full width here.
        x = base + (self.w["embedding.table"][tokens] @ self.U.T if subspace else self.w["embedding.table"][tokens])
        for l in range(self.index["layers"]):
            p = {n.split(".", 2)[2]: t for n, t in self.w.items() if n.startswith(f"layer.{l}.")}
            widen = self.U.T if l < self.index["factored"] else torch.eye(x.shape[-1])
            x = x + self.attention(rms(x, p["attention_norm"]), p["qkv"]) @ p["attention_out"].T @ widen
            x = x + self.mlp(rms(x, p["mlp_norm"]), p["gate_up"]) @ p["down"].T @ widen
        return rms(x, self.w["head.norm"]) @ self.w["head.matrix"].T

    def loss(self, logits):
        return F.cross_entropy(logits.flatten(0, 1), self.ids[:, 1:].flatten())

    def train(self, steps):
        moments = {n: (torch.zeros_like(t), torch.zeros_like(t)) for n, t in self.w.items()}
        losses = []
        for step in range(1, steps + 1):
            loss = self.loss(self.logits())
            losses.append(loss.item())
            grads = dict(zip(self.w, torch.autograd.grad(loss, list(self.w.values()))))
            norm = math.sqrt(sum(g.double().square().sum().item() for g in grads.values()))
            with torch.no_grad():
                for name, weight in self.w.items():
                    g = grads[name] * min(1.0, 1.0 / norm)
                    m, v = moments[name]
                    m.mul_(0.9).add_(0.1 * g)
                    v.mul_(0.95).add_(0.05 * g * g)
                    decay = 0.1 if weight.ndim == 2 else 0.0
                    weight.mul_(1 - 1e-3 * decay)
                    weight.sub_(1e-3 * (m / (1 - 0.9 ** step)) / ((v / (1 - 0.95 ** step)).sqrt() + 1e-8))
        return losses


def load(folder):
    index = json.load(open(os.path.join(folder, "index.json")))
    read = lambda n, s: torch.from_numpy(np.fromfile(os.path.join(folder, n + ".f32"), dtype=np.float32)).reshape(s)
    return index, {n: read(n, s) for n, s in index["tensors"].items()}


def relative(ours, reference):
    return ((ours - reference).norm() / (reference.norm() + 1e-30)).item()


def compare(program, codec):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, codec, folder], check=True)
        index, tensors = load(folder)
    reference = Reference(index, tensors)
    logits = reference.logits()
    found = {"logits": relative(tensors["logits"], logits.detach().flatten(0, 1))}
    grads = torch.autograd.grad(reference.loss(logits), list(reference.w.values()))
    for name, gradient in zip(reference.w, grads):
        found["gradient of " + name] = relative(tensors["gradient." + name], gradient)
    for step, (ours, theirs) in enumerate(zip(index["losses"], reference.train(len(index["losses"])))):
        found[f"loss {step + 1}"] = abs(ours - theirs) / abs(theirs)
    if codec == "subspace":
        found["U'U - 1"] = (reference.U.T @ reference.U - torch.eye(reference.U.shape[1])).abs().max().item()
    worst = max(found, key=found.get)
    print(f"{codec}: {len(found)} quantities, worst relative difference {found[worst]:.1e} ({worst})")
    return [f"{codec}: {name} differs by {value:.1e}" for name, value in found.items() if not value < TOLERANCE]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(0)
    problems = compare(sys.argv[1], "identity") + compare(sys.argv[1], "subspace")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
