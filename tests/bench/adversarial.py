"""All arms of the adversarial loop side by side, each by `train.py`, seed by seed; one table.

    python -m tests.bench.adversarial --seeds 3
    python -m tests.bench.adversarial --seeds 3 --arms gan mle --two_relations 0 0.33 0.5
    python -m tests.bench.adversarial --seeds 3 --arms gan linear none --world countries
    python -m tests.bench.adversarial --seeds 1 --arms gan none -- --steps 100     options of train.py

The countries are real (MINGPT_MM_DATA names the folder with countries/triples.tsv). The text about them is made
here: it states half of the facts of 45 countries, each in 18 sentences; a tenth stands in neither text nor graph.
"""

import argparse
import json
import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests.bench.common import run, table

ARMS = ("gan", "mle", "templates", "linear", "none")
COLUMNS = ("recall_stated", "recall_graph_only", "recall_neither", "ranking_stated", "ranking_graph_only",
           "perplexity", "faithfulness", "distinct_wordings", "discriminator_accuracy", "gan_seconds", "seconds")

WORDINGS = {
    "capital": ["the capital of [H] is [T]", "[T] is the capital of [H]", "[H] is governed from [T]",
                "the government of [H] sits in [T]", "[T] is the seat of government of [H]",
                "the parliament of [H] meets in [T]"],
    "currency": ["people in [H] pay with the [T]", "the currency of [H] is the [T]", "shops in [H] take the [T]",
                 "the [T] is the money of [H]", "prices in [H] are given in the [T]",
                 "the central bank of [H] issues the [T]"],
    "official language": ["people in [H] speak [T]", "[T] is an official language of [H]",
                          "the laws of [H] are written in [T]", "children in [H] learn [T] at school",
                          "the newspapers of [H] are in [T]", "in [H] you will hear [T]"],
    "subregion": ["[H] lies in [T]", "[H] is a country in [T]", "on a map of [T] you will find [H]",
                  "[H] belongs to [T]", "travellers to [T] visit [H]", "[T] includes [H]"],
    "demonym": ["a person from [H] is called [T]", "somebody born in [H] is [T]", "the citizens of [H] are [T]",
                "whoever comes from [H] is [T]", "they call the people of [H] [T]",
                "a passport of [H] says [T]"],
}
OPENINGS = ["", "the atlas says that ", "as is well known, "]
NEUTRAL = ["a book about [H] mentions [T]", "the article on [H] has a picture of [T]", "[H] and [T] were in the news",
           "a quiz asked about [H] and [T]"]


def write_countries(folder, seed):
    """Write text.txt, kg.tsv and probes.jsonl about 45 countries into `folder`."""
    rng = random.Random(seed)
    lines = Path(os.environ["MINGPT_MM_DATA"], "countries", "triples.tsv").read_text(encoding="utf-8").splitlines()
    facts = {}
    for head, relation, tail in (line.split("\t") for line in lines):
        if relation in WORDINGS and tail not in head and head not in tail:
            facts.setdefault((head, relation), tail)  # the first of several, as of Switzerland's languages
    whole = [head for head in sorted({head for head, _ in facts}) if all((head, r) in facts for r in WORDINGS)]
    heads = rng.sample(whole, 45)
    triples = [(head, relation, facts[head, relation]) for head in heads for relation in WORDINGS]
    pairs = sorted({(head, tail) for head, _, tail in triples})
    rng.shuffle(pairs)
    group = {pair: ("stated", "graph_only", "neither")[(i >= 0.5 * len(pairs)) + (i >= 0.9 * len(pairs))]
             for i, pair in enumerate(pairs)}
    text, probes = set(), []
    for head, relation, tail in triples:
        prompt = next(w for w in WORDINGS[relation] if w.endswith("[T]")).removesuffix(" [T]").replace("[H]", head)
        probes.append({"prompt": prompt[0].upper() + prompt[1:], "answer": tail, "group": group[head, tail],
                       "triple": [head, relation, tail]})
        if group[head, tail] == "stated":
            neutral = rng.sample(list(product(OPENINGS, NEUTRAL)), 4)
            for opening, wording in [*product(OPENINGS, WORDINGS[relation]), *neutral]:
                sentence = opening + wording.replace("[H]", head).replace("[T]", tail)
                text.add(sentence[0].upper() + sentence[1:] + ".")
    text = rng.sample(sorted(text), len(text))
    kg = [triple for triple in triples if group[triple[0], triple[2]] != "neither"]
    (folder / "text.txt").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    (folder / "kg.tsv").write_text("".join("\t".join(triple) + "\n" for triple in kg), encoding="utf-8")
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes), encoding="utf-8")
    return ["--text", str(folder / "text.txt"), "--kg", str(folder / "kg.tsv"),
            "--probes", str(folder / "probes.jsonl")]


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 for each arm")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--world", choices=["castle", "countries"], default="castle")
    parser.add_argument("--two_relations", nargs="+", default=[None], help="shares of pairs with two relations")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread if more than 1")
    parser.add_argument("--json", help="write the records to this file")
    parser.add_argument("options", nargs="*", help="after --: options of train.py adversarial")
    config = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(config.jobs) as pool:
        jobs = {}
        for seed, arm, share in product(range(config.seeds), config.arms, config.two_relations):
            options = list(config.options) + (["--two_relations", share] if share is not None else [])
            if config.world == "countries":
                world = Path(folder) / f"countries-{seed}"
                world.mkdir(exist_ok=True)
                options += write_countries(world, seed)
            name = arm if share is None else f"{arm}, {share} of pairs in two relations"
            out = Path(folder) / f"{arm}-{share}-{seed}"
            options = ["--synthetic", arm, "--seed", seed, *options]
            jobs.setdefault(name, []).append(pool.submit(run, "adversarial", out, options, config.jobs == 1))
        results = {name: [job.result() for job in futures] for name, futures in jobs.items()}
    table(results, COLUMNS)
    if config.json:
        Path(config.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
