"""At which size of a GPT data parallelism stops fitting, computed without a GPU.

    python -m tests.bench.parallel [--memory 80] [--gpus 8] [--tokens 1024]

With DistributedDataParallel each GPU has the whole model: weights, gradients and AdamW's two averages in float32 are
16 bytes a parameter, and autocast keeps a bfloat16 copy of the weights, 2 more. A step sends and receives the
gradients once around a ring of W GPUs, 2 (W - 1) / W * 4 bytes a parameter (Bandwidth Optimal All-reduce Algorithms,
Patarasuk and Yuan, 2009). With `fully_shard` (ZeRO, Rajbhandari et al., 2020, stage 3) each GPU has a W-th of the
16 bytes, and a copy of one block at a time; it gathers the weights twice and scatters the gradients once, half as much
again to send. What the forward pass keeps of a sequence is counted on the CPU, in bfloat16 autocast, for one and two
blocks of the true width and 250 tokens, and grows with the blocks and the tokens; the logits come once.
"""

import argparse
import gc

import torch

from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import loss_sum
from tests.bench.memory import saved_bytes

SIZES = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "gpt2-large": (36, 20, 1280), "gpt2-xl": (48, 25, 1600),
         "32 blocks of 2,560": (32, 32, 2560), "32 blocks of 3,072": (32, 24, 3072), "32 blocks of 4,096": (32, 32, 4096)}


def parameters(n_layer, n_embd, block_size):
    """(parameters of a GPT, of one block of it)"""
    block = 12 * n_embd**2 + 13 * n_embd
    return (50257 + block_size) * n_embd + n_layer * block + 2 * n_embd, block


def kept(n_layer, n_head, n_embd, tokens):
    """The bytes that autograd keeps of one sequence, measured on a short one."""
    words = torch.randint(50257, (1, 250))
    sizes = []
    for blocks in (1, 2):
        gpt = GPT(GPTConfig(250, 50257, blocks, n_head, n_embd))
        sizes.append(saved_bytes(gpt, lambda: loss_sum(gpt(words), words)))
        del gpt
        gc.collect()  # the hooks of autograd are in a circle with what they keep
    one, two = sizes
    return (one + (n_layer - 1) * (two - one)) * tokens / 250


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, default=80, help="GB of a GPU")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024, help="of a sequence")
    options = parser.parse_args()
    W = options.gpus
    print(f"| | parameters | weights and states | a sequence | sent a step | sequences in {options.memory:g} GB | "
          f"with `fully_shard` over {W} |\n" + "|---" * 7 + "|")
    for name, (n_layer, n_head, n_embd) in SIZES.items():
        N, block = parameters(n_layer, n_embd, options.tokens)
        sequence = kept(n_layer, n_head, n_embd, options.tokens)
        whole, part = 18 * N, 16 * N / W + 2 * 6 * block + 4 * 50257 * n_embd  # two blocks at once, and the embedding
        fits = [max(0, int((options.memory * 1e9 - fixed) // sequence)) for fixed in (whole, part)]
        print(f"| {name} | {N / 1e9:.2f}B | {whole / 1e9:.1f} GB | {sequence / 1e9:.2f} GB | "
              f"{2 * (W - 1) / W * 4 * N / 1e9:.1f} GB | {fits[0]} | {fits[1]} |", flush=True)


if __name__ == "__main__":
    main()
