"""Both players of the GAN against worlds so small that every sentence can be enumerated."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mingpt_mm.graph.alignment import Examples
from mingpt_mm.graph.gan import WRONG_RELATION_WEIGHT, Generator, discriminator_loss, generator_loss, verbalize

LENGTH = 3
EVERY = torch.tensor([s for s in product(range(3), repeat=LENGTH)  # all 15 sentences of two words and END
                      if not any(word for i, word in enumerate(s) if 0 in s[:i])])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def generator():
    """A generator of 3 words and 2 relations, which prefers some sentences."""
    torch.manual_seed(0)
    generator = Generator(3, 2)
    generator.head.weight.data.mul_(6)
    return generator


def all_log_probs(generator):
    """(2, 15): of every sentence with each relation."""
    relation = torch.arange(2).repeat_interleave(len(EVERY))
    return generator.log_prob(relation, EVERY.repeat(2, 1)).view(2, -1)


@torch.no_grad()
def slow_log_prob(generator, relation, sentence):
    """Word by word, with one cell of a GRU."""
    cell = nn.GRUCell(generator.gru.input_size, generator.gru.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in generator.gru.state_dict().items()})
    state, probability = torch.zeros(1, cell.hidden_size), 1.0
    for last, word in zip([0, *sentence], sentence):
        if last == 0 and state.any():
            break
        state = cell(torch.cat([generator.word.weight[last], generator.relation.weight[relation]])[None], state)
        odds = torch.exp(generator.head.weight @ state[0] + generator.head.bias)
        probability *= (odds[word] / odds.sum()).item()
    return math.log(probability)


def test_log_prob_is_a_product_of_softmaxes_up_to_the_first_end(generator):
    slow = torch.tensor([[slow_log_prob(generator, r, sentence) for sentence in EVERY.tolist()] for r in range(2)])
    torch.testing.assert_close(all_log_probs(generator), slow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(all_log_probs(generator).exp().sum(dim=1), torch.ones(2))  # no other sentence exists


def test_samples_follow_log_prob_and_hold_nothing_after_end(generator):
    n, state = 10_000, torch.get_rng_state()
    samples = generator.sample(torch.arange(2).repeat_interleave(n), LENGTH, rng())
    counts = (samples.view(2, n, 1, LENGTH) == EVERY).all(dim=3).sum(dim=1)  # (2, 15)
    expected = n * all_log_probs(generator).detach().exp()
    assert counts.sum() == 2 * n and expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum(dim=1).max() < 50  # 14 degrees of freedom: 36 once in a thousand
    assert torch.equal(torch.get_rng_state(), state)  # it draws from its own generator alone


def test_generator_loss_has_the_gradient_of_the_expected_reward(generator):
    n, log_probs = 300_000, all_log_probs(generator)
    rewards = torch.randn(2, len(EVERY), generator=rng()) * torch.tensor([[1.0], [5.0]]) + 20
    drawn = torch.multinomial(log_probs.exp().detach(), n, replacement=True, generator=rng())  # (2, n)
    loss = generator_loss(log_probs.gather(1, drawn), rewards.gather(1, drawn))

    means = (log_probs.exp() * rewards).sum(dim=1)
    deviations = ((log_probs.exp() * rewards ** 2).sum(dim=1) - means ** 2).sqrt().detach()
    exact, weights = -(means / deviations).mean(), list(generator.parameters())
    ours, theirs = (nn.utils.parameters_to_vector(torch.autograd.grad(value, weights, retain_graph=True))
                    for value in (loss, exact))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_discriminator_loss_is_least_at_the_scores_that_its_docstring_names():
    counts = [8, 4, 3, 1], [1, 5, 5, 5], [1, 7, 7, 1]  # of four sentences: real, fake, wrong, of 16
    real, fake, wrong = (torch.tensor(n, dtype=torch.double) / 16 for n in counts)
    best = (real.log() - (fake + WRONG_RELATION_WEIGHT * wrong).log()).requires_grad_()

    def loss(scores):
        return discriminator_loss(*(scores.repeat_interleave(torch.tensor(n)) for n in counts))
    gradient, = torch.autograd.grad(loss(best), best)
    assert gradient.abs().max() < 1e-12  # the loss is convex, so this is its minimum
    assert best[3] < -math.log(WRONG_RELATION_WEIGHT) < best[0]  # as common with wrong relations


def test_verbalize_fills_both_slots_and_leaves_out_sentences_without_them():
    table = Examples({"eats": [["[H]", " eats ", "[T]"]], "sees": [["a ", "[T]", " sees ", "[H]"], ["[H]", " sees"]]})
    written = torch.tensor([[table.words.index(word) for word in row] for row in (
        ["[H]", " eats ", "[T]", "", ""], ["[H]", " sees", "", "", ""], ["a ", "[T]", " sees ", "[H]", ""],
        ["[T]", " sees ", "[T]", "", ""])])

    def verbalized(rows, n):
        def sample(relation, length, rng):
            assert (relation == table.relations.index("sees")).all() and length == table.length
            return rows[torch.arange(len(relation)) % len(rows)]
        triples = [("Ada", "sees", "[H] & Co."), ("Bob", "is near", r"\1 Oslo")]  # the second has no example
        return verbalize(SimpleNamespace(sample=sample), table, triples, n, rng())
    assert verbalized(written, 2) == ["Ada eats [H] & Co.", "a [H] & Co. sees Ada", *[r"Bob is near \1 Oslo."] * 2]
    assert verbalized(written[1::2], 1) == [r"Bob is near \1 Oslo."] and verbalized(written, 0) == []
