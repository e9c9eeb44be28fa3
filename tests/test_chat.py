"""A dialogue that stays in the cache, against one pass over all of it without a cache; and `sample.py --chat`."""

import io
import itertools
from pathlib import Path

import pytest
import torch

import mingpt_mm.gpt
import sample
import train
from mingpt_mm import BadInput
from mingpt_mm.chat import Chat
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.images import read_image
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_run, run_command
from mingpt_mm.tokenizer import encoding_from_merges, unpack_encoding
from mingpt_mm.vit import preprocess
from tests.test_commands import TINY

ENCODING = encoding_from_merges([b" \n"])  # a token is a byte, but for this one, 256
END = 257
LINES = ["Who is Ann?", "Ann lives in", "And Bob", "Stop!", "He fears the long, long rain and", "Why? Say.", "Oslo"]


def chatty(block_size=256, patches=0):
    """A Chat with a random GPT, after the prefix of a picture or not."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(block_size, END + 1, n_layer=2, n_head=2, n_embd=32))
    with torch.no_grad():
        gpt.wpe.weight.mul_(4)  # so loud that a token out of place is another one
    return Chat(gpt.eval(), ENCODING, torch.randn(1, patches, 32) if patches else None)


def likeliest(chat):
    """What the model takes for the likeliest token at each place of the dialogue, in one pass without a cache."""
    logits = chat.gpt(torch.tensor([chat.tokens]), chat.prefix)[0]  # (T, V)
    return [END, *logits.argmax(dim=1).tolist()[:-1]]


def places(chat, most=9):
    """Let the model answer, see that each of the answer's tokens is the likeliest, and return their places."""
    start = len(chat.tokens)
    list(chat.answer(most, temperature=0))
    assert chat.tokens[start:] == likeliest(chat)[start:]
    return range(start, len(chat.tokens))


def write(patch, tokens):
    """Make the model write these `tokens`, and pass through its cache what it would anyway."""
    tokens = iter(tokens)
    patch.setattr(mingpt_mm.gpt, "sample_next", lambda logits, **_: torch.tensor([[next(tokens)]]))


@pytest.mark.parametrize("patches", [0, 5])
def test_answers_are_those_of_one_pass_over_the_whole_dialogue(patches):
    chat, answers = chatty(patches=patches), []
    for line in LINES:
        assert chat.say(line, 9) == 0
        answers += places(chat)
    expected = likeliest(chat)
    assert [chat.tokens[i] for i in answers] == [expected[i] for i in answers]
    assert len(answers) > 40 and len({chat.tokens[i] for i in answers}) > 10


@pytest.mark.parametrize("patches", [0, 5])
@pytest.mark.parametrize("most, room", [(9, 9), (99, 16)])  # a quarter of the context is enough for an answer
def test_the_oldest_turns_are_dropped_and_answers_are_those_of_one_pass_over_what_is_left(patches, most, room):
    chat, seen = chatty(64, patches), set()
    for line in LINES * 3:
        before = [list(turn) for turn in chat.turns]
        dropped = chat.say(line, most)
        assert chat.turns[:-1] == before[dropped:] and (chat.room >= room or not chat.turns[:-1])
        assert not dropped or chat.room <= room + len(before[dropped - 1])  # no more of them than it takes
        assert places(chat)
        seen.add(dropped)
    assert seen >= {0, 1, 2}


def test_an_answer_to_a_sentence_stands_on_the_next_line_and_an_open_text_is_gone_on_with():
    chat = chatty()
    for text in ("Ann", "Bob.", "Eve!", "Who?", "", "Rome. "):
        chat.say(text, 9)
    assert chat.tokens == [END, *b"Ann\nBob.\n\nEve!\n\nWho?\n\n\nRome.\n"]


@pytest.mark.parametrize("patches", [0, 5])
@pytest.mark.parametrize("stop", [[*b"\n"], [256], [END], []], ids=["line", "space and line", "text", "limit"])
def test_an_answer_ends_with_its_line_or_the_text_or_at_the_limit_and_what_ends_it_is_not_kept(stop, patches):
    chat = chatty(patches=patches)
    with pytest.MonkeyPatch.context() as patch:
        write(patch, [*b"in Oslo", *stop, *b"xyz"])
        chat.say("Ann.", 9)
        assert list(chat.answer(9 if stop else 7)) == list("in Oslo")
    assert chat.tokens == [END, *b"Ann.\nin Oslo"]
    chat.say("Bob", 9)
    assert places(chat) and chat.turns[1][:3] == [*b"Bob"]  # whether the last token has passed the model or not


def test_a_letter_of_several_tokens_is_streamed_whole(monkeypatch):
    chat = chatty()
    write(monkeypatch, "café 🦉!\n".encode())
    chat.say("Where?", 99)
    assert [piece for piece in chat.answer(99) if piece] == list("café 🦉!")
    assert bytes(chat.turns[0]).decode() == "Where?\ncafé 🦉!"


@pytest.mark.parametrize("patches", [0, 5])
def test_a_line_too_long_is_refused_and_leaves_the_dialogue_as_it_was(patches):
    chat = chatty(32, patches)
    with pytest.raises(BadInput, match="this line is 1 tokens too long for the context"):
        chat.say("z" * (31 - patches), 9)
    assert chat.tokens == [END] and chat.say("Ann", 5) == 0
    places(chat, 5)
    before = chat.tokens, [layer.length for layer in chat.cache]
    with pytest.raises(BadInput, match="too long"):
        chat.say("z" * 50, 9)
    assert (chat.tokens, [layer.length for layer in chat.cache]) == before
    chat.say("Bob", 5)
    assert places(chat, 5)
    longest = chatty(32, patches)
    longest.say("z" * (30 - patches), 9)
    assert len(places(longest)) == 1 and longest.room == 0


def test_a_turn_passes_its_own_tokens_through_the_model_and_an_answer_comes_as_it_is_asked_for(monkeypatch):
    chat, passed = chatty(patches=5), []
    chat.gpt.h[0].register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0].size(1)))
    write(monkeypatch, itertools.cycle(b"x"))
    for turn in range(10):
        chat.say("Ann lives in", 6)
        answer, calls = chat.answer(6), len(passed)
        assert next(answer) == "x" and len(passed) == calls + 1
        assert len(list(answer)) == 5 and len(passed) == calls + 6
        assert sum(passed) == 5 + len(chat.tokens) - 1  # the last token passes with the next turn


# ---- sample.py --chat ----

@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """(model, encoding) of a tiny run in the folder "run"; the test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    train.main(["--data", str(folder), *TINY, "--steps", "150", "--eval_interval", "75", "--out", "run"])
    checkpoint = load_run(Path("run"))
    return restore(checkpoint), unpack_encoding(checkpoint["encoding"])


def talk(patch, capsys, lines, *argv):
    """What sample.py --chat prints while the `lines` are typed, until their end, where its exit status is 0."""
    capsys.readouterr()
    patch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    run_command(sample.main, ["--run", "run", "--chat", *argv])
    return capsys.readouterr().out


def test_sample_answers_each_line_looks_at_pictures_and_goes_on_after_an_error(run, folder, monkeypatch, capsys):
    (model, encoding), picture = run, folder / "images/3.png"
    pixels = preprocess(read_image(picture), 16)[None]
    lines = ["a red", "/image none.png", "z" * 99, "one", f"/image {picture}", "one"]
    told = []
    for chat, texts in ((Chat(model.gpt, encoding), ["a red", "one"]),
                        (Chat(model.gpt, encoding, model.embed(pixels)), ["", "one"])):
        for text in texts:
            chat.say(text, 5)
            told.append("".join(chat.answer(5, temperature=0)))
    assert told[0] == model.gpt.complete(encoding, "a red", max_new_tokens=5)[0].removeprefix("a red")
    assert told[2] == model.caption(pixels, encoding, max_new_tokens=5)[0] and told[1] != told[3]
    told[1:1] = ["error: none.png: no such picture",
                 "error: this line is 61 tokens too long for the context: say it shorter"]
    output = talk(monkeypatch, capsys, lines, "--max_new_tokens", "5")
    assert output == "".join(f"> {line}\n" for line in told) + "> \n"
    drawn = [talk(monkeypatch, capsys, lines, "--temperature", "1", "--seed", seed) for seed in "112"]
    assert drawn[0] == drawn[1] != drawn[2]


def test_sample_tells_how_many_turns_it_forgot(run, monkeypatch, capsys):
    output = talk(monkeypatch, capsys, ["z" * 12] * 3, "--max_new_tokens", "5").split("> ")
    told = ["turns forgotten, the oldest first: 1)\n" in answer for answer in output]
    assert told == [False, False, False, True, False] and output[3].startswith("(the context is full: ")


def test_sample_talks_without_pictures_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chatty(64).gpt.save_pretrained("released")
    monkeypatch.setattr(sample, "gpt2_encoding", lambda: ENCODING)
    monkeypatch.setattr("sys.stdin", io.StringIO("/image a.png\nAnn\n"))
    run_command(sample.main, ["--init", "released", "--chat", "--max_new_tokens", "5"])
    chat = chatty(64)
    chat.say("Ann", 5)
    answer = "".join(chat.answer(5, temperature=0))
    assert capsys.readouterr().out == f"> error: /image: this model saw none\n> {answer}\n> \n"
