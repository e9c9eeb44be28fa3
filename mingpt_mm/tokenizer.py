"""Text to tokens and back: GPT-2's own encoding, or a small byte-level BPE trained on the run's own text.

Byte-pair encoding: Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016),
section 3.2; over bytes, so that any text can be written: Radford et al. (2019), section 2.2. Both are a
`tiktoken.Encoding` whose only special token is `<|endoftext|>`, so nothing after this file knows which one it
has.
"""

import re
from collections import Counter, defaultdict

import tiktoken

from mingpt_mm import BadInput

# A word with the space before it, a run of punctuation, or white space: merges never cross these borders.
# Between them the three match every character; what no part matched, tiktoken would drop.
PATTERN = r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+"


def encoding_from_merges(merges):
    """The encoding of a trained BPE: the 256 bytes, then the `merges` (bytes) in order, then the end."""
    tokens = [bytes([i]) for i in range(256)] + list(merges)
    ranks = {token: i for i, token in enumerate(tokens)}
    return tiktoken.Encoding("bpe", pat_str=PATTERN, mergeable_ranks=ranks,
                             special_tokens={"<|endoftext|>": len(tokens)})


def merge(word, pair):
    """`word` (a list of parts) with the neighbours `pair`, wherever they stand, made one part."""
    parts = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def train_bpe(texts, vocab_size):
    """Learn a byte-level BPE of at most `vocab_size` tokens (never under 257) from `texts` (strings).

    Each round merges the neighbours that stand together most often (of equals, those that sort first).
    """
    counts = Counter(word.encode(errors="replace") for text in texts for word in re.findall(PATTERN, text))
    parts = {word: [bytes([byte]) for byte in word] for word in counts}
    pairs, where, merges = Counter(), defaultdict(set), []  # how often two parts are neighbours, and where

    def note(word, count):
        """Add `count` to each pair of neighbours in `word`."""
        for pair in zip(parts[word], parts[word][1:]):
            pairs[pair] += count
            where[pair].add(word)

    for word, count in counts.items():
        note(word, count)
    while 257 + len(merges) < vocab_size and +pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best[0] + best[1])
        for word in where[best]:
            note(word, -counts[word])
            parts[word] = merge(parts[word], best)
            note(word, counts[word])
        del pairs[best]
    return encoding_from_merges(dict.fromkeys(merges))


def gpt2_encoding():
    """GPT-2's encoding, 50,257 tokens. tiktoken downloads its vocabulary once, or finds it in
    TIKTOKEN_CACHE_DIR.
    """
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # whatever the network raises
        raise BadInput(f"GPT-2's vocabulary cannot be downloaded ({type(error).__name__}): set "
                       "TIKTOKEN_CACHE_DIR to a folder that holds it") from error


def pack_encoding(encoding):
    """What a checkpoint keeps of an encoding: plain values, see `unpack_encoding`."""
    if encoding.name == "gpt2":
        return "gpt2"
    return [encoding.decode_single_token_bytes(i) for i in range(256, encoding.eot_token)]


def unpack_encoding(packed):
    """The encoding that `pack_encoding` packed: "gpt2", or the merges of a trained BPE."""
    return gpt2_encoding() if packed == "gpt2" else encoding_from_merges(packed)
