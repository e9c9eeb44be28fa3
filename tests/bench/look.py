"""Does a word look at the thing that it names? Of the castle's unseen scenes, by the run of `python train.py`.

    python -m tests.bench.look --seeds 3
    python -m tests.bench.look --seeds 1 -- --steps 60     options of train.py multimodal

For each colour and each kind of thing in a right caption: is the patch that this word takes most from (the mean of the
heads) one that its own thing reaches into, and how often is it one of the other thing? A patch at random is the control.
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch

from mingpt_mm import castle
from mingpt_mm.explain import attention
from mingpt_mm.images import read_image
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_run
from mingpt_mm.tokenizer import unpack_encoding
from mingpt_mm.vit import preprocess
from tests.bench.common import run, table


def reaches(thing, patch, side=16):
    """Whether the square around a thing (what, x, y, radius) reaches into the patch of that number, of four a row."""
    _, x, y, radius = thing
    left, top = patch % 4 * side, patch // 4 * side
    return left < x + radius and x - radius < left + side and top < y + radius and y - radius < top + side


@torch.no_grad()
def measure(folder, seed):
    """{what the brightest patch is of: the share of the words} of the run in `folder`, on the scenes of that seed."""
    checkpoint, rng = load_run(folder), random.Random(0)
    model, encoding = restore(checkpoint), unpack_encoding(checkpoint["encoding"])
    world, counts, words = castle.world_folder(seed, root=folder.parent / "runs"), [0, 0, 0], 0
    for i, (split, caption, (things,), _) in enumerate(castle.scenes(seed)):
        if split == "train":
            continue
        pixels = preprocess(read_image(world / f"images/{i:05d}.png"), 64)[None]
        if model.caption(pixels, encoding) != [caption]:
            continue
        pieces = caption.split()
        ends = [len(encoding.encode_ordinary(" ".join(pieces[:n]))) for n in range(len(pieces) + 1)]
        tokens = torch.tensor([[encoding.eot_token, *encoding.encode_ordinary(caption)]])
        seen = attention(model.gpt, tokens, model.embed(pixels))[-1].mean(dim=1)[0, 16:, :16]
        for own, word in ((0, 1), (0, 2), (1, -2), (1, -1)):
            word %= len(pieces)
            patch = seen[ends[word]:ends[word + 1]].mean(dim=0).argmax().item()
            found = reaches(things[own], patch), reaches(things[1 - own], patch), reaches(things[own], rng.randrange(16))
            counts, words = [a + b for a, b in zip(counts, found)], words + 1
    return dict(zip(("its own thing", "the other thing", "its own, at random"), (count / words for count in counts)))


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("options", nargs="*", help="after --: options of train.py multimodal")
    config = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for seed in range(config.seeds):
            out = Path(folder) / f"run-{seed}"
            run("multimodal", out, ["--seed", seed, *config.options], True)
            records.append(measure(out, seed))
    table({"the patch that a word takes most from is of": records}, list(records[0]))


if __name__ == "__main__":
    main()
