"""Is a film review positive? A GPT ranks two continuations, beside two baselines without any network.

    python -m tests.bench.sentiment --seeds 3
    python -m tests.bench.sentiment --seeds 1 -- --steps 40        options of train.py adversarial

The GPT is fine-tuned (or trained from nothing) on the labelled reviews as plain documents, "... It is good.", and
answers as `sample.py --choices "good|bad" --prompt "... It is"` would. The baselines are the larger class, and a
logistic regression on the words of a review. MINGPT_MM_DATA names the folder with sentiment/train.tsv and dev.tsv;
every tenth line of train.tsv is left out of all trainings.
"""

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mingpt_mm.evaluate import score
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_run
from mingpt_mm.tokenizer import unpack_encoding
from tests.bench.common import run, table

ANSWERS = ("bad", "good")


def read(name):
    """The (review, label) pairs of a file, label 1 for a positive one."""
    lines = Path(os.environ["MINGPT_MM_DATA"], "sentiment", name).read_text(encoding="utf-8").splitlines()
    return [(text.strip(), int(label)) for text, label in (line.rsplit("\t", 1) for line in lines)]


def bag_of_words(train, dev, decay=1.0, steps=300, rate=2.0):
    """The accuracy on `dev` of a logistic regression on the words that stand in a review, by gradient descent.

    decay: of the squared weights, as with C = 1 / decay in the usual libraries.
    """
    words = {word: i for i, word in enumerate(sorted({word for text, _ in train for word in text.split()}))}

    def features(rows):
        """Which words stand in each review, (N, words), and a constant."""
        x = np.zeros((len(rows), len(words) + 1))
        x[:, -1] = 1
        for row, (text, _) in zip(x, rows):
            row[[words[word] for word in text.split() if word in words]] = 1
        return x
    x, y = features(train), np.array([label for _, label in train])
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        error = 1 / (1 + np.exp(-x @ weights)) - y
        weights -= rate * (x.T @ error + decay * np.r_[weights[:-1], 0]) / len(train)
    return np.mean((features(dev) @ weights > 0) == np.array([label for _, label in dev]))


@torch.no_grad()
def accuracy(folder, dev):
    """The share of the reviews of `dev` that the run in `folder` judges as people did."""
    checkpoint = load_run(folder)
    model, encoding = restore(checkpoint), unpack_encoding(checkpoint["encoding"])
    room = checkpoint["gpt"]["block_size"] - 8
    cut = [encoding.decode(encoding.encode_ordinary(text)[-room:]) for text, _ in dev]  # its end, where it is long
    scores = [score(model, encoding, [f"{text} It is" for text in cut], [answer] * len(cut)) for answer in ANSWERS]
    guesses = [good > bad for (bad, _), (good, _) in zip(*scores)]
    return np.mean([guess == label for guess, (_, label) in zip(guesses, dev)])


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread if more than 1")
    parser.add_argument("options", nargs="*", help="after --: options of train.py adversarial")
    config = parser.parse_args()
    train, dev = read("train.tsv"), read("dev.tsv")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(config.jobs) as pool:
        text = Path(folder) / "reviews.txt"
        text.write_text("\n\n".join(f"{review} It is {ANSWERS[label]}." for review, label in train), encoding="utf-8")
        options = ["--text", text, "--synthetic", "none", "--block_size", 96, "--vocab_size", 2048, "--steps", 300,
                   *config.options]
        start = partial(run, "adversarial", alone=config.jobs == 1)
        folders = [Path(folder) / f"seed-{seed}" for seed in range(config.seeds)]
        records = list(pool.map(lambda seed: start(folders[seed], [*options, "--seed", seed]), range(config.seeds)))
        results = {"this GPT": [{"accuracy": accuracy(out, dev), "perplexity": record["perplexity"],
                                 "seconds": record["seconds"]} for out, record in zip(folders, records)]}
    train = [row for i, row in enumerate(train) if i % 10 != 9]
    results["bag of words, logistic regression"] = [{"accuracy": bag_of_words(train, dev)}]
    larger = round(np.mean([label for _, label in train]))
    results["the larger class"] = [{"accuracy": np.mean([label == larger for _, label in dev])}]
    table(results, ("accuracy", "perplexity", "seconds"))


if __name__ == "__main__":
    main()
