"""A picture or a clip as the beginning of a sentence: `[patches | tokens]` through one GPT.

A ViT turns the picture into patch embeddings, a connector (one linear layer, as in Visual Instruction Tuning,
Liu et al., 2023, section 4.1) brings them to the GPT's width, and there they stand in front of the token
embeddings. The GPT's own causal mask lets each position see those before it alone: a word sees the whole
picture and the words before it, and a patch, which stands before all words, sees none.

A clip is a row of pictures, `[frame 1 | frame 2 | ... | tokens]`, seen by the same ViT one by one. So that it
fits, a square of four neighbouring patches becomes one. Each frame has an embedding, which says "the second"
in one vector; the GPT's positions say it too, but in another way for each patch.

Letters: B batch, T tokens, V vocabulary, F frames, P positions of what is seen, C width of the GPT, D width
of the ViT, H and W the sides of a picture, in pixels or (in `pool`, of N pictures) in patches.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import BadInput
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.transformer import initialise
from mingpt_mm.vit import ViT, ViTConfig, normalize


def pool(patches):
    """Four neighbours side by side in the channels: (N, H, W, D) -> (N, H / 2 * W / 2, 4 * D)"""
    N, H, W, D = patches.shape
    squares = patches.view(N, H // 2, 2, W // 2, 2, D).transpose(2, 3)  # (N, H / 2, W / 2, 2, 2, D)
    return squares.reshape(N, -1, 4 * D)


class Connector(nn.Linear):
    """What the ViT sees, (B, P, D) or of clips pooled (B, P, 4 * D), as a prefix for the GPT, (B, P, C).

    To all patches of a frame of a clip the same vector is added, that frame's embedding.
    """

    def __init__(self, D, C, frames):
        super().__init__(4 * D if frames else D, C)
        initialise(self, D, n_layer=1)
        self.frames = frames
        if frames:  # as loud as the ViT's positions
            self.frame_embeddings = nn.Parameter(torch.empty(frames, 1, C).normal_(std=0.02 * 768 / C))

    def forward(self, seen):
        """(B, P, D) or (B, P, 4 * D) -> (B, P, C)"""
        prefix = super().forward(seen)  # (B, P, C)
        if self.frames:
            prefix = prefix.unflatten(1, (self.frames, -1)) + self.frame_embeddings  # (B, F, P / F, C)
            prefix = prefix.flatten(1, 2)  # (B, P, C)
        return prefix


class MultimodalGPT(nn.Module):
    """`gpt` describes what `vit` sees: pictures or, with `frames`, clips of so many frames."""

    def __init__(self, gpt, vit, frames=0):
        super().__init__()
        self.gpt, self.vit, self.frames = gpt, vit, frames
        self.connector = Connector(vit.config.n_embd, gpt.config.n_embd, frames)

    def look(self, pixels):
        """pixels (B, 3, H, W) or (B, F, 3, H, W), in [-1, 1] or uint8 -> patches (B, P, D), of clips pooled
        (B, P, 4 * D). To a model of clips a picture is one in which nothing moves.
        """
        if pixels.dim() == 5 and pixels.size(1) != self.frames:
            raise BadInput(f"a clip of {pixels.size(1)} frames: this model sees {self.frames or 'pictures'}")
        if pixels.dtype == torch.uint8:
            pixels = normalize(pixels)
        if not self.frames:
            return self.vit(pixels)[:, 1:]  # the class token is left out: the GPT looks for itself
        if pixels.dim() == 4:
            pixels = pixels.unsqueeze(1).expand(-1, self.frames, -1, -1, -1)  # (B, F, 3, H, W)
        rows, columns = (side // self.vit.config.patch_size for side in pixels.shape[3:])
        patches = self.vit(pixels.flatten(0, 1))[:, 1:]  # (B * F, rows * columns, D)
        patches = pool(patches.unflatten(1, (rows, columns)))  # (B * F, P / F, 4 * D)
        return patches.unflatten(0, pixels.shape[:2]).flatten(1, 2)  # (B, P, 4 * D)

    def embed(self, pixels):
        """The prefix (B, P, C) that stands for `pixels` (see `look`), or for what was seen in them before."""
        return self.connector(self.look(pixels) if pixels.dim() > 3 else pixels)

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
        model = MultimodalGPT(model, ViT(ViTConfig(**checkpoint["vit"])), checkpoint["frames"])
    model.load_state_dict(checkpoint["model"])
    return model.eval()


def loss_sum(logits, targets):
    """The cross entropy, summed over all `targets` (B, T) but those of padding; logits (B, T, V)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")  # skips -100
