"""How many odd images, texts, consoles, weights and sentences are answered rightly, refused in one line, or wrongly?

    python -m tests.bench.sweep [--json FILE]

Each kind tries every combination of its tables, but for files that Pillow itself cannot write or read. The oracles:
Pillow on a freshly opened file, the PNG specification, what clean text must be, and sentences marked by hand.
"""

import contextlib
import json
import re
import shlex
import tempfile
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from mingpt_mm import GPT, GPTConfig
from mingpt_mm.data.datasets import UserError, load_captions, load_documents, load_frames, load_probes, load_triples
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.graph.alignment import align
from mingpt_mm.model.weights import read_safetensors, write_safetensors
from tests.bench.common import make_parser, report
from tests.conftest import Shell, write_data

S, RNG, MODES = 16, np.random.default_rng(0), "1 L LA P PA RGB RGBA RGBX CMYK YCbCr I;16 I F".split()  # S: pixels
KEYS = [{}, *({"transparency": key} for key in (0, 255, 65535, (0, 0, 0)))]
ANIMATED = {"gif": [{"disposal": d} for d in range(4)], "webp": [{"lossless": True}, {"quality": 90}], "png": [
    {"disposal": d, "blend": b, "default_image": poster} for d, b, poster in product(range(3), (0, 1), (0, 1))]}
STILL = {"png": [{"bits": bits} for bits in (1, 2, 4, 8)], "webp": [{}, {"lossless": True}], "tif": [{}], "bmp": [{}],
         "tga": [{}, {"compression": "tga_rle"}], "jpg": [{}, {"progressive": True}], "gif": [{}], "ppm": [{}]}
ODD = [*"\0\t\n\v\r\x1b\x7f\x85\xa0\xad\u0301\u064b\u200b\u200d\u200f\u2028\u202e\u2060\u3000\ud83d\udc00\ufe0f\ufeff",
       "\r\n", "👩\u200d👩\u200d👧", "🏴\U000e0067\U000e007f", "שלום", "مرحبا", "नमस्ते", " e\u0302\u0323", "-1", "a|b"]
TEXTS = [form.format(odd) for form in ("{}", "{}cat", "a{}cat", "cat{}", " {} cat") for odd in ODD]
READERS = {"captions.jsonl": lambda: load_captions(".")[0].captions[0], "kg": lambda: load_triples("kg")[0][0],
           "probes": lambda: load_probes("probes")[0]["answer"], "text": lambda: "".join(load_documents(["text"]))}
COMMANDS = {"--prompt {}": "", "--prompt a --choices {}'|b'": "", "--chat": "{}\nb\n", "--chat --seed 1": None,
            "--image images/images/1.png --prompt {0} --ask {0}": ""}  # what is typed; None: closed standard input
CHANGES = [  # (name, the tensor that it becomes, times this factor); the last two are sound
    ("a", "wpe", 1), ("lm_head", "wte", 2), ("wpe", "wpe", torch.nan), ("wpe", "wpe", -torch.inf), ("wpe", "wte", 1),
    ("wpe", "wpe", None), ("lm_head", "wte", 1), ("wpe", "wpe", 1)]
PREFIXES = ["", "transformer.", "module.", "_orig_mod.", "module._orig_mod.transformer.", "model."]


def check(what, may_refuse, right, *args):
    """What `right(*args)` answers; False, an error or a refusal that is not allowed become a string that names it."""
    try:
        return right(*args) or f"{what}: wrong"
    except Exception as error:
        return None if may_refuse and type(error) is UserError and "\n" not in str(error) else f"{what}: {error!r:.90}"


def shows(path, frames):
    """Whether `load_frames` gives the RGBA `frames` (F, S, S, 4) over mid-gray, up to rounding."""
    pixels = load_frames(path, len(frames), S).numpy().transpose(0, 2, 3, 1)  # (F, S, S, 3)
    rgb, alpha = np.split(np.asarray(frames, float), [3], axis=3)
    return bool(np.abs(pixels - 128.0 - (rgb - 128) * alpha / 255).max() < 2.5)


def fresh(path):
    """Yield the frames of an image in RGBA, each of a freshly opened file; None if they have no fixed range."""
    for i in range(getattr(Image.open(path), "n_frames", 1)):
        (image := Image.open(path)).seek(i)
        gray, clear = np.asarray(image), image.info.get("transparency")
        yield (np.stack([gray / 257] * 3 + [255 * (gray != clear)], axis=2) if image.mode.startswith("I;16") else
               None if image.mode in ("I", "F") else np.asarray(image.convert("RGBA")))


def pillow_files(table, save_all):
    """Images of all modes with noise that moves over an empty ground, saved with the options in `table`."""
    for suffix, mode, key in product(table, MODES, KEYS):
        for options in table[suffix]:
            path, frames = f"a.{suffix}", [Image.new(mode, (S, S)) for _ in range(5)]
            for i, frame in enumerate(frames):
                frame.paste(Image.frombytes(mode, (8, 8), RNG.bytes(len(frame.tobytes()) // 4)), (i, 5 - i))
            try:
                frames[0].save(path, save_all=save_all, append_images=frames[1:], duration=100, **options | key)
                expected = [*fresh(path)][options.get("default_image", 0):]
            except Exception:  # Pillow refuses
                continue
            refused = expected[0] is None or key and options.get("bits") in (2, 4)
            yield check(f"{path} {mode} {options | key}", refused, shows, path, expected)


def pngs():
    """Gray and RGB PNG of all bit depths, without and with a tRNS chunk, which makes one color transparent."""
    for (color, depth), keyed in product([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)], (0, 1)):
        values = RNG.integers(2**depth, size=(S, S, color + 1))  # (S, S, 1) or (S, S, 3)
        bits = np.unpackbits(values.astype(">u2")[..., None].view("u1"), axis=3)[..., -depth:].reshape(S, -1)
        rows = np.pad(np.packbits(bits, axis=1), [(0, 0), (1, 0)])  # each starts with 0: no filter
        with open("a.png", "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            PngImagePlugin.putchunk(file, b"IHDR", bytes([0, 0, 0, S, 0, 0, 0, S, depth, color, 0, 0, 0]))
            # a "teSt" chunk is ignored
            PngImagePlugin.putchunk(file, b"tRNS" if keyed else b"teSt", values[0, 0].astype(">u2").tobytes())
            PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(rows))
            PngImagePlugin.putchunk(file, b"IEND")
        opaque = 1 - keyed * (values == values[0, 0]).all(axis=2, keepdims=True)
        rgb = np.broadcast_to(values / (2**depth - 1), (S, S, 3))
        yield check(f"PNG {color=} {depth=} {keyed=}", keyed and depth in (2, 4, 16), shows, "a.png", [255 * np.concatenate([rgb, opaque], 2)])


def texts():
    """Odd characters through each reader and a tokenizer: clean text without a lost word."""
    def right(read, words):
        tokenizer = make_tokenizer(train_bpe([got := read()] * 3, 300))
        clean = got == got.strip().strip("\u200b\u2060\ufeff") != "" and all(word in got for word in words)
        return clean and tokenizer.decode(tokenizer.encode_ordinary(got)) == got

    for text, (name, read) in product(TEXTS, READERS.items()):
        row = json.dumps(dict.fromkeys(("caption", "prompt", "answer", "group"), text) | {"image": "captions.jsonl"})
        Path(name).write_bytes({"text": text, "kg": f"{text}\tr\tb"}.get(name, row).encode("utf-8", "surrogatepass"))
        may_refuse = not re.search(r"\w", text) or re.search("[\t\n\r\ud800-\udfff]", text)
        yield check(f"{name} {text!a}", may_refuse, right, read, re.findall(r"[^\W\d_]{3,}", text))


def consoles():
    """The same texts as options and typed, in consoles with other encodings: no line of error, or a single one."""
    for encoding, (command, typed), text in product(("ascii", "cp1252", "utf-8"), COMMANDS.items(), TEXTS):
        line = "sample.py --run seen --max_new_tokens 3 " + command.format(shlex.quote(text))
        typed = typed and typed.format(re.sub("[\ud800-\udfff]", "?", text))
        answer = check("", False, Shell().run, line, typed, encoding)  # (exit status, output, errors)
        yield {(0, 0): True, (2, 1): None}.get((answer[0], answer[-1].count("\n")), f"{encoding} {line!a}: {answer}")


def weights():
    """Checkpoints in several forms and types; all CHANGES but the last two must be refused."""
    gpt, tokens = GPT(GPTConfig(16, 50, 1, 2, 8)).eval().bfloat16().float(), torch.arange(9)[None]
    gpt.save_pretrained("w")
    tensors = {name: x.clone() for name, x in read_safetensors("w/model.safetensors").items()}
    for change, prefix, dtype, form in product(CHANGES, PREFIXES, ("float32", "bfloat16"), ("a.bin", "model", "")):
        changed = tensors | {f"{change[0]}.weight": change[2] and change[2] * tensors[f"{change[1]}.weight"]}
        changed = {prefix + k: x.to(getattr(torch, dtype)) for k, x in changed.items() if x is not None}
        torch.save({"model": changed} if form == "model" else changed, f"w/{form or 'a.bin'}")
        for part, name in enumerate(("model", "model-2")):  # two shards
            write_safetensors(f"w/{name}.safetensors", dict([*changed.items()][part::2]))
        sound, may_refuse = change in CHANGES[-2:], change not in CHANGES[-2:] or "model" in (prefix[:-1], form)
        yield check(f"weights {change} {prefix} {dtype} {form}", may_refuse, lambda: torch.allclose(
            GPT.from_pretrained(f"w/{form}").eval()(tokens), gpt(tokens), rtol=0, atol=1e-5) and sound)


def sentences():
    """Each example to the last letter. All combinations: names, wording, marks, what stands between, quotes.

    Ada Bob Cleo Dan / {} met {} / . ! ? … ?! ... / S N / "" “” ‘’ «» () [] '' „“ ‹›
    राम सीता मोहन गीता / {} ने {} को देखा / । ॥ . ? ! / S N / "" “” ‘’ ()
    أحمد ليلى سامي نور / رأى {} {} / . ! ؟ ۔ … / S N / "" “” «» ()
    小明 小红 大卫 安娜 / {}见过{} / 。 ！ ？ ｡ ？！ / 0 S N / “” ‘’ 「」 『』 （） 【】
    太郎 花子 アキラ さくら / {}は{}に会った / 。 ！ ？ ｡ / 0 S N / 「」 『』 （） 【】

    S is a space, N a line break, 0 nothing. By hand: names of a pair, a text with its examples in angle brackets:

    Ada, Bob: <Dr. Ada met Bob.> <Mr. Bob met Ada.> Ms. Ada left. <Ada met Bob at 5 p.m. in St. Ives.> It rains.
    Ada, Bob: <In the U.S. Ada met Bob.> <Ada has v2.0 of Bob.> Who? <“Ada!” said Bob.>
    Ada, Bob: <Ada (cf. Bob) ran.>
    Ada, Acme Inc.: <Ada left Acme Inc.> Ada ran. <Ada joined Acme Inc. in May.>
    Bob Jr., Yahoo!: <Is Bob Jr. at Yahoo! now?> Yes. <Yahoo! pays Bob Jr.> It rains. <“Yahoo!” said Bob Jr.>
    New York, 小明: <New York saw 小明.> <小明在New York。>小明走了。<New York,小明！>
    राम, सीता: <डॉ. राम सीता है।>
    """
    cases = {text: [pair.split(", ")] for pair, text in re.findall("    (.+?): (.*<.*)", sentences.__doc__)}
    for row in re.findall(r"    (.+) / (.+) / (.+) / (.+) / (.+)", sentences.__doc__):
        (a, b, c, d), marks, gaps, quotes = (row[i].split() for i in (0, 2, 3, 4))
        for mark, gap, quote, inside in product(marks, gaps, ["", *quotes], (False, True)):
            one = f"<{quote[:1]}{row[1]}{mark + quote[1:] if inside else quote[1:] + mark}>"
            cases[{"S": " ", "N": "\n", "0": ""}[gap].join([one.format(a, b), one.format(c, d)])] = [(a, b), (c, d)]
    for text, pairs in cases.items():
        slots = re.sub("|".join(sum(map(list, pairs), [])), lambda m: "[H]" if m[0] in dict(pairs) else "[T]", text)
        yield check(repr(text), False, lambda: ["".join(words) for words in align([re.sub("[<>]", "", text)], [
            (head, "r", tail) for head, tail in pairs]).get("r", [])] == re.findall("<(.*?)>", slots))


def main():
    """Print what is wrong, and the table of counts."""
    options, results = make_parser(__doc__).parse_args(), {}
    kinds = {"animations": pillow_files(ANIMATED, True), "still images": pillow_files(STILL, False), "texts": texts(),
             "gray and RGB PNG": pngs(), "consoles": consoles(), "weights": weights(), "sentences": sentences()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_data(Path(folder))
        Shell()("train.py TINY IMAGES --out seen")
        for kind, answers in zip(kinds, map(list, kinds.values())):  # one kind after the other
            print(*(wrong := [a for a in answers if isinstance(a, str)]), sep="\n", end="\n" * bool(wrong))
            counts = len(answers), answers.count(True), answers.count(None), len(wrong)
            results[kind] = [dict(zip(("tried", "right", "refused in one line", "wrong"), counts))]
    report(options, results, results["texts"][0], "one thread")


if __name__ == "__main__":
    main()
