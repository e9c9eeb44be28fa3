"""A picture as the beginning of a sentence: `[patches | tokens]` through one GPT.

A ViT turns the picture into patch embeddings, a connector (one linear layer, as in Visual Instruction Tuning,
Liu et al., 2023, section 4.1) brings them to the GPT's width, and there they stand in front of the token
embeddings. The GPT's own causal mask lets each word see the whole picture and the words before it.

Letters: B batch, T tokens, P patches, C width of the GPT, D width of the ViT.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.transformer import initialise
from mingpt_mm.vit import ViT, ViTConfig, normalize


class MultimodalGPT(nn.Module):
    """`gpt` describes what `vit` sees."""

    def __init__(self, gpt, vit):
        super().__init__()
        self.gpt, self.vit = gpt, vit
        self.connector = nn.Linear(vit.config.n_embd, gpt.config.n_embd)
        initialise(self.connector, vit.config.n_embd, n_layer=1)

    def look(self, pixels):
        """pixels (B, 3, H, W), in [-1, 1] or uint8 -> patches (B, P, D)"""
        if pixels.dtype == torch.uint8:
            pixels = normalize(pixels)  # (B, 3, H, W)
        return self.vit(pixels)[:, 1:]  # the class token is left out: the GPT looks for itself

    def embed(self, pixels):
        """The prefix (B, P, C) that stands for `pixels` (see `look`), or for what was seen in them before."""
        patches = self.look(pixels) if pixels.dim() > 3 else pixels  # (B, P, D)
        return self.connector(patches)

    def forward(self, pixels, tokens):
        """pixels (see `embed`), tokens (B, T) -> logits (B, T, V) of the token that follows each."""
        return self.gpt(tokens, prefix=self.embed(pixels))

    @torch.no_grad()
    def caption(self, pixels, encoding, prompt="", **sampling):
        """Describe each of `pixels` (see `embed`) -> B strings; `prompt`, `sampling`: see `GPT.complete`."""
        return self.gpt.complete(encoding, prompt, self.embed(pixels), **sampling)


def restore(checkpoint):
    """The model of a run's checkpoint (a dict, see train.py), a MultimodalGPT or a GPT, ready to be asked."""
    model = GPT(GPTConfig(**checkpoint["gpt"]))
    if "vit" in checkpoint:
        model = MultimodalGPT(model, ViT(ViTConfig(**checkpoint["vit"])))
    model.load_state_dict(checkpoint["model"])
    return model.eval()


def caption_loss(model, pixels, tokens, targets):
    """The cross entropy of all targets, summed: pixels (see `embed`), tokens and targets (B, T)."""
    logits = model(pixels, tokens)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")  # skips -100
