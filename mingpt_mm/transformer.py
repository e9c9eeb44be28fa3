"""One Transformer block for two models: GPT-2 is a stack of it with a causal mask, ViT a stack without.

Attention Is All You Need (Vaswani et al., 2017), section 3, with the LayerNorms in front of each part
(Language Models are Unsupervised Multitask Learners, Radford et al., 2019, section 2.3). Parameters carry
the names of the released GPT-2 files.

Letters: B batch, T positions of this call, S positions that can be seen (with the cached ones), C width,
nh heads, hs = C / nh head size.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.linear import Linear


class KVCache:
    """The keys and values of one layer for up to `size` positions, in buffers that are allocated once.

    `length` says how many positions are filled. A model's cache is a list of these, one a layer.
    """

    def __init__(self, size):
        self.size, self.length = size, 0
        self.keys = self.values = None

    def append(self, k, v):
        """Keep the new k and v, both (B, nh, T, hs); return views (B, nh, S, hs) of all kept so far."""
        if self.keys is None:  # only now are the shape, the type and the device known
            B, nh, _, hs = k.shape
            self.keys, self.values = k.new_empty(B, nh, self.size, hs), v.new_empty(B, nh, self.size, hs)
        start, self.length = self.length, self.length + k.size(2)
        self.keys[:, :, start:self.length] = k
        self.values[:, :, start:self.length] = v
        return self.keys[:, :, :self.length], self.values[:, :, :self.length]


class Attention(nn.Module):
    """Multi-head self-attention (section 3.2): softmax(q k^T / sqrt(hs)) v, causal or not."""

    def __init__(self, n_embd, n_head, causal, dropout):
        super().__init__()
        self.n_head, self.causal, self.dropout = n_head, causal, dropout
        self.c_attn = Linear(n_embd, 3 * n_embd)  # query, key and value in one matrix product
        self.c_proj = Linear(n_embd, n_embd)

    def heads(self, x):
        """(B, T, C) -> the query, key and value of each head, (3, B, nh, T, hs)"""
        qkv = self.c_attn(x).unflatten(2, (3, self.n_head, -1))  # (B, T, 3, nh, hs)
        return qkv.permute(2, 0, 3, 1, 4)  # (3, B, nh, T, hs)

    def forward(self, x, cache=None):
        """(B, T, C) -> (B, T, C). With a `cache`, the T positions come after those that it holds."""
        q, k, v = self.heads(x)  # (B, nh, T, hs)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, nh, S, hs)
        T, S, mask = q.size(2), k.size(2), None
        if self.causal and 1 < T < S:  # a chunk after a cache: row i sees the cache, and the chunk up to i
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)  # (T, S)
        # `is_causal` counts from the first key, so it is right only where nothing is cached; it never joins a
        # mask. One query after a cache sees every key: neither is needed.
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal and T == S,
                                           dropout_p=self.dropout if self.training else 0.0)  # (B, nh, T, hs)
        y = y.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.c_proj(y)


class MLP(nn.Module):
    """Two linear layers with a GELU between them, four times as wide inside (section 3.3).

    `gelu` is "tanh" (GPT-2's approximation) or "none" (the exact erf form, ViT's).
    """

    def __init__(self, n_embd, gelu):
        super().__init__()
        self.c_fc = Linear(n_embd, 4 * n_embd)
        self.act = nn.GELU(approximate=gelu)
        self.c_proj = Linear(4 * n_embd, n_embd)

    def forward(self, x):
        """(B, T, C) -> (B, T, C)"""
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): all that GPT-2 and ViT are made of.

    The defaults are GPT-2's; ViT has `causal=False, gelu="none", eps=1e-12`.
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
        x = x + self.dropout(self.mlp(self.ln_2(x)))  # (B, T, C)
        return x


def initialise(model, width, n_layer):
    """GPT-2's initialisation at any width, in place: matrices and embeddings normal, biases zero.

    GPT-2 takes a deviation of 0.02 at width 768. What a layer puts out is a sum over its width, so at a small
    one the deviation grows as sqrt(768 / width) to keep it, and with it the spread of the logits, as loud.
    Each of the 2 `n_layer` projections that add to the residual stream is divided by sqrt(2 n_layer), so that
    their sum does not grow with depth (Radford et al., 2019, section 2.3).
    """
    std = 0.02 * (768 / width)**0.5
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            nn.init.normal_(parameter, std=std / (2 * n_layer)**0.5)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
