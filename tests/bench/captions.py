"""Images and videos, captioned from scratch: the built-in worlds, and real data sets.

    python -m tests.bench.captions --seeds 3 --jobs 2
    python -m tests.bench.captions --seeds 1 --variants "1,800 drawings" -- --steps 20      options of train.py

The commands for real data are those of the README's table "Your own images". The environment variable
MINGPT_MM_DATA names the folder with the data sets; without it they are left out. Every tenth of their rows is held out.
The columns are those of the final record: loss and exact match, also with blank and shuffled images and, for
videos, with other orders of the frames.
"""

import json
import os
import re
from pathlib import Path

from tests.bench.common import ROOT, bench, make_parser, run

DATA = Path(os.environ.get("MINGPT_MM_DATA", "nowhere")).absolute()
SETS = {"150 photographs": ("flickr8k_1k", 150), "850 photographs": ("flickr8k_1k", None),
        "1,800 drawings": ("emoji", None), "260 clips": ("lpc_clips", None)}  # {name: (folder, rows)}
COMMANDS = dict(re.findall(r"^\| (.*?)(?: \(.*?\))? \| `python train.py --data FOLDER ?(.*?)`",
                           (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
VARIANTS = {world: f"--world {world}" for world in ("scenes", "clips")}
VARIANTS |= {name: COMMANDS[name] for name, (folder, _) in SETS.items() if (DATA / folder).is_dir()}
ABLATIONS = ("", "_blank", "_shuffled", "_reversed", "_first_frame", "_shuffled_frames")
COLUMNS = (*(f"{metric}{name}" for metric in ("exact_match", "val_loss") for name in ABLATIONS), "best_step", "seconds")


def measure(options, name, out, seed):
    """The final record of a run."""
    argv = ["--seed", seed, *VARIANTS[name].split(), *options.options]
    if name in SETS:
        folder, n = SETS[name]
        rows = [json.loads(line) for line in (DATA / folder / "captions.jsonl").open(encoding="utf-8")][:n]
        rows = [row | {key: str(DATA / folder / row[key]) for key in ("image", "video") & row.keys()} for row in rows]
        data = out.with_name(f"data-{out.name}")
        data.mkdir(exist_ok=True)
        (data / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        argv += ["--data", data]
    return run(argv, out, options.threads)


def main():
    """Run what the options say."""
    bench(make_parser(__doc__), VARIANTS, measure, COLUMNS)


if __name__ == "__main__":
    main()
