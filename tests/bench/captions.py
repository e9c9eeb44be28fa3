"""Images and videos, captioned from scratch: the built-in worlds, and real data sets.

    python -m tests.bench.captions --seeds 3 --jobs 2
    python -m tests.bench.captions --seeds 1 --variants emoji -- --steps 20      options of train.py

The environment variable MINGPT_MM_DATA names the folder with the real data sets; without it they are left out.
Every tenth of their rows is held out. The columns are those of the final record: loss and exact match, also with
blank and shuffled images and, for videos, with other orders of the frames.
"""

import os
from pathlib import Path

from tests.bench.common import bench, make_parser, run

DATA = Path(os.environ.get("MINGPT_MM_DATA", "nowhere")).absolute()
BOTH = "--n_embd 128 --n_head 4 --n_layer 2 --learning_rate 1e-3 --eval_interval 250 "
REAL = {
    "lpc_clips": BOTH + "--vit_layers 3 --dropout 0.1 --steps 1500",
    "emoji": BOTH + "--image_size 72 --patch_size 12 --vit_layers 4 --vocab_size 1024 --dropout 0.1 --steps 2500",
    "flickr8k_1k": BOTH + "--image_size 96 --vocab_size 1024 --dropout 0.2 --steps 1000",
}
VARIANTS = {world: ["--world", world] for world in ("scenes", "clips")}
VARIANTS |= {name: ["--data", DATA / name, *text.split()] for name, text in REAL.items() if (DATA / name).is_dir()}
ABLATIONS = ("", "_blank", "_shuffled", "_reversed", "_first_frame", "_shuffled_frames")
COLUMNS = (*(f"{metric}{name}" for metric in ("exact_match", "val_loss") for name in ABLATIONS), "best_step", "seconds")


def measure(options, name, out, seed):
    """The final record of a run."""
    return run(["--seed", seed, *VARIANTS[name], *options.options], out, options.threads)


def main():
    """Run what the options say."""
    bench(make_parser(__doc__), VARIANTS, measure, COLUMNS)


if __name__ == "__main__":
    main()
