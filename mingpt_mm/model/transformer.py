"""The Transformer block that GPT-2 and ViT are made of, and the key-value cache.

Attention Is All You Need (Vaswani et al., 2017), section 3. LayerNorm stands before each sublayer (Language
Models are Unsupervised Multitask Learners, Radford et al., 2019, section 2.3). GPT-2 runs the block with a
causal mask, ViT without. Parameters have the names of the released GPT-2 files.

Letters: B batch, T positions of this call, S positions that can be attended to (the cached ones included),
C embedding width, nh heads, hs = C / nh head size.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from mingpt_mm.console import UserError


class KVCache:
    """The keys and values of one layer, in a buffer for `size` positions that is allocated once.

    `length` is the number of positions filled so far. A model's cache is a list of these, one for each layer.
    """

    def __init__(self, size):
        self.size, self.length, self.buffer = size, 0, None

    def append(self, kv):
        """Store new keys and values (2, B, nh, T, hs); return a view of all so far (2, B, nh, S, hs)."""
        if self.buffer is None:  # the first call tells batch, heads, dtype and device
            self.buffer = kv.new_empty(*kv.shape[:3], self.size, kv.size(4))
        start, self.length = self.length, self.length + kv.size(3)
        self.buffer[:, :, :, start:self.length] = kv
        return self.buffer[:, :, :, :self.length]


class Attention(nn.Module):
    """Multi-head self-attention (section 3.2): softmax(q k^T / sqrt(hs)) v, with a causal mask or without."""

    def __init__(self, n_embd, n_head, causal, dropout):
        super().__init__()
        if n_embd % n_head:
            raise UserError(f"--n_embd {n_embd}: must be a multiple of --n_head {n_head}")
        self.n_head, self.causal, self.dropout = n_head, causal, dropout
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)  # query, key and value in one matrix product
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x, cache=None):
        """(B, T, C) -> (B, T, C). With a `cache`, the T positions follow those that it holds."""
        qkv = self.c_attn(x).unflatten(2, (3, self.n_head, -1))  # (B, T, 3, nh, hs)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, nh, T, hs)
        q, (k, v) = qkv[0], cache.append(qkv[1:]) if cache else qkv[1:]  # (B, nh, T, hs), (B, nh, S, hs)
        T, S = q.size(2), k.size(2)
        # A whole sequence (T == S) takes the last argument, is_causal: torch.compile cannot trace
        # causal_lower_right. After a cache (T < S) the mask is aligned to the lower right corner: new
        # position i sees all cached ones and the new ones up to i. A single new position needs no mask.
        mask = causal_lower_right(T, S) if self.causal and 1 < T < S else None
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, self.causal and T == S)  # (B, nh, T, hs)
        return self.c_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)


class MLP(nn.Module):
    """Two linear layers (section 3.3) with a GELU between them; the hidden layer is four times as wide.

    gelu: "tanh" (GPT-2's approximation) or "none" (the exact erf form of ViT).
    """

    def __init__(self, n_embd, gelu):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.act = nn.GELU(approximate=gelu)
        self.c_proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):
        """(B, T, C) -> (B, T, C)"""
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    """Attention lets each position read from the positions it may see and adds the result; the MLP then
    transforms each position by itself.

    The defaults are GPT-2's; ViT uses `causal=False, gelu="none", eps=1e-12`.
    """

    def __init__(self, n_embd, n_head, causal=True, gelu="tanh", eps=1e-5, dropout=0.0):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, eps=eps)
        self.attn = Attention(n_embd, n_head, causal, dropout)
        self.ln_2 = nn.LayerNorm(n_embd, eps=eps)
        self.mlp = MLP(n_embd, gelu)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, cache=None):
        """(B, T, C) -> (B, T, C)"""
        x = x + self.dropout(self.attn(self.ln_1(x), cache))  # (B, T, C)
        return x + self.dropout(self.mlp(self.ln_2(x)))  # (B, T, C)


def init_weights(model, width, n_layer):
    """GPT-2's initialization at any width, in place: matrices and embeddings normal, biases zero.

    GPT-2 uses a standard deviation of 0.02 at width 768. A layer's output is a sum over its inputs. So at
    another width the deviation is multiplied by sqrt(768 / width), to keep the outputs at the same scale.
    2 * `n_layer` projections add to the residual stream. Their deviation is divided by sqrt(2 * n_layer), so
    that the sum does not grow with depth (Radford et al., 2019, section 2.3).
    """
    std = 0.02 * (768 / width)**0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            added = 2 * n_layer if name.endswith("c_proj.weight") else 1
            nn.init.normal_(parameter, std=std / added**0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
