"""Captioned images and videos, texts, graphs and probes: files to batches.

All checks of the user's files are in the `load_*` functions. A batch is a function of (seed, step) alone, which
makes a run repeatable and a resumed run exact.

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

from mingpt_mm.console import RANK, WORLD_SIZE, UserError, progress

IGNORE = -100  # the target of a position without one; cross_entropy skips it
MAX_PIXELS = 50_000_000  # a file of a few bytes can claim any size
Image.MAX_IMAGE_PIXELS = None  # Pillow would warn on standard error; the line above refuses earlier

Row = namedtuple("Row", "path video captions split")


def read_text(path):
    """The UTF-8 text file `path`, in Unicode's composed form, in which an accent is part of its letter."""
    try:
        return unicodedata.normalize("NFC", Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from None


def read_jsonl(path, parse):
    """[parse(object), ...] of a file with a JSON object on each line; an error names the file and the line."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        try:
            rows += [parse(json.loads(line))] if line.strip() else []
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: {error if str(error) else type(error).__name__}") from None
    return rows


def clean(text):
    """`text` without white space around it and without half surrogate pairs, which no encoding can write."""
    text = unicodedata.normalize("NFC", text.encode(errors="replace").decode()).strip()
    if not text:
        raise ValueError("a text is empty")
    return text


def load_captions(folder):
    """[Row, ...] of `folder`/captions.jsonl.

    Each line is {"image": PATH, "caption": TEXT}, with "video" instead of "image", "captions" (a list) instead
    of "caption" and optionally "split": "train", "val" or "test". Paths are relative to the file.
    """
    def parse(row):
        kind, = {"image", "video"} & row.keys() or ["image"]
        captions = row["captions"] if "captions" in row else [row["caption"]]
        path, split = Path(folder, row[kind]), row.get("split")
        if not path.is_file() and not (kind == "video" and path.is_dir()):
            raise ValueError(f"no such {kind}: {row[kind]}")
        if split not in (None, "train", "val", "test") or not isinstance(captions, list) or not captions:
            raise ValueError('"split" must be "train", "val" or "test"; "captions" a list of texts')
        return Row(path, kind == "video", [clean(caption) for caption in captions], split)

    return read_jsonl(Path(folder, "captions.jsonl"), parse)


def split_rows(rows):
    """(training rows, validation rows); without a "val" split every tenth training row is held out."""
    train = [row for row in rows if row.split in (None, "train")]
    val = [row for row in rows if row.split == "val"]
    if not val:
        train, val = [row for i, row in enumerate(train) if i % 10 != 9], train[9::10]
    if not train or not val:
        raise UserError(f"{len(train)} training and {len(val)} validation rows: both are needed, or ten rows")
    return train, val


def load_documents(paths):
    """The documents of text files, which blank lines separate."""
    texts = (re.split(r"\n\s*\n", read_text(path)) for path in paths)
    return [document.strip() for documents in texts for document in documents if document.strip()]


def split_documents(documents):
    """(training documents, validation documents): every tenth is held out."""
    if len(documents) < 10:
        raise UserError(f"--text: {len(documents)} documents; ten are needed, with blank lines between them")
    return [document for i, document in enumerate(documents) if i % 10 != 9], documents[9::10]


def load_triples(path):
    """The knowledge graph `path`, head<TAB>relation<TAB>tail on each line, without repetitions or a header."""
    triples = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        triple = tuple(" ".join(part.split()) for part in line.split("\t"))
        if line.strip() and (len(triple) != 3 or not all(triple)):
            raise UserError(f"{path}:{number}: not head<TAB>relation<TAB>tail: {line.strip()[:60]!r}")
        header = number == 1 and triple[0].lower() in ("head", "subject", "source", "entity")
        triples |= {triple: None} if line.strip() and not header else {}
    if not triples:
        raise UserError(f"{path}: no triples in it")
    return list(triples)


def load_probes(path):
    """[{"prompt", "answer", "group"}, ...]: questions whose answers are known, an object on each line."""
    return read_jsonl(path, lambda row: {key: clean(row[key]) for key in ("prompt", "answer", "group")})


def to_rgb(image):
    """`image` in RGB, upright as its EXIF data say; what is transparent becomes mid-gray, which is 0 for ViT."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit grayscale has no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        gray = np.asarray(image)
        opaque = gray != image.info.get("transparency", -1)
        image = Image.merge("LA", [Image.fromarray(x.astype(np.uint8)) for x in (gray // 257, opaque * 255)])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image)
    return image.convert("RGB")


def load_frames(path, frames, size):
    """The image or video at `path` -> uint8 (F, 3, S, S), F = `frames`, S = `size`.

    A video is an animated image file, or a folder with one image for each frame in the order of their
    numbers. Its frames are the ones shown in the middle of F equal parts of its duration. A still image is
    repeated. With one frame, an animated file gives its first one.
    """
    files, images, ends = [Path(path)], [], [0]
    if files[0].is_dir():
        files = [f for f in files[0].iterdir() if f.suffix.lower() in Image.registered_extensions() and f.name[0] != "."]
        files.sort(key=lambda file: re.sub(r"\d+", lambda digits: digits[0].zfill(20), file.name))
    still = frames == 1 or Path(path).is_dir()
    for file in files:
        try:  # in one forward pass: decoders keep a state
            with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                for index in range(1 if still else 2**31):
                    image.seek(index)  # EOFError behind the last one
                    image.load()  # only now a WebP tells its duration
                    if index or still or not image.info.get("default_image"):  # a still for viewers without APNG
                        rgb = to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
                        images.append(np.asarray(rgb).transpose(2, 0, 1))
                        ends.append(ends[-1] + (image.info.get("duration") or 100))  # browsers also replace 0
        except EOFError:
            pass
        except Exception as error:  # decoders of damaged files can raise anything
            raise UserError(f"{file}: cannot be read as an image ({error})") from error
    if not images:
        raise UserError(f"{path}: no frames in it")
    shown = np.searchsorted(ends[1:], ends[-1] * (np.arange(frames) + 0.5) / frames, side="right")
    return torch.from_numpy(np.stack([images[i] for i in shown]))


cached_frames = lru_cache(12_000)(load_frames)


class CaptionDataset(Dataset):
    """Captioned images or videos, tokenized at once and decoded when first used.

    With `documents`, a TextDataset, a row is "caption. document" with targets on the document only; `room` is
    the number of positions behind the image.
    """

    def __init__(self, rows, tokenizer, frames, size, documents=None, room=None):
        self.rows, self.frames, self.size, self.documents, self.room = rows, frames, size, documents, room
        end, eot = "." if documents else "", tokenizer.eot_token
        self.tokens = [[[eot, *tokenizer.encode_ordinary(caption + end)] for caption in row.captions]
                       for row in progress(rows, "tokenizing captions")]
        self.longest = max(len(tokens) for captions in self.tokens for tokens in captions)  # positions

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        i, draw = key  # a random number chooses among the captions and the documents
        other, draw = divmod(draw, len(self.tokens[i]))
        tokens = self.tokens[i][draw]
        pixels = cached_frames(self.rows[i].path, self.frames, self.size)
        if not self.documents:
            return pixels, tokens + tokens[:1], 0
        document = self.documents.pieces[other % len(self.documents)]
        return pixels, (tokens + document[1:])[:self.room + 1], len(tokens) - 1


class TextDataset(Dataset):
    """Documents as tokens between two end-of-text tokens."""

    def __init__(self, documents, tokenizer):
        self.pieces = [[tokenizer.eot_token, *tokenizer.encode_ordinary(document), tokenizer.eot_token]
                       for document in progress(documents, "tokenizing the text")]
        self.longest = max(map(len, self.pieces), default=1) - 1  # positions

    def cut(self, block_size):
        """Cut documents of more than `block_size` positions into pieces."""
        self.pieces = [piece[i:i + block_size + 1] for piece in self.pieces
                       for i in range(0, len(piece) - 1, block_size)]
        return self

    def __len__(self):
        return len(self.pieces)

    def __getitem__(self, key):
        return None, self.pieces[key[0]], 0


def collate(rows):
    """[(pixels or None, tokens, skip), ...] -> pixels uint8 (B, F, 3, S, S) or None, tokens (B, T), targets (B, T)

    Each target is the token that follows; the first `skip` of a row have none. Padding comes after the text,
    where the causal mask hides it, and has no targets.
    """
    length = max(len(tokens) for _, tokens, _ in rows) - 1
    tokens = torch.full((len(rows), length), rows[0][1][0])  # (B, T)
    targets = torch.full((len(rows), length), IGNORE)  # (B, T)
    for i, (_, row, skip) in enumerate(rows):
        tokens[i, :len(row) - 1] = torch.tensor(row[:-1])
        targets[i, skip:len(row) - 1] = torch.tensor(row[1 + skip:])
    return None if rows[0][0] is None else torch.stack([pixels for pixels, _, _ in rows]), tokens, targets


def make_loader(dataset, args, device, checkpoint=None, stream=0):
    """Yield the batch of each step on the `device`, from the `checkpoint` on; a function of (seed, stream, step).

    The dataset is read epoch after epoch, each in an order of its own. Of several processes each gets its
    share of every batch.
    """
    n, B = len(dataset), args.batch_size

    @lru_cache(2)
    def order(epoch):
        return np.random.default_rng([args.seed, stream, epoch]).permutation(n)

    def keys():
        for step in range(checkpoint["step"] if checkpoint else 0, args.steps):
            draws = np.random.default_rng([args.seed, stream, step, 1]).integers(2**31, size=B)
            rows = [(order(i // n)[i % n], draw) for i, draw in zip(range(step * B, step * B + B), draws)]
            yield rows[RANK::WORLD_SIZE]

    loader = DataLoader(dataset, batch_sampler=keys(), collate_fn=collate, num_workers=args.num_workers,
                        pin_memory=device.type == "cuda", generator=torch.Generator())
    for batch in loader:
        yield [tensor if tensor is None else tensor.to(device, non_blocking=True) for tensor in batch]
