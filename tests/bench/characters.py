"""Tiny Shakespeare, letter by letter, with our GPT and our own recipe: the arm beside nanoGPT's.

    python -m tests.bench.characters FILE.txt [--steps 440] [--seed 0]

The sizes are those of nanoGPT's setting for a small computer: 4 blocks, 4 heads, width 128, context 64, 12 rows a
step; nine tenths of the text are for training. Matrices follow Muon (`torch.optim.Muon`; Jordan et al., 2024),
the rest AdamW; the rates fall linearly to 0. A line is printed half-way and at the end, the loss on the whole of
the last tenth.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import loss_sum

CONTEXT, ROWS, WARMUP = 64, 12, 10


def make_optimizers(gpt, muon_rate, adamw_rate):
    """Muon for the matrices of the blocks, AdamW for embeddings and vectors."""
    matrices = [p for p in gpt.h.parameters() if p.dim() > 1]
    others = [p for p in gpt.h.parameters() if p.dim() < 2]
    others += [gpt.wte.weight, gpt.wpe.weight, *gpt.ln_f.parameters()]
    return [torch.optim.Muon(matrices, lr=muon_rate, momentum=0.85, weight_decay=0.0,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


@torch.no_grad()
def validate(gpt, data):
    """The mean loss on all of `data`, cut into rows."""
    rows = data[:len(data) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    losses = [loss_sum(gpt(part[:, :-1]), part[:, 1:]).item() for part in rows.split(128)]
    return sum(losses) / (len(rows) * CONTEXT)


def main():
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=440)
    parser.add_argument("--muon_rate", type=float, default=1.5e-2)
    parser.add_argument("--adamw_rate", type=float, default=6e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8")
    number = {letter: i for i, letter in enumerate(sorted(set(text)))}
    train, val = torch.tensor([number[letter] for letter in text]).split([int(0.9 * len(text)),
                                                                          len(text) - int(0.9 * len(text))])
    torch.manual_seed(options.seed)
    gpt, rng = GPT(GPTConfig(CONTEXT, len(number), 4, 4, 128)), np.random.default_rng(options.seed)
    optimizers = make_optimizers(gpt, options.muon_rate, options.adamw_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / WARMUP)
                                                   * (1 - step / options.steps)) for optimizer in optimizers]
    for step in range(1, options.steps + 1):
        starts = torch.from_numpy(rng.integers(len(train) - CONTEXT, size=(ROWS, 1)))
        rows = train[starts + torch.arange(CONTEXT + 1)]  # (B, T + 1)
        (loss_sum(gpt(rows[:, :-1]), rows[:, 1:]) / rows[:, 1:].numel()).backward()
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if step % max(1, options.steps // 2) == 0:
            print(f"step {step}: val loss {validate(gpt, val):.4f}", flush=True)


if __name__ == "__main__":
    main()
