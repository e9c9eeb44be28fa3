"""The trained BPE merges what the paper's slow algorithm merges, and any text survives a round trip."""

import os
import random

import pytest
import regex  # its words are those of tiktoken; Python's own \w leaves out combining marks
import tiktoken

from mingpt_mm.console import UserError
from mingpt_mm.data.tokenizer import PATTERN, make_tokenizer, train_bpe

TEXTS = {
    "captions": ["a red bat left of a green ghost", "a green ghost above a red key", "a red key"] * 3,
    "repeated letters": ["aaaa aaaaaa aaa", "ababab bababa", "  \n\n\n  x\t\tx"],
    "scripts": ["naïve — 鍵と鍵, 1897; the ghost's candle", "राम दिल्ली में, أحمد في القاهرة", "鍵と鍵と鍵"],
    "nothing": [],
}
CACHED = pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")


def slow_bpe(texts, n):
    """Sennrich et al. (2016), algorithm 1: (merges, words as parts); every round counts all pairs again."""
    words = [[bytes([byte]) for byte in word.encode()] for text in texts for word in regex.findall(PATTERN, text)]
    merges = []
    for _ in range(n):
        pairs = [pair for word in words for pair in zip(word, word[1:])]
        if not pairs:
            break
        left, right = min(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
        merges.append(left + right)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == (left, right):
                    word[i:i + 2] = [left + right]
                i += 1
    return list(dict.fromkeys(merges)), words


@pytest.mark.parametrize("vocab_size", [257, 263, 290, 500])
@pytest.mark.parametrize("name", TEXTS)
def test_merges_are_those_of_the_slow_algorithm_and_tiktoken_applies_them(name, vocab_size):
    merges, words = slow_bpe(TEXTS[name], vocab_size - 257)
    tokenizer = make_tokenizer(train_bpe(TEXTS[name], vocab_size))
    assert tokenizer.merges == merges and tokenizer.n_vocab == 257 + len(merges) <= vocab_size
    tokens = [token for text in TEXTS[name] for token in tokenizer.encode_ordinary(text)]
    assert tokenizer.decode_tokens_bytes(tokens) == [part for word in words for part in word]


@pytest.mark.parametrize("merges", [train_bpe(TEXTS["captions"], 300), pytest.param("gpt2", marks=CACHED)])
def test_any_text_survives_a_round_trip_and_holds_no_special_token(merges):
    rng, tokenizer = random.Random(0), make_tokenizer(merges)
    texts = ["", "_", "a_b c__d", " \n\t  x \r\n", "a<|endoftext|>b", "٣ ½ ²", "e\u0301 \u200d\ufeff", "\0"]
    for limit in [0x80, 0x300, 0x3000, 0x110000] * 200:
        points = [rng.randrange(limit) for _ in range(rng.randrange(30))]
        texts.append("".join(chr(point) for point in points if not 0xD800 <= point < 0xE000))
    for text in texts:
        tokens = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(tokens) == text and tokenizer.eot_token not in tokens
    assert tokenizer.special_tokens_set == {"<|endoftext|>"} and tokenizer.eot_token == tokenizer.n_vocab - 1


@CACHED
def test_gpt2_is_the_released_encoding():
    tokenizer = make_tokenizer("gpt2")
    assert tokenizer.encode_ordinary("Hello world") == [15496, 995] and tokenizer.decode([0]) == "!"
    assert (tokenizer.n_vocab, tokenizer.eot_token, tokenizer.merges) == (50257, 50256, "gpt2")


def test_gpt2_without_a_network_says_what_to_do(monkeypatch):
    def fail(name):
        raise ConnectionError("no network\nat all")
    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(UserError, match="TIKTOKEN_CACHE_DIR") as error:
        make_tokenizer("gpt2")
    assert "\n" not in str(error.value)
