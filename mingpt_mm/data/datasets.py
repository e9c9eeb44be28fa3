"""Captioned images and videos, texts, graphs and probes: files to batches.

Text files are checked when they are loaded, images when they are first used. A batch is a function of seed
and step, which makes a run repeatable and a resumed run exact.

Letters: B batch, T tokens of the longest row in the batch, F frames, S height and width in pixels.
"""

import json
import re
import unicodedata
import warnings
from collections import namedtuple
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from mingpt_mm.console import RANK, WORLD_SIZE, UserError, fail, progress

IGNORE = -100  # the target of a position without one; cross_entropy skips it
Image.MAX_IMAGE_PIXELS = 25_000_000  # files can claim any size; Pillow refuses more than twice this

Row = namedtuple("Row", "path video captions split")


def read_items(path, parse, decode=json.loads, separator="\n"):
    """[parse(decode(item)), ...] of a UTF-8 text file; items are its lines, or what `separator` separates.

    Items of white space are left out. Text is in Unicode's composed form: an accent is part of its letter.
    A UserError names the file and the number of the item.
    """
    rows, number = [], " not UTF-8"
    try:
        text = unicodedata.normalize("NFC", Path(path).read_text(encoding="utf-8-sig"))
        for number, item in enumerate(re.split(separator, text), 1):
            rows += [parse(decode(item))] if item.strip() else []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        fail(f"{path}:{number}: {'no ' * isinstance(error, KeyError)}{error}")
    return rows or fail(f"{path}: nothing in it")


def clean(text):
    """`text` without space around it, also invisible one, and without half surrogate pairs."""
    text = unicodedata.normalize("NFC", text.encode(errors="replace").decode())
    return re.sub(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$", "", text) or fail("a text is empty")


def load_captions(folder):
    """[Row, ...] of `folder`/captions.jsonl.

    Each line is {"image": PATH, "caption": TEXT}, with "video" instead of "image", "captions" (a list)
    instead of "caption" and optionally "split": "train", "val" or "test". Paths are relative to the file.
    """
    def parse(row):
        kind, = {"image", "video"} & row.keys() or ["image"]
        captions = row["captions"] if "captions" in row else [row["caption"]]
        path, split = Path(folder, row[kind]), row.get("split")
        if not path.is_file() and not (kind == "video" and path.is_dir()):
            fail(f"no such {kind}: {row[kind]!r}")
        if split not in (None, "train", "val", "test") or not isinstance(captions, list) or not captions:
            fail('"split" must be "train", "val" or "test"; "captions" a list of texts')
        return Row(path, kind == "video", [clean(" ".join(text.split())) for text in captions], split)

    return read_items(Path(folder, "captions.jsonl"), parse)


def split_rows(rows):
    """(training rows, validation rows); without a "val" split every tenth is held out. "test" is left out."""
    train, val = ([row for row in rows if row.split in names] for names in ((None, "train"), ("val",)))
    return (train, val) if train and val else split_documents(train)


def load_documents(paths):
    """The documents of text files, which blank lines separate."""
    return [document for path in paths for document in read_items(path, clean, str, r"\n\s*\n")]


def split_documents(documents):
    """(training documents, validation documents): every tenth is held out."""
    if len(documents) < 10:
        fail(f"{len(documents)} rows or documents to train on; ten are needed (blank lines separate texts)")
    return [document for i, document in enumerate(documents) if i % 10 != 9], documents[9::10]


def load_triples(path):
    """The knowledge graph `path`, head<TAB>relation<TAB>tail on each line, without repetitions or header."""
    def parse(line):
        row = tuple(" ".join(clean(part).split()) for part in line.split("\t"))
        return row if len(row) == 3 else fail(f"not head<TAB>relation<TAB>tail: {line[:60]!r}")

    rows = read_items(path, parse, str)
    header = r"(?i)(head|subject|source).* (rel|predicate|edge|property)\w* (tail|object|target).*"
    return [*dict.fromkeys(rows[bool(re.match(header, " ".join(rows[0]))):])] or fail(f"{path}: no triples")


def load_probes(path):
    """[{"prompt", "answer", "group"}, ...]: questions whose answers are known, an object on each line."""
    return read_items(path, lambda row: {key: clean(row[key]) for key in ("prompt", "answer", "group")})


def to_rgb(image):
    """`image` in RGB, upright as its EXIF data say; what is transparent becomes mid-gray, 0 for ViT."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit grayscale has no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        gray, clear = np.asarray(image), image.info.get("transparency", -1)
        image = Image.fromarray(np.stack([gray // 257, 255 * (gray != clear)], axis=2).astype(np.uint8))
    return Image.alpha_composite(Image.new("RGBA", image.size, "gray"), image.convert("RGBA")).convert("RGB")


def load_frames(path, frames, size):
    """The image or video at `path` -> uint8 (F, 3, S, S), F = `frames`, S = `size`.

    A video is an animated image file, or a folder with one image for each frame in the order of their
    numbers. Its frames are the ones shown in the middle of F equal parts of its duration. A still image is
    repeated. With one frame, an animated file gives its first one.
    """
    path, images, durations = Path(path), [], []
    files = [file for file in path.glob("[!.]*") if file.suffix.lower() in Image.registered_extensions()]
    files.sort(key=lambda file: re.sub(r"\d+", lambda digits: digits[0].zfill(20), file.name))
    for file in files if path.is_dir() else [path]:
        try:  # read frames from front to back once: decoders keep a state
            with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
                if "transparency" in image.info and re.search("L;[24]'|RGB;16", str(image.tile)):
                    raise ValueError("transparency in a PNG of 2, 4 or 48 bits is not read; save it as RGBA")
                # APNGs may begin with a still image for other viewers.
                for i in range(image.info.get("default_image", 0), getattr(image, "n_frames", 1)):
                    image.seek(i)  # EOFError for Photoshop files, whose frames are layers
                    before = getattr(image, "_prev_im", None) and image._prev_im.copy()
                    image.load()  # only now a WebP tells its duration
                    image._prev_im = before  # an APNG may restore it; load() draws over it
                    images.append(np.asarray(to_rgb(image).resize((size, size), Image.BILINEAR)))  # (S, S, 3)
                    durations.append(image.info.get("duration") or 100)  # browsers also replace 0
                    if frames == 1 or path.is_dir():
                        break
        except Exception as error:  # decoders of damaged files can raise anything
            raise UserError(f"{file}: cannot be read as an image ({error})") from error
    ends = np.cumsum(durations or fail(f"{path}: no frames in it"))
    shown = np.searchsorted(ends, ends[-1] * (np.arange(frames) + 0.5) / frames, side="right")
    return torch.from_numpy(np.stack([images[i].transpose(2, 0, 1) for i in shown]))


cached_frames = lru_cache(12_000)(load_frames)


class TextDataset(Dataset):
    """Documents as tokens between two end-of-text tokens."""

    def __init__(self, documents, tokenizer):
        self.pieces = [[tokenizer.eot_token, *tokenizer.encode_ordinary(document), tokenizer.eot_token]
                       for document in progress(documents, "tokenizing the text")]
        self.longest = max(map(len, self.pieces), default=1) - 1  # positions

    def cut(self, block_size):
        """Cut documents of more than `block_size` positions into pieces, in place; return the dataset."""
        self.pieces = [p[i:i + block_size + 1] for p in self.pieces for i in range(0, len(p) - 1, block_size)]
        return self

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, key):
        return None, self.pieces[key[0]], 0


class CaptionDataset(Dataset):
    """Captioned images or videos, tokenized here and decoded when first used.

    With `documents`, a TextDataset, a row is "caption. document" with targets on the document only; `room` is
    the number of positions behind the image. With `image_tokens`, a list for each row, a row is
    [caption | image tokens] without pixels, with targets on the image tokens only.
    """

    def __init__(self, rows, tokenizer, frames, size, documents=None, room=None, image_tokens=None):
        self.rows, self.frames, self.size, self.documents, self.room = rows, frames, size, documents, room
        self.image_tokens = image_tokens
        self.texts = [TextDataset([caption + "." * bool(documents) for caption in row.captions], tokenizer)
                      for row in progress(rows, "tokenizing captions")]
        self.longest = max(texts.longest for texts in self.texts)  # positions

    def first_frames(self, rows):
        """The first frames of the `rows`, a tensor of N indices -> uint8 (N, 3, S, S)"""
        return torch.stack([cached_frames(self.rows[i].path, self.frames, self.size)[0] for i in rows])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        i, number = key  # a random number chooses among the captions and the documents
        other, choice = divmod(number, len(self.texts[i]))
        text, skip = self.texts[i].pieces[choice], 0
        if self.image_tokens:
            return None, text[:-1] + self.image_tokens[i], len(text) - 2
        if self.documents:
            skip = len(text) - 2
            text = (text[:-1] + self.documents.pieces[other % len(self.documents)][1:])[:self.room + 1]
        return cached_frames(self.rows[i].path, self.frames, self.size), text, skip


def collate(rows):
    """[(pixels or None, tokens, skip), ...] -> pixels uint8 (B, F, 3, S, S) or None, tokens, targets (B, T)

    Each target is the token that follows; the first `skip` of a row have none. Padding comes after the text,
    where the causal mask hides it, and has no targets.
    """
    length = max(len(tokens) for _, tokens, _ in rows) - 1
    tokens, targets = (torch.full((len(rows), length), fill) for fill in (rows[0][1][0], IGNORE))  # (B, T)
    for i, (_, row, skip) in enumerate(rows):
        tokens[i, :len(row) - 1] = torch.tensor(row[:-1])
        targets[i, skip:len(row) - 1] = torch.tensor(row[1 + skip:])
    return None if rows[0][0] is None else torch.stack([pixels for pixels, _, _ in rows]), tokens, targets


def make_loader(dataset, args, device, checkpoint=None, stream=0):
    """Yield each step's batch on the `device`, from the `checkpoint` on; a function of (seed, stream, step).

    The dataset is read epoch after epoch, each in an order of its own. Of several processes each gets its
    share of every batch.
    """
    n, B = len(dataset), args.batch_size
    order = lru_cache(2)(lambda epoch: np.random.default_rng([args.seed, stream, epoch]).permutation(n))

    def keys():
        for step in range(checkpoint["step"] if checkpoint else 0, args.steps):
            draws = np.random.default_rng([args.seed, stream, step, 1]).integers(2**31, size=B)
            yield [(order(i // n)[i % n], draw) for i, draw in enumerate(draws, step * B)][RANK::WORLD_SIZE]

    for batch in DataLoader(dataset, batch_sampler=keys(), collate_fn=collate, num_workers=args.num_workers,
                            pin_memory=device.type == "cuda", generator=torch.Generator()):
        yield [tensor if tensor is None else tensor.to(device, non_blocking=True) for tensor in batch]
