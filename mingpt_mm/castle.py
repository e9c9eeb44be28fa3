"""The castle: a built-in world of coloured things in grey mist, so that training needs no download.

Pillow draws it into a folder in exactly the format that a user would bring (`captions.jsonl` and `images/`).
A scene shows two things, "a red bat left of a green ghost". Each picture has one right caption: the relation
is "left of" or "above" and nothing else. Two things that meet in a validation picture never meet in a
training picture. In a clip one thing moves, "a red bat flies left", and in a duet two do, differently; what
moves how in a validation clip never moves so in a training clip. A portrait shows one of the individuals
whose story story.py tells, "Mirela, a red bat".
"""

import json
import random
import tempfile
import zlib
from functools import partial
from itertools import combinations, product
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 64  # pixels a side
FRAMES = 12  # of a clip
MIST = 128  # mid-grey is 0 to a ViT: empty patches must be near zero, or they drown positions and shapes

COLOURS = {"red": (214, 39, 40), "pink": (255, 160, 200), "yellow": (250, 225, 50), "green": (40, 150, 60),
           "blue": (40, 80, 220), "purple": (140, 50, 170), "white": (250, 250, 250), "black": (15, 15, 20)}

# Each kind is a list of (primitive, points), in units of the thing's radius; a hole is an ellipse of mist.
SHAPES = {
    "bat": [("polygon", [(-.15, -.25), (-.55, -.6), (-1, -.1), (-1, .5), (-.7, .15), (-.45, .5), (-.2, .2),
                         (0, .65), (.2, .2), (.45, .5), (.7, .15), (1, .5), (1, -.1), (.55, -.6),
                         (.15, -.25)]),
            ("polygon", [(-.25, -.05), (-.25, -.7), (0, -.4), (.25, -.7), (.25, -.05)])],
    "ghost": [("ellipse", [(-.65, -1), (.65, .3)]),
              ("polygon", [(-.65, -.35), (-.65, 1), (-.35, .7), (0, 1), (.35, .7), (.65, 1), (.65, -.35)]),
              ("hole", [(-.4, -.55), (-.08, -.1)]),
              ("hole", [(.08, -.55), (.4, -.1)])],
    "cat": [("ellipse", [(-.75, -.15), (.55, .5)]),
            ("ellipse", [(.15, -.6), (.85, .1)]),
            ("polygon", [(.15, -.25), (.2, -.9), (.5, -.55), (.8, -.9), (.85, -.25)]),
            ("polygon", [(-.7, .2), (-.7, 1), (-.4, 1), (-.4, .3), (.2, .3), (.2, 1), (.5, 1), (.5, .1)]),
            ("line", [(-.65, .1), (-.9, -.2), (-.75, -.8)])],
    "spider": [("ellipse", [(-.45, -.4), (.45, .5)]),
               *(("line", [(side * .2, .05), (side * .65, y), (side, y + bend)])
                 for side in (-1, 1) for y, bend in ((-.7, .4), (-.2, .2), (.3, .2), (.5, .5)))],
    "key": [("ellipse", [(-1, -.5), (0, .5)]),
            ("hole", [(-.72, -.22), (-.28, .22)]),
            ("polygon", [(-.1, -.17), (1, -.17), (1, .6), (.75, .6), (.75, .17), (.58, .17), (.58, .5),
                         (.33, .5), (.33, .17), (-.1, .17)])],
    "candle": [("polygon", [(-.28, -.2), (.28, -.2), (.28, .8), (-.28, .8)]),
               ("polygon", [(-.7, .75), (.7, .75), (.5, 1), (-.5, 1)]),
               ("polygon", [(0, -1), (.22, -.6), (.12, -.35), (-.12, -.35), (-.22, -.6)])],
}
THINGS = [f"{colour} {kind}" for colour, kind in product(COLOURS, SHAPES)]
SYLLABLES = "mi re la on dri ka vel to sa bru ne zo lu pha gor ti wen ha xi do".split()  # of names
INDIVIDUALS = 21
DIRECTIONS = {"flies left": (-1, 0), "flies right": (1, 0), "flies up": (0, -1), "flies down": (0, 1)}


def draw_picture(things, mist=MIST):
    """A PIL picture of `things`, each ("red bat", x, y, radius) in pixels, in mist of that grey level."""
    scale = 4  # drawn four times as large and averaged down: soft edges
    image = Image.new("RGB", (SIZE * scale, SIZE * scale), (mist,) * 3)
    draw = ImageDraw.Draw(image)
    for thing, x, y, radius in things:
        colour, kind = thing.split()
        for primitive, points in SHAPES[kind]:
            points = [(scale * (x + radius * px), scale * (y + radius * py)) for px, py in points]
            if primitive == "hole":
                draw.ellipse(points, (mist,) * 3)
            else:  # the width is that of a line
                getattr(draw, primitive)(points, COLOURS[colour], width=round(scale * radius / 6))
    return image.reduce(scale)


def scenes(seed, n_train=10000, n_val=500):
    """Yield (split, caption, frames, mist) for each picture of the world that `seed` stands for: one frame.

    A fifth of the 1,128 pairings of two different things is held out for the validation split.
    """
    rng = random.Random(seed)
    pairings = list(combinations(THINGS, 2))
    rng.shuffle(pairings)
    pools = {"train": pairings[len(pairings) // 5:], "val": pairings[:len(pairings) // 5]}
    for split in ["train"] * n_train + ["val"] * n_val:
        first, second = rng.sample(rng.choice(pools[split]), 2)
        relation = rng.choice(["left of", "above"])
        row = rng.uniform(25, 39)  # the two stand in one row (or column), each up to 7 pixels off it
        things = []
        for thing, (low, high) in ((first, (14, 19)), (second, (45, 50))):
            along, across = rng.uniform(low, high), row + rng.uniform(-7, 7)
            x, y = (along, across) if relation == "left of" else (across, along)
            things.append((thing, x, y, rng.uniform(11, 14)))
        yield split, f"a {first} {relation} a {second}", [things], rng.randint(122, 134)


def move(thing, motion, x, y, radius, change):
    """FRAMES lists of things, see `draw_picture`: `thing` begins at x, y and does what `motion` says.

    Frames without their order do not tell a motion from its opposite. What flies goes once around (who leaves
    at one edge comes back at the other), so that both directions show the same places, wherever they begin;
    what shrinks is as large as what grows; and of two colours, the second one after a share `change` of the
    time, either may be the first.
    """
    dx, dy = DIRECTIONS.get(motion, (0, 0))
    frames = []
    for time in ((i + 0.5) / FRAMES for i in range(FRAMES)):
        size = radius * {"grows": 0.75 + 0.45 * time, "shrinks": 1.2 - 0.45 * time}.get(motion, 1)
        look = f"{motion.split()[1]} {thing.split()[1]}" if "turns" in motion and time > change else thing
        left, top = (x + SIZE * dx * time) % SIZE, (y + SIZE * dy * time) % SIZE
        copies = ((left + right, top + down) for right, down in product((-SIZE, 0, SIZE), repeat=2))
        frames.append([(look, *copy, size) for copy in copies
                       if -size < min(copy) and max(copy) < SIZE + size])
    return frames


def clips(seed, movers=1, n_train=6000, n_val=500):
    """Yield (split, caption, frames, mist) for each clip; a frame is a list of things, see `draw_picture`.

    A fifth of the pairings of a thing and a motion is held out for the validation split. Of two `movers` one
    stays above the other, so neither flies up or down.
    """
    rng = random.Random(seed)
    motions = [*DIRECTIONS][:4 if movers == 1 else 2] + ["grows", "shrinks"]
    motions += [f"turns {colour}" for colour in COLOURS]
    pairings = [pair for pair in product(THINGS, motions) if pair[0].split()[0] not in pair[1]]
    rng.shuffle(pairings)
    pools = {"train": pairings[len(pairings) // 5:], "val": pairings[:len(pairings) // 5]}
    for split in ["train"] * n_train + ["val"] * n_val:
        chosen, parts = {}, []
        while len(chosen) < movers:
            thing, motion = rng.choice(pools[split])
            chosen[motion] = thing
        for row, (motion, thing) in enumerate(chosen.items()):
            x, y, radius = rng.uniform(25, 39), rng.uniform(25, 39), rng.uniform(10, 14)
            if movers == 2:  # each has half the height
                y, radius = SIZE / 2 * row + rng.uniform(13, 19), radius - 1
            parts.append(move(thing, motion, x, y, radius, rng.uniform(0.2, 0.8)))
        told = [f"a {thing} {'that ' if movers == 2 else ''}{motion}" for motion, thing in chosen.items()]
        yield split, " above ".join(told), [sum(things, []) for things in zip(*parts)], rng.randint(122, 134)


def individuals(rng):
    """{name: what it is, "red bat"} of those who live in the castle, all of different names and looks."""
    names = set()
    while len(names) < INDIVIDUALS:
        names.add("".join(rng.sample(SYLLABLES, 3)).capitalize())
    looks = [f"{colour} {kind}" for colour, kind in product(COLOURS, ("bat", "ghost", "cat", "spider"))]
    return dict(zip(sorted(names), rng.sample(looks, INDIVIDUALS)))


def portraits(seed, n_train=3000, n_val=300):
    """Yield (split, caption, frames, mist) for each portrait, "Mirela, a red bat"; see `individuals`."""
    rng = random.Random(seed)
    looks = individuals(rng)
    for split in ["train"] * n_train + ["val"] * n_val:
        name = rng.choice(list(looks))
        portrait = looks[name], rng.uniform(26, 38), rng.uniform(26, 38), rng.uniform(16, 21)
        yield split, f"{name}, a {looks[name]}", [[portrait]], rng.randint(122, 134)


WORLDS = {"scenes": scenes, "clips": clips, "duets": partial(clips, movers=2), "portraits": portraits}


def write_world(folder, pictures):
    """Draw `pictures` or clips, see `scenes` and `clips`, into `folder`: `captions.jsonl` and `images/`."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for i, (split, caption, frames, mist) in enumerate(pictures):
            first, *others = [draw_picture(things, mist) for things in frames]
            kind, name = "video" if others else "image", f"images/{i:05d}.png"
            first.save(folder / name, compress_level=1, append_images=others, save_all=bool(others),
                       duration=80)
            file.write(json.dumps({kind: name, "caption": caption, "split": split}) + "\n")


def written_once(name, sources, write):
    """The folder `name`, with a digest of the files `sources`, filled by `write(folder)` at its first use.

    Who changes the sources gets a new folder, and not the old contents. It appears only once it is whole.
    """
    digest = zlib.crc32(b"".join(Path(file).read_bytes() for file in sources))
    folder = Path(f"{name}-{digest:08x}")
    if not folder.exists():
        print(f"drawing the castle into {folder}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".castle-") as draft:
            write(Path(draft) / "world")
            if not folder.exists():  # another run may have written it meanwhile
                (Path(draft) / "world").rename(folder)
    return folder


def world_folder(seed, world="scenes", root="runs"):
    """The folder of the `world` (see WORLDS) of `seed` under `root`, drawn at its first use."""
    return written_once(f"{root}/{world}-{seed}", [__file__],
                        lambda folder: write_world(folder, WORLDS[world](seed)))
