"""An image or a video as a prefix of the text: `[patches | tokens]` through one GPT.

ViT turns each frame into patch embeddings. The connector, one linear layer (Visual Instruction Tuning, Liu et
al., 2023, section 4.1), projects them to the GPT's width. `GPT.forward` puts them in front of the token
embeddings. By the GPT's causal mask a token sees all patches, the tokens before it and itself.

An image is a video of one frame. In videos 2x2 neighboring patches are merged, so that more frames fit, and
each frame adds an embedding of its own: `[frame 1 | frame 2 | ... | tokens]`.

A model that draws also learns the other direction, `[caption | image tokens]`, with the same GPT (Zero-Shot
Text-to-Image Generation, Ramesh et al., 2021).

Letters: B batch, F frames, T tokens, V vocabulary size, P prefix positions, C width of the GPT, D width of
ViT's output, H and W height and width in pixels, h and w in patches, n drawings, L image tokens of each, K
codebook entries, M values of each.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.console import UserError
from mingpt_mm.model.codebook import LENGTH, decode
from mingpt_mm.model.transformer import init_weights
from mingpt_mm.model.vit import normalize


class MultimodalGPT(nn.Module):
    """`gpt` describes what `vit` encodes: images, or videos of `frames` frames."""

    def __init__(self, gpt, vit, frames=1):
        super().__init__()
        self.gpt, self.vit, self.frames = gpt, vit, frames
        self.merge = 2 if frames > 1 else 1  # patches on each side that are merged into one position
        merged, C = vit.config.n_embd * self.merge**2, gpt.config.n_embd
        self.connector = nn.Linear(merged, C)
        init_weights(self.connector, merged, n_layer=1)
        self.frame_embeddings = nn.Embedding(frames, C)
        nn.init.normal_(self.frame_embeddings.weight, std=0.02 * 768 / C)  # as ViT's positions
        self.register_buffer("codebook", None)  # of a model that draws, see `add_codebook`

    def add_codebook(self, codebook, n_text):
        """Let the model draw: the entries of `codebook` (K, M) become tokens after the first `n_text` ones.

        Their embeddings start as a random projection of the entries, so that similar patches are neighbors.
        Those of an earlier codebook are dropped.
        """
        text = self.gpt.wte.weight.data[:n_text]  # (n_text, C)
        patches = (codebook @ torch.randn(codebook.size(1), text.size(1))).to(text)  # (K, C)
        patches = patches - patches.mean(dim=0)
        weight = torch.cat([text, patches * text.std() / patches.std()])  # (V, C)
        self.gpt.wte = nn.Embedding.from_pretrained(weight, freeze=False)
        self.gpt.config.vocab_size, self.codebook = self.gpt.wte.num_embeddings, codebook

    @staticmethod
    def prefix_length(size, patch_size, frames=1):
        """P, the positions of an image or video of `size` x `size` pixels; UserError if no patches fit."""
        merge = 2 if frames > 1 else 1
        if size % (merge * patch_size):
            raise UserError(f"--image_size {size}: must be a multiple of {merge * patch_size}")
        return frames * (size // patch_size // merge)**2

    def encode_images(self, pixels):
        """uint8 pixels (B, F, 3, H, W) -> prefix (B, P, C)"""
        h, w = (side // self.vit.config.patch_size for side in pixels.shape[3:])
        x = self.vit(normalize(pixels.flatten(0, 1)))[:, 1:]  # (B * F, h * w, D); without the class token
        if pixels.size(1) != self.frames or x.size(1) != h * w:
            raise UserError(f"{pixels.size(1)} frames, {x.size(1)} patches; expected {self.frames}, {h * w}")
        x = x.transpose(1, 2).unflatten(2, (h, w))  # (B * F, D, h, w)
        x = F.pixel_unshuffle(x, self.merge).flatten(2).transpose(1, 2)
        x = self.connector(x).unflatten(0, pixels.shape[:2]) + self.frame_embeddings.weight[:, None]
        return x.flatten(1, 2)  # (B, P, C)

    def forward(self, pixels, tokens):
        """pixels (B, F, 3, H, W), tokens (B, T) -> logits (B, T, V) of the token that follows each.

        Without pixels (None) the tokens are plain text, or a caption and its image tokens.
        """
        prefix = None if pixels is None else self.encode_images(pixels)  # (B, P, C)
        return self.gpt(tokens, prefix)

    @torch.no_grad()
    def caption(self, pixels, tokenizer, prompt="", **sampling):
        """Describe `pixels` (B, F, 3, H, W) -> B strings. `prompt`, `sampling`: see `GPT.complete`."""
        return self.gpt.complete(tokenizer, prompt, self.encode_images(pixels), **sampling)

    @torch.no_grad()
    def draw(self, caption, tokenizer, size, n=1, temperature=None, **sampling):
        """Draw `n` images of a `caption` -> uint8 pixels (n, 1, 3, size, size).

        The default temperature is 0.6. `sampling`: see `sample_next`. Call `eval()` first.
        """
        if self.codebook is None:
            raise UserError("this model does not draw: train one with --draw")
        row = [tokenizer.eot_token, *tokenizer.encode_ordinary(caption)]
        if not 1 < len(row) <= self.gpt.config.block_size + 1 - LENGTH:
            raise UserError(f"--draw: {len(row) - 1} tokens; 1 to {self.gpt.config.block_size - LENGTH} fit")
        tokens = torch.tensor([row] * n, device=self.gpt.wte.weight.device)  # (n, T)
        temperature = 0.6 if temperature is None else temperature
        tokens = self.gpt.generate(tokens, LENGTH, temperature=temperature, **sampling)  # (n, T + L)
        codes = (tokens[:, len(row):] - tokenizer.n_vocab).clamp(min=0)  # (n, L); a text token is entry 0
        return decode(self.codebook, codes, size)[:, None]  # (n, 1, 3, size, size)
