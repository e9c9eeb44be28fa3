"""The trained BPE merges what the paper's slow algorithm merges, and any text survives a round trip."""

import os
import random
import re

import pytest
import tiktoken

from mingpt_mm.data.tokenizer import PATTERN, make_tokenizer, train_bpe

TEXTS = [["a red bat left of a green ghost", "a green ghost above a red key", "a red key"] * 3, [],
         ["aaaa aaaaaa aaa", "ababab bababa", "  \n\n\n  x\t\tx"],
         ["naïve — 鍵と鍵, 1897; the ghost's candle", "أحمد في القاهرة", "鍵と鍵と鍵" * 30]]
CACHED = pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")


def slow_bpe(texts, n):
    """Sennrich et al. (2016), algorithm 1: (merges, words as parts); every round counts all pairs again."""
    words = [[bytes([byte]) for byte in word.encode()] for text in texts for word in re.findall(PATTERN, text)]
    merges = []
    while len(merges) < n and (pairs := [pair for word in words for pair in zip(word, word[1:])]):
        left, right = min(set(pairs), key=lambda pair: (-pairs.count(pair), pair))
        merges.append(left + right)
        for word in words:
            for i in range(len(word)):
                if word[i:i + 2] == [left, right]:
                    word[i:i + 2] = [left + right]
    return list(dict.fromkeys(merges)), words


@pytest.mark.parametrize("vocab_size", [257, 263, 290, 500])
@pytest.mark.parametrize("texts", TEXTS, ids=range(4))
def test_merges_are_those_of_the_slow_algorithm_and_tiktoken_applies_them(texts, vocab_size):
    merges, words = slow_bpe(texts, vocab_size - 257)
    tokenizer = make_tokenizer(train_bpe(texts, vocab_size))
    # A24: text without spaces is cut, or its one word would take hours
    assert tokenizer.merges == merges and tokenizer.n_vocab == 257 + len(merges) and max(map(len, words), default=0) < 161
    tokens = [token for text in texts for token in tokenizer.encode_ordinary(text)]
    assert tokenizer.decode_tokens_bytes(tokens) == [part for word in words for part in word]


@pytest.mark.parametrize("merges", [train_bpe(TEXTS[0], 300), pytest.param("gpt2", marks=CACHED)], ids=["bpe", "gpt2"])
def test_any_text_survives_a_round_trip_and_holds_no_special_token(merges):
    rng, tokenizer = random.Random(0), make_tokenizer(merges)
    texts = ["", "_", "a_b c__d", " \n\t  x \r\n", "a<|endoftext|>b", "٣ ½ ²", "e\u0301 \u200d\ufeff", "\0"]
    texts += ["".join(map(chr, rng.choices(range(limit), k=30))) for limit in [0x80, 0x300, 0x3000, 0xD800] * 200]
    for text in texts:
        tokens = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(tokens) == text and tokenizer.eot_token not in tokens
    assert tokenizer.special_tokens_set == {"<|endoftext|>"} and tokenizer.eot_token == tokenizer.n_vocab - 1
    if merges == "gpt2":  # the released numbers
        assert tokenizer.encode_ordinary("! Hello world") == [0, 18435, 995] and tokenizer.eot_token == 50256
