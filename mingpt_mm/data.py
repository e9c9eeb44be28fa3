"""Readers of captioned pictures and clips, and batches as a pure function of (seed, step).

A batch depends on nothing but its arguments: not on the batches before it, not on how many processes read.
That is what makes a run repeatable and a resumed run exact. All checks of files stand here, in text.py and in
images.py; behind these doors the data are what they claim to be.

Letters: B batch, T tokens of the longest text in the batch, F frames of a clip, N pictures, P positions and D
width of what the ViT sees of one.
"""

import json
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from os.path import getsize, isdir, isfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from mingpt_mm import BadInput
from mingpt_mm.images import read_clip, read_image
from mingpt_mm.system import RANK, WORLD
from mingpt_mm.text import fingerprint, pad


# A captioned picture or, if it `moves`, clip; `where` names its line ("captions.jsonl:12") for messages.
Row = namedtuple("Row", "where split file moves captions")


def read_row(line, where, folder):
    """One line of `captions.jsonl` (bytes) as a Row; `folder` is what its paths are relative to."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error}): write one object a line") from None
    kinds = [kind for kind in ("image", "video") if isinstance(row, dict) and isinstance(row.get(kind), str)]
    if len(kinds) != 1:
        raise BadInput(f'{where}: names {"a picture and a clip" if kinds else "no picture"}: write '
                       f'{{"image": "images/1.png", "caption": "..."}}, or "video" instead of "image"')
    captions = row.get("captions", [row.get("caption")])
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c for c in captions):
        raise BadInput(f'{where}: no "caption" that is a text (or "captions" that is a list of texts)')
    split, file = row.get("split", "train"), folder / row[kinds[0]]
    if split not in ("train", "val", "test"):
        raise BadInput(f'{where}: the split {split!r} is none of "train", "val", "test": write one of these')
    moves = kinds == ["video"]
    if not (isfile(file) and getsize(file) > 0 or moves and isdir(file)):
        raise BadInput(f"{where}: the {'clip' if moves else 'picture'} {str(file)[:200]} is missing or "
                       "empty: put it there, or take the line out")
    return Row(where, split, file, moves, captions)


def read_captions(folder):
    """The rows of `folder`/captions.jsonl as (training rows, validation rows).

    Where no row has the split "val", every tenth training row is held out for validation.
    """
    file = Path(folder) / "captions.jsonl"
    lines = enumerate(file.read_bytes().split(b"\n"), 1)
    rows = [read_row(line, f"{file}:{number}", file.parent) for number, line in lines if line.strip()]
    train, val = ([row for row in rows if row.split == split] for split in ("train", "val"))
    if not val:
        train, val = [row for i, row in enumerate(train) if i % 10 != 9], train[9::10]
    if not train or not val:
        raise BadInput(f"{file}: {len(train)} rows to learn from and {len(val)} to be tested on: give one of "
                       "each, or ten without a split")
    return train, val


def fingerprint_rows(splits):
    """A string that tells these rows (see `read_captions`) from others, wherever they lie."""
    return fingerprint([[(row.file.name, row.file.is_file() and row.file.stat().st_size, row.captions)
                         for row in rows] for rows in splits])


class Captions:
    """Captioned pictures and clips, tokenised at once and decoded when they are asked for.

    rows: see `read_captions`; size: pixels a side; room: most tokens a caption may have, the end-of-text
    token included; cache_mb: how much of the decoded pictures is kept in memory, in megabytes; frames: of
    each clip, and of a picture, which is a clip in which nothing moves; 0 if all are pictures.
    """

    def __init__(self, rows, encoding, size, room, cache_mb, frames=0):
        self.rows, self.size, self.end = rows, size, encoding.eot_token
        self.shape = (frames, 3, size, size) if frames else (3, size, size)
        self.tokens = [[encoding.encode_ordinary(caption) for caption in row.captions] for row in rows]
        self.longest = 1 + max(len(tokens) for captions in self.tokens for tokens in captions)
        self.cache, self.cache_bytes = {}, cache_mb * 10**6
        self.blank = np.full((1, *self.shape), 128, np.uint8)  # shows nothing
        self.patches = None
        for row, captions in zip(rows, self.tokens):
            over = 1 + max(map(len, captions)) - room
            if over > 0:
                raise BadInput(f"{row.where}: a caption is {over} tokens too long for the context: shorten "
                               f"it, raise --block_size by {over}, or lower --image_size"
                               f"{' or --frames' if frames else ''}")

    def __len__(self):
        return len(self.rows)

    def pixels(self, i):
        """Picture `i` as uint8 (3, size, size), or clip `i` as uint8 (F, 3, size, size)."""
        if i in self.cache:
            return self.cache[i]
        row = self.rows[i]
        images = read_clip(row.file, self.shape[0]) if row.moves else [read_image(row.file)]
        images = [image.resize((self.size, self.size), Image.Resampling.BILINEAR) for image in images]
        pixels = np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)
        pixels = np.broadcast_to(pixels, self.shape) if len(self.shape) == 4 else pixels[0]
        if (len(self.cache) + 1) * pixels.nbytes <= self.cache_bytes:
            self.cache[i] = pixels
        return pixels

    def remember(self, look, batch_size):
        """From now on give out what `look` makes of the pixels, (B, P, D), instead of the pixels."""
        blank = look(self.blank)  # (1, P, D)
        if len(self) * blank.nbytes > self.cache_bytes:
            needed = len(self) * blank.nbytes // 10**6 + 1
            print(f"the frozen ViT looks at each picture anew; --cache_mb {needed} would keep what it sees")
            return
        print(f"the frozen ViT looks at {len(self):,} pictures, once", flush=True)
        batches = np.array_split(np.arange(len(self)), range(batch_size, len(self), batch_size))
        self.blank = blank  # (1, P, D)
        self.patches = np.empty((len(self), *blank.shape[1:]), blank.dtype)  # (N, P, D)
        for batch in batches:
            self.patches[batch] = look(np.stack([self.pixels(i) for i in batch]))
            self.cache.clear()

    def batch(self, indices, rng=None, mine=slice(None)):
        """The rows `indices` as pixels uint8 (B, 3, size, size) or, of clips, (B, F, 3, size, size), tokens
        and targets (see `pad`); only those at the places `mine`, if these are given.

        With `rng` each row takes any of its captions, without it the first.
        """
        captions = [self.tokens[i][rng.integers(len(self.tokens[i])) if rng else 0] for i in indices][mine]
        indices = indices[mine]
        tokens, targets = pad(captions, self.end)  # (B, T)
        if self.patches is not None:
            return self.patches[indices], tokens, targets
        return np.stack([self.pixels(i) for i in indices]), tokens, targets


@lru_cache(maxsize=4)
def permutation(n, seed, epoch):
    """The order of `n` rows in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class Batches:
    """`batches[step]` is the batch of that step: `data` epoch after epoch, each in an order of its own.

    Another `stream` (a number) has other orders. Of several processes each gets its own part of the batch.
    """

    def __init__(self, data, batch_size, seed, stream=0):
        self.data, self.batch_size, self.seed = data, batch_size, seed + stream * 2**63

    def __getitem__(self, step):
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        indices = [permutation(len(self.data), self.seed, place // len(self.data))[place % len(self.data)]
                   for place in places]
        return self.data.batch(indices, np.random.default_rng([self.seed, step, 1]), slice(RANK, None, WORLD))


def one_ahead(batches):
    """The same `batches`, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def read_ahead(data, config, first, device, stream=0):
    """An iterator of the batches from step `first` on, on the `device`; `stream`: see `Batches`.

    Pictures are read by a thread or by `config.workers` processes; tokens are in memory, or nearly.
    """
    if config.batch_size < WORLD:
        raise BadInput(f"--batch_size {config.batch_size}: not an example for each of {WORLD} processes")
    steps = Batches(data, config.batch_size, config.seed, stream)
    workers = config.workers if isinstance(data, Captions) else 0
    # An iterator draws a seed of its own when it begins: here, and not within a step.
    loader = iter(DataLoader(steps, batch_size=None, sampler=range(first, config.steps),
                             num_workers=workers, pin_memory=device.type == "cuda"))
    batches = ([tensor.to(device, non_blocking=True) for tensor in batch] for batch in loader)
    return one_ahead(batches) if WORLD == 1 else batches  # several processes have no core to spare
