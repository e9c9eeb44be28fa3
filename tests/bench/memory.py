"""What fine-tuning a caption model needs in memory on one GPU, computed without one.

    python -m tests.bench.memory [--gpt gpt2] [--vit vit-base-patch16-224] [--tokens 32]

Weights, gradients and AdamW's two averages are 16 bytes a parameter, and autocast keeps a bfloat16 copy of the
weights, 2 more. What the forward pass keeps for the backward pass is counted on the CPU, in bfloat16 autocast, on
one random picture and caption: the tensors that autograd saves, without the parameters.
"""

import argparse

import torch

from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import MultimodalGPT, loss_sum
from mingpt_mm.vit import ViT, ViTConfig

GPTS = {"gpt2": GPTConfig(), "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024)}
VITS = {"vit-base-patch16-224": ViTConfig(), "vit-base-patch32-224": ViTConfig(patch_size=32)}


def saved_bytes(model, forward):
    """The bytes that autograd keeps of a call of `forward`, without the parameters of `model`."""
    saved = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.parameters()}

    def note(tensor):
        """Count each storage once, but a cast of the weights not at all: it does not grow with the batch."""
        storage = tensor.untyped_storage()
        weights = tensor.dim() == 2 and tensor.numel() in sizes
        saved.setdefault(storage.data_ptr(), 0 if weights else storage.nbytes())
        kept.append(tensor)  # so that no address is used twice
        return tensor
    kept, sizes = [], {parameter.numel() for parameter in model.parameters() if parameter.dim() > 1}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), \
            torch.autocast("cpu", torch.bfloat16):
        forward()
    return sum(saved.values())


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpt", choices=GPTS, default="gpt2")
    parser.add_argument("--vit", choices=VITS, default="vit-base-patch16-224")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    model = MultimodalGPT(GPT(GPTS[options.gpt]), ViT(VITS[options.vit]))
    words = torch.randint(50257, (1, options.tokens))
    pixels = torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8)

    def forward():
        """A forward pass over one picture and its caption."""
        loss_sum(model(pixels, words), words)
    print(f"{options.gpt} + {options.vit}, {options.tokens} tokens        all trained     ViT frozen, features kept")
    parts = {"all": model.parameters(), "frozen": [*model.gpt.parameters(), *model.connector.parameters()]}
    fixed = {arm: 18 * sum(p.numel() for p in parameters) / 1e9 for arm, parameters in parts.items()}
    each = {"all": saved_bytes(model, forward) / 1e9}
    model.vit.requires_grad_(False)
    each["frozen"] = saved_bytes(model, forward) / 1e9
    fixed["frozen"] += 4 * sum(p.numel() for p in model.vit.parameters()) / 1e9
    for name, values in {"parameters and their states": fixed, "each picture of a part of the batch": each}.items():
        print(f"{name:50} {values['all']:8.3f} GB {values['frozen']:12.3f} GB")
    for n in (4, 8, 16, 32):
        print(f"{f'in all, parts of {n} pictures':50} "
              + " ".join(f"{fixed[arm] + n * each[arm]:8.1f} GB   " for arm in fixed))


if __name__ == "__main__":
    main()
