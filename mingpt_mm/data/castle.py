"""The built-in images and videos: colored things in front of gray, so that training needs no download.

Pillow draws them into a folder in the format that a user would bring (`captions.jsonl` and `images/`).
A scene shows two things, "a red bat left of a green ghost". In a clip one thing moves, "a red bat flies
left". A portrait shows an inhabitant of the story that story.py tells, "Mirela, a red bat". Pairings of two
things, or of a thing and a motion, that occur in validation never occur in training.
"""

import json
import random
import re
import tempfile
import zlib
from itertools import combinations, product, repeat
from pathlib import Path

from PIL import Image, ImageDraw

from mingpt_mm.console import progress

SIZE, FRAMES = 64, 12  # pixels on each side, and images of a clip
COLORS = {"red": (214, 39, 40), "pink": (255, 160, 200), "yellow": (250, 225, 50), "green": (40, 150, 60),
          "blue": (40, 80, 220), "purple": (140, 50, 170), "white": (250, 250, 250), "black": (15, 15, 20)}


def read_sections(name):
    """The text file `name` of this folder as {(name, kind): entries}.

    "name: kind" begins a section; its entries are indented.
    """
    text = Path(__file__).with_name(name).read_text("utf-8")
    sections = [map(str.strip, section.splitlines()) for section in re.split(r"\n(?=\S)", text)]
    return {tuple(re.split(": ?", title)): entries for title, *entries in sections}


# The shape of a kind: lines "primitive x,y x,y ..." in percent of the radius; a hole shows the background.
SHAPES = {kind: lines for (kind, _), lines in read_sections("castle.txt").items()}
THINGS = [f"{color} {kind}" for color, kind in product(COLORS, SHAPES)]
SYLLABLES = "mi re la on dri ka vel to sa bru ne zo lu pha gor ti wen ha xi do".split()
DIRECTIONS = {"flies left": (-1, 0), "flies right": (1, 0), "flies up": (0, -1), "flies down": (0, 1)}


def draw_image(things, gray):
    """A PIL image of `things`, each ("red bat", x, y, radius) in pixels, on a background of that gray level.

    Mid-gray (128) is 0 for ViT. Empty patches must be near zero, or they outweigh positions and shapes.
    """
    scale = 4  # drawn four times as large and averaged down, for soft edges
    image = Image.new("RGB", (SIZE * scale, SIZE * scale), (gray,) * 3)
    draw = ImageDraw.Draw(image)
    for thing, x, y, radius in things:
        color, kind = thing.split()
        for primitive, *points in map(str.split, SHAPES[kind]):
            points = [map(int, point.split(",")) for point in points]
            points = [(scale * (x + radius * px / 100), scale * (y + radius * py / 100)) for px, py in points]
            fill = (gray,) * 3 if primitive == "hole" else COLORS[color]  # the width is that of a line
            getattr(draw, primitive.replace("hole", "ellipse"))(points, fill, width=round(scale * radius / 6))
    return image.reduce(scale)


def draw_pairings(rng, pairings, splits):
    """An iterator over one of `pairings` for each of `splits`; a fifth of them is for "val" only."""
    rng.shuffle(pairings)
    pools = {"val": pairings[:len(pairings) // 5], "train": pairings[len(pairings) // 5:]}
    return (rng.choice(pools[split]) for split in splits)


def scenes(rng, splits):
    """Yield (caption, [things]) of an image of two things for each of `splits`; it has one right caption."""
    for pair in draw_pairings(rng, list(combinations(THINGS, 2)), splits):
        first, second = rng.sample(pair, 2)
        relation, row = rng.choice(["left of", "above"]), rng.uniform(25, 39)
        # (x, y, radius) of both: they stand in one row, up to 7 pixels off it
        places = [(rng.uniform(a, a + 5), row + rng.uniform(-7, 7), rng.uniform(11, 14)) for a in (14, 45)]
        if relation == "above":  # a column instead
            places = [(x, y, radius) for y, x, radius in places]
        yield f"a {first} {relation} a {second}", [[(first, *places[0]), (second, *places[1])]]


def clips(rng, splits):
    """Yield (caption, FRAMES lists of things) of a clip of one moving thing for each of `splits`.

    Opposite motions differ only in the order of the frames. A flight wraps around once
    (what leaves at one edge comes back at the other), so both directions show the same places. Shrinking ends
    as small as growing starts. Each change of color has its reverse.
    """
    motions = [*DIRECTIONS, "grows", "shrinks", *(f"turns {color}" for color in COLORS)]
    pairings = [pair for pair in product(THINGS, motions) if pair[0].split()[0] not in pair[1]]
    for thing, motion in draw_pairings(rng, pairings, splits):
        x, y, radius = rng.uniform(25, 39), rng.uniform(25, 39), rng.uniform(10, 14)
        change, (dx, dy), frames = rng.uniform(0.2, 0.8), DIRECTIONS.get(motion, (0, 0)), []
        for time in ((i + 0.5) / FRAMES for i in range(FRAMES)):
            size = radius * {"grows": 0.75 + 0.45 * time, "shrinks": 1.2 - 0.45 * time}.get(motion, 1)
            turned = f"{motion.split()[-1]} {thing.split()[1]}"  # of a motion "turns red"
            shown = turned if "turns" in motion and time > change else thing
            # in flights a second copy follows one width behind and comes in where the first one leaves
            copies = {(x + SIZE * dx * lap, y + SIZE * dy * lap) for lap in (time, time - 1)}
            frames.append([(shown, *at, size) for at in copies if -size < min(at) and max(at) < SIZE + size])
        yield f"a {thing} {motion}", frames


def inhabitants(rng):
    """{name: "red bat"} of the 21 inhabitants of the castle, with different names and looks."""
    names = set()
    while len(names) < 21:
        names.add("".join(rng.sample(SYLLABLES, 3)).capitalize())
    looks = [f"{color} {kind}" for color, kind in product(COLORS, ("bat", "ghost", "cat", "spider"))]
    return dict(zip(sorted(names), rng.sample(looks, 21)))


def portraits(rng, splits):
    """Yield (caption, [things]) of a portrait of one inhabitant for each of `splits`."""
    looks = list(inhabitants(rng).items())
    for name, look in (rng.choice(looks) for _ in splits):
        yield f"{name}, a {look}", [[(look, rng.uniform(26, 38), rng.uniform(26, 38), rng.uniform(16, 21))]]


WORLDS = {"scenes": (scenes, 10000, 500), "clips": (clips, 6000, 500), "portraits": (portraits, 3000, 300)}


def write_world(folder, world, seed):
    """Draw the `world` of `seed` into `folder`: `captions.jsonl` and `images/`."""
    rng, (draw, n_train, n_val) = random.Random(seed), WORLDS[world]
    splits = ["train"] * n_train + ["val"] * n_val
    (folder / "images").mkdir(parents=True)
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for i, (split, (caption, frames)) in enumerate(zip(progress(splits, world), draw(rng, splits))):
            first, *rest = map(draw_image, frames, repeat(rng.randint(122, 134)))  # one gray for all frames
            kind, name = "video" if rest else "image", f"images/{i:05d}.png"
            first.save(folder / name, compress_level=1, append_images=rest, save_all=bool(rest), duration=80)
            file.write(json.dumps({kind: name, "caption": caption, "split": split}) + "\n")


def world_folder(name, write, *args):
    """The folder `name` of built-in data; `write(folder, *args)` makes it at its first use.

    A digest of the files behind the data is added to the name, so that edited ones get a new folder. The
    folder appears only when it is complete.
    """
    sources = map(Path(__file__).with_name, ("castle.py", "castle.txt", "story.py", "story.txt"))
    folder = Path(f"{name}-{zlib.crc32(b''.join(file.read_bytes() for file in sources)):08x}")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".world-") as draft:
            write(Path(draft, "world"), *args)
            if not folder.exists():  # another run may have written it meanwhile
                Path(draft, "world").rename(folder)
    return folder
