"""Are drawings what their captions say? A captioner from another run describes them.

    python -m tests.bench.drawing --seeds 3 --threads 2

The captions are those of validation images: no training image shows their pairings. Shares of drawings whose
description is the caption to the last letter, and the same for other images:

    judged right   the drawings of the model
    wrong caption  the drawings, compared with the caption of another row
    codebook       the validation images as codebook entries: what a perfect model would reach
    true images    the validation images: what the captioner reaches

"different" counts the different ones among a hundred drawings of one caption. All variants of a seed share a captioner:
with --jobs name one variant.
"""

import torch

from mingpt_mm import load_run
from mingpt_mm.data.datasets import load_captions, load_frames, split_rows
from mingpt_mm.model.codebook import decode, encode
from tests.bench.common import bench, make_parser, run

COLUMNS = "judged_right", "wrong_caption", "codebook", "true_images", "different", "exact_match", "seconds"
VARIANTS = {"Muon": [], "AdamW": ["--optimizer", "adamw"]}


def measure(options, name, out, seed):
    """The measures of a run that draws, with a captioner that learned from the same images with another seed."""
    record = run(["--draw", "--seed", seed, *VARIANTS[name], *options.options], out, options.threads)
    (model, tokenizer, args), other = load_run(out), out.parent / f"captioner-{seed}"
    data = out.parent / args.data
    run(["--data", data, "--seed", seed + 100, "--optimizer", "muon", *options.options], other, options.threads)
    captioner, its_tokenizer, _ = load_run(other)
    rows = split_rows(load_captions(data))[1][:args.eval_samples]
    captions = [row.captions[0] for row in rows]
    true = torch.stack([load_frames(row.path, 1, args.image_size) for row in rows])
    quantized = decode(model.codebook, encode(model.codebook, true[:, 0]), args.image_size)[:, None]
    rng = torch.Generator().manual_seed(0)
    drawn = torch.cat([model.draw(caption, tokenizer, args.image_size, generator=rng) for caption in captions])

    def judge(images, expected=captions):
        said = [text for part in images.split(100) for text in captioner.caption(part, its_tokenizer)]
        return sum(map(str.__eq__, said, expected)) / len(expected)

    hundred = model.draw(captions[0], tokenizer, args.image_size, 100, generator=rng)
    return {"judged_right": judge(drawn), "wrong_caption": judge(drawn, captions[1:] + captions[:1]),
            "codebook": judge(quantized), "true_images": judge(true), "different": len(hundred.unique(dim=0)),
            "exact_match": record["exact_match"], "seconds": record["seconds"]}


def main():
    """Run what the options say."""
    bench(make_parser(__doc__), VARIANTS, measure, COLUMNS)


if __name__ == "__main__":
    main()
