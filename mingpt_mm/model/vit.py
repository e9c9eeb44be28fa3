"""ViT: an image is cut into patches, and each patch becomes an embedding, as a token does in GPT-2.

An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), section 3.1. One linear layer embeds each patch. A
class token comes first. Position embeddings are added. Then come GPT-2's blocks without causal mask.

Letters: B batch, H and W height and width in pixels, h and w in patches, N = h * w patches, C embedding
width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.model.transformer import Block, init_weights
from mingpt_mm.model.weights import PretrainedModel


def normalize(pixels):
    """uint8 pixels of any shape -> float32 in [-1, 1], which is (x / 255 - mean 0.5) / std 0.5."""
    return pixels.float() / 127.5 - 1


@dataclass
class ViTConfig:
    """The sizes of a ViT; the defaults are those of the released google/vit-base-patch16-224."""

    image_size: int = 224  # pixels on each side
    patch_size: int = 16
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768


class ViT(PretrainedModel):
    """The encoder of the Vision Transformer, without a classification head."""

    model_type, config_class = "vit", ViTConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        # A convolution with its kernel size as stride is one linear layer applied to each patch.
        self.patch_embeddings = nn.Conv2d(3, config.n_embd, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.n_embd))
        patches = (config.image_size // config.patch_size)**2
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + patches, config.n_embd))
        self.h = nn.ModuleList(Block(config.n_embd, config.n_head, causal=False, gelu="none", eps=1e-12)
                               for _ in range(config.n_layer))
        self.layernorm = nn.LayerNorm(config.n_embd, eps=1e-12)
        init_weights(self, config.n_embd, config.n_layer)
        # A patch embedding sums 3 * 16 * 16 pixels at any width. At a small width, the position embeddings of
        # init_weights are too weak beside it.
        nn.init.normal_(self.position_embeddings, std=0.02 * 768 / config.n_embd)

    def interpolate_positions(self, h, w):
        """Position embeddings (1, 1 + N, C) for the class token and `h` x `w` patches.

        At another resolution the trained grid is resized (section 3.2), bicubic as in `transformers`.
        """
        side = self.config.image_size // self.config.patch_size
        if h == w == side:
            return self.position_embeddings
        first, grid = self.position_embeddings.split([1, side**2], dim=1)  # (1, 1, C), (1, side**2, C)
        grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
        grid = F.interpolate(grid, (h, w), mode="bicubic")  # (1, C, h, w)
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)  # (1, 1 + h * w, C)

    def forward(self, pixels):
        """(B, 3, H, W) in [-1, 1] -> (B, 1 + N, C), the class token first, after the final LayerNorm.

        Pixels beyond the last whole patch are ignored.
        """
        x = self.patch_embeddings(pixels)  # (B, C, h, w)
        positions = self.interpolate_positions(x.size(2), x.size(3))  # (1, 1 + N, C)
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], dim=1) + positions  # (B, 1 + N, C)
        for block in self.h:
            x = block(x)  # (B, 1 + N, C)
        return self.layernorm(x)
