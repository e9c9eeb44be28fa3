"""Text to tokens and back: GPT-2's encoding, or a small byte-level BPE trained on the run's own text.

Byte-pair encoding: Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016),
section 3.2; on bytes, so that any text can be written: Radford et al. (2019), section 2.2. Both are a
`tiktoken.Encoding` whose only special token is `<|endoftext|>`.
"""

import re
from collections import Counter, defaultdict

import tiktoken

from mingpt_mm.console import progress

# Merges never cross the borders of these: a word with the space before it, punctuation, or white space.
PATTERN = r" ?\w{1,40}| ?[^\w\s]{1,40}|\s+(?!\S)|\s+"


def make_tokenizer(merges):
    """The tokenizer of "gpt2" (tiktoken downloads its vocabulary once), or of the `merges` of `train_bpe`."""
    if merges == "gpt2":
        tokenizer = tiktoken.get_encoding("gpt2")
    else:
        ranks = {token: i for i, token in enumerate([bytes([i]) for i in range(256)] + merges)}
        end = {"<|endoftext|>": len(ranks)}
        tokenizer = tiktoken.Encoding("bpe", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=end)
    tokenizer.merges = merges  # for checkpoints
    return tokenizer


def train_bpe(texts, vocab_size):
    """Learn the merges (list of bytes) of a byte-level BPE of at most `vocab_size` tokens from `texts`.

    Each round merges the pair of neighbors that occurs most often; of equals, the one that sorts first. The
    256 bytes and the end-of-text token are always there.
    """
    counts = Counter(word.encode() for text in texts for word in re.findall(PATTERN, text))
    parts = {word: [bytes([byte]) for byte in word] for word in counts}
    pairs, where, merges = Counter(), defaultdict(set), {}  # how often a pair occurs, and in which words

    def count_pairs(word, count):
        for pair in zip(parts[word], parts[word][1:]):
            pairs[pair] += count
            where[pair].add(word)

    for word, count in counts.items():
        count_pairs(word, count)
    for _ in progress(range(vocab_size - 257), "training the tokenizer"):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if not pairs[best]:
            break
        merges[b"".join(best)] = None  # two pairs can give the same token
        for word in where[best]:
            count_pairs(word, -counts[word])
            for i in range(len(parts[word])):
                if parts[word][i:i + 2] == [*best]:
                    parts[word][i:i + 2] = [b"".join(best)]
            count_pairs(word, counts[word])
    return list(merges)
