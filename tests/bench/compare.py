"""Draw the curves of several runs into one picture, so that an experiment can be seen beside the default.

    python -m tests.bench.compare runs/multimodal-1 runs/multimodal-2      writes compare.png
"""

import io
import json
from pathlib import Path

from PIL import Image

from mingpt_mm.plots import COLORS, plot_run
from tests.bench.common import make_parser

SHOWN = {"loss": "val_loss", "exact match": "exact_match", "recall, stated": "recall_stated",
         "recall, graph-only": "recall_graph_only"}


def compare(path, runs):
    """Draw validation loss, exact match and recall over the steps of `runs`, folders, to the PNG file `path`."""
    logs, pictures = {Path(run).name: list(map(json.loads, Path(run, "log.jsonl").open())) for run in runs}, []
    for title, name in SHOWN.items():
        events = [{"step": event["step"], run: event[name]} for run, log in logs.items() for event in log
                  if event["event"] == "eval" and name in event]
        if events:
            plot_run(file := io.BytesIO(), events, charts={title: set(logs)})
            pictures.append(Image.open(file))
    image = Image.new("RGB", (960, sum(picture.height for picture in pictures)), "white")
    for i, picture in enumerate(pictures):
        image.paste(picture, (0, sum(above.height for above in pictures[:i])))
    image.save(path)


def main():
    """Run what the options say."""
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", help=f"folders of runs, at most {len(COLORS)}")
    parser.add_argument("--out", default="compare.png", help="the picture (default: compare.png)")
    options = parser.parse_args()
    compare(options.out, options.runs)


if __name__ == "__main__":
    main()
