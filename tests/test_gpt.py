"""GPT: causality, the cache, sampling and generation, against slow ways and closed forms."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mingpt_mm import BadInput
from mingpt_mm.gpt import GPT, GPTConfig, sample_next
from mingpt_mm.tokenizer import train_bpe


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(GPTConfig(block_size=32, vocab_size=61, n_layer=2, n_head=2, n_embd=32)).eval()


def test_a_later_token_never_changes_an_earlier_logit(gpt):
    tokens, prefix = torch.randint(61, (2, 9)), torch.randn(2, 4, 32)
    for i in range(9):
        changed = tokens.clone()
        changed[:, i] = (changed[:, i] + 1) % 61
        for p in (None, prefix):
            moved = (gpt(changed, p) - gpt(tokens, p)).abs().amax(dim=(0, 2))  # (T,)
            assert (moved[:i] == 0).all() and (moved[i:] > 0).all()


def test_cached_logits_equal_uncached_ones_for_every_cut(gpt):
    tokens, prefix = torch.randint(61, (2, 7)), torch.randn(2, 3, 32)
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, 7), n) for n in range(7)):
        for p in (None, prefix):
            cache, logits = gpt.new_cache(10), []
            for start, end in itertools.pairwise((0, *cuts, 7)):
                logits.append(gpt(tokens[:, start:end], p if start == 0 else None, cache))
            torch.testing.assert_close(torch.cat(logits, dim=1), gpt(tokens, p), rtol=1e-5, atol=1e-5)


def test_loss_at_initialisation_is_that_of_a_uniform_guess():
    for config in (GPTConfig(64, 322, n_layer=1, n_head=3, n_embd=96), GPTConfig(64, 50257, n_layer=2)):
        torch.manual_seed(0)
        model, tokens = GPT(config), torch.randint(config.vocab_size, (8, 33))
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(config.vocab_size), rel=0.05)


def test_one_batch_can_be_overfitted(gpt):
    gpt.train()
    tokens = torch.randint(61, (4, 17))
    optimizer = torch.optim.AdamW(gpt.parameters(), 3e-3)
    for _ in range(300):
        loss = F.cross_entropy(gpt(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_names_and_number_of_the_parameters_are_those_of_the_released_gpt2():
    with torch.device("meta"):
        model = GPT(GPTConfig())
    assert sum(p.numel() for p in model.parameters()) == 124_439_808
    block = ["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
             "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
             "mlp.c_proj.weight", "mlp.c_proj.bias"]
    names = [f"h.{i}.{name}" for i in range(12) for name in block]
    assert set(model.state_dict()) == {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", *names}


def test_temperature_zero_is_greedy():
    assert sample_next(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), temperature=0).tolist() == [[1], [0]]


@pytest.mark.parametrize("options, expected", [
    ({}, [0.5, 0.3, 0.15, 0.05]),
    ({"temperature": 0.5}, [0.25, 0.09, 0.0225, 0.0025]),  # p^(1/T), to be normalised
    ({"top_k": 2}, [0.5, 0.3, 0, 0]),
    ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
    ({"top_p": 0.49}, [1, 0, 0, 0]),
    ({"top_p": 0.7}, [0.5, 0.3, 0, 0]),
    ({"top_p": 0.9}, [0.5, 0.3, 0.15, 0]),
    ({"temperature": 0.5, "top_p": 0.9}, [0.25, 0.09, 0, 0]),  # 0.25 + 0.09 of 0.365 are over 0.9: temperature first
    ({"top_k": 3, "top_p": 0.83}, [0.5, 0.3, 0, 0]),  # of the three that top-k leaves, 0.8 / 0.95 reach 0.83
])
def test_tokens_are_drawn_from_the_distribution_that_the_options_say(options, expected):
    order = torch.tensor([2, 0, 3, 1])  # so that the likeliest token is not the first one
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))[order].expand(20000, 4)
    drawn = sample_next(logits, generator=torch.Generator().manual_seed(0), **options)
    share = torch.bincount(drawn.flatten(), minlength=4) / 20000
    expected = torch.tensor(expected, dtype=torch.float)[order]
    torch.testing.assert_close(share, expected / expected.sum(), rtol=0, atol=0.012)
    assert (share[expected == 0] == 0).all()


def test_greedy_generation_equals_the_slow_way(gpt):
    tokens, prefix = torch.randint(61, (3, 2)), torch.randn(3, 5, 32)
    slow = tokens
    for _ in range(12):
        slow = torch.cat([slow, gpt(slow, prefix)[:, -1:].argmax(dim=-1)], dim=1)
    assert torch.equal(gpt.generate(tokens, 12, temperature=0, prefix=prefix), slow)


def test_the_last_token_alone_is_answered_as_among_all(gpt):
    tokens, prefix = torch.randint(61, (3, 4)), torch.randn(3, 5, 32)
    torch.testing.assert_close(gpt(tokens, prefix, last=True), gpt(tokens, prefix)[:, -1:])


def test_generation_repeats_itself_with_a_seed_and_draws_on_nothing_else(gpt):
    tokens, state = torch.randint(61, (2, 3)), torch.get_rng_state()
    runs = [gpt.generate(tokens, 20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_row_that_stopped_stays_stopped_and_all_stopped_ends_it(gpt):
    tokens = torch.tensor([[1], [2]])
    free = gpt.generate(tokens, 25, temperature=0)
    stop = free[0, 3].item()  # what the first row says third
    stopped = gpt.generate(tokens, 25, temperature=0, stop=stop)
    for before, after in zip(free.tolist(), stopped.tolist()):
        end = before.index(stop, 1) if stop in before[1:] else len(after)
        assert after[:end] == before[:end] and set(after[end:]) <= {stop}
    assert gpt.generate(tokens[:1], 25, temperature=0, stop=stop).shape == (1, free[0, 1:].tolist().index(stop) + 2)


def test_too_many_positions_are_an_error_that_says_by_how_many(gpt):
    with pytest.raises(ValueError, match="34 positions, 2 over the block size of 32"):
        gpt(torch.zeros(1, 30, dtype=torch.long), torch.randn(1, 4, 32))
    with pytest.raises(ValueError, match="33 positions, 1 over"):
        gpt.generate(torch.zeros(1, 3, dtype=torch.long), 30)


def test_complete_goes_on_from_a_prompt_to_the_end_of_the_block():
    encoding = train_bpe(["a red bat"], 270)
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(32, encoding.n_vocab, n_layer=1, n_head=2, n_embd=32)).eval()
    text, = gpt.complete(encoding, "a red", max_new_tokens=1000)
    assert text.startswith("a red")
    assert gpt.complete(encoding, "a red", torch.randn(1, 5, 32), max_new_tokens=1)[0].startswith("a red")
    with pytest.raises(BadInput, match=r"is 11 tokens too long"):
        gpt.complete(encoding, "z" * 41)


def test_a_temperature_too_small_to_divide_by_is_greedy():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert [sample_next(logits, temperature).item() for temperature in (0, 1e-45, 1e-9)] == [1, 1, 1]
