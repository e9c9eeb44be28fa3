"""Does the GAN put triples into words as people did? WebNLG, its human sentences (MINGPT_MM_DATA/webnlg).

    python -m tests.bench.webnlg --seeds 3 [--json FILE]
    python -m tests.bench.webnlg --files FOLDER     writes text.txt and kg.tsv for: train.py adversarial --text --kg

The GAN learns from the sentences of the train split by distant supervision; then it, and the same generator
trained by maximum likelihood for as many steps, write a sentence for each triple of the dev and test splits
whose relation had an example. "both ends": the share of its sentences with a place for the head and one for the
tail, before any choice. BLEU-4 (sacrebleu, of a corpus, all references): of one such sentence a triple. "best of 4"
takes the one that the discriminator prefers, "any of 4" the mean over all.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean

import sacrebleu
import torch

from mingpt_mm.alignment import Examples, align, confusions, fill
from mingpt_mm.gan import GAN, learn


def read(split):
    """[(triple, texts)] of a split."""
    lines = Path(os.environ["MINGPT_MM_DATA"], "webnlg", f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(tuple(row["triple"]), row["texts"]) for row in map(json.loads, lines)]


def judge(gan, rows, keep_best, seed):
    """{measure: value} of what `gan` writes for the `rows` [(triple, texts)]."""
    rng, whole, written = torch.Generator().manual_seed(seed), [], []
    for (head, relation, tail), _ in rows:
        relations = torch.full((20,), gan.relations.index(relation))
        sentences = gan.generator.sample(relations, gan.length, rng)
        whole.append((((sentences == 1) | (sentences == 4)).any(1) & ((sentences == 2) | (sentences == 5)).any(1))
                     .float().mean().item())
        pairs = gan.write(relation, 4, rng)
        pairs = sorted(pairs, key=lambda pair: -pair[1]) if keep_best else pairs
        written.append([fill(units, head, tail) for units, _ in pairs] or ["-"])
    references = [texts for _, texts in rows]
    longest = max(map(len, references))
    references = [[texts[i] if i < len(texts) else None for texts in references] for i in range(longest)]
    bleu = [sacrebleu.corpus_bleu([texts[i % len(texts)] for texts in written], references).score
            for i in range(1 if keep_best else 4)]
    return {"both ends": mean(whole), "BLEU-4": mean(bleu)}


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--files", help="write the text and the graph into this folder, and train nothing")
    parser.add_argument("--json", help="write the figures to this file")
    config = parser.parse_args()
    train, held_out = read("train"), read("dev") + read("test")
    triples, documents = [triple for triple, _ in train], [text for _, texts in train for text in texts]
    if config.files:
        folder = Path(config.files)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
        lines = ["\t".join(triple) for triple in dict.fromkeys(triples + [triple for triple, _ in held_out])]
        (folder / "kg.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    examples = align(documents, triples)
    seen = set(triples)
    rows = [row for row in held_out if row[0] not in seen and row[0][1] in examples]
    print(f"{len(documents):,} sentences, {sum(map(len, examples.values())):,} aligned, {len(examples)} of "
          f"{len({relation for _, relation, _ in triples})} relations; {len(rows)} of {len(held_out)} held-out triples")
    results = {"likelihood": [], "GAN, any of 4": [], "GAN, best of 4": []}
    for seed in range(config.seeds):
        for game in (False, True):
            torch.manual_seed(seed)
            gan = GAN.from_examples(examples, seed)
            steps = (config.warmup, config.steps) if game else (config.warmup + config.steps, 0)
            for _ in learn(gan, Examples(gan, examples), confusions(triples, gan.relations), *steps):
                pass
            if game:
                results["GAN, any of 4"].append(judge(gan, rows, False, seed))
                results["GAN, best of 4"].append(judge(gan, rows, True, seed))
            else:
                results["likelihood"].append(judge(gan, rows, False, seed))
            print(seed, "game" if game else "likelihood", flush=True, file=sys.stderr)
    print("| | both ends | BLEU-4 |\n|---|---|---|")
    for name, records in results.items():
        cells = []
        for key in ("both ends", "BLEU-4"):
            values = [record[key] for record in records]
            cells.append(f"{mean(values):.2f} ({min(values):.2f}-{max(values):.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if config.json:
        Path(config.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
