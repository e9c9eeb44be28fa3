"""The castle: a built-in world of coloured things in grey mist, so that training needs no download.

Pillow draws it into a folder in exactly the format that a user would bring (`captions.jsonl` and `images/`).
A scene shows two things, "a red bat left of a green ghost". Each picture has one right caption: the relation
is "left of" or "above" and nothing else. Two things that meet in a validation picture never meet in a
training picture.
"""

import json
import random
import tempfile
import zlib
from itertools import combinations, product
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 64  # pixels a side
MIST = 128  # mid-grey is 0 to a ViT: empty patches must be near zero, or they drown positions and shapes

COLOURS = {"red": (214, 39, 40), "pink": (255, 160, 200), "yellow": (250, 225, 50), "green": (40, 150, 60),
           "blue": (40, 80, 220), "purple": (140, 50, 170), "white": (250, 250, 250), "black": (15, 15, 20)}

# Each kind is a list of (primitive, points, solid or hole), the points in units of the thing's radius.
SHAPES = {
    "bat": [
        ("polygon", [(-.15, -.25), (-.55, -.6), (-1, -.1), (-1, .5), (-.7, .15), (-.45, .5), (-.2, .2),
                     (0, .65), (.2, .2), (.45, .5), (.7, .15), (1, .5), (1, -.1), (.55, -.6),
                     (.15, -.25)], True),
        ("polygon", [(-.25, -.05), (-.25, -.7), (0, -.4), (.25, -.7), (.25, -.05)], True)],
    "ghost": [
        ("ellipse", [(-.65, -1), (.65, .3)], True),
        ("polygon", [(-.65, -.35), (-.65, 1), (-.35, .7), (0, 1), (.35, .7), (.65, 1), (.65, -.35)], True),
        ("ellipse", [(-.4, -.55), (-.08, -.1)], False),
        ("ellipse", [(.08, -.55), (.4, -.1)], False)],
    "cat": [
        ("ellipse", [(-.75, -.15), (.55, .5)], True),
        ("ellipse", [(.15, -.6), (.85, .1)], True),
        ("polygon", [(.15, -.25), (.2, -.9), (.5, -.55), (.8, -.9), (.85, -.25)], True),
        ("polygon", [(-.7, .2), (-.7, 1), (-.4, 1), (-.4, .3), (.2, .3), (.2, 1), (.5, 1), (.5, .1)], True),
        ("line", [(-.65, .1), (-.9, -.2), (-.75, -.8)], True)],
    "spider": [
        ("ellipse", [(-.45, -.4), (.45, .5)], True),
        *(("line", [(side * .2, .05), (side * .65, y), (side, y + bend)], True)
          for side in (-1, 1) for y, bend in ((-.7, .4), (-.2, .2), (.3, .2), (.5, .5)))],
    "key": [
        ("ellipse", [(-1, -.5), (0, .5)], True),
        ("ellipse", [(-.72, -.22), (-.28, .22)], False),
        ("polygon", [(-.1, -.17), (1, -.17), (1, .6), (.75, .6), (.75, .17), (.58, .17), (.58, .5), (.33, .5),
                     (.33, .17), (-.1, .17)], True)],
    "candle": [
        ("polygon", [(-.28, -.2), (.28, -.2), (.28, .8), (-.28, .8)], True),
        ("polygon", [(-.7, .75), (.7, .75), (.5, 1), (-.5, 1)], True),
        ("polygon", [(0, -1), (.22, -.6), (.12, -.35), (-.12, -.35), (-.22, -.6)], True)],
}
THINGS = [f"{colour} {kind}" for colour, kind in product(COLOURS, SHAPES)]


def draw_picture(things, mist=MIST, size=SIZE):
    """A PIL picture of `things`, each ("red bat", x, y, radius) in pixels, in mist of that grey level."""
    scale = 4  # drawn four times as large and averaged down: soft edges
    image = Image.new("RGB", (size * scale, size * scale), (mist,) * 3)
    draw = ImageDraw.Draw(image)
    for thing, x, y, radius in things:
        colour, kind = thing.split()
        for primitive, points, solid in SHAPES[kind]:
            points = [(scale * (x + radius * px), scale * (y + radius * py)) for px, py in points]
            fill = COLOURS[colour] if solid else (mist,) * 3
            width = {"width": round(scale * radius / 6)} if primitive == "line" else {}
            getattr(draw, primitive)(points, fill=fill, **width)
    return image.reduce(scale)


def scenes(seed, n_train=10000, n_val=500):
    """Yield (split, caption, things, mist) for each picture of the world that `seed` stands for.

    A fifth of the 1,128 pairings of two different things is held out for the validation split.
    """
    rng = random.Random(seed)
    pairings = list(combinations(THINGS, 2))
    rng.shuffle(pairings)
    held_out = len(pairings) // 5
    for i in range(n_train + n_val):
        split = "train" if i < n_train else "val"
        pairing = rng.choice(pairings[held_out:] if split == "train" else pairings[:held_out])
        first, second = rng.sample(pairing, 2)
        relation = rng.choice(["left of", "above"])
        row = rng.uniform(25, 39)  # the two stand in one row (or column), each up to 7 pixels off it
        things = []
        for thing, (low, high) in ((first, (14, 19)), (second, (45, 50))):
            along, across = rng.uniform(low, high), row + rng.uniform(-7, 7)
            x, y = (along, across) if relation == "left of" else (across, along)
            things.append((thing, x, y, rng.uniform(11, 14)))
        yield split, f"a {first} {relation} a {second}", things, rng.randint(122, 134)


def write_world(folder, seed):
    """Draw the scenes of `seed` into `folder`: `captions.jsonl` and `images/`."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for i, (split, caption, things, mist) in enumerate(scenes(seed)):
            name = f"images/{i:05d}.png"
            draw_picture(things, mist).save(folder / name, compress_level=1)
            file.write(json.dumps({"image": name, "caption": caption, "split": split}) + "\n")


def written_once(folder, write):
    """`folder`, filled by `write(folder)` at its first use; it appears only once it is whole."""
    if not folder.exists():
        print(f"drawing the castle into {folder}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".castle-") as draft:
            write(Path(draft) / "world")
            try:
                (Path(draft) / "world").rename(folder)
            except OSError:
                if not folder.exists():  # if it does, another run wrote it meanwhile
                    raise
    return folder


def world_folder(seed, root="runs"):
    """The folder of the world of `seed` under `root`, drawn at its first use.

    Its name carries a digest of this file: who changes the drawing gets a new world, not the old pictures.
    """
    folder = Path(root) / f"castle-{seed}-{zlib.crc32(Path(__file__).read_bytes()):08x}"
    return written_once(folder, lambda draft: write_world(draft, seed))
