"""A layer's matrix product: `F.linear`, and nothing else, but cut so that decoding uses all of a CPU.

To decode a token is to read every weight once, and it takes as long as that. MKL leaves a product of a few
rows to one thread, which reads at less than half of the memory's speed; the weights cut into slices are a
batch of products, which all threads share. `python -m tests.bench.speed` says what it brings.

Letters: K inputs, N outputs.
"""

import torch
from torch import nn
from torch.nn import functional as F


def multiply(x, weight, bias=None):
    """x (..., K), weight (N, K), bias (N,) -> x @ weight^T + bias, (..., N)"""
    rows, N = x.numel() // x.size(-1), len(weight)
    slices = next((n for n in range(4, 65) if N % n == 0), 0)
    if torch.is_grad_enabled() or rows > 16 or not slices or not weight.is_cpu or not weight.is_contiguous():
        return F.linear(x, weight, bias)
    w = weight.unflatten(0, (slices, -1))  # (slices, N / slices, K)
    y = x.reshape(1, rows, -1).expand(slices, -1, -1)  # (slices, rows, K)
    y = (w @ y.mT).mT if rows <= 4 else y @ w.mT  # (slices, rows, N / slices)
    y = y.transpose(0, 1).reshape(*x.shape[:-1], N)  # (..., N)
    return y if bias is None else y + bias


class Linear(nn.Linear):
    """nn.Linear by the function above."""

    def forward(self, x):
        """(..., K) -> (..., N)"""
        return multiply(x, self.weight, self.bias)


def in_rows(model):
    """`model`, whose weights now lie in rows: those of a released file may be views, transposed."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model
