"""What each part of the adversarial game is for: the castle's GAN with one part left out at a time.

    python -m tests.bench.game --seeds 3 [--arms game "no leash"] [--json FILE]

"faithful": the share of sentences, 200 a relation, that state their triple by the grammar; "best 0.85": the same when
the discriminator has left out the worst; "wordings": how many different right ones there are among them.
"""

import argparse
import json
import tempfile
import time
from itertools import count
from pathlib import Path
from statistics import mean

import torch

from mingpt_mm import gan as module
from mingpt_mm.alignment import Examples, align, confusions, fill
from mingpt_mm.text import read_documents, read_triples
from mingpt_mm.gan import GAN, learn
from mingpt_mm.story import make_parser, write_story

DEFAULTS = {"MISMATCHED": module.MISMATCHED, "CORRUPTED": module.CORRUPTED, "LEASH": module.LEASH, "warmup": 1000,
            "steps": 800, "uniform": False, "penalty": 0.0}
ARMS = {"game": {}, "likelihood alone": {"warmup": 1800, "steps": 0}, "no mismatched pairs": {"MISMATCHED": 0.0},
        "mismatched pairs drawn evenly": {"uniform": True},
        "no corrupted triples": {"CORRUPTED": 0.0}, "no leash": {"LEASH": 0.0},
        "a warm-up of 300 steps": {"warmup": 300}, "with a gradient penalty": {"penalty": 0.06},
        "a gradient penalty and no leash": {"penalty": 0.06, "LEASH": 0.0}}


def penalised(gan, weight):
    """`discriminator_loss` with R1 and R2 (Mescheder et al., 2018, section 4.1) at every fourth step.

    That is the squared norm of the gradient of the scores, of real and of written sentences, by their one-hot units.
    """
    plain, seen, calls, table = module.discriminator_loss, [], count(), gan.discriminator.unit
    table.register_forward_hook(lambda _, inputs, output: seen.append(output) if output.requires_grad else None)

    def loss(real, fake, mismatched, corrupted):
        total, embedded = plain(real, fake, mismatched, corrupted), seen[:2]
        seen.clear()
        if next(calls) % 4 == 0:
            for scores, x in zip((real, fake), embedded):  # x (B, L, 32)
                gradient, = torch.autograd.grad(scores.sum(), x, create_graph=True)
                total = total + weight * (gradient @ table.weight.T).square().sum(dim=(1, 2)).mean()
        return total
    return loss


def train(documents, triples, options, seed):
    """A GAN trained with these `options`."""
    for name in ("MISMATCHED", "CORRUPTED", "LEASH"):
        setattr(module, name, options[name])
    torch.manual_seed(seed)
    examples = align(documents, triples)
    gan = GAN.from_examples(examples, seed)
    rows, confused = Examples(gan, examples), confusions(triples, gan.relations)
    if options["uniform"]:
        confused = torch.ones_like(confused).fill_diagonal_(0)
    for _ in learn(gan, rows, confused, options["warmup"], 0):
        pass
    plain = module.discriminator_loss
    if options["penalty"]:
        module.discriminator_loss = penalised(gan, options["penalty"])
    for _ in learn(gan, rows, confused, options["warmup"], options["steps"]):
        pass
    module.discriminator_loss = plain
    return gan


def judge(gan, parse):
    """{measure: value} of what `gan` writes."""
    measures = {}
    for name, keep in (("faithful", 1.0), ("best 0.85", 0.85)):
        rng, right, n = torch.Generator().manual_seed(0), [], 0
        for relation in gan.relations:
            for units, _ in gan.write(relation, 200, rng, keep):
                n += 1
                right += [(relation, *units)] if parse(fill(units, "Ann", "Bob")) == ("Ann", relation, "Bob") else []
        measures[name] = len(right) / n
    return measures | {"wordings": len(set(right))}


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--json", help="write the figures to this file")
    config = parser.parse_args()
    results = {arm: [] for arm in config.arms}
    for seed in range(config.seeds):
        with tempfile.TemporaryDirectory() as folder:
            write_story(Path(folder) / "story", seed)
            documents, _ = read_documents(Path(folder) / "story" / "text.txt")
            triples = read_triples(Path(folder) / "story" / "kg.tsv")
        for arm in config.arms:
            began = time.perf_counter()
            gan = train(documents, triples, DEFAULTS | ARMS[arm], seed)
            seconds = time.perf_counter() - began
            results[arm].append(judge(gan, make_parser()) | {"seconds": seconds})
            print(seed, arm, results[arm][-1], flush=True)
    print("| | faithful | best 0.85 | wordings | seconds |\n|---|---|---|---|---|")
    for arm, records in results.items():
        cells = []
        for name, form in (("faithful", "{:.2f}"), ("best 0.85", "{:.2f}"), ("wordings", "{:.0f}"),
                           ("seconds", "{:.0f}")):
            values = [record[name] for record in records]
            cells.append(f"{form} ({form}-{form})".format(mean(values), min(values), max(values)))
        print(f"| {arm} | " + " | ".join(cells) + " |")
    if config.json:
        Path(config.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
