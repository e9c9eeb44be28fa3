"""Speed beside transformers: training steps on text and on images with captions, and decoding.

    python -m tests.bench.speed [--json FILE]      GPT-2 124M's and ViT-B/16's sizes, random weights, on the CPU
    python -m tests.bench.speed --quick            small models and two rounds: only to see that it runs

Medians over rounds. Each round times both sides; the ratio is transformers / ours, so above 1 ours is faster. Both
sides take the same fused AdamW and clip the gradient.
"""

from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig
from mingpt_mm.model.vit import normalize
from tests.bench.common import alternate, make_parser, report

SMALL = GPTConfig(256, 512, 2, 2, 64), ViTConfig(32, 16, 2, 2, 64)


def reference_gpt(config):
    """GPT2LMHeadModel of the same sizes, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(
        n_positions=config.block_size, vocab_size=config.vocab_size, n_layer=config.n_layer, n_head=config.n_head,
        n_embd=config.n_embd, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=None))


class Reference(nn.Module):
    """ViTModel and GPT2LMHeadModel of the same sizes, joined as their users do it: through `inputs_embeds`."""

    def __init__(self, gpt, vit):
        super().__init__()
        from transformers import ViTConfig as ReferenceConfig
        from transformers import ViTModel
        self.vit = ViTModel(ReferenceConfig(
            image_size=vit.image_size, patch_size=vit.patch_size, num_hidden_layers=vit.n_layer,
            num_attention_heads=vit.n_head, hidden_size=vit.n_embd, intermediate_size=4 * vit.n_embd,
            hidden_dropout_prob=0, attention_probs_dropout_prob=0), add_pooling_layer=False)
        self.gpt, self.connector = reference_gpt(gpt), nn.Linear(vit.n_embd, gpt.n_embd)

    def forward(self, pixels, tokens):
        """The mean loss of the tokens (B, T) behind uint8 pixels (B, 3, H, W)."""
        prefix = self.connector(self.vit(normalize(pixels)).last_hidden_state[:, 1:])
        embeds = torch.cat([prefix, self.gpt.transformer.wte(tokens)], dim=1)
        labels = torch.cat([tokens.new_full(prefix.shape[:2], -100), tokens], dim=1)
        return self.gpt(inputs_embeds=embeds, labels=labels).loss


def train_step(model, loss):
    """A function that takes a training step of `model` on the value of the function `loss`."""
    optimizer = AdamW(model.parameters(), lr=6e-4, fused=True)

    def work():
        loss().backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return work


def text_step(config, tokens, prepare=lambda model: model):
    """Both sides of a training step on text; `prepare` may compile the models."""
    ours, theirs = prepare(GPT(config)), prepare(reference_gpt(config))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    return {"ours_ms": train_step(ours, lambda: F.cross_entropy(ours(inputs).flatten(0, 1), targets)),
            "transformers_ms": train_step(theirs, lambda: theirs(tokens, labels=tokens).loss)}


def joined_step(config, vit, tokens):
    """Both sides of a training step on images and captions."""
    ours, theirs = MultimodalGPT(GPT(config), ViT(vit)), Reference(config, vit)
    pixels = torch.randint(256, (len(tokens), 1, 3, vit.image_size, vit.image_size), dtype=torch.uint8)
    return {"ours_ms": train_step(ours, lambda: F.cross_entropy(ours(pixels, tokens[:, :-1]).flatten(0, 1),
                                                                tokens[:, 1:].flatten())),
            "transformers_ms": train_step(theirs, lambda: theirs(pixels[:, 0], tokens))}


def decoding(config, tokens, prepare=lambda model: model):
    """Both sides of greedy decoding, 64 tokens behind the prompts `tokens`, with weights from the same file."""
    theirs = prepare(reference_gpt(config).eval())
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = prepare(GPT.from_pretrained(folder).eval())
    plain = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return {"ours_ms": lambda: ours.generate(tokens, 64),
            "transformers_ms": lambda: theirs.generate(tokens, max_new_tokens=64, **plain)}


def main():
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small models and two rounds: only to see that it runs")
    options = parser.parse_args()
    gpt, vit = SMALL if options.quick else (GPTConfig(), ViTConfig())

    def draw(batch_size, length):
        return torch.randint(gpt.vocab_size, (batch_size, length))

    pairs = {"training step, text 4 x 128": lambda: text_step(gpt, draw(4, 129)),
             "training step, 4 images and 32 tokens": lambda: joined_step(gpt, vit, draw(4, 33)),
             "64 tokens behind 64, batch 1": lambda: decoding(gpt, draw(1, 64)),
             "64 tokens behind 64, batch 16": lambda: decoding(gpt, draw(16, 64))}
    results = {}
    for name, make in pairs.items():
        results[name] = alternate(make(), 2 if options.quick else options.rounds)
        for times in results[name]:
            times["ratio"] = times["transformers_ms"] / times["ours_ms"]
    report(options, results, ["ours_ms", "transformers_ms", "ratio"], f"{torch.get_num_threads()} thread(s)", median)


if __name__ == "__main__":
    main()
