"""A tiny GAN that learns from a text how facts are put into words, and writes sentences for a whole graph.

Generative Adversarial Nets (Goodfellow et al., 2014), conditioned on the relation of a triple (head,
relation, tail). The examples come by distant supervision (Mintz et al., 2009): a sentence that names the head
and the tail of a triple is taken to state it, and many do not. Maximum likelihood must reproduce those too.
The game need not: its discriminator also sees real sentences beside a relation that is not theirs (Generative
Adversarial Text to Image Synthesis, Reed et al., 2016, section 4.2), so that a sentence which would suit any
relation passes for none.

The GAN works on units, which are words and punctuation marks, and on slots where the names stood: "[H] lives
in the [T]." So it never spells a name, and its wording depends on the relation and on chance alone.

Letters: B sentences, L units a sentence, U units in the table, R relations, G relations of a batch, E
sentences with both ends, K of them that are kept.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from mingpt_mm.alignment import HEAD, OTHER, TAIL

UNITS = ["", HEAD, TAIL, OTHER, f" {HEAD}", f" {TAIL}", f" {OTHER}"]  # the first of every table
END = 0  # the unit that ends a sentence and fills its row
HEADS, TAILS = torch.tensor([1, 4]), torch.tensor([2, 5])  # the units that stand for the head, and the tail
MISMATCHED, CORRUPTED, LEASH = 10.0, 0.3, 0.05  # weights in the losses, explained where they are used
GROUPS, GROUP = 9, 16  # relations in a batch of the game, at most, and sentences of each


def corrupt(sentences, rng):
    """`sentences` (B, L) as they read beside a corrupted triple: ends swapped, another head, another tail."""
    ways = torch.tensor([[0, 2, 1, 3, 5, 4, 6],  # what becomes of UNITS: the two ends change places,
                         [0, 3, 2, 3, 6, 5, 6],  # the head becomes another name,
                         [0, 1, 3, 3, 4, 6, 6]])  # or the tail does; (3, 7)
    way = ways[torch.randint(3, (len(sentences),), generator=rng)]  # (B, 7)
    return torch.where(sentences < 7, way.gather(1, sentences.clamp(max=6)), sentences)  # (B, L)


class Generator(nn.Module):
    """A GRU that writes a sentence unit by unit and is told the relation at each."""

    def __init__(self, n_units, n_relations):
        super().__init__()
        self.unit, self.relation = nn.Embedding(n_units, 64), nn.Embedding(n_relations, 32)
        self.gru = nn.GRU(64 + 32, 128, batch_first=True)
        self.next = nn.Linear(128, n_units)

    def forward(self, relations, sentences, state=None):
        """relations (B,), sentences (B, L) -> logits (B, L, U) of the unit after each, and the GRU's state"""
        relation = self.relation(relations)[:, None].expand(-1, sentences.size(1), -1)  # (B, L, 32)
        x = torch.cat([self.unit(sentences), relation], dim=2)  # (B, L, 96)
        x, state = self.gru(x, state)  # (B, L, 128), (1, B, 128)
        return self.next(x), state

    @torch.no_grad()
    def sample(self, relations, length, rng):
        """Sentences (B, L) for `relations` (B,), L = `length`; `rng` (torch.Generator) is the only chance."""
        new, state, sentences = torch.full_like(relations, END)[:, None], None, []  # (B, 1)
        for _ in range(length):
            logits, state = self(relations, new, state)  # (B, 1, U), (1, B, 128)
            new = torch.multinomial(logits[:, 0].softmax(dim=1), 1, generator=rng)  # (B, 1)
            sentences.append(new)
        sentences = torch.cat(sentences, dim=1)  # (B, L)
        return sentences.masked_fill((sentences == END).cumsum(dim=1) > 0, END)  # (B, L)

    def log_likelihood(self, relations, sentences):
        """log p(sentence | relation), (B,), of `sentences` (B, L), each up to its first END."""
        logits, _ = self(relations, F.pad(sentences, (1, -1), value=END))  # (B, L, U)
        log_probs = -F.cross_entropy(logits.transpose(1, 2), sentences, reduction="none")  # (B, L)
        past = (sentences == END).cumsum(dim=1) > 1  # (B, L)
        return log_probs.masked_fill(past, 0).sum(dim=1)  # (B,)


class Discriminator(nn.Module):
    """Did a person write this sentence, and of this relation between its head and its tail?

    It sees a sentence as units, with slots where the names stood, and the relation: never a name, so it
    cannot know whether a fact is true.
    """

    def __init__(self, n_units, n_relations, length):
        super().__init__()
        self.unit, self.relation = nn.Embedding(n_units, 32), nn.Embedding(n_relations, 32)
        self.mlp = nn.Sequential(nn.Linear(32 * length + 32, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256),
                                 nn.LeakyReLU(0.2), nn.Linear(256, 1))

    def forward(self, relations, sentences):
        """relations (B,), sentences (B, L) -> scores (B,), the higher the surer; see `discriminator_loss`"""
        x = torch.cat([self.unit(sentences).flatten(1), self.relation(relations)], dim=1)  # (B, 32 * L + 32)
        return self.mlp(x).squeeze(1)  # (B,)


def discriminator_loss(real, fake, mismatched, corrupted):
    """The discriminator's loss, from its scores (B,) of four kinds of sentences beside a relation.

    Binary cross entropy: softplus(-score) for `real` ones and softplus(score) for all others, which are what
    the generator wrote (`fake`) and real sentences beside another relation than theirs (`mismatched`) or
    beside a corrupted triple (`corrupted`). With the weight w on the mismatched ones, r' for the other
    relations, and the corrupted left aside, the best score of a sentence x is
    log p_real(x | r) - log(p_G(x | r) + w p_real(x | r')) (Goodfellow et al., 2014, proposition 1). So one
    that is as common beside any relation, as noise is, scores -log w at most, however rarely the generator
    writes it.
    """
    return (F.softplus(-real).mean() + F.softplus(fake).mean()
            + MISMATCHED * F.softplus(mismatched).mean() + CORRUPTED * F.softplus(corrupted).mean())


def generator_loss(log_probs, rewards):
    """REINFORCE (Williams, 1992): a loss whose gradient raises the mean of `rewards`, both (G, GROUP).

    A sentence is a chain of choices, and no gradient of the discriminator passes through a choice. But the
    gradient of an expected reward is the expectation of reward * (gradient of log p): each sentence becomes
    more or less likely by how much better it did than the mean of its group, in deviations.
    """
    better = rewards - rewards.mean(dim=1, keepdim=True)  # (G, GROUP)
    return -(better / (rewards.std(dim=1, keepdim=True) + 1e-6) * log_probs).mean()


class GAN(nn.Module):
    """Generator and discriminator, with the table of `units`, the `relations` and the `length` they know."""

    def __init__(self, units, relations, length, seed=0):
        super().__init__()
        self.units, self.relations, self.length = units, relations, length
        self.generator = Generator(len(units), len(relations))
        self.discriminator = Discriminator(len(units), len(relations), length)
        self.start = copy.deepcopy(self.generator)  # the generator after the warm-up
        self.learned, self.rng = 0, torch.Generator().manual_seed(seed)  # steps, and the chance in them
        little = 0.5, 0.99  # momentum in the game: the aim moves
        self.optimizers = {"likelihood": Adam(self.generator.parameters(), 2e-3),
                           "generator": Adam(self.generator.parameters(), 1.2e-3, little),
                           "discriminator": Adam(self.discriminator.parameters(), 1e-3, little)}

    @classmethod
    def from_examples(cls, examples, seed=0):
        """A new GAN for the `examples` of `align`; `seed` is that of its learning."""
        sentences = [sentence for relation in examples.values() for sentence in relation]
        words = sorted({unit for sentence in sentences for unit in sentence} - set(UNITS))
        return cls(UNITS + words, list(examples), 1 + max(map(len, sentences)), seed)

    @classmethod
    def from_checkpoint(cls, checkpoint):
        """The GAN of a run's checkpoint (a dict, see train.py), where it stood in its learning."""
        units, relations, length, networks, optimizers, rng, learned = checkpoint["gan"]
        gan = cls(units, relations, length)
        gan.load_state_dict(networks)
        for name, state in optimizers.items():
            gan.optimizers[name].load_state_dict(state)
        gan.rng.set_state(rng)
        gan.learned = learned
        return gan

    def packed(self):
        """What a checkpoint keeps of it."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return [self.units, self.relations, self.length, self.state_dict(), optimizers, self.rng.get_state(),
                self.learned]

    def encode(self, sentences):
        """Sentences with slots -> (B, L), cut there; a unit that is not in the table becomes OTHER."""
        ids = {unit: i for i, unit in enumerate(self.units)}
        rows = torch.full((len(sentences), self.length), END)  # (B, L)
        for row, sentence in zip(rows, sentences):
            known = [ids.get(unit, ids[OTHER]) for unit in sentence[:self.length]]
            row[:len(known)] = torch.tensor(known)
        return rows

    @torch.no_grad()
    def write(self, relation, n, rng, keep=1.0):
        """`n` sentences for `relation`: [(units, the discriminator's score)], each with both slots.

        They are drawn from twice as many, of which the share `keep` with the best scores may be chosen.
        Fewer than `n`, or none, if the generator seldom writes both slots.
        """
        relations = torch.full((2 * n,), self.relations.index(relation))  # (2 * n,)
        sentences = self.generator.sample(relations, self.length, rng)  # (2 * n, L)
        scores = self.discriminator(relations, sentences)  # (2 * n,)
        whole = torch.isin(sentences, HEADS).any(dim=1) & torch.isin(sentences, TAILS).any(dim=1)  # (2 * n,)
        whole = whole.nonzero().squeeze(1)  # (E,), the places of those with both ends
        best = whole[scores[whole].argsort(descending=True)][:math.ceil(keep * len(whole))]  # (K,)
        chosen = best[torch.randperm(len(best), generator=rng)[:n]].tolist()
        return [([self.units[i] for i in sentences[row] if i != END], scores[row].item()) for row in chosen]


def update(optimizer, loss):
    """One step down the gradient of `loss`."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def imitate(gan, examples):
    """A step of the warm-up, in which the generator learns by maximum likelihood; what to log of it."""
    relations = torch.randint(len(gan.relations), (64,), generator=gan.rng)  # (B,)
    loss = -gan.generator.log_likelihood(relations, examples.draw(relations, gan.rng)).mean()
    update(gan.optimizers["likelihood"], loss)
    return {"likelihood_loss": loss.item()}


def play(gan, examples, confused, alone):
    """A step of the adversarial game; what to log of it. With `alone` the generator does not learn yet.

    `confused` (R, R): see `alignment.confusions`. The generator's reward is the score, on a leash (Sequence
    Tutor, Jaques et al., 2017, section 3): less LEASH times log(p(sentence) / p(sentence) after the warm-
    up), which in the mean is the Kullback-Leibler divergence from the generator of the warm-up. So it
    chooses among the wordings that it knew and keeps most of them. The leash stands in for the gradient
    penalty that such games usually need, the squared norm of the scores' gradient by the sentences (Which
    Training Methods for GANs do actually Converge?, Mescheder et al., 2018, section 4.1);
    tests/bench/game.py has both.
    """
    generator, discriminator, rng = gan.generator, gan.discriminator, gan.rng
    relations = torch.randperm(len(gan.relations), generator=rng)[:GROUPS]  # (G,)
    relations = relations.repeat_interleave(GROUP)  # (G * GROUP,)
    real, fake = examples.draw(relations, rng), generator.sample(relations, gan.length, rng)  # (B, L)
    scores = [discriminator(relations, sentences) for sentences in (real, fake)]
    mismatched = torch.tensor(-torch.inf)  # one relation alone has no wrong one: nothing to pay
    if len(gan.relations) > 1:
        wrong = torch.multinomial(confused[relations], 1, generator=rng).squeeze(1)  # (B,)
        mismatched = discriminator(wrong, real)  # (B,)
    corrupted = discriminator(relations, corrupt(real, rng))  # (B,)
    loss = discriminator_loss(*scores, mismatched, corrupted)
    update(gan.optimizers["discriminator"], loss)
    measures = {"discriminator_loss": loss.item()}
    for name, score in zip(("believes_real", "believes_fake"), scores):  # a score above -log w: no noise
        measures[name] = (MISMATCHED * score.exp() > 1).float().mean().item()
    if not alone:
        log_probs = generator.log_likelihood(relations, fake)  # (B,)
        with torch.no_grad():
            leash = log_probs - gan.start.log_likelihood(relations, fake)  # (B,)
            rewards = discriminator(relations, fake) - LEASH * leash  # (B,)
        loss = generator_loss(log_probs.view(-1, GROUP), rewards.view(-1, GROUP))
        update(gan.optimizers["generator"], loss)
        measures["generator_loss"] = loss.item()
    return measures


def learn(gan, examples, confused, warm_up, game):
    """Teach `gan` in so many steps of the warm-up and then of the game, yielding what to log after each.

    It goes on where the GAN stands, which carries everything that changes on the way.
    """
    for step in range(gan.learned, warm_up + game):
        if step == warm_up:
            gan.start.load_state_dict(gan.generator.state_dict())
        measures = (imitate(gan, examples) if step < warm_up else
                    play(gan, examples, confused, alone=step - warm_up < game // 10))
        gan.learned = step + 1
        yield measures
