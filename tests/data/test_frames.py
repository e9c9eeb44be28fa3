"""An image or a video becomes the pixels that a viewer shows, or is refused in one line."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import load_frames

S = 16  # pixels on each side of most files, so that nothing is resized
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)


@pytest.fixture(autouse=True)
def quiet(recwarn, capfd):
    """Nothing in this file may write a warning or anything else to standard error."""
    yield
    assert capfd.readouterr().err == "" and not recwarn.list


def plain(color, mode="RGB", size=(S, S)):
    return Image.new("RGB", size, color).convert("L" if color[0] == color[1] else "RGB").convert(mode)


def colors(path, frames):
    """The color of each frame, which has only one."""
    pixels = load_frames(path, frames, S).numpy()
    assert pixels.shape == (frames, 3, S, S) and pixels.dtype == np.uint8 and (pixels == pixels[:, :, :1, :1]).all()
    return [tuple(color) for color in pixels[:, :, 0, 0].tolist()]


def in_front_of_gray(image):
    """The pixels (3, H, W) of an image whose alpha is 0 or 255 everywhere."""
    rgba = np.asarray(image.convert("RGBA"))
    return np.where(rgba[:, :, 3:] == 0, 128, rgba[:, :, :3]).transpose(2, 0, 1)


def refusal(path):
    """The one line that refuses `path`."""
    with pytest.raises(UserError, match=path.name) as error:
        load_frames(path, 3, S)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_apng(path, frames, palette=()):
    """frames: [(pixels uint8 (h, w, channels), x, y, dispose, blend), ...]; one channel takes a `palette`."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    number, color = itertools.count(), 3 if palette else 6
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", S, S, 8, color, 0, 0, 0)),
              chunk(b"acTL", struct.pack(">II", len(frames), 0))]
    chunks += [chunk(b"PLTE", bytes(palette))] if palette else []
    for i, (pixels, x, y, dispose, blend) in enumerate(frames):
        (h, w, _), data = pixels.shape, zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
        chunks.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(number), w, h, x, y, 1, 10, dispose, blend)))
        chunks.append(chunk(b"fdAT", struct.pack(">I", next(number)) + data) if i else chunk(b"IDAT", data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b""))
    return path


def test_a01_every_frame_of_a_palette_apng_is_decoded(tmp_path):
    frames = [(np.full((S, S, 1), i, np.uint8), 0, 0, 0, 0) for i in (0, 1, 0)]
    assert colors(write_apng(tmp_path / "p.png", frames, RED + GREEN), 3) == [RED, GREEN, RED]


@pytest.mark.parametrize("seed", range(8))
def test_apng_frames_are_composed_as_the_specification_says(seed, tmp_path):
    rng, frames, canvas, expected = np.random.default_rng(seed), [], np.zeros((S, S, 4), np.uint8), []
    for i in range(7):
        h, w = rng.integers(1, S + 1, 2).tolist() if i else (S, S)
        y, x, dispose, blend = map(int, rng.integers([S - h + 1, S - w + 1, 3, 2]))
        pixels = rng.integers(0, 256, (h, w, 4), np.uint8)
        pixels[:, :, 3] = rng.choice([0, 255], (h, w))
        frames.append((pixels, x, y, dispose, blend))
        shown, part = canvas.copy(), (slice(y, y + h), slice(x, x + w))
        below = (pixels[:, :, 3:] == 0) & (blend == 1)  # OVER: what is transparent shows what is below
        shown[part] = np.where(below, shown[part], pixels)
        expected.append(in_front_of_gray(Image.fromarray(shown)))
        canvas = canvas if dispose == 2 else shown.copy()  # PREVIOUS
        canvas[part] *= dispose != 1  # BACKGROUND
    assert np.array_equal(load_frames(write_apng(tmp_path / "a.png", frames), 7, S), expected)


@pytest.mark.parametrize("suffix, options", [
    *(("gif", {"disposal": disposal}) for disposal in range(4)), ("gif", {"disposal": [1, 3, 2, 1, 0, 2]}),
    ("gif", {"disposal": 2, "transparency": 0, "optimize": False}), ("webp", {"lossless": True}), ("webp", {}),
    *(("png", {"disposal": disposal, "blend": blend}) for disposal in range(3) for blend in range(2))])
@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
def test_every_frame_is_that_of_a_freshly_opened_file(suffix, options, mode, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / f"a.{suffix}"
    frames = [Image.new("RGBA", (S, S), (0, 0, 0, 0)) for _ in range(6)]
    for frame in frames:
        x, y = rng.integers(S // 2, size=2).tolist()
        frame.paste((*rng.integers(256, size=3).tolist(), 255), (x, y, x + S // 2, y + S // 2))
    frames = [frame.convert(mode) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    expected = []
    for i in range(6):
        with Image.open(path) as image:
            image.seek(i)
            expected.append(in_front_of_gray(image))
    assert np.array_equal(load_frames(path, 6, S), expected)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("durations", [[100, 700, 50, 150, 500], [10, 20, 700, 10], [0, 0, 300, 0, 50], [90, 400]])
def test_durations_choose_the_frames(durations, suffix, tmp_path):
    images = [plain((40 * i,) * 3) for i in range(len(durations))]
    images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], duration=durations, lossless=True)
    shown = [i for i, duration in enumerate(durations) for _ in range(duration or 100)]  # an entry a millisecond
    for count in (2, 4, 5, 12):
        expected = [40 * shown[len(shown) * (2 * part + 1) // (2 * count)] for part in range(count)]
        assert [red for red, _, _ in colors(tmp_path / f"a.{suffix}", count)] == expected


@pytest.mark.parametrize("frames, expected", [(1, [RED]), (2, [RED, GREEN]), (4, [RED, RED, GREEN, GREEN])])
def test_a03_the_poster_of_an_apng_is_not_one_of_its_frames(frames, expected, tmp_path):
    plain(BLUE).save(tmp_path / "d.png", save_all=True, default_image=True, duration=200,
                     append_images=[plain(RED), plain(GREEN)])
    assert colors(tmp_path / "d.png", frames) == expected


RAMP = np.tile(np.linspace(0, 1, S, dtype="f4"), (S, 1))


@pytest.mark.parametrize("name, pixels", [("f.tif", RAMP), ("f.tif", RAMP * 255), ("f.pfm", RAMP),
                                          ("i.tif", (RAMP * 255).astype("i4")), ("i.pgm", (RAMP * 65535).astype("i4"))])
def test_a04_grayscale_of_32_bits_is_refused(name, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / name)
    assert "32-bit" in refusal(tmp_path / name)


@pytest.mark.parametrize("name, image, expected", [
    *((f"g.{suffix}", Image.fromarray((np.arange(256).reshape(S, S) * 257).astype("u2")), np.arange(256).reshape(S, S))
      for suffix in ("png", "tif", "jp2")),  # 16 bits
    ("half.png", Image.new("RGBA", (S, S), (255, 255, 255, 128)), 191.5), ("bits.png", Image.new("1", (S, S), 1), 255),
    ("print.jpg", plain(RED, "CMYK"), np.reshape(RED, (3, 1, 1)))], ids=lambda value: value if type(value) is str else "")
def test_every_mode_is_shown_as_a_viewer_shows_it(name, image, expected, tmp_path):
    image.save(tmp_path / name)
    assert np.abs(load_frames(tmp_path / name, 1, S)[0].numpy() - expected).max() <= (3 if "jpg" in name else 0.5)


@pytest.mark.parametrize("mode, suffix, key", [
    ("1", "png", 255), ("L", "png", 200), ("P", "png", 200), ("P", "gif", 200), ("RGB", "png", (200,) * 3),
    ("I;16", "png", 200 * 257), *((mode, suffix, None) for mode, suffix in (
        ("LA", "png"), ("LA", "tif"), ("PA", "tif"), ("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "gif"), ("RGBA", "tif")))])
def test_a06_what_is_transparent_becomes_mid_gray_in_every_mode(mode, suffix, key, tmp_path):
    levels = np.array([[60] * 8 + [200] * 8] * S, np.uint8)
    image, options = Image.fromarray(levels), {"lossless": True} if key is None else {"transparency": key}
    if key is None:  # an alpha channel
        image.putalpha(Image.fromarray(255 * (levels == 60).astype(np.uint8)))
        image = image.convert("RGBA")
    if mode == "I;16":
        image = Image.fromarray(levels.astype("u2") * 257)
    image.convert(mode, dither=0).save(tmp_path / f"t.{suffix}", **options)
    expected = np.where(levels == 200, 128, 0 if mode == "1" else 60)
    assert np.array_equal(load_frames(tmp_path / f"t.{suffix}", 2, S), [[expected] * 3] * 2)


@pytest.mark.parametrize("tail", [b"\0" * 64, b"\x21\xfe\x05hello\0", b"\r\n", None], ids=str)
def test_a07_what_follows_the_last_frame_of_a_gif_does_not_matter(tail, tmp_path):
    plain(RED).save(tmp_path / "a.gif", save_all=True, append_images=[plain(GREEN)], duration=100)
    whole = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[:-1] if tail is None else whole + tail)
    assert colors(tmp_path / "a.gif", 2) == [RED, GREEN]


def test_a15_a_file_with_too_many_pixels_is_refused_without_a_warning(tmp_path):
    Image.new("1", (10000, 10000)).save(tmp_path / "b.png")
    assert "pixels" in refusal(tmp_path / "b.png")


@pytest.mark.parametrize("orientation, upright", [*enumerate([
    lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, -1),
    lambda a: np.rot90(a, 2).swapaxes(0, 1), np.rot90], 1)])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_images_are_turned_upright_as_their_exif_data_say(orientation, upright, suffix, tmp_path):
    pixels, exif = np.random.default_rng(0).integers(0, 256, (S, S, 3), np.uint8), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"e.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(load_frames(tmp_path / f"e.{suffix}", 1, S)[0], upright(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["still.jpg", "still.png", "still.webp", "still.gif", "still"])
def test_a_still_image_is_a_static_clip_resized_with_bilinear_filter(name, tmp_path):
    image = Image.radial_gradient("L").crop((0, 0, 90, 60))
    (tmp_path / "still").mkdir()  # also a folder of one image
    path = tmp_path / (name if "." in name else "still/7.png")
    image.save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((S, S), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(load_frames(tmp_path / name, 3, S), [expected] * 3)


def test_a_folder_gives_its_images_in_the_order_of_their_numbers(tmp_path):
    modes = {"2.png": "1", "9.PNG": "L", "10.webp": "RGBA", "11.gif": "P", "100.tif": "RGB", "end 9.png": "LA",
             "end 10.png": "RGB"}  # in the order that they must have
    for i, (name, mode) in enumerate(modes.items()):
        plain((30 * i,) * 3, mode, (9 + i, 5)).save(tmp_path / name, lossless=True)
    for other in ("notes.txt", "1", ".1.png", "._2.png", "captions.jsonl"):
        (tmp_path / other).write_text("not a frame")
    assert [red for red, _, _ in colors(tmp_path, 7)] == [30 * i for i in range(7)]
    assert [red for red, _, _ in colors(tmp_path, 3)] == [30, 90, 150]


@pytest.mark.parametrize("name", ["none.png", "none", "empty", "broken", "a.gif", "zero.webp", "cut.png", "cut.jpg"])
def test_what_cannot_be_read_is_named_in_one_line(name, tmp_path):
    for suffix in ("png", "jpg"):
        Image.effect_noise((50, 50), 90).save(tmp_path / f"cut.{suffix}")
        (tmp_path / f"cut.{suffix}").write_bytes((tmp_path / f"cut.{suffix}").read_bytes()[:1000])
    for file in ("empty/notes.txt", "empty/.1.png", "broken/1.png", "a.gif", "zero.webp"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("" if "zero" in file else "not an image")
    refusal(tmp_path / name)
