"""What must be true of GPT: causality, the cache, the tied head, sampling and generation."""

from itertools import combinations, pairwise

import pytest
import torch

from mingpt_mm import GPT, GPTConfig
from mingpt_mm.console import UserError
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.model.gpt import sample_next

TOKENS, PREFIX = torch.arange(14).view(2, 7) * 5, torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
with_and_without_prefix = pytest.mark.parametrize("prefix", [None, PREFIX], ids=["text", "prefix"])


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(GPTConfig(block_size=32, vocab_size=300, n_layer=2, n_head=2, n_embd=32)).eval()


@with_and_without_prefix
def test_a_token_changes_its_own_logits_and_later_ones_but_never_an_earlier_one(gpt, prefix):
    for i, one in enumerate(torch.eye(7).long()):
        moved = (gpt(TOKENS + one, prefix) - gpt(TOKENS, prefix)).abs().amax(dim=(0, 2)) > 0
        assert moved.tolist() == [j >= i for j in range(7)]


@with_and_without_prefix
@torch.no_grad()
def test_logits_with_a_cache_equal_those_without_for_every_way_of_cutting(gpt, prefix):
    for cuts in (cuts for n in range(7) for cuts in combinations(range(1, 7), n)):
        cache, logits = gpt.new_cache(10), []
        for start, end in pairwise((0, *cuts, 7)):
            logits.append(gpt(TOKENS[:, start:end], None if start else prefix, cache))
        torch.testing.assert_close(torch.cat(logits, dim=1), gpt(TOKENS, prefix), rtol=1e-4, atol=1e-5)


def test_the_head_is_the_token_embedding_and_a_prefix_takes_the_first_positions(gpt):
    torch.testing.assert_close(gpt(TOKENS, PREFIX, n_logits=2), gpt(TOKENS, PREFIX)[:, -2:])
    gpt.h = gpt.h[:0]  # what is left has a closed form
    x = torch.nn.functional.layer_norm(gpt.wte.weight[TOKENS] + gpt.wpe.weight[3:10], (32,))
    torch.testing.assert_close(gpt(TOKENS, PREFIX), x @ gpt.wte.weight.T)


def test_gpt2_has_124_million_parameters():
    with torch.device("meta"):
        model = GPT(GPTConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


@pytest.mark.parametrize("options, expected", [
    ({}, [1, 0, 0, 0]), ({"temperature": 0, "top_p": 0.9}, [1, 0, 0, 0]),  # greedy is the default
    ({"temperature": 1e-45}, [1, 0, 0, 0]),  # too small to divide by
    ({"temperature": 1.0}, [0.5, 0.3, 0.15, 0.05]), ({"temperature": 0.5}, [0.25, 0.09, 0.0225, 0.0025]),  # p^(1 / 0.5)
    ({"top_k": 2}, [0.5, 0.3, 0, 0]), ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),  # with temperature 1
    ({"top_p": 0.49}, [1, 0, 0, 0]), ({"top_p": 0.7}, [0.5, 0.3, 0, 0]), ({"top_p": 0.9}, [0.5, 0.3, 0.15, 0]),
    ({"temperature": 0.5, "top_p": 0.9}, [0.25, 0.09, 0, 0]),  # temperature first: 0.34 of 0.365 exceed 0.9
    ({"top_k": 3, "top_p": 0.83}, [0.5, 0.3, 0, 0]),  # top-k first: 0.8 of 0.95 exceed 0.83
])
def test_tokens_are_drawn_from_the_distribution_that_the_options_describe(options, expected):
    order = torch.tensor([2, 0, 3, 1])  # the most likely token is not the first one
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))[order].expand(20_000, 4)
    drawn = sample_next(logits, generator=torch.Generator().manual_seed(0), **options)
    share, expected = torch.bincount(drawn.flatten(), minlength=4) / 20_000, torch.tensor(expected)[order].float()
    torch.testing.assert_close(share, expected / expected.sum(), rtol=0, atol=0.015)
    assert drawn.shape == (20_000, 1) and (share[expected == 0] == 0).all()


def test_greedy_generation_equals_the_slow_way_without_a_cache(gpt):
    slow = TOKENS
    for _ in range(12):
        slow = torch.cat([slow, gpt(slow, PREFIX)[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(gpt.generate(TOKENS, 12, PREFIX), slow) and len(slow[:, 7:].unique()) > 2


def test_sampling_repeats_with_its_seed_and_leaves_the_global_random_state_alone(gpt):
    state = torch.get_rng_state()
    a, b, c = (gpt.generate(TOKENS, 20, temperature=1, generator=torch.Generator().manual_seed(i)) for i in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.get_rng_state(), state)


def test_a_row_that_ended_repeats_the_end_and_generation_stops_when_all_have(gpt, monkeypatch):
    drawn = iter(torch.tensor([[5, 4], [9, 4], [3, 4], [9, 9], [1, 2]])[:, :, None])
    monkeypatch.setattr("mingpt_mm.model.gpt.sample_next", lambda logits, **sampling: next(drawn))
    assert gpt.generate(TOKENS, 20, eos_token_id=9)[:, 7:].tolist() == [[5, 9, 9, 9], [4, 4, 4, 9]]


def test_too_many_positions_are_one_error_that_says_by_how_many(gpt):
    cache, row = gpt.new_cache(32), torch.zeros(1, 31, dtype=torch.long)
    gpt(row, cache=cache)
    for call in (lambda: gpt(row, PREFIX[:1]), lambda: gpt(row[:, :3], cache=cache)):
        with pytest.raises(UserError, match="34 positions are 2 over the block size"):
            call()


def test_completion_keeps_the_prompt_and_ends_at_the_end_of_text_or_of_the_block(gpt):
    tokenizer = make_tokenizer(train_bpe(["a red bat"], 260))
    assert gpt.complete(tokenizer, "a red \n", max_new_tokens=0) == ["a red"]  # without the white space at its end
    pair = gpt.complete(tokenizer, "a red", torch.randn(2, 5, 32), max_new_tokens=1000, temperature=1)
    assert len(pair) == 2 and all(text.startswith("a red") for text in pair)
    gpt.ln_f.weight.data.zero_()
    gpt.ln_f.bias.data = gpt.wte.weight.data[tokenizer.eot_token] * 100  # now it is the most likely token everywhere
    assert gpt.complete(tokenizer, "a red") == ["a red"]
