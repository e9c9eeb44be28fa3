"""The GAN: alignment with a graph, exact substitution, and both players against enumerated toy worlds."""

import copy
import math
import random
import statistics
from itertools import product

import pytest
import torch
from torch import nn

from mingpt_mm import gan as module
from mingpt_mm.alignment import (HEAD, LONGEST, OTHER, TAIL, Examples, align, confusions, fill, read_sentences,
                                 with_slots)
from mingpt_mm.gan import (END, GAN, LEASH, UNITS, Generator, corrupt, discriminator_loss, generator_loss,
                           learn)

NAMES = ["York", "New York", "New York City", "Ann", "Anna", "C++", "A.B. (x)*", "[H]", "[T]", "[N]", "$1|2",
         r"\1\g<name>", "St. Kitts", "0.5", "Zoë", "Łódź", "Москва", "東京", "O'Neil"]


def chance(seed=0):
    """What `rng` is in the code."""
    return torch.Generator().manual_seed(seed)


def read(text, *names):
    """[(text of a sentence, names found in it)]"""
    sentences = read_sentences([text], [(name, "is", name) for name in names])
    return [("".join(unit for unit, _ in s), [name for _, name in s if name]) for s in sentences]


def units(text):
    """A sentence of words parted by spaces as units: "a b" -> ("a", " b")."""
    first, *others = text.split()
    return (first, *(" " + word for word in others))


@pytest.mark.parametrize("text, names", [
    ("York is not New York, nor New York City.", ["York", "New York", "New York City"]),
    ("Newer York and new York City.", ["York", "York"]),
    ("Annabel, Joann, Ann1, Ann_x and ann saw Yorkshire.", []),
    ("Ann's friend (Anna) is “Ann”—Ann!", ["Ann", "Anna", "Ann", "Ann"]),
    ("C++, aC++, C++a, C++? A.B. (x)* xA.B. (x)*.", ["C++", "C++", "A.B. (x)*"]),
    ("[H] [T]a $1|2, $1|22 [N][H] b[N]", ["[H]", "$1|2", "[N]", "[H]"]),
    ("Zoë, Zoëlle und Łódź, ZŁódź; Москва, 東京: Москвас 東京都.", ["Zoë", "Łódź", "Москва", "東京"]),
])
def test_names_are_found_as_whole_words_the_longest_first(text, names):
    assert [name for _, found in read(text, *NAMES) for name in found] == names


def test_of_names_that_overlap_the_one_that_begins_first_is_taken():
    assert read("Anna Maria Lopez.", "Anna Maria", "Maria Lopez") == [("Anna Maria Lopez.", ["Anna Maria"])]
    assert read("San Anna Maria.", "Anna", "San Anna", "Anna Maria") == [("San Anna Maria.", ["San Anna"])]


def test_a_name_inside_a_word_that_goes_on_with_a_combining_mark_is_not_found():
    assert read("रामायण राम", "राम") == [("रामायण राम", ["राम"])]


def test_sentences_end_at_a_full_stop_that_a_space_follows():
    text = " It is 0.5\n m.  Really?! Yes... no.\tAnn saw\nSt. Kitts. St. Kitts, Mr.Bob! x"
    expected = ["It is 0.5 m.", "Really?!", "Yes...", "no.", "Ann saw St. Kitts.", "St. Kitts, Mr.Bob!", "x"]
    assert [sentence for sentence, _ in read(text, "St. Kitts", "Ann")] == expected
    assert read("He left Acme Inc. in May.", "Acme Inc.") == [("He left Acme Inc. in May.", ["Acme Inc."])]


def test_no_sentence_goes_on_in_the_next_document():
    sentences = read_sentences(["Ann and", "", " \n", "Bob. Ann", ".5"], [("Ann", "knows", "Bob")])
    assert [fill(with_slots(s, "Ann", "Bob"), "A", "B") for s in sentences] == ["A and", "B.", "A", ".5"]
    assert align(["Ann knows", "Bob."], [("Ann", "knows", "Bob")]) == {}


def test_a_sentence_of_a_symmetric_relation_is_an_example_in_both_orientations():
    triples = [("Spain", "borders", "France"), ("France", "borders", "Spain"), ("Spain", "sees", "France")]
    one, other = f"{HEAD} meets {TAIL}.", f"{TAIL} meets {HEAD}."
    examples = {relation: sorted(map("".join, sentences))
                for relation, sentences in align(["Spain meets France.\nSo be it."], triples).items()}
    assert examples == {"borders": sorted([one, other]), "sees": [one]}


def test_the_order_of_the_examples_does_not_hang_on_the_hashes_of_the_names():
    orders = set()
    for i in range(20):
        a, b = f"A{i}", f"B{i}"
        orders.add(tuple(align([f"{a} meets {b}."], [(a, "r", b), (b, "r", a)])["r"]))
    assert len(orders) == 1


def test_a_sentence_that_names_a_pair_with_two_relations_is_an_example_of_both():
    triples = [("Ann", "sees", "York"), ("Ann", "hates", "York"), ("York", "bores", "Ann"),
               ("Ann", "sees", "Bob")]
    examples = align(["Ann left York, poor York.", "Bob (0.5) and Ann."], triples)
    assert list(examples) == ["bores", "hates", "sees"]
    left = ("[H]", " left", " [T]", ",", " poor", " [T]", ".")
    assert examples["hates"] == [left]
    assert examples["sees"] == [left, ("[T]", " (", "0", ".", "5", ")", " and", " [H]", ".")]
    assert examples["bores"] == [("[T]", " left", " [H]", ",", " poor", " [H]", ".")]


def test_sentences_with_one_name_or_a_third_or_an_unrelated_pair_or_too_long_are_no_examples():
    triples = [("Ann", "sees", "York"), ("Bob", "sees", "New York")]
    long = "Ann" + " x" * (LONGEST - 3) + " York."
    texts = ["Ann sleeps.", "Ann saw Ann.", "Ann and Bob saw York.", "Ann saw Bob.", "Ann saw New York.",
             "He saw.", "Ann ran. York ran.", long.replace("Ann", "Ann x")]
    assert align(texts, triples) == {}
    assert [len(sentence) for sentence in align([*texts, long], triples)["sees"]] == [LONGEST]


def test_a_name_that_is_no_end_of_the_triple_gets_the_third_slot():
    (sentence,) = read_sentences(["Bob and Ann."], [("Ann", "sees", "York"), ("Bob", "sees", "York")])
    assert with_slots(sentence, "Ann", "York") == (OTHER, " and", f" {HEAD}", ".")


def test_names_put_into_the_slots_give_the_sentence_back():
    rng, graph = random.Random(0), [(name, "is", name) for name in NAMES]
    words = ["the", "Übung", "(see)", "0.25", "a-b", "\\2", "\\", "[H", "T]", "it's", "[]", "N", "…", "мир"]
    for _ in range(500):
        head, tail = rng.sample(NAMES, 2)
        pieces = [HEAD, TAIL, *rng.choices([HEAD, TAIL, *words], k=rng.randint(0, 9))]
        rng.shuffle(pieces)
        joints = rng.choices([" ", ", ", " (", "; ", " “"], k=len(pieces) - 1) + [rng.choice(".!?")]
        pieces = [part for pair in zip(pieces, joints) for part in pair]
        text = "".join({HEAD: head, TAIL: tail}.get(piece, piece) for piece in pieces)
        (sentence,) = read_sentences([text], graph)
        slotted = with_slots(sentence, head, tail)
        assert "".join(slotted) == "".join(pieces) and fill(slotted, head, tail) == text


def test_what_looks_like_a_slot_and_is_none_stays():
    (sentence,) = read_sentences(["[T] wrote [H] to Ann [N], Bob."], [("Ann", "knows", "Bob")])
    assert fill(with_slots(sentence, "Ann", "Bob"), "[T]", "[H]") == "[T] wrote [H] to [T] [N], [H]."


LENGTH = 3
EVERY = torch.tensor([s for s in product(range(3), repeat=LENGTH)  # all 15 sentences of two units and END
                      if all(unit == END for i, unit in enumerate(s) if END in s[:i])])


def toy_generator(seed=0):
    """A generator for 3 units and 2 relations, with opinions."""
    torch.manual_seed(seed)
    generator = Generator(3, 2)
    with torch.no_grad():
        generator.next.weight.mul_(6)
    return generator


def all_log_probs(generator):
    """(2, 15): of every sentence beside each relation."""
    relations = torch.arange(2).repeat_interleave(len(EVERY))
    return generator.log_likelihood(relations, EVERY.repeat(2, 1)).view(2, -1)


@torch.no_grad()
def slow_log_likelihood(generator, relation, sentence):
    """Unit by unit, with one cell of a GRU."""
    cell = nn.GRUCell(generator.gru.input_size, generator.gru.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in generator.gru.state_dict().items()})
    state, last, total = torch.zeros(1, cell.hidden_size), END, 0.0
    for unit in sentence:
        x = torch.cat([generator.unit.weight[last], generator.relation.weight[relation]])
        state = cell(x[None], state)
        odds = torch.exp(generator.next.weight @ state[0] + generator.next.bias)
        total += math.log(odds[unit] / odds.sum())
        if unit == END:
            break
        last = unit
    return total


def test_log_likelihood_is_that_of_one_unit_after_the_other():
    generator = toy_generator()
    slowly = [[slow_log_likelihood(generator, r, sentence) for sentence in EVERY.tolist()] for r in range(2)]
    assert max(slowly[0]) - min(slowly[0]) > 2 and abs(slowly[0][3] - slowly[1][3]) > 1  # opinions, and two
    torch.testing.assert_close(all_log_probs(generator), torch.tensor(slowly), rtol=1e-4, atol=1e-4)


def test_the_likelihoods_of_all_sentences_sum_to_1():
    assert len(EVERY) == 1 + 2 + 4 + 8  # of no unit, one and two, and those that fill the row without END
    total = all_log_probs(toy_generator()).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(2), rtol=1e-5, atol=1e-5)


def test_samples_follow_the_likelihoods():
    generator, n = toy_generator(), 10_000
    samples = generator.sample(torch.arange(2).repeat_interleave(n), LENGTH, chance())
    counts = (samples.view(2, n, 1, LENGTH) == EVERY).all(dim=3).sum(dim=1)  # (2, 15)
    expected = n * all_log_probs(generator).exp()
    assert counts.sum() == 2 * n and expected.min() > 5
    chi_square = ((counts - expected) ** 2 / expected).sum(dim=1)
    assert chi_square.max() < 36.1  # 14 degrees of freedom: one in a thousand is above


@pytest.mark.parametrize("leash", [0.0, 0.7])
def test_generator_loss_has_the_gradient_of_the_expected_reward(leash):
    generator, n = toy_generator(), 1_000_000
    log_probs, start = all_log_probs(generator), all_log_probs(toy_generator(seed=1)).detach()
    scores = torch.randn(2, len(EVERY), generator=chance()) * torch.tensor([[1.0], [5.0]])
    rewards = scores - leash * (log_probs - start).detach()
    drawn = torch.multinomial(log_probs.exp().detach(), n, replacement=True, generator=chance())  # (2, n)
    loss = generator_loss(log_probs.gather(1, drawn), rewards.gather(1, drawn))

    p = log_probs.exp()
    objective = (p * scores).sum(dim=1) - leash * (p * (log_probs - start)).sum(dim=1)  # less leash * KL
    deviations = ((p * rewards ** 2).sum(dim=1) - (p * rewards).sum(dim=1) ** 2).sqrt().detach()
    exact = -(objective / deviations).mean()
    weights = list(generator.parameters())
    ours, theirs = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (
        torch.autograd.grad(loss, weights, retain_graph=True), torch.autograd.grad(exact, weights)))
    assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_a_group_is_judged_by_its_own_mean_and_deviation():
    log_probs, rewards = torch.zeros(2, 4, requires_grad=True), torch.tensor([[1.0, 2, 3, 10], [7, 7, 7, 7]])
    generator_loss(log_probs, rewards).backward()
    deviation = statistics.stdev([1, 2, 3, 10])
    expected = torch.tensor([[-(r - 4) / deviation / 8 for r in (1, 2, 3, 10)], [0.0] * 4])
    torch.testing.assert_close(log_probs.grad, expected)


# The world of two sentences: two relations have both, in different shares.
PAIR = [units("[H] met [T]"), units("[T] met [H]")]
TWO = {"found": [PAIR[0]] * 3 + [PAIR[1]], "lost": [PAIR[0]] + [PAIR[1]] * 3}
P_REAL = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
OTHER_ONE = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # the confusions of two relations


def new_gan(examples, seed=0):
    torch.manual_seed(seed)
    return GAN.from_examples(examples, seed)


def run(steps):
    """Go through the `steps` and return what the last one measured."""
    *_, last = steps
    return last


def likelihoods(gan, table):
    """(R, n): the probability of each of the sentences in `table` beside each relation."""
    R, n = len(gan.relations), len(table)
    relations, rows = torch.arange(R).repeat_interleave(n), gan.encode(table).repeat(R, 1)
    with torch.no_grad():
        return gan.generator.log_likelihood(relations, rows).exp().view(R, n)


@pytest.fixture(scope="module")
def warm():
    """A GAN after the warm-up on the two sentences, and its last measures; whoever trains it takes a copy."""
    gan = new_gan(TWO)
    return gan, run(learn(gan, Examples(gan, TWO), OTHER_ONE, 150, 0))


def test_the_likelihood_loss_falls_to_the_entropy_of_the_data(warm):
    gan, measures = warm
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = -(P_REAL * likelihoods(gan, PAIR).log()).sum(dim=1)
    assert entropy <= loss.min() and loss.max() < entropy + 0.06
    assert measures["likelihood_loss"] == pytest.approx(entropy, abs=0.2)  # of 64 sentences


def test_the_discriminator_loss_is_least_where_the_papers_say():
    rows = {"real": [8, 4, 4, 0], "fake": [4, 4, 4, 4], "mismatched": [1, 7, 4, 4], "corrupted": [4, 2, 2, 8]}
    p = {kind: torch.tensor(n, dtype=torch.double) / 16 for kind, n in rows.items()}
    rows = {kind: torch.repeat_interleave(torch.arange(4), torch.tensor(n)) for kind, n in rows.items()}
    scores = torch.zeros(4, dtype=torch.double, requires_grad=True)  # of four sentences
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = discriminator_loss(**{kind: scores[places] for kind, places in rows.items()})
        loss.backward()
        return loss

    optimizer.step(closure)
    others = p["fake"] + module.MISMATCHED * p["mismatched"] + module.CORRUPTED * p["corrupted"]
    best = p["real"].log() - others.log()
    torch.testing.assert_close(scores.detach()[:3], best[:3], rtol=1e-5, atol=1e-5)
    assert scores[3] < -8  # which nobody writes: as low as the optimizer went
    d = p["real"] / (p["real"] + others)  # as a probability, and the least loss with it
    least = -(p["real"] * d.log())[:3].sum() - (others * (1 - d).log()).sum()
    assert closure().item() == pytest.approx(least.item(), abs=1e-4)


def test_in_the_first_tenth_the_discriminator_learns_its_optimum_alone(warm, monkeypatch):
    monkeypatch.setattr(module, "MISMATCHED", 2.0)
    monkeypatch.setattr(module, "CORRUPTED", 6.0)  # so that every term is seen beside the others
    gan, scores = copy.deepcopy(warm[0]), []
    before = copy.deepcopy(gan.generator.state_dict())
    data = {"found": PAIR, "lost": [PAIR[0]] * 7 + [PAIR[1]]}  # not what the generator has learnt
    game = learn(gan, Examples(gan, data), OTHER_ONE, 150, 2000)
    for _ in range(200):
        assert "generator_loss" not in next(game)
        with torch.no_grad():
            scores.append(gan.discriminator(torch.tensor([0, 0, 1, 1]), gan.encode(PAIR + PAIR)).view(2, 2))
    assert all(torch.equal(now, before[name]) for name, now in gan.generator.state_dict().items())
    real = torch.tensor([[4.0, 4.0], [7.0, 1.0]]) / 8
    mismatched, swapped = real.flip(0), real.flip(1) / 3  # a corrupted triple is a swapped one in three
    best = real.log() - (likelihoods(gan, PAIR) + 2 * mismatched + 6 * swapped).log()
    learnt = torch.stack(scores[100:]).mean(dim=0)  # the mean, as small batches shake it
    torch.testing.assert_close(learnt, best, rtol=0, atol=0.15)
    assert "generator_loss" in next(game)


class Critic(nn.Module):
    """A discriminator that has made up its mind: what begins with the head is better, by `better`."""

    def __init__(self, better):
        super().__init__()
        self.better, self.nothing = better, nn.Parameter(torch.zeros(()))

    def forward(self, relations, sentences):
        score = self.better * ((sentences[:, 0] == UNITS.index(HEAD)).float() - 0.5)  # (B,)
        return score - math.log(module.MISMATCHED) + 0 * self.nothing


def test_the_leash_holds_the_generator_where_reward_and_divergence_balance(warm):
    """The maximum of E[reward] - LEASH * KL(p || p0) is at p = p0 * exp(reward / LEASH), normalised."""
    gan = copy.deepcopy(warm[0])
    start, ps, believed = likelihoods(gan, PAIR), [], []
    gan.discriminator = Critic(better=LEASH * math.log(3))
    gan.optimizers["discriminator"] = torch.optim.Adam(gan.discriminator.parameters())
    for measures in learn(gan, Examples(gan, TWO), OTHER_ONE, 150, 150):
        ps.append(likelihoods(gan, PAIR))
        believed.append([measures["believes_real"], measures["believes_fake"]])
    p = torch.stack(ps[75:])  # (75, 2, 2), of which the mean as small groups shake it
    assert p.sum(dim=2).min() > 0.98  # it writes nothing else
    odds = (p[:, :, 0] / p[:, :, 1]).log().mean(dim=0) - (start[:, 0] / start[:, 1]).log()
    torch.testing.assert_close(odds, torch.full((2,), math.log(3)), rtol=0, atol=0.2)
    shares = torch.tensor([P_REAL[:, 0].mean(), p[:, :, 0].mean()])  # of sentences that begin with the head
    torch.testing.assert_close(torch.tensor(believed[75:]).mean(dim=0), shares, rtol=0, atol=0.04)



RIGHT = {"eats": ["[H] eats [T]", "[T] fed [H]"], "fears": ["[H] fears [T]", "[T] scares [H]"],
         "owns": ["[H] owns [T]", "[T] belongs to [H]"]}
NOISE = ["[H] and [T] met", "[T] is near [H]"]
NOISY = {relation: list(map(units, 2 * right + NOISE)) for relation, right in RIGHT.items()}  # a third noise


def faithfulness(seed):
    """The share of right sentences in all that the generator writes, after warm-up and after the game."""
    gan, shares = new_gan(NOISY, seed), []
    for game in (0, 200):
        run(learn(gan, Examples(gan, NOISY), 1 - torch.eye(3), 120, game))
        p = [likelihoods(gan, list(map(units, right)))[i].sum() for i, right in enumerate(RIGHT.values())]
        shares.append(sum(p).item() / 3)
    return shares


def test_mismatched_sentences_are_what_teaches_the_generator_to_leave_out_the_noise(monkeypatch):
    warm, played = faithfulness(seed=0)
    monkeypatch.setattr(module, "MISMATCHED", 0.0)
    _, without = faithfulness(seed=0)
    assert warm == pytest.approx(2 / 3, abs=0.1)
    assert played > 0.95 and without < 0.85


def test_same_seed_same_sentences():
    def written(seed, noise=0):
        gan = new_gan(TWO, seed)
        torch.manual_seed(noise)  # after the initial weights nothing hangs on it
        run(learn(gan, Examples(gan, TWO), OTHER_ONE, 20, 20))
        return gan.write("lost", 20, gan.rng)
    first = written(1)
    assert len(first) > 3 and first == written(1, noise=5) != written(2)


def test_sampling_and_writing_take_no_chance_but_their_own(warm):
    gan, relations = warm[0], torch.zeros(20, dtype=torch.long)

    def draw(noise, seed):
        torch.manual_seed(noise)
        sampled = gan.generator.sample(relations, gan.length, chance(seed))
        return sampled.tolist(), gan.write("found", 9, chance(seed), keep=0.5)
    for ours, same, other in zip(draw(0, 1), draw(1, 1), draw(0, 2)):
        assert ours == same != other
    state = torch.get_rng_state()
    gan.write("found", 9, chance())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_corrupted_triple_swaps_or_replaces_slots_and_nothing_else():
    rng = random.Random(0)
    gan = GAN(UNITS + list("abcde"), ["r"], 8)
    texts = [tuple(rng.choices(gan.units[1:], k=rng.randint(1, 8))) for _ in range(300)]
    ways = [{HEAD: TAIL, TAIL: HEAD}, {HEAD: OTHER}, {TAIL: OTHER}]
    chosen = {0: 0, 1: 0, 2: 0}
    for text, row in zip(texts, corrupt(gan.encode(texts), chance())):
        readings = [[unit[:-3] + way.get(unit[-3:], unit[-3:]) for unit in text] for way in ways]
        result = [gan.units[i] for i in row[:len(text)]]
        assert result in readings and (row[len(text):] == END).all()
        if readings[0] not in readings[1:] and readings[1] != readings[2]:
            chosen[readings.index(result)] += 1
    assert min(chosen.values()) > 50  # of about 250


def test_relations_are_confused_by_the_tails_that_they_share():
    triples = [("a", "r", "x"), ("b", "r", "y"), ("c", "r", "y"), ("a", "s", "y"), ("a", "s", "z"),
               ("b", "s", "w"), ("a", "t", "v"), ("x", "unknown", "y")]
    some, none = 1 / 4 + 0.02, 0.02  # r and s share y of {w, x, y, z}, and t nothing
    expected = torch.tensor([[0, none, some], [none, 0, none], [some, none, 0]])
    torch.testing.assert_close(confusions(triples, ["r", "t", "s"]), expected)


def test_examples_are_drawn_evenly_from_those_of_the_relation():
    examples = {"a": [("x",), ("y",)], "b": [("z",)], "c": [("x",), ("z",), ("z",), ("w",)]}
    gan = new_gan(examples)
    assert gan.units[len(UNITS):] == ["w", "x", "y", "z"] and gan.length == 2
    drawn = Examples(gan, examples).draw(torch.arange(3).repeat_interleave(4000), chance())
    assert (drawn[:, 1] == END).all()
    shares = nn.functional.one_hot(drawn[:, 0].view(3, -1) - len(UNITS), 4).double().mean(dim=1)
    expected = torch.tensor([[0, 0.5, 0.5, 0], [0, 0, 0, 1], [0.25, 0.25, 0, 0.5]], dtype=torch.double)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)


def test_a_unit_that_is_not_in_the_table_is_encoded_as_another_name():
    gan = GAN(UNITS + ["a"], ["r"], 4)
    assert gan.encode([("[H]", "b", " [T]"), ("a",)]).tolist() == [[1, 3, 5, 0], [7, 0, 0, 0]]


def with_samples(gan, monkeypatch, texts):
    """Let the generator of `gan` write the 14 `texts` of the second relation; their scores, by text."""
    rows, relations = gan.encode(list(map(units, texts))), torch.ones(14, dtype=torch.long)

    def sample(asked, length, rng):
        assert torch.equal(asked, relations) and length == gan.length
        return rows
    monkeypatch.setattr(gan.generator, "sample", sample)
    with torch.no_grad():
        return dict(zip(texts, gan.discriminator(relations, rows).tolist()))


def test_writing_keeps_the_best_of_the_sentences_with_both_slots(monkeypatch):
    gan = new_gan({"r": [units("a b c d a")], "s": [units("a a")]})
    whole = ["[H] a [T]", "[T] a [H]", "a [T] [H] b", "[H] [T]", "[H] a [T] c", "a [H] [T] [H]", "[T] [H] d",
             "a a [H] [T] c", "[T] [H]", "a [H] c [T]"]
    scores = with_samples(gan, monkeypatch, whole + ["[H] a [H]", "a b [T]", "[N] a [T]", "a"])
    best = sorted(whole, key=scores.get, reverse=True)

    def write(keep, seed=0):
        written = gan.write("s", 7, chance(seed), keep)
        assert all(score == scores["".join(sentence)] for sentence, score in written)
        return sorted("".join(sentence) for sentence, _ in written)
    assert write(keep=0.5) == sorted(best[:5]) and write(keep=0.01) == best[:1]
    assert len(write(keep=1.0)) == 7 and {s for seed in range(30) for s in write(1.0, seed)} == set(whole)
    assert {s for seed in range(30) for s in write(0.8, seed)} == set(best[:8])


def test_a_generator_that_never_writes_both_slots_writes_nothing(monkeypatch):
    gan = new_gan({"r": [units("a a a a")], "s": [units("a a")]})
    with_samples(gan, monkeypatch, ["[H] a", "[T]"] * 7)
    assert gan.write("s", 7, chance()) == []


def test_the_generator_writes_what_it_has_learnt(warm):
    written = warm[0].write("found", 50, chance())
    assert len(written) == 50 and sum(tuple(sentence) in PAIR for sentence, _ in written) > 45
