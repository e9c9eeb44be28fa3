"""A small GAN that learns from text how facts are put into words, and writes sentences for a whole graph.

Generative Adversarial Nets (Goodfellow et al., 2014), conditioned on the relation. Real sentences come from
distant supervision, so many do not state their relation. Maximum likelihood reproduces those too. The
adversarial game avoids them. Its discriminator also sees real sentences with a wrong relation (Generative
Adversarial Text to Image Synthesis, Reed et al., 2016, section 4.2). So it rejects a sentence that fits
every relation. The game is `train_gan` in train.py.

Its vocabulary: words, punctuation marks and the slots [H] and [T]. It writes no names of entities.

Letters: B sentences, L words in a sentence, W words in the vocabulary, K relations in a batch, S sentences of
each.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.console import progress
from mingpt_mm.graph.alignment import HEAD, TAIL, lexicalize

WRONG_RELATION_WEIGHT = 10.0


class Generator(nn.Module):
    """A GRU that writes a sentence word by word, given a relation."""

    def __init__(self, n_words, n_relations):
        super().__init__()
        self.word, self.relation = nn.Embedding(n_words, 64), nn.Embedding(n_relations, 32)
        self.gru = nn.GRU(64 + 32, 128, batch_first=True)
        self.head = nn.Linear(128, n_words)

    def forward(self, relation, words, state=None):
        """relation (B,), words (B, L) -> logits (B, L, W) of the word after each, and the GRU's state"""
        relation = self.relation(relation)[:, None].expand(-1, words.size(1), -1)  # (B, L, 32)
        x = torch.cat([self.word(words), relation], dim=2)  # (B, L, 96)
        x, state = self.gru(x, state)  # (B, L, 128), (1, B, 128)
        return self.head(x), state

    @torch.no_grad()
    def sample(self, relation, length, rng):
        """Draw a sentence for each `relation` (B,) -> (B, L), L = `length`; END (id 0) pads a row."""
        state, words = None, relation.new_zeros(len(relation), length)  # (B, L)
        for i in range(length):  # the first word follows an END: words[:, -1] is still one
            logits, state = self(relation, words[:, i - 1, None], state)  # (B, 1, W), (1, B, 128)
            words[:, i] = torch.multinomial(logits[:, 0].softmax(dim=1), 1, generator=rng).squeeze(1)
        return words.masked_fill((words == 0).cumsum(dim=1) > 0, 0)  # (B, L)

    def log_prob(self, relation, words):
        """log p(words | relation), (B,), of `words` (B, L), the first END of each row included."""
        logits, _ = self(relation, F.pad(words, (1, -1)))  # (B, L, W); shifted by one word, END comes first
        log_probs = -F.cross_entropy(logits.transpose(1, 2), words, reduction="none")  # (B, L)
        return log_probs.masked_fill((words == 0).cumsum(dim=1) > 1, 0).sum(dim=1)  # (B,)


class Discriminator(nn.Module):
    """Scores whether a sentence is real and states the relation. It sees slots instead of names, so it cannot
    know whether a fact is true.
    """

    def __init__(self, n_words, n_relations, length):
        super().__init__()
        self.word, self.relation = nn.Embedding(n_words, 32), nn.Embedding(n_relations, 32)
        self.mlp = nn.Sequential(nn.Linear(32 * length + 32, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256),
                                 nn.LeakyReLU(0.2), nn.Linear(256, 1))

    def forward(self, relation, words):
        """relation (B,), words (B, L) -> logits (B,), higher for real sentences"""
        x = torch.cat([self.word(words).flatten(1), self.relation(relation)], dim=1)  # (B, 32 * L + 32)
        return self.mlp(x).squeeze(1)  # (B,)


def discriminator_loss(real_score, fake_score, wrong_score):
    """Binary cross entropy on logits (B,): of real sentences, fake ones, real ones with a wrong relation.

    With weight w on the last, the optimal logit of a sentence x is log p_real(x | r) - log(p_G(x | r) +
    w p_real(x | r')), r' being the wrong relations (Goodfellow et al., 2014, proposition 1). If x is as
    common with wrong relations as with its own, its logit is at most about -log w. This holds however rarely
    the generator writes it.
    """
    return (F.softplus(-real_score).mean() + F.softplus(fake_score).mean()
            + WRONG_RELATION_WEIGHT * F.softplus(wrong_score).mean())


def generator_loss(log_prob, reward):
    """REINFORCE (Williams, 1992): minimizing it raises the mean `reward`. Both are (K, S), a row a relation.

    Words are discrete, so no gradient passes from the discriminator into the generator. The gradient of an
    expected reward is the expectation of reward * gradient of log p. Rewards are normalized over each row to
    mean 0 (the baseline) and standard deviation 1.
    """
    advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)  # (K, S)
    return -(advantage * log_prob).mean()


@torch.no_grad()
def verbalize(generator, examples, triples, n, rng):
    """Up to `n` sentences that the `generator` writes for each of `triples`, as texts.

    examples: the `Examples` that it was trained on. Sentences without both slots are left out. A triple whose
    relation has no example gets its own words, "head relation tail.", `n` times.
    """
    ids, written = {relation: i for i, relation in enumerate(examples.relations)}, []
    for head, relation, tail in progress(triples, "writing synthetic sentences"):
        if relation not in ids:
            written += [f"{head} {relation} {tail}."] * n
            continue
        rows = generator.sample(torch.full((2 * n,), ids[relation]), examples.length, rng)  # (2 * n, L)
        sentences = [[examples.words[i] for i in row if i] for row in rows.tolist()]
        written += [lexicalize(words, head, tail) for words in sentences if {HEAD, TAIL} <= {*words}][:n]
    return written
