"""Pictures and clips from files, as PIL images: any format, mode and size that Pillow reads."""

import os
import re

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from mingpt_mm import BadInput

LARGEST = 50_000_000  # pixels; a file of few bytes can claim any number
UNTOLD = 100  # milliseconds that a frame is shown whose file says 0; browsers do the same


def to_rgb(image):
    """`image` in RGB, turned upright as its EXIF data say.

    What is transparent becomes mid-grey, because that is 0 to a ViT: it says nothing.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits: PIL's own conversion clips at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image)
    return image.convert("RGB")


def open_with(read, path, kind):
    """`read` of the opened picture file at `path`; whatever it raises is told as what the user can mend."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > LARGEST:
                raise ValueError(f"of {file.width} x {file.height} pixels, over {LARGEST:,}")
            return read(file)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such {kind}") from None
    except Exception as error:  # decoders raise nearly anything at a broken file
        raise BadInput(f"{path}: not a {kind} that can be read ({error}): mend or replace it") from error


def read_image(path):
    """The picture at `path`, see `to_rgb`."""
    return open_with(to_rgb, path, "picture")


def at_times(durations, count):
    """Which frames, of such `durations`, are seen in the middle of each of `count` equal parts of time."""
    ends = np.cumsum([duration or UNTOLD for duration in durations])
    return np.searchsorted(ends, ends[-1] * (np.arange(count) + 0.5) / count, side="right")


def take_frames(file, count):
    """`count` frames of an opened animation, evenly in time; one frame at a time is in memory."""
    if file.format == "GIF":  # it does not count its frames: only the mark at its end tells that it is whole
        with open(file.filename, "rb") as raw:
            raw.seek(-min(16, os.path.getsize(file.filename)), os.SEEK_END)
            if not raw.read().rstrip(b"\0\r\n").endswith(b";"):
                raise ValueError("the file is cut off")
    durations, frames = [], {}
    for frame in ImageSequence.Iterator(file):
        frame.load()  # only then a WebP tells how long it is shown, and a PNG whether it is whole
        durations.append(frame.info.get("duration", 0))
    wanted = at_times(durations, count)
    for i in sorted(set(wanted)):
        file.seek(i)
        frames[i] = to_rgb(file)
    return [frames[i] for i in wanted]


def frame_files(folder):
    """The pictures in `folder` in the order of their names, 9 before 10; other files are no frames."""
    Image.init()  # makes the endings known
    files = [path for path in folder.iterdir() if not path.name.startswith(".")
             and Image.EXTENSION.get(path.suffix.lower()) in set(Image.OPEN) - {"MPEG"}]
    if not files:
        raise BadInput(f"{folder}: no frames in it: put one picture a frame there")
    return sorted(files, key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(20), path.name))


def read_clip(path, count):
    """`count` frames of a clip, evenly in time: an animated GIF, WebP or PNG, or a folder of pictures.

    Of a clip that has fewer, some are taken again.
    """
    if not path.is_dir():
        return open_with(lambda file: take_frames(file, count), path, "clip")
    files = frame_files(path)
    return [read_image(files[i]) for i in at_times([1] * len(files), count)]
