#!/usr/bin/env python3
"""Tokens/s of a one-stage run against the same model in PyTorch eager, interleaved.

usage: bench/overhead.py [ROUNDS]        needs the torch of .venv; about half a minute a round

The dense decoder of bench/one_stage.toml, bf16 (autocast in PyTorch), fused AdamW, same threads, same microbatches.
"""
import os, statistics, subprocess, sys, time
from figures import ROOT, machine, median, train

STEPS, LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY, SEQUENCES, MICROBATCHES = 8, 8, 256, 4, 256, 256, 2, 8
MLP = (WIDTH * 8 // 3 + 31) // 32 * 32


def eager():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    torch.set_num_threads(os.cpu_count())
    frequency = 10000.0 ** (-torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
    angle = torch.outer(torch.arange(CONTEXT).float(), frequency)
    cos, sin = torch.cat([angle.cos()] * 2, 1), torch.cat([angle.sin()] * 2, 1)

    def rotate(x):
        half = x.shape[-1] // 2
        return x * cos.to(x.dtype) + torch.cat([-x[..., half:], x[..., :half]], -1) * sin.to(x.dtype)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ParameterList([nn.Parameter(torch.ones(WIDTH)) for _ in range(2)])
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, False), nn.Linear(WIDTH, WIDTH, False)
            self.gate_up, self.down = nn.Linear(WIDTH, 2 * MLP, False), nn.Linear(MLP, WIDTH, False)

        def forward(self, x):
            B, T, _ = x.shape
            qkv = self.qkv(F.rms_norm(x, (WIDTH,), self.norms[0], 1e-5))
            q, k, v = qkv.view(B, T, 3 * HEADS, -1).transpose(1, 2).chunk(3, 1)
            mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(B, T, WIDTH))
            gate, up = self.gate_up(F.rms_norm(x, (WIDTH,), self.norms[1], 1e-5)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.blocks = nn.Embedding(VOCABULARY, WIDTH), nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm, self.head = nn.Parameter(torch.ones(WIDTH)), nn.Linear(WIDTH, VOCABULARY, False)

        def forward(self, ids):
            x = self.embedding(ids)
            for block in self.blocks:
                x = block(x)
            return self.head(F.rms_norm(x, (WIDTH,), self.norm, 1e-5))

    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    speeds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        for _ in range(MICROBATCHES):
            ids = torch.randint(0, VOCABULARY, (SEQUENCES, CONTEXT + 1))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(ids[:, :-1])
            (F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()) / MICROBATCHES).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        speeds.append(SEQUENCES * CONTEXT * MICROBATCHES / (time.perf_counter() - start))
    print(statistics.median(speeds[2:]))


def ours():
    steps, _ = train("bench/one_stage.toml", f"run.steps={STEPS}")
    return median([s["tokens_per_second"] for s in steps[2:]])


if __name__ == "__main__":
    if "--eager" in sys.argv:
        sys.exit(eager())
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    python = os.path.join(ROOT, ".venv/bin/python")
    measured = []
    for _ in range(rounds):
        a = ours()
        b = float(subprocess.run([python, os.path.abspath(__file__), "--eager"], capture_output=True, text=True,
                                 check=True).stdout)
        measured.append((a / b, a, b))
    ratio, a, b = (median(column) for column in zip(*measured))
    print(f"isthmus, one stage: {a:.0f} tokens/s; PyTorch eager: {b:.0f} tokens/s; ratio {ratio:.2f} "
          f"(medians of {rounds} rounds); {machine()}")
