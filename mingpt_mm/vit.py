"""ViT: a picture is cut into patches, and each patch is a word of a sentence.

An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), section 3.1: one linear layer turns a patch into an
embedding, a class token comes first, learned positions are added, and then it is GPT-2's stack of blocks
without the causal mask.

Letters: B batch, H and W the picture's sides, N patches, C width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from mingpt_mm.transformer import Block, initialise


def normalize(pixels):
    """uint8 pixels, of any shape -> float32 in [-1, 1]: (x / 255 - mean 0.5) / deviation 0.5, in one go."""
    return pixels.float() / 127.5 - 1


def preprocess(image, size):
    """PIL image -> (3, size, size) float32 in [-1, 1]; squashed, as the released models expect."""
    image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1))


@dataclass
class ViTConfig:
    """The sizes of a ViT; the defaults are those of the released google/vit-base-patch16-224."""

    image_size: int = 224  # pixels a side
    patch_size: int = 16
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768

    @property
    def patches(self):
        """How many patches a picture is cut into."""
        return (self.image_size // self.patch_size)**2


class ViT(nn.Module):
    """The encoder of the Vision Transformer, without a classification head."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        # A convolution that steps by its own width is a linear layer for each patch.
        self.patch_embeddings = nn.Conv2d(3, config.n_embd, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.n_embd))
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + config.patches, config.n_embd))
        self.h = nn.ModuleList(
            Block(config.n_embd, config.n_head, causal=False, gelu="none", eps=1e-12)
            for _ in range(config.n_layer))
        self.layernorm = nn.LayerNorm(config.n_embd, eps=1e-12)
        initialise(self, config.n_embd, config.n_layer)
        # A patch embedding sums 3 * 16 * 16 pixels at any width; at a small one, positions of 0.02 drown
        # beside it.
        nn.init.normal_(self.position_embeddings, std=0.02 * 768 / config.n_embd)

    def forward(self, pixels):
        """(B, 3, H, W) in [-1, 1] -> (B, 1 + N, C), the class token first, after the final LayerNorm."""
        x = self.patch_embeddings(pixels)  # (B, C, H / patch_size, W / patch_size)
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], dim=1)  # (B, 1 + N, C)
        x = x + self.position_embeddings  # (B, 1 + N, C)
        for block in self.h:
            x = block(x)  # (B, 1 + N, C)
        return self.layernorm(x)
