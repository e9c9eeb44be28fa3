"""What a user can do wrong, and the line that says so: on the left the command, on the right its one line of error.

Each row is a command as it is typed in a folder of pictures, texts, released weights and finished runs (see `home`).
Where the files are not as they should be, they stand in between, with what is wrong in them. In a line, "…" is what
another library says, or the machine. The last test holds that the table is whole: no `raise BadInput` is without a
row, but for those that no command alone can reach.
"""

import ast
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import tiktoken
import torch
from PIL import Image

import sample
import train
from mingpt_mm import BadInput
from mingpt_mm.multimodal import restore
from mingpt_mm.run import FORMAT, load_checkpoint
from mingpt_mm.tokenizer import train_bpe
from tests.test_commands import ROOT, refuse

PROGRAMS = {"train.py": train, "sample.py": sample}
LONG = "z" * 99


def plus(line):
    """What a file becomes when this `line` is added to it."""
    return lambda content: content + line.encode() + b"\n"


def cut(content):
    """What a file becomes when a copy of it breaks off."""
    return content[:-9]


def flip(content):
    """What a file becomes when one bit of it turns over."""
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def saved(value):
    """A file that `torch.save` has made of this `value`."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


GONE = None  # instead of a file's content: there is no such file
CAPTIONS, PICTURE, CLIP = "pictures/captions.jsonl", "pictures/images/5.png", "pictures/clip.gif"
A_CLIP = {CAPTIONS: plus('{"video": "clip.gif", "caption": "red, then blue"}')}
MINE = "train.py adversarial --text text.txt --kg kg.tsv"
PLAIN = f"{MINE} --synthetic templates"

TABLE = [
    # ---- the command line ----
    ("train.py multimodel",
     "multimodel: no such loop; there is multimodal, adversarial"),
    ("train.py --lerning_rate 1",
     "unrecognized arguments: --lerning_rate 1 (--help lists the options)"),
    ("train.py --steps 1e3",
     "argument --steps: invalid int value: '1e3' (--help lists the options)"),
    ("sample.py --image",
     "argument --image: expected at least one argument (--help lists the options)"),
    ("train.py --learning_rate -1",
     "--learning_rate -1.0: must be a number from 0 to 9.22e+18"),
    ("train.py --dropout nan",
     "--dropout nan: must be a number from 0 to 0.99"),
    ("train.py --warmup 0",
     "--warmup 0: must be a number from 1 to 9.22e+18"),
    ("sample.py --top_k 9223372036854775808",
     "--top_k 9223372036854775808: must be a number from 0 to 9.22e+18"),
    ("train.py --device abacus",
     "--device abacus: not here; this machine has cpu…"),
    ("train.py --world moon",
     "--world moon: must be one of scenes, clips, duets, portraits"),
    ("train.py --world clips --data pictures",
     "--world clips: is the castle's: leave out this or --data"),
    ("train.py --data pictures --tokenizer words",
     "--tokenizer words: must be bpe or gpt2"),
    ("train.py --data pictures --init run --tokenizer bpe",
     "--tokenizer bpe: run brings its own: leave it out"),
    ("train.py --data pictures --dropout 1",
     "--dropout 1.0: must be a number from 0 to 0.99"),
    ("train.py --data pictures --n_embd 64",
     "--n_embd 64 must be a multiple of --n_head 3"),
    ("train.py --data pictures --image_size 50",
     "--image_size 50: must be a multiple of 16"),
    ("train.py --data pictures --image_size 48", A_CLIP,
     "--image_size 48: must be a multiple of 32: of a clip four patches become one"),
    ("train.py --data pictures --gpt_rate 0 --vit_rate 0 --connector_rate 0",
     "--gpt_rate, --vit_rate and --connector_rate: one must be more than 0"),
    (f"{MINE} --synthetic magic",
     "--synthetic magic: must be one of gan, mle, templates, linear, none"),
    ("train.py adversarial --text text.txt",
     "--text and --kg: give both, with --probes or without, or none for the castle's story; "
     "with --synthetic none a text alone"),
    ("train.py adversarial --probes probes.jsonl",
     "--text and --kg: give both, with --probes or without, or none for the castle's story; "
     "with --synthetic none a text alone"),
    (f"{MINE} --keep 0",
     "--keep 0.0: must be a number from 0.01 to 1"),
    ("train.py adversarial --two_relations 0.6",
     "--two_relations 0.6: must be a number from 0 to 0.5"),

    # ---- the folder of a run ----
    ("train.py --data pictures --out run",
     "--out run: holds another run: go on with it (--resume), or name another folder"),
    ("train.py --data pictures --out text.txt",
     "text.txt: File exists"),
    ("train.py --resume",
     "runs/: no run there yet: python train.py makes one"),
    ("train.py --resume --out nowhere",
     "nowhere/last.pt: no such file: is nowhere the folder of a run?"),
    ("train.py --resume --out story",
     "--resume: story is of another loop: python train.py adversarial --resume --out story"),
    ("train.py --resume --out run --n_embd 48",
     "--n_embd 48: run was started with 12 and keeps it: leave it out, or begin a new run"),
    ("train.py --resume --out run --steps 1",
     "--steps 1: run has taken 2 steps already: ask for more"),
    ("train.py --resume --out run", {"run/last.pt": cut},
     "run/last.pt: not a checkpoint, or damaged (BadZipFile): take a copy of it, or begin a new run"),
    ("train.py --resume --out run", {"run/last.pt": flip},
     "run/last.pt: not a checkpoint, or damaged (ValueError): take a copy of it, or begin a new run"),
    ("train.py --resume --out run", {"run/last.pt": saved({"weights": torch.ones(3)})},
     "run/last.pt: not a checkpoint, or damaged (KeyError): take a copy of it, or begin a new run"),
    ("train.py --resume --out run", {"run/last.pt": saved({"format": FORMAT - 1})},
     f"run/last.pt: a checkpoint of format {FORMAT - 1}, but this program reads {FORMAT}: use the version "
     "that wrote it, or begin a new run"),
    ("train.py --resume --out run", {CAPTIONS: plus('{"image": "images/1.png", "caption": "one more"}')},
     "--resume: the data are not what they were when the run began: bring these back, or begin a new run"),
    ("train.py adversarial --resume --out mine", {"kg.tsv": plus("Ann\tlikes\tBob")},
     "--resume: the data are not what they were when the run began: bring these back, or begin a new run"),
    ("train.py adversarial --resume --out mine", {"text.txt": GONE},
     "text.txt: No such file or directory"),

    ("train.py --resume --out run", {"run/log.jsonl": "{}\n"},
     "run/log.jsonl: not the log of a run, or damaged ('step'): take it away"),
    ("train.py --resume --out run", {"run/log.jsonl": "x}\n"},
     "run/log.jsonl: not the log of a run, or damaged (…): take it away"),
    ("train.py --resume --out run", {"run/log.jsonl": b"\xff\n"},
     "run/log.jsonl: not the log of a run, or damaged (…): take it away"),

    # ---- pictures and clips ----
    ("train.py --data nowhere",
     "nowhere/captions.jsonl: No such file or directory"),
    ("train.py --data pictures", {CAPTIONS: plus('{"image": ')},
     "pictures/captions.jsonl:13: not JSON (…): write one object a line"),
    ("train.py --data pictures", {CAPTIONS: plus("[" * 50_000)},
     "pictures/captions.jsonl:13: not JSON (…): write one object a line"),
    ("train.py --data pictures", {CAPTIONS: plus('{"caption": "a red one"}')},
     'pictures/captions.jsonl:13: names no picture: write {"image": "images/1.png", "caption": "..."}, '
     'or "video" instead of "image"'),
    ("train.py --data pictures", {CAPTIONS: plus('{"image": "images/1.png", "video": "clip.gif", "caption": "a"}')},
     'pictures/captions.jsonl:13: names a picture and a clip: write {"image": "images/1.png", "caption": "..."}, '
     'or "video" instead of "image"'),
    ("train.py --data pictures", {CAPTIONS: plus('{"image": "images/1.png", "text": "a red one"}')},
     'pictures/captions.jsonl:13: no "caption" that is a text (or "captions" that is a list of texts)'),
    ("train.py --data pictures", {CAPTIONS: plus('{"image": "images/1.png", "caption": "a", "split": "dev"}')},
     'pictures/captions.jsonl:13: the split \'dev\' is none of "train", "val", "test": write one of these'),
    ("train.py --data pictures", {CAPTIONS: plus('{"image": "images/99.png", "caption": "a"}')},
     "pictures/captions.jsonl:13: the picture pictures/images/99.png is missing or empty: put it there, or take the line out"),
    ("train.py --data pictures", {CAPTIONS: plus('{"video": "images/99.gif", "caption": "a"}')},
     "pictures/captions.jsonl:13: the clip pictures/images/99.gif is missing or empty: put it there, or take the line out"),
    ("train.py --data pictures", {CAPTIONS: plus(f'{{"image": "{LONG * 5}", "caption": "a"}}')},
     f"pictures/captions.jsonl:13: the picture pictures/{'z' * 191} is missing or empty: put it there, or take the line out"),
    ("train.py --data pictures", {CAPTIONS: '{"image": "images/1.png", "caption": "a"}'},
     "pictures/captions.jsonl: 1 rows to learn from and 0 to be tested on: give one of each, or ten without a split"),
    ("train.py --data pictures --block_size 16",
     "pictures/captions.jsonl:1: a caption is 4 tokens too long for the context: shorten it, "
     "raise --block_size by 4, or lower --image_size"),
    ("train.py --data pictures --block_size 16", A_CLIP,
     "pictures/captions.jsonl:1: a caption is 4 tokens too long for the context: shorten it, "
     "raise --block_size by 4, or lower --image_size or --frames"),
    ("train.py --data pictures", {PICTURE: "no picture"},
     "pictures/images/5.png: not a picture that can be read (…): mend or replace it"),
    ("train.py --data pictures", {PICTURE: "P6 8000 8000 255\n"},
     "pictures/images/5.png: not a picture that can be read (of 8000 x 8000 pixels, over 50,000,000): "
     "mend or replace it"),
    ("train.py --data pictures", A_CLIP | {CLIP: cut},
     "pictures/clip.gif: not a clip that can be read (the file is cut off): mend or replace it"),
    ("train.py --data pictures", {CAPTIONS: plus('{"video": "frames", "caption": "a"}'), "pictures/frames/1.txt": ""},
     "pictures/frames: no frames in it: put one picture a frame there"),

    # ---- texts, graphs and questions ----
    ("train.py adversarial --text nowhere.txt --kg kg.tsv",
     "nowhere.txt: No such file or directory"),
    ("train.py adversarial --text pictures --kg kg.tsv",
     "pictures: Is a directory"),
    (PLAIN, {"text.txt": b"\xff\xfe"},
     "text.txt: not UTF-8 (…): save it as UTF-8"),
    (PLAIN, {"text.txt": "One.\n\nTwo.\n"},
     "text.txt: 2 documents, but every tenth is held out: give ten at least, with blank lines between them"),
    (PLAIN, {"kg.tsv": plus("Ann knows Bob")},
     "kg.tsv:2: 'Ann knows Bob' is not head<TAB>relation<TAB>tail"),
    (PLAIN, {"kg.tsv": "\n"},
     "kg.tsv: an empty graph: write a head<TAB>relation<TAB>tail each line"),
    (f"{PLAIN} --probes probes.jsonl", {"probes.jsonl": plus('{"prompt": "Ann met", "answer": "Bob"}')},
     'probes.jsonl:2: not {"prompt": "Ada lives in", "answer": "Rome", "triple": ["Ada", "lives in", "Rome"], '
     '"group": "stated or graph_only or neither"}'),
    (f"{PLAIN} --probes probes.jsonl", {"probes.jsonl": "\n"},
     "probes.jsonl: no probes in it: write one a line"),
    (f"{PLAIN} --probes probes.jsonl --block_size 3",
     "prefix and tokens take 4 positions, 1 over the block size of 3: shorten one of them, "
     "or train with a larger --block_size"),
    (MINE, {"kg.tsv": "Oz\tnear\tKansas\n"},
     "--text text.txt: no sentence names the two ends of a triple of kg.tsv, and nothing else of it: "
     "are they about the same things? --synthetic templates needs none"),
    (f"{MINE} --gan_warmup 1 --gan_steps 1 --sentences 1",
     "--gan_warmup 1: the GAN wrote no sentence with both ends of a triple: give it more steps"),

    # ---- weights to begin with ----
    ("train.py --data pictures --init no/such/place",
     "no/such/place: no such file or folder: give one with weights, a run, or gpt2"),
    ("HF_ENDPOINT=http://127.0.0.1:9 TORCH_HOME=torch train.py --data pictures --init gpt2",
     "gpt2: no such file or folder, and no download from http://127.0.0.1:9 (…): if that is a model, "
     "put its config.json and model.safetensors into torch/hub/checkpoints/gpt2"),
    ("HTTPS_PROXY=http://127.0.0.1:9 TIKTOKEN_CACHE_DIR=vocabulary train.py --data pictures --tokenizer gpt2",
     "GPT-2's vocabulary cannot be downloaded (…): set TIKTOKEN_CACHE_DIR to a folder that holds it"),
    ("train.py --data pictures --init pictures",
     "pictures: a folder without weights: model.safetensors or pytorch_model.bin must be in it"),
    ("train.py --data pictures --init gpt", {"gpt/model.safetensors": cut},
     "gpt/model.safetensors: not such a model's tensors, or damaged "
     "(ValueError ln_f.bias [12] cannot lie at 22512 to 22560): fetch it anew"),
    ("train.py --data pictures --init text.txt",
     "text.txt: not such a model's tensors, or damaged (…): fetch it anew"),
    ("train.py --data pictures --init gpt", {"gpt/config.json": "n_layer: 1"},
     "gpt/config.json: not an object in JSON: fetch it anew"),
    ("train.py --data pictures --init gpt", {"gpt/config.json": GONE},
     "gpt/config.json: missing: put it beside model.safetensors"),
    ("train.py --data pictures --init vit",
     "vit/config.json: not of a model that can be loaded here: model_type 'vit', n_positions None, "
     "vocab_size None, n_layer None, n_head None, n_embd None: take another"),
    ("train.py --data pictures --init gpt", {"gpt/config.json": '{"n_positions": 40, "vocab_size": 270, '
                                                                '"n_layer": 99, "n_head": 2, "n_embd": 12}'},
     "gpt/model.safetensors: has 16 tensors, but config.json promises 99 layers: fetch both anew"),
    ("train.py --data pictures --init gpt", {"gpt/config.json": '{"n_positions": 40, "vocab_size": 270, '
                                                                '"n_layer": 2, "n_head": 2, "n_embd": 12}'},
     'gpt/model.safetensors: fetch it anew, for it does not fit: …Missing key(s) in state_dict: "h.1.ln_1.weight", "h.1.ln_1.bias", …'),
    ("train.py --data pictures --init gpt --tokenizer bpe --n_embd 24",
     "--n_embd 24: the weights have 12: leave it out"),
    ("train.py --data pictures --init gpt --tokenizer bpe --vit vit --patch_size 4",
     "--patch_size 4: the weights have 8: leave it out"),
    ("train.py --data pictures --init gpt",
     "--init gpt: its 271 tokens are not the 268 of --tokenizer gpt2: give the one that it knows"),
    ("train.py --world portraits --init story --seed 1",
     "--seed 1: the story of story is of seed 0, with other individuals: take the same seed"),

    # ---- while it learns ----
    ("train.py --data pictures --block_size 99999999999",
     "out of memory (…): lower --batch_size, --image_size, --block_size or --num_samples, or raise --accumulate"),
    ("train.py --data pictures --block_size 9223372036854775807",
     "out of memory (…): lower --batch_size, --image_size, --block_size or --num_samples, or raise --accumulate"),
    (f"{PLAIN} --learning_rate 30 --clip 1e18 --steps 3 --warmup 1",
     "step 3: perplexity is inf: lower --learning_rate"),
    ("train.py --data pictures --learning_rate 1e18 --log_interval 1",
     "step 2: loss is … (learning rate 4e+16, the batch of seed 0, step 1): lower --learning_rate; "
     "what was saved is from before"),
    ("train.py --data pictures --learning_rate 1e18 --eval_interval 1",
     "step 1: val_loss is nan: lower --learning_rate"),
    (f"{PLAIN} --block_size 1",
     "prefix and tokens take 2 positions, 1 over the block size of 1: shorten one of them, "
     "or train with a larger --block_size"),

    # ---- sample.py ----
    ("sample.py",
     "runs/: no run there yet: python train.py makes one"),
    ("sample.py --run nowhere",
     "nowhere/last.pt: no such file: is nowhere the folder of a run?"),
    ("sample.py --run run", {"run/best.pt": cut},
     "run/best.pt: not a checkpoint, or damaged (BadZipFile): take a copy of it, or begin a new run"),
    ("sample.py --run run", {CAPTIONS: GONE},
     "pictures/captions.jsonl: No such file or directory"),
    ("sample.py --run run --image none.png",
     "none.png: no such picture"),
    ("sample.py --run run --image text.txt",
     "text.txt: not a picture that can be read (…): mend or replace it"),
    ("sample.py --run run --video pictures/clip.gif",
     "pictures/clip.gif: this model never saw a clip: show it pictures"),
    ("sample.py --run mine --image pictures/images/5.png",
     "--image, --video: this model saw no picture: give a --prompt"),
    (f"sample.py --run run --prompt {LONG}",
     "the prompt is 61 tokens too long for the context: shorten it"),
    (f"sample.py --run run --image pictures/images/5.png --prompt {LONG}",
     "the prompt is 65 tokens too long for the context: shorten it"),
    (f"sample.py --run run --prompt a --choices 'b|{LONG}'",
     "prefix and tokens take 102 positions, 62 over the block size of 40: shorten one of them, "
     "or train with a larger --block_size"),
    ("sample.py --run run --ask 'is not'",
     "--ask is not: of whom? give an --image or a --video, and no --choices"),
    ("sample.py --run run --chat --image pictures/images/5.png",
     "--chat: say it in the chat; /image FILE shows a picture there"),
    ("sample.py --run mine",
     "--prompt: give one; this run has no probes to show"),
    ("sample.py --run story --synthesize Ann knows Bob",
     "--synthesize: this run has no GAN: python train.py adversarial --synthetic gan makes one"),
    ("sample.py --run mine --synthesize Ann hates Bob",
     "--synthesize Ann hates Bob: give HEAD RELATION TAIL, with one of the relations knows (in quotes)"),
    ("sample.py --init gpt2 --image pictures/images/5.png",
     "--init: released weights are no run and saw no picture: give a --prompt or --chat"),
    ("sample.py --init gpt --prompt a",
     "--init gpt: 271 tokens are not those of GPT-2, the only ones known without a run"),
    ("sample.py --init run --prompt a",
     "run: a folder without weights: model.safetensors or pytorch_model.bin must be in it"),
    ("sample.py --run run --choices 'a|'",
     "--choices a|: write something on both sides of each |"),
    ("sample.py --run run --prompt a --choices b --explain a.png",
     "--explain: of pictures, a prompt or a run: without --chat, --choices, --synthesize"),
    ("sample.py --run run --prompt a --temperature 1 --top_p 7",
     "--top_p 7.0: must be a number from 0 to 1"),
]

CHAT = [  # what is typed, and the line that is answered; the dialogue goes on
    ("sample.py --run run --chat", "/image",
     "/image: name a file"),
    ("sample.py --run run --chat", "/image  ",
     "/image: name a file"),
    ("sample.py --run run --chat", "/image none.png",
     "none.png: no such picture"),
    ("sample.py --run mine --chat", "/image pictures/images/5.png",
     "/image: this model saw none"),
    ("sample.py --run run --chat", LONG,
     "this line is 61 tokens too long for the context: say it shorter"),
]

ELSEWHERE = {  # {a part of what is raised: why it has no row}
    "has changed while it was read": "needs a second process: test_text.py",
    "cannot be written ({reason})": "needs a full disk: test_interruption.py",
    "another run is at work there": "needs a second process: test_interruption.py",
    "not an example for each of {WORLD} processes": "needs torchrun: test_processes.py",
    "more than this machine's {torch.cuda.device_count()} GPUs": "needs GPUs: test_run.py",
    "a clip of {pixels.size(1)} frames": "no command shows a model such a clip: test_multimodal.py",
}

TINY = ["--n_embd", "12", "--n_head", "2", "--n_layer", "1", "--batch_size", "4", "--steps", "2", "--warmup", "1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures, a text, a graph, questions, three runs and the weights of the first one.

    run/ describes pictures; mine/ has a GAN that learned from the text; story/ is of the castle, without a GAN.
    """
    folder = tmp_path_factory.mktemp("errors") / "home"
    (folder / "pictures/images").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        colours = ["red", "blue", "lime"]
        for i in range(12):
            Image.new("RGB", (20, 16), colours[i % 3]).save(f"pictures/images/{i}.png")
        rows = [{"image": f"images/{i}.png", "caption": f"a {colours[i % 3]} one"} for i in range(12)]
        Path(CAPTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        Image.new("RGB", (20, 16), "red").save(CLIP, save_all=True, append_images=[Image.new("RGB", (20, 16), "blue")])
        Path("text.txt").write_text("\n\n".join(f"Ann met Bob on day {day}." for day in range(100)))
        Path("kg.tsv").write_text("Ann\tknows\tBob\n")
        probe = {"prompt": "Ann met", "answer": "Bob", "group": "stated", "triple": ["Ann", "knows", "Bob"]}
        Path("probes.jsonl").write_text(json.dumps(probe) + "\n")
        train.main(["--data", "pictures", *TINY, "--image_size", "16", "--patch_size", "8", "--block_size", "40",
                    "--out", "run"])
        train.main(["adversarial", *TINY, "--text", "text.txt", "--kg", "kg.tsv", "--gan_warmup", "60", "--gan_steps",
                    "1", "--sentences", "2", "--out", "mine"])
        train.main(["adversarial", *TINY, "--synthetic", "templates", "--out", "story"])
        model = restore(load_checkpoint(Path("run/last.pt")))
        model.gpt.save_pretrained("gpt")
        model.vit.save_pretrained("vit")
    return folder


@pytest.fixture
def elsewhere(home, tmp_path, monkeypatch):
    """A function that makes a copy of `home` the working directory, in which the files `spoilt` are spoilt."""
    def move(number=0, spoilt=()):
        folder = shutil.copytree(home, tmp_path / str(number))
        monkeypatch.chdir(folder)
        for name, content in dict(spoilt).items():
            file = folder / name
            content = content(file.read_bytes()) if callable(content) else content
            file.parent.mkdir(exist_ok=True)
            if content is GONE:
                file.unlink()
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
    return move


def refused(capsys, command):
    """The line with which `command` is refused, a shell's with settings of the environment in front of it.

    One that is not refused is ended after three steps.
    """
    words = shlex.split(command)
    settings = {}
    while words[0] not in PROGRAMS:
        name, settings[name] = words.pop(0).split("=")
    steps = iter(range(3))

    def begin(*arguments):
        assert next(steps, None) is not None, f"not refused: {command}"
        begin_step(*arguments)
    begin_step = train.begin_step
    vocabulary = {} if "TIKTOKEN_CACHE_DIR" in settings else {"gpt2": train_bpe(["stands for GPT-2's"], 300)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiktoken.registry, "ENCODINGS", vocabulary)
        patch.setattr(train, "begin_step", begin)
        for name, value in settings.items():
            patch.setenv(name, value)
        return refuse(capsys, PROGRAMS[words[0]], words[1:])


def answered(capsys, monkeypatch, command, typed):
    """What the chat of `command` answers to the line that is typed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed + "\n"))
    program, *argv = command.split()
    capsys.readouterr()
    PROGRAMS[program].main(argv)
    return capsys.readouterr().out


def same(line, expected):
    """Whether `line` is the one that is expected, where "…" stands for anything."""
    return re.fullmatch("error: " + ".*".join(map(re.escape, expected.split("…"))) + "\n", line)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0][:60])
def test_what_cannot_be_done_is_refused_with_this_line(elsewhere, capsys, row):
    command, *spoilt, expected = row
    elsewhere(0, *spoilt)
    line = refused(capsys, command)
    assert same(line, expected), line


@pytest.mark.parametrize("command, typed, expected", CHAT)
def test_the_chat_answers_with_this_line_and_goes_on(elsewhere, capsys, monkeypatch, command, typed, expected):
    elsewhere()
    assert answered(capsys, monkeypatch, command, typed) == f"> error: {expected}\n> \n"


def raises():
    """{(file, first line, last line): source} of each `raise BadInput(...)` in the program."""
    places = {}
    for path in [*(ROOT / "mingpt_mm").glob("*.py"), ROOT / "train.py", ROOT / "sample.py"]:
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and "BadInput(" in (text := ast.get_source_segment(source, node)):
                places[path.name, node.lineno, node.end_lineno] = text
    return places


def test_each_error_of_the_program_stands_in_the_table(elsewhere, capsys, monkeypatch):
    raised = set()

    def note(error, *message):
        frame = sys._getframe(1)
        raised.add((Path(frame.f_code.co_filename).name, frame.f_lineno))
    monkeypatch.setattr(BadInput, "__init__", note)
    for number, (command, *spoilt, _) in enumerate(TABLE):
        elsewhere(number, *spoilt)
        refused(capsys, command)
    elsewhere("chat")
    for command, typed, _ in CHAT:
        answered(capsys, monkeypatch, command, typed)
    without = [text for (name, first, last), text in raises().items()
               if not any((name, line) in raised for line in range(first, last + 1))]
    assert [text for text in without if not any(part in text for part in ELSEWHERE)] == []
    assert [part for part in ELSEWHERE if not any(part in text for text in without)] == []  # it has a row after all
