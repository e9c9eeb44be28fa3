"""What does the model know about whom it sees? Three ways to ask a picture for a fact that no caption gives.

    python -m tests.bench.facts --seeds 3
    python -m tests.bench.facts --seeds 1 --text "--steps 100" --portraits "--steps 50"        options of train.py

For each seed: the adversarial loop on the story, then the multimodal loop on portraits (`--init`), and the same
portraits without the story before. The forms: `name`, the model names the picture and is asked by that name in a
fresh prompt; `context`, it is asked after its caption, with the picture still in front; `picture`, it sees the
picture and no name. Each also with a blank picture.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import torch

from mingpt_mm.castle import world_folder
from mingpt_mm.data import Captions, read_captions
from mingpt_mm.text import read_probes
from mingpt_mm.evaluate import score
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_run
from mingpt_mm.story import story_folder
from mingpt_mm.tokenizer import unpack_encoding
from tests.bench.common import run, table

FORMS = ("name", "context", "picture")


def ask(model, encoding, pixels, probes, longest):
    """{form: [whether the answer to each probe is right]} for a picture (1, 3, S, S) of whom all `probes` ask.

    longest: the most tokens of a caption, lest an untrained model fill the context with it.
    """
    caption, = model.caption(pixels, encoding, max_new_tokens=longest)
    prefix, answers = model.embed(pixels), [probe["answer"] for probe in probes]
    questions = [probe["prompt"].removeprefix(probe["triple"][0] + " ") for probe in probes]
    by_name = [f"{caption.split(',')[0]} {question}" for question in questions]
    right = {"name": score(model.gpt, encoding, by_name, answers),
             "context": score(model.gpt, encoding, [f"{caption}. {prompt}" for prompt in by_name], answers, prefix),
             "picture": score(model.gpt, encoding, questions, answers, prefix)}
    return {form: [greedy for _, greedy in scores] for form, scores in right.items()}


def measure(folder, seed, portraits=5):
    """What the run in `folder` knows of those whom it sees, each on so many portraits."""
    checkpoint = load_run(folder)
    model, encoding = restore(checkpoint), unpack_encoding(checkpoint["encoding"])
    rows = read_captions(world_folder(seed, "portraits", folder.parent / "runs"))[1]
    probes = read_probes(story_folder(seed, root=folder.parent / "runs") / "probes.jsonl")
    data = Captions(rows, encoding, checkpoint["config"]["image_size"], 99, 100)
    shares = defaultdict(list)
    for head in sorted({probe["triple"][0] for probe in probes}):
        asked = [probe for probe in probes if probe["triple"][0] == head]
        known = score(model.gpt, encoding, [p["prompt"] for p in asked], [p["answer"] for p in asked])
        for probe, (_, greedy) in zip(asked, known):
            shares[f"text_{probe['group']}"].append(greedy)
        own = [i for i, row in enumerate(rows) if row.captions[0].startswith(f"{head},")][:portraits]
        shown = {"": [data.batch([i])[0] for i in own], "blank_": [data.blank]}
        for prefix, pictures in shown.items():
            for pixels in pictures:
                for form, right in ask(model, encoding, torch.as_tensor(pixels), asked, data.longest).items():
                    for probe, greedy in zip(asked, right):
                        shares[f"{prefix}{form}_{probe['group']}"].append(greedy)
    return {name: mean(right) for name, right in shares.items()}


@torch.no_grad()
def study(folder, seed, config):
    """The measures of one seed: {arm: record}"""
    folder.mkdir()
    alone, portraits = config.jobs == 1, ["--world", "portraits", "--seed", seed, *config.portraits.split()]
    text = run("adversarial", folder / "text", ["--seed", seed, *config.text.split()], alone)
    record = run("multimodal", folder / "facts", [*portraits, "--init", folder / "text"], alone)
    control = run("multimodal", folder / "control", portraits, alone)
    if not alone:
        torch.set_num_threads(1)
    return {"text": text,
            "both loops": {"exact_match": record["exact_match"], "seconds": record["seconds"],
                           **measure(folder / "facts", seed)},
            "portraits only": {"exact_match": control["exact_match"], "seconds": control["seconds"],
                               **measure(folder / "control", seed)}}


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time, each on one thread if more than 1")
    parser.add_argument("--text", default="", help="options of train.py adversarial, in quotes")
    parser.add_argument("--portraits", default="", help="options of train.py multimodal, in quotes")
    parser.add_argument("--json", help="write the records to this file")
    config = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(config.jobs) as pool:
        jobs = [pool.submit(study, Path(folder) / str(seed), seed, config) for seed in range(config.seeds)]
        records = [job.result() for job in jobs]
    results = {arm: [record[arm] for record in records] for arm in records[0]}
    print("the text model:", *(f"{name} {mean(r[name] for r in results['text']):.2f}"
                               for name in ("recall_stated", "recall_graph_only", "recall_neither")))
    rows = {}
    for arm in ("both loops", "portraits only"):
        for form in ("text", *FORMS, *(f"blank_{form}" for form in FORMS)):
            rows[f"{arm}: {form.replace('_', ' ')}"] = [
                {group: record[f"{form}_{group}"] for group in ("stated", "graph_only", "neither")}
                for record in results[arm]]
    table(rows, ("stated", "graph_only", "neither"))
    table({arm: results[arm] for arm in ("both loops", "portraits only")}, ("exact_match", "seconds"))
    if config.json:
        Path(config.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
