#!/usr/bin/env python3
"""Loads exported models with transformers and compares them with what this project computes from the same checkpoints.

usage: exported.py CASES.json

CASES.json: [{"folder", "text", "tokens" (the text's ids)}], some of them with {"architecture", "ids", "logits" (of the
token after each of ids), "prompt", "greedy" (what the likeliest tokens make of the prompt; bytes)}. Logits have to
agree: 1e-5 relative, at every position.
"""
import json, os, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp()

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

TOLERANCE = 1e-5


def compare_tokens(case):
    tokenizer = AutoTokenizer.from_pretrained(case["folder"], trust_remote_code=True)
    made, back = tokenizer(case["text"]).input_ids, tokenizer.decode(case["tokens"])
    name = os.path.basename(case["folder"])
    if made != case["tokens"]:
        different = (i for i, (a, b) in enumerate(zip(made, case["tokens"])) if a != b)
        at = next(different, min(len(made), len(case["tokens"])))
        return [f"{name}: the tokenizer makes {len(made)} tokens, not {len(case['tokens'])}; from {at} on "
                f"{made[at:at + 8]}, not {case['tokens'][at:at + 8]}"]
    return [] if back == case["text"] else [f"{name}: {back!r} comes back"]


def compare(case):
    problems = compare_tokens(case)
    if "logits" not in case:
        return problems
    name = os.path.basename(case["folder"])
    model = AutoModelForCausalLM.from_pretrained(case["folder"], trust_remote_code=True).eval()
    if type(model).__name__ != case["architecture"] or model.dtype != torch.float32:
        problems.append(f"{name}: it is a {type(model).__name__} of {model.dtype}")
    ours = torch.tensor(case["logits"])
    with torch.no_grad():
        theirs = model(torch.tensor([case["ids"]])).logits[0]
    worst = ((ours - theirs).norm(dim=-1) / ours.norm(dim=-1)).max().item()
    largest = ((ours - theirs).abs().max() / ours.abs().max()).item()
    print(f"{name}: {type(model).__name__}, logits differ by {worst:.1e} (norm), {largest:.1e} (largest)", flush=True)
    if not max(worst, largest) < TOLERANCE:
        problems.append(f"{name}: logits differ by {worst:.1e}")

    prompt = torch.tensor([list(case["prompt"].encode())])
    made = model.generate(prompt, max_new_tokens=len(case["greedy"]) - prompt.shape[1], do_sample=False)[0].tolist()
    if made != case["greedy"]:
        problems.append(f"{name}: {bytes(case['greedy'])} goes on as {bytes(made)}")
    return problems


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    problems = [problem for case in json.load(open(sys.argv[1])) for problem in compare(case)]
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
