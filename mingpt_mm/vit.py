"""ViT: a picture is cut into patches, and each patch is a word of a sentence.

An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), section 3.1: one linear layer turns a patch into an
embedding, a class token comes first, learned positions are added, and then it is GPT-2's stack of blocks
without the causal mask.

Letters: B batch, H and W the picture's sides, h and w its sides in patches, N = h * w patches, C width.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mingpt_mm.pretrained import Layout, load, write_checkpoint
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


def guess_sizes(tensors):
    """ViTConfig from the shapes; a head of the released ViTs is 64 wide, but 80 in ViT-Huge."""
    n_embd, _, patch_size, _ = tensors["embeddings.patch_embeddings.projection.weight"].shape
    side = math.isqrt(tensors["embeddings.position_embeddings"].size(1))  # patches, the class token left out
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    head = 80 if n_embd == 1280 else 64
    return [side * patch_size, patch_size, len(layers), 0 if n_embd % head else n_embd // head, n_embd]


LAYOUT = Layout(
    prefix="vit.",
    unused=r"^(pooler|classifier)\.",
    fixed={"model_type": "vit", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True,
           "num_channels": 3},
    sizes=("image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "hidden_size"),
    guess=guess_sizes,
    renamed={"patch_embeddings": "embeddings.patch_embeddings.projection",
             "cls_token": "embeddings.cls_token", "position_embeddings": "embeddings.position_embeddings",
             "h.": "encoder.layer.", "ln_1": "layernorm_before", "ln_2": "layernorm_after",
             "attn.c_attn": "attention.attention.*", "attn.c_proj": "attention.output.dense",
             "mlp.c_fc": "intermediate.dense", "mlp.c_proj": "output.dense"},
    transposed=(),
)


class ViT(nn.Module):
    """The encoder of the Vision Transformer, without a classification head."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        # A convolution that steps by its own width is a linear layer for each patch.
        self.patch_embeddings = nn.Conv2d(3, config.n_embd, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.n_embd))
        patches = (config.image_size // config.patch_size)**2
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + patches, config.n_embd))
        self.h = nn.ModuleList(Block(config.n_embd, config.n_head, causal=False, gelu="none", eps=1e-12)
                               for _ in range(config.n_layer))
        self.layernorm = nn.LayerNorm(config.n_embd, eps=1e-12)
        initialise(self, config.n_embd, config.n_layer)
        # A patch embedding sums 3 * 16 * 16 pixels at any width; at a small one, positions of 0.02 drown
        # beside it.
        nn.init.normal_(self.position_embeddings, std=0.02 * 768 / config.n_embd)

    def positions(self, rows, columns):
        """The position embeddings, (1, 1 + N, C), for the class token and `rows` x `columns` patches.

        A picture of another resolution than the model's own has another number of patches: the same places,
        looked up more or less densely (section 3.2), by bicubic interpolation.
        """
        side = self.config.image_size // self.config.patch_size
        if rows == columns == side:
            return self.position_embeddings
        first, grid = self.position_embeddings.split([1, side**2], dim=1)  # (1, 1, C), (1, side**2, C)
        grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic")  # (1, C, rows, columns)
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pixels):
        """(B, 3, H, W) in [-1, 1] -> (B, 1 + N, C), the class token first, after the final LayerNorm.

        H and W need not be the model's own; what is left of them beside whole patches is not seen.
        """
        x = self.patch_embeddings(pixels)  # (B, C, h, w)
        positions = self.positions(x.size(2), x.size(3))  # (1, 1 + N, C)
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], dim=1)  # (B, 1 + N, C)
        x = x + positions  # (B, 1 + N, C)
        for block in self.h:
            x = block(x)  # (B, 1 + N, C)
        return self.layernorm(x)

    @classmethod
    def from_pretrained(cls, source):
        """ViT with the weights of `source`: a "google/vit-*", a "facebook/deit-*", a folder, or a file.

        Raises BadInput if the weights are not to be had, are damaged, or are another model's.
        """
        return load(source, LAYOUT, lambda sizes: cls(ViTConfig(*sizes)))

    def save_pretrained(self, folder):
        """Write config.json and model.safetensors, from which `transformers` too makes this model."""
        write_checkpoint(folder, self, LAYOUT, {"architectures": ["ViTModel"],
                                                "intermediate_size": 4 * self.config.n_embd})
