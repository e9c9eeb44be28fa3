"""A picture as the beginning of a sentence: `[patches | tokens]` through one GPT.

A ViT turns the picture into patch embeddings, a connector (one linear layer, as in Visual Instruction Tuning,
Liu et al., 2023, section 4.1) brings them to the GPT's width, and there they stand in front of the token
embeddings. The GPT's own causal mask lets each word see the whole picture and the words before it.

Letters: B batch, T tokens, P patches, C width of the GPT, D width of the ViT.
"""

from collections import defaultdict
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import BadInput
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

    @classmethod
    def from_checkpoint(cls, checkpoint):
        """The model of a run's checkpoint (a dict, see train.py), ready to be asked."""
        model = cls(GPT(GPTConfig(**checkpoint["gpt"])), ViT(ViTConfig(**checkpoint["vit"])))
        model.load_state_dict(checkpoint["model"])
        return model.eval()

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


def build(config, encoding, device):
    """(model, config): new, or with the weights that `init` and `vit` name; sizes of 0 become theirs."""
    multiple = 64 if device.type == "cuda" else 1
    if config.init == "scratch":
        gpt = GPT(GPTConfig(config.block_size, encoding.n_vocab, config.n_layer, config.n_head, config.n_embd,
                            config.dropout, multiple))
    else:
        gpt = GPT.from_pretrained(config.init, dropout=config.dropout, vocab_multiple=multiple)
    if config.vit == "scratch":
        vit = ViT(ViTConfig(config.image_size, config.patch_size, config.vit_layers, gpt.config.n_head,
                            gpt.config.n_embd))
    else:
        vit = ViT.from_pretrained(config.vit)
    model = MultimodalGPT(gpt, vit)
    for parameter in model.parameters():  # released ones may be views of a file, and transposed
        parameter.data = parameter.data.contiguous()
    sizes = {name: getattr(gpt.config, name) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    sizes |= {"patch_size": vit.config.patch_size, "vit_layers": vit.config.n_layer}
    for name, size in sizes.items():
        if getattr(config, name) not in (0, size):
            raise BadInput(f"--{name} {getattr(config, name)}: the weights have {size}: leave it out")
    if gpt.config.vocab_size != encoding.n_vocab:
        raise BadInput(f"--tokenizer {config.tokenizer}: makes {encoding.n_vocab:,} tokens, but --init "
                       f"{config.init} knows {gpt.config.vocab_size:,}")
    return model.to(device), replace(config, image_size=config.image_size or vit.config.image_size, **sizes)


def caption_loss(model, pixels, tokens, targets):
    """The cross entropy of all targets, summed: pixels (see `embed`), tokens and targets (B, T)."""
    logits = model(pixels, tokens)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")  # skips -100


@torch.no_grad()
def evaluate_captions(model, data, encoding, config, device, blind=False):
    """(measures, captions) of the first rows of `data`: the loss a token and the share of exact captions.

    With `blind`, also the share for mid-grey pictures (`exact_match_blank`), and for the picture of the next
    row (`exact_match_shuffled`): there a model that looks must fail. `data`: see `data.Captions`.
    """
    rows = range(min(config.eval_rows, len(data)))
    loss, count, captions = 0.0, 0, defaultdict(list)
    model.eval()
    for start in range(0, len(rows), config.batch_size):
        indices = rows[start:start + config.batch_size]
        pixels, tokens, targets = (torch.as_tensor(array, device=device) for array in data.batch(indices))
        loss += caption_loss(model, pixels, tokens, targets).item()
        count += (targets >= 0).sum().item()
        arms = {"exact_match": pixels}
        if blind:
            arms["exact_match_blank"] = torch.as_tensor(data.blank, device=device).expand_as(pixels)
            others = data.batch([(i + 1) % len(rows) for i in indices])[0]
            arms["exact_match_shuffled"] = torch.as_tensor(others, device=device)
        for arm, shown in arms.items():
            captions[arm] += model.caption(shown, encoding, max_new_tokens=data.longest)
    model.train()
    measures = {"val_loss": loss / count}
    for arm, texts in captions.items():
        measures[arm] = sum(text in data.rows[i].captions for i, text in enumerate(texts)) / len(rows)
    return measures, captions["exact_match"]
