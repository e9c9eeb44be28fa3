"""The same models three times over: ours, nanoGPT's and those of `transformers`, to be timed side by side.

Each has random weights and its own project's way of a training step: nanoGPT the optimizer that it configures,
`transformers` the fused AdamW that its Trainer takes; all clip the gradient's norm at 1.
"""

import importlib.util
import io
from contextlib import redirect_stdout
from dataclasses import asdict
from types import SimpleNamespace

import torch
import transformers
from torch import nn

from mingpt_mm.gpt import GPT
from mingpt_mm.multimodal import MultimodalGPT, loss_sum
from mingpt_mm.run import make_optimizer
from mingpt_mm.text import IGNORE
from mingpt_mm.vit import ViT

CONFIG = SimpleNamespace(weight_decay=0.1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def nanogpt(path, config):
    """nanoGPT's GPT of the same sizes, from the checkout at `path`."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {name: asdict(config)[name] for name in ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")}
    with redirect_stdout(io.StringIO()):  # it tells its number of parameters
        return module.GPT(module.GPTConfig(**sizes, dropout=0.0, bias=True))


def reference_gpt(config):
    """GPT2LMHeadModel of the same sizes, without dropout."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_positions=config.block_size, vocab_size=config.vocab_size, n_layer=config.n_layer,
        n_head=config.n_head, n_embd=config.n_embd, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=None))


class ReferencePair(nn.Module):
    """ViTModel and GPT2LMHeadModel of the same sizes, joined as users join them: through `inputs_embeds`."""

    def __init__(self, gpt, vit):
        super().__init__()
        self.vit = transformers.ViTModel(transformers.ViTConfig(
            image_size=vit.image_size, patch_size=vit.patch_size, num_hidden_layers=vit.n_layer,
            num_attention_heads=vit.n_head, hidden_size=vit.n_embd, intermediate_size=4 * vit.n_embd,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False)
        self.gpt = reference_gpt(gpt)
        self.connector = nn.Linear(vit.n_embd, gpt.n_embd)

    def embed(self, seen):
        """pixels (B, 3, H, W), or what the ViT saw in them (B, P, D) -> the prefix (B, P, C)"""
        if seen.dim() == 4:
            seen = self.vit(pixel_values=seen).last_hidden_state[:, 1:]  # (B, P, D)
        return self.connector(seen)

    def forward(self, seen, tokens, targets):
        """The mean loss of the `targets` (B, T), each the token that follows."""
        prefix = self.embed(seen)  # (B, P, C)
        embeds = torch.cat([prefix, self.gpt.transformer.wte(tokens)], dim=1)  # (B, P + T, C)
        labels = torch.cat([targets.new_full(prefix.shape[:2], IGNORE), targets], dim=1)  # (B, P + T)
        return self.gpt(inputs_embeds=embeds, shift_labels=labels, labels=labels).loss


def text_arms(config, device, checkout):
    """{name: (model, loss of (tokens, targets), optimizer)} of the three GPTs."""
    ours, theirs = GPT(config).to(device), reference_gpt(config).to(device)
    arms = {"ours": (ours, lambda x, y: loss_sum(ours(x), y) / y.numel(), make_optimizer([(ours, 1.0)], CONFIG)),
            "transformers": (theirs, lambda x, y: theirs(x, labels=y, shift_labels=y).loss, fused_adamw(theirs))}
    if checkout:
        nano = nanogpt(checkout, config).to(device)
        with redirect_stdout(io.StringIO()):
            optimizer = nano.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.type)
        arms["nanoGPT"] = (nano, lambda x, y: nano(x, y)[1], optimizer)
    return arms


def fused_adamw(model):
    """The optimizer that the Trainer of `transformers` takes."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=6e-4, fused=True)


def pair_arms(gpt, vit, device, frozen):
    """{name: (model, loss of (pixels, tokens, targets), optimizer)} of the two pairs of ViT and GPT."""
    ours, theirs = MultimodalGPT(GPT(gpt), ViT(vit)).to(device), ReferencePair(gpt, vit).to(device)
    theirs.vit.requires_grad_(not frozen)
    optimizer = make_optimizer([(ours.gpt, 1.0), (ours.connector, 1.0), (ours.vit, 0.0 if frozen else 1.0)],
                               CONFIG)
    return {"ours": (ours, lambda p, x, y: loss_sum(ours(p, x), y) / y.numel(), optimizer),
            "transformers": (theirs, theirs, fused_adamw(theirs))}
