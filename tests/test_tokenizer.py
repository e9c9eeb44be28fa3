"""The trained BPE: nothing is lost, and it merges as the paper's slow way does."""

import os
import random
import re

import pytest
import tiktoken

from mingpt_mm import BadInput
from mingpt_mm.tokenizer import PATTERN, gpt2_encoding, pack_encoding, train_bpe, unpack_encoding

TEXTS = ["a red bat left of a green ghost", "a green ghost above a red key", "the ghost's candle, 1897; naïve — 鍵"] * 3


@pytest.fixture(scope="module")
def encoding():
    return train_bpe(TEXTS, 320)


def test_round_trips_arbitrary_unicode(encoding):
    rng = random.Random(0)
    for _ in range(3000):
        limit = rng.choice([0x80, 0x300, 0x3000, 0x110000])
        points = [rng.randrange(limit) for _ in range(rng.randrange(30))]
        text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        assert encoding.decode(encoding.encode_ordinary(text)) == text
    for text in ("", "_", "a_b c__d", " \n\t  x \r\n", "<|endoftext|>", "٣ ½ ²", "e\u0301 \u200d\ufeff"):
        tokens = encoding.encode_ordinary(text)
        assert encoding.decode(tokens) == text and encoding.eot_token not in tokens


def test_round_trips_arbitrary_bytes(encoding):
    rng = random.Random(0)
    for data in (bytes(range(256)), *(rng.randbytes(rng.randrange(40)) for _ in range(500))):
        tokens = [encoding.encode_single_token(bytes([byte])) for byte in data]
        assert tokens == list(data) and encoding.decode_bytes(tokens) == data


def slow_merges(texts, n):
    """Sennrich et al. (2016), algorithm 1: count all pairs anew, merge the most frequent everywhere, again."""
    words = [[bytes([b]) for b in word.encode()] for text in texts for word in re.findall(PATTERN, text)]
    merges = []
    while len(merges) < n:
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(left + right)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == (left, right):
                    word[i:i + 2] = [left + right]
                i += 1
    return merges, words


def test_merges_are_those_of_the_slow_algorithm_and_tiktoken_applies_them_so(encoding):
    merges, words = slow_merges(TEXTS, 320 - 257)
    assert pack_encoding(encoding) == list(dict.fromkeys(merges))
    tokens = [token for text in TEXTS for token in encoding.encode_ordinary(text)]
    assert encoding.decode_tokens_bytes(tokens) == [part for word in words for part in word]


def test_it_has_at_most_the_tokens_asked_for_and_stops_when_all_words_are_whole():
    assert train_bpe(TEXTS, 300).n_vocab == 300
    assert train_bpe([], 500).n_vocab == 257 == train_bpe(TEXTS, 257).n_vocab
    whole = train_bpe(["aaaa aaaa bat"], 500)
    assert len(whole.encode_ordinary("aaaa")) == 1 and whole.n_vocab < 300


def test_packing_keeps_every_token(encoding):
    again = unpack_encoding(pack_encoding(encoding))
    assert again.encode_ordinary(TEXTS[2]) == encoding.encode_ordinary(TEXTS[2])
    assert (again.n_vocab, again.eot_token) == (encoding.n_vocab, encoding.n_vocab - 1)


@pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")
def test_gpt2_encoding_is_used_like_the_trained_one():
    encoding = unpack_encoding(pack_encoding(gpt2_encoding()))
    assert encoding.encode_ordinary("Hello world") == [15496, 995] and encoding.decode([0]) == "!"
    assert (encoding.n_vocab, encoding.eot_token) == (50257, 50256)


def test_gpt2_encoding_without_a_network_says_what_to_do(monkeypatch):
    def fail(name):
        raise ConnectionError("no network")
    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(BadInput, match="TIKTOKEN_CACHE_DIR"):
        gpt2_encoding()
