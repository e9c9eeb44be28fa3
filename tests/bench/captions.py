"""Real pictures and clips, captioned from scratch: what a small model learns from each set in under ten minutes.

    python -m tests.bench.captions                                       all sets, one after the other
    python -m tests.bench.captions --sets lpc_clips --seeds 3 --keep runs/captions
    python -m tests.bench.captions --sets emoji -- --steps 20            options of train.py

MINGPT_MM_DATA names the folder with the sets. Every tenth row is held out. BLEU-4 (Papineni et al., 2002) is that of
sacrebleu over all held-out rows, for the picture itself, for mid-grey and for the picture of another row; captions are
written greedily.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import sacrebleu
import torch

from mingpt_mm.data import Captions, read_captions
from mingpt_mm.evaluate import blind_arms
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_run
from mingpt_mm.tokenizer import unpack_encoding
from tests.bench.common import run, table

BOTH = "--n_embd 128 --n_head 4 --n_layer 2 --learning_rate 1e-3 --eval_interval 250 "
SETS = {
    "lpc_clips": BOTH + "--patch_size 16 --vit_layers 3 --block_size 96 --dropout 0.1 --steps 1500",
    "emoji": BOTH + "--image_size 72 --patch_size 12 --vit_layers 4 --block_size 96 --vocab_size 1024 "
                    "--dropout 0.1 --steps 2500",
    "flickr8k_1k": BOTH + "--image_size 96 --vit_layers 2 --block_size 128 --vocab_size 1024 --dropout 0.2 --steps 1000",
}
COLUMNS = ("val_loss", "bleu", "bleu_blank", "bleu_shuffled", "bleu_reversed", "exact_match", "exact_match_blank",
           "exact_match_shuffled", "exact_match_reversed", "seconds")


def bleu(texts, rows):
    """The corpus BLEU-4 of a caption for each of the `rows`, which may have several right ones."""
    references = list(zip_longest(*(row.captions for row in rows)))
    return sacrebleu.corpus_bleu(texts, references).score


@torch.no_grad()
def measure(folder, data):
    """The BLEU-4 of each arm of the run in `folder`, on the rows that it held out."""
    checkpoint = load_run(folder)
    model, encoding = restore(checkpoint), unpack_encoding(checkpoint["encoding"])
    rows, config = read_captions(data)[1], checkpoint["config"]
    captions = Captions(rows, encoding, config["image_size"], 999, config["cache_mb"], model.frames)
    texts = defaultdict(list)
    for start in range(0, len(rows), 32):
        indices = range(start, min(start + 32, len(rows)))
        pixels = torch.as_tensor(captions.batch(indices)[0])
        for arm, shown in ({"": pixels} | blind_arms(pixels, indices, captions, model.frames)).items():
            texts[arm.replace("exact_match", "bleu") or "bleu"] += model.caption(shown, encoding)
    return {arm: bleu(captions, rows) for arm, captions in texts.items()}


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N - 1")
    parser.add_argument("--keep", help="leave the runs, with their progress.png, in this folder")
    parser.add_argument("options", nargs="*", help="after --: options of train.py multimodal")
    config = parser.parse_args()
    results = {name: [] for name in config.sets}
    with tempfile.TemporaryDirectory() as folder:
        for name in config.sets:
            for seed in range(config.seeds):
                data, out = Path(os.environ["MINGPT_MM_DATA"], name).absolute(), Path(config.keep or folder) / f"{name}-{seed}"
                out.parent.mkdir(parents=True, exist_ok=True)
                options = ["--data", data, "--seed", seed, *SETS[name].split(), *config.options]
                record = run("multimodal", out.absolute(), options, alone=True)
                results[name].append(record | measure(out, data))
    table(results, COLUMNS)


if __name__ == "__main__":
    main()
