"""Draw the pictures of the pages into tests/bench/, and print what the tour's GAN writes over time.

    python -m tests.bench.pictures                    also those of trained models: seven minutes on two cores
    python -m tests.bench.pictures --runs FOLDER      keeps the three runs, or draws those that are there
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from mingpt_mm import load_run
from mingpt_mm.data import castle
from mingpt_mm.data.datasets import CaptionDataset, load_captions, load_triples, split_rows
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.model.transformer import Attention, KVCache
from mingpt_mm.plots import FONT, GRID, INK, make_grid, plot_run
from tests.bench.common import make_parser, run

HERE = Path(__file__).parent
BLUE, ORANGE = "#7fa6d6", "#f0b070"


def load_world(folder, world):
    """(tokenizer, CaptionDataset of the validation rows) of a built-in world of seed 0."""
    drawn = castle.world_folder(folder / f"runs/{world}-0", castle.write_world, world, 0)
    rows, val_rows = split_rows(load_captions(drawn))
    tokenizer = make_tokenizer(train_bpe([row.captions[0] for row in rows], 512))
    return tokenizer, CaptionDataset(val_rows, tokenizer, 4 if world == "clips" else 1, 64)


def draw_worlds(path, folder):
    """Two samples of each world side by side."""
    data = [load_world(folder, world)[1] for world in castle.WORLDS]
    plot_run(path, [], [(make_grid(d[i, 0][0]), d.rows[i].captions[0], INK) for d in data for i in (2, 5)])


def draw_sequence(path, folder):
    """The numbered patches of an image above the sequence of input tokens and their targets."""
    tokenizer, data = load_world(folder, "scenes")
    pixels, tokens, _ = data[0, 0]
    words = [tokenizer.decode([token]).replace("<|endoftext|>", "end") for token in tokens]
    picture, image = make_grid(pixels), Image.new("RGB", (960, 330), "white")
    draw = ImageDraw.Draw(image)
    image.paste(picture.resize((176, 176)), (16, 8))
    draw.text((220, 20), "an image of 16 patches, and its caption:\n" + data.rows[0].captions[0]
              + "\n\ninput: the patches, then the tokens, which begin with the end-of-text token"
              + "\ntarget: at each token the next one; at the patches none", INK, FONT)
    for i in range(16):
        x, y = i % 4, i // 4
        draw.rectangle([16 + 44 * x, 8 + 44 * y, 60 + 44 * x, 52 + 44 * y], outline="white")
        draw.text((20 + 44 * x, 10 + 44 * y), str(i + 1), "white", FONT)
        image.paste(picture.crop((16 * x, 16 * y, 16 * x + 16, 16 * y + 16)).resize((30, 30)), (16 + 32 * i, 226))
        draw.text((31 + 32 * i, 208), str(i + 1), INK, FONT, "mt")
        draw.text((31 + 32 * i, 295), "-", INK, FONT, "mm")
    width = (944 - 16 - 32 * 16) // (len(words) - 1)
    for i, pair in enumerate(zip(words, words[1:])):
        x = 16 + 32 * 16 + width * i
        for y, word, color in zip((226, 280), pair, (ORANGE, BLUE)):
            draw.rectangle([x, y, x + width - 3, y + 30], color)
            draw.text((x + width / 2 - 1, y + 15), word.strip(), "black", FONT, "mm")
    image.save(path)


def reads_from(causal, cached, T):
    """(T, cached + T) bools: does the output of Attention at new position i depend on the input at position j?"""
    attention, rows = Attention(8, 2, causal, 0.0), []
    for i in range(T):
        x, cache = torch.randn(1, cached + T, 8, requires_grad=True), KVCache(cached + T)
        if cached:
            attention(x[:, :cached], cache)
        attention(x[:, cached:], cache)[0, i].sum().backward()
        rows.append(x.grad[0].abs().sum(dim=1) > 0)
    return torch.stack(rows)


def draw_masks(path):
    """Which position reads from which: in ViT, in GPT-2 behind 6 patches, and new tokens after a cache."""
    image = Image.new("RGB", (960, 300), "white")
    draw = ImageDraw.Draw(image)
    grids = {"ViT, 6 patches": (False, 0, 6), "GPT-2, 6 patches and 6 tokens": (True, 0, 12),
             "3 tokens after a cache of 9": (True, 9, 3), "1 token after a cache of 11": (True, 11, 1)}
    for x, (title, sizes) in zip((16, 160, 430, 700), grids.items()):
        draw.text((x, 8), title, INK, FONT)
        for i, row in enumerate(reads_from(*sizes).tolist()):
            for j, reads in enumerate(row):
                color = (BLUE if j < 6 else ORANGE) if reads else "white"
                draw.rectangle([x + 20 * j, 34 + 20 * i, x + 20 * j + 17, 51 + 20 * i], color, GRID)
    draw.text((16, 278), "Each row is a position. It reads from the columns in color: patches blue, tokens orange.",
              INK, FONT)
    image.save(path)


def draw_drawings(path, out):
    """Drawings of 24 validation captions by the run in the folder `out`."""
    model, tokenizer, args = load_run(out)
    captions = [row.captions[0] for row in split_rows(load_captions(out.parent / args.data))[1][:24]]
    torch.manual_seed(0)
    drawn = [make_grid(model.draw(caption, tokenizer, args.image_size)[0]) for caption in captions]
    plot_run(path, [], [(image, caption, INK) for image, caption in zip(drawn, captions)], across=8)


def tabulate_sentences(events, triples, steps=(1000, 1100, 1400, 1800)):
    """What the generator wrote for the first three `triples` at some of its steps, as a table in Markdown."""
    written = {event["step"]: event["sentences"] for event in events if event["event"] == "gan"}
    rows = [f"| {' | '.join([str(step), *written[step]])} |" for step in steps]
    header = " | ".join(["step", *map(", ".join, triples[:3])])
    return "\n".join([f"| {header} |", "|---|---|---|---|", *rows])


def main():
    """Draw all pictures; print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.runs or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        draw_worlds(HERE / "worlds.png", folder)
        draw_sequence(HERE / "sequence.png", folder)
        draw_masks(HERE / "mask.png")
        for name, argv in (("scenes", []), ("drawing", ["--draw"]), ("story", ["adversarial"])):
            run(argv, folder / name, threads=2)
        draw_drawings(HERE / "drawings.png", folder / "drawing")
        shutil.copy(folder / "scenes/progress.png", HERE)
        graph, = folder.glob("runs/story-0-*/kg.tsv")
        print(tabulate_sentences(map(json.loads, (folder / "story/log.jsonl").open()), load_triples(graph)))


if __name__ == "__main__":
    main()
