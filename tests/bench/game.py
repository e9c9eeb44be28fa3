"""What each part of the GAN's game brings: the loop of `train.train_gan` with one thing changed at a time.

    python -m tests.bench.game --seeds 3 --jobs 2
    python -m tests.bench.game --seeds 3 --jobs 2 --recall      also the recall of the language model

faithfulness: the share of synthetic sentences that state their triple by the story's grammar; right_wordings: the
number of different wordings among those. "maximum likelihood" takes as many steps in all.
"""

import copy
from functools import partial

import torch
from torch.nn import functional as F
from torch.optim import Adam

from mingpt_mm.graph.alignment import HEAD, TAIL, Examples, align, hard_negatives
from mingpt_mm.graph.gan import Discriminator, Generator, discriminator_loss, generator_loss, verbalize
from tests.bench.common import bench, make_parser, run
from tests.bench.story_grammar import measure_run
from train import KL_WEIGHT

VARIANTS = {
    "as it is": {}, "with corrupted triples": {"corrupted": 0.3}, "with a head start": {"head_start": 0.1},
    "with the filter": {"keep": 0.85}, "half the KL penalty": {"kl_weight": 0.05},
    "twice the KL penalty": {"kl_weight": 0.2}, "no KL penalty": {"kl_weight": 0.0}, "wrong relations evenly": {"even": True},
    "no wrong relations": {"wrong": False}, "maximum likelihood": {"game": False},
}


def corrupt(sentences, words, rng):
    """`sentences` (B, L) of `words` as they read beside a corrupted triple: ends swapped, another head or tail."""
    head, tail, other = words.index(HEAD), words.index(TAIL), len(words)  # the id of other names is a new one
    ways = torch.arange(len(words) + 1).repeat(3, 1)  # (3, W + 1)
    ways[0, [head, tail]], ways[1, head], ways[2, tail] = torch.tensor([tail, head]), other, other
    return ways[torch.randint(3, (len(sentences),), generator=rng)].gather(1, sentences)


class Filter:
    """Samples of a generator without the worst by the discriminator's score; the share `keep` is left."""

    def __init__(self, G, D, keep):
        self.G, self.D, self.keep = G, D, keep

    def sample(self, relation, length, rng):
        """See `Generator.sample`; fewer rows than relations. All relations are the same."""
        rows = self.G.sample(relation, length, rng)
        best = self.D(relation, rows).argsort(descending=True)[:int(self.keep * len(rows))]
        return rows[best[torch.randperm(len(best), generator=rng)]]


def train_gan(args, documents, triples, logger, corrupted=0.0, head_start=0.0, keep=1.0, kl_weight=KL_WEIGHT,
              even=False, wrong=True, game=True):
    """`train.train_gan` with switches; with their defaults it gives the same sentences.

    corrupted: weight of corrupted triples as negatives. head_start: share of the adversarial steps in which
    the discriminator learns alone. keep: see `Filter`. even: draw wrong relations evenly. wrong: use them.
    game: without it all steps are maximum likelihood.
    """
    examples = Examples(align(documents, triples))
    R, W = len(examples.relations), len(examples.words)
    negatives = torch.ones(R, R).fill_diagonal_(0) if even else hard_negatives(triples, examples.relations)
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    G, D = Generator(W, R), Discriminator(W + bool(corrupted), R, examples.length)
    mle_optimizer = Adam(G.parameters(), 2e-3)
    g_optimizer = Adam(G.parameters(), 1.2e-3, betas=(0.5, 0.99))
    d_optimizer = Adam(D.parameters(), 1e-3, betas=(0.5, 0.99))
    for step in range(-args.gan_warmup, args.gan_steps):
        if step < 0 or not game:
            relation = torch.randint(R, (64,), generator=rng)
            (-G.log_prob(relation, examples.sample(relation, rng)).mean()).backward()
            mle_optimizer.step()
            mle_optimizer.zero_grad()
            continue
        reference = copy.deepcopy(G) if step == 0 else reference
        relation = torch.randperm(R, generator=rng)[:9].repeat_interleave(16)
        wrong_relation = torch.multinomial(negatives[relation], 1, generator=rng).squeeze(1)
        real, fake = examples.sample(relation, rng), G.sample(relation, examples.length, rng)
        real_score, fake_score = D(relation, real), D(relation, fake)
        wrong_score = D(wrong_relation, real) if wrong else torch.tensor(-torch.inf)  # its loss is 0
        d_loss = discriminator_loss(real_score, fake_score, wrong_score)
        if corrupted:
            d_loss = d_loss + corrupted * F.softplus(D(relation, corrupt(real, examples.words, rng))).mean()
        d_loss.backward()
        d_optimizer.step()
        d_optimizer.zero_grad()
        if step < head_start * args.gan_steps:
            continue
        log_prob = G.log_prob(relation, fake)
        with torch.no_grad():
            reward = D(relation, fake) - kl_weight * (log_prob - reference.log_prob(relation, fake))
        generator_loss(log_prob.view(-1, 16), reward.view(-1, 16)).backward()
        g_optimizer.step()
        g_optimizer.zero_grad()
    return verbalize(Filter(G, D, keep) if keep < 1 else G, examples, triples, args.sentences, rng)


def replace_train_gan(train, name):
    """Make the module `train` use the variant `name`."""
    train.train_gan = partial(train_gan, **VARIANTS[name])


def measure(options, name, out, seed):
    """The measures of a variant's synthetic sentences and, with --recall, of a language model trained on them."""
    argv = ["adversarial", "--seed", seed, *options.options, *([] if options.recall else ["--steps", 1])]
    record = run(argv, out, options.threads, f"from tests.bench import game; game.replace_train_gan(train, {name!r})")
    return measure_run(out) | ({"recall_graph_only": record["recall_graph_only"]} if options.recall else {})


def main():
    """Run what the options say."""
    parser = make_parser(__doc__)
    parser.add_argument("--recall", action="store_true", help="train the language model on the sentences, too")
    bench(parser, VARIANTS, measure, ("faithfulness", "right_wordings", "recall_graph_only"))


if __name__ == "__main__":
    main()
