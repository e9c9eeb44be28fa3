"""The key-value cache: buffers that are allocated once against torch.cat at every token.

    python -m tests.bench.cache            GPT-2 124M's sizes, random weights

Milliseconds a token behind so many positions in the cache, medians of rounds in turn; the ratio is that of each round.
"""

from statistics import median

import torch

from mingpt_mm import GPT, GPTConfig
from tests.bench.common import alternate, make_parser, report

TOKENS = 8  # of each measurement


class CatCache:
    """A KVCache that grows by torch.cat."""

    def __init__(self, size):
        self.size, self.length, self.buffer = size, 0, None

    def append(self, kv):
        """See `KVCache.append`."""
        self.buffer = torch.cat([self.buffer, kv], dim=3) if self.length else kv
        self.length = self.buffer.size(3)
        return self.buffer


def decoder(gpt, batch_size, cache):
    """A function that decodes TOKENS tokens up to the end of the `cache`; calling it again starts at the same place."""
    positions, heads = cache[0].size - TOKENS, gpt.config.n_head
    for layer in cache:
        layer.append(torch.randn(2, batch_size, heads, positions, gpt.config.n_embd // heads))

    def work():
        for layer in cache:
            layer.length = positions
            if isinstance(layer, CatCache):
                layer.buffer = layer.buffer[:, :, :, :positions]
        stream = gpt.stream(torch.zeros(batch_size, 1, dtype=torch.int64), cache)
        for _ in range(TOKENS):
            next(stream)
    return work


def main():
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small model and one round: only to see that it runs")
    options = parser.parse_args()
    gpt = GPT(GPTConfig(1024, 512, 2, 2, 64) if options.quick else GPTConfig()).eval()
    results = {}
    for batch_size in (1, 16):
        for positions in (64, 256, 1024):
            works = {"preallocated_ms": decoder(gpt, batch_size, gpt.new_cache(positions)),
                     "torch_cat_ms": decoder(gpt, batch_size, [CatCache(positions) for _ in gpt.h])}
            rounds = alternate(works, 1 if options.quick else options.rounds)
            results[f"batch {batch_size}, {positions} positions"] = [
                {name: ms / TOKENS for name, ms in times.items()}
                | {"ratio": times["torch_cat_ms"] / times["preallocated_ms"]} for times in rounds]
    columns = ["preallocated_ms", "torch_cat_ms", "ratio"]
    report(options, results, columns, f"{torch.get_num_threads()} thread(s)", median)


if __name__ == "__main__":
    main()
