"""The lines, the log and the pictures of a run."""

import math
import re
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import train
from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig, console, plots
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe


def test_each_line_tells_the_step_the_number_of_steps_and_the_time_left(shell):
    lines = shell("train.py adversarial TINY STORY --out run").splitlines()
    for pattern in (r"gan 52/52: .*D\(x\) .*", r"step 4/8: loss .*, [\d,]+ s left", r"eval 4/8: val_loss .*"):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


def test_steps_log_the_means_of_their_interval(shell):
    for interval in (1, 4):
        shell(f"train.py TINY IMAGES --log_interval {interval} --out every{interval}")
    for name in ("loss", "grad_norm"):
        values, means = ([event[name] for event in shell.log(f"every{n}", "step")] for n in (1, 4))
        assert means == pytest.approx([sum(values[:4]) / 4, sum(values[4:]) / 4], rel=1e-5)
    rates = [event["learning_rate"] for event in shell.log("every1", "step")]
    cosine = [1.5e-3 * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)]
    assert rates == pytest.approx([0.75e-3, 1.5e-3, *cosine])


def test_the_best_step_has_the_most_exact_matches_and_then_the_least_loss_and_the_last_lines_are_in_words(
        shell, monkeypatch):
    measured = [(0, 9.0), (0.5, 3.0), (0.5, 2.0), (0.5, 2.5), (0.4, 2.4), (0.5, 2.0)]  # the last is the final one
    evaluate = mock.Mock(side_effect=[
        ({"exact_match": share, "val_loss": loss, "val_loss_shuffled": 2.001}, ["a", "b"]) for share, loss in measured])
    monkeypatch.setattr(train, "evaluate_captions", evaluate)
    out = shell("train.py TINY IMAGES --eval_interval 2 --out run")
    assert shell.saved("run", "best.pt")["step"] == shell.log("run", "final")[0]["best_step"] == 4
    torch.testing.assert_close(evaluate.call_args.args[0].state_dict(), shell.saved("run", "best.pt")["model"])
    assert re.search("validation loss .* step 4:", out) and "ignores the image" in out


def test_long_work_tells_the_time_left(monkeypatch, capsys):
    clock = iter(range(0, 999, 2))
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))  # two seconds an item
    assert list(console.progress(range(20), "counting")) == list(range(20))
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 7 and all(re.fullmatch(r"counting: \d+ of 20, \d+ s left", line) for line in lines)
    done, left = map(int, re.findall(r"(\d+) of 20, (\d+)", lines[-1])[0])
    assert left == pytest.approx(2 * (20 - done), abs=4)


def test_progress_has_colored_curves_and_tells_right_captions_from_wrong_ones(shell, monkeypatch):
    for name, captions in (("right", ["one in blue", "a lime one"]), ("wrong", ["one in lime", "a blue one"])):
        measured = {"val_loss": 1.0, "exact_match": 0.5}, captions
        monkeypatch.setattr(train, "evaluate_captions", mock.Mock(return_value=measured))
        shell(f"train.py TINY IMAGES --out {name}")
    colors = {name: {"#%02x%02x%02x" % color: n for n, color in Image.open(f"{name}/progress.png").getcolors(2**24)}
              for name in ("right", "wrong", "told")}
    for name, color in (("right", plots.RIGHT), ("wrong", plots.WRONG)):
        assert {plots.RIGHT, plots.WRONG} & set(colors[name]) == {color}
    assert sum(colors["told"].get(color, 0) > 300 for color in plots.COLORS) >= 2  # curves


def test_captions_are_drawn_above_the_curves_and_letters_that_the_font_lacks_are_escaped(tmp_path):
    events, pictures = [{"step": i, "loss": 2.0, "sentences": ["ч"]} for i in (0, 9)], []
    for text in ("a caption", "красная мышь", "зеленая мышь"):  # boxes would make the last two equal
        plots.plot_run(tmp_path / "a.png", events, [(Image.new("RGB", (9, 9), "lime"), text * 2, plots.RIGHT)] * 7)
        pictures.append(np.asarray(Image.open(tmp_path / "a.png")))
    assert not np.array_equal(pictures[1], pictures[2]) and len(pictures[0]) < len(pictures[1])
    curves, texts = ((pictures[1] == ImageColor.getrgb(color)).all(axis=2) for color in (plots.COLORS[0], plots.RIGHT))
    assert texts.any(axis=1).nonzero()[0].max() < curves.any(axis=1).nonzero()[0].min()


@torch.no_grad()
def test_attention_of_words_is_that_of_pytorch(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = make_tokenizer(train_bpe(["a red bat above a green ghost"] * 9, 300))
    model = MultimodalGPT(GPT(GPTConfig(40, tokenizer.n_vocab, 2, 3, 24)), ViT(ViTConfig(32, 16, 1, 2, 24))).eval()
    for block in model.gpt.h:
        block.attn.c_attn.weight.mul_(5)  # far from uniform
    pixels, caption, shown = torch.full((1, 1, 3, 32, 32), 255, dtype=torch.uint8), "a red bat", []
    monkeypatch.setattr(plots, "plot_run", lambda path, events, samples, **_: shown.extend(samples))
    plots.plot_attention(tmp_path / "words.png", model, tokenizer, pixels, caption)
    tokens = [tokenizer.eot_token, *tokenizer.encode_ordinary(caption)]
    x = torch.cat([model.encode_images(pixels), model.gpt.wte(torch.tensor([tokens]))], dim=1)
    x = x + model.gpt.wpe.weight[:x.size(1)]
    told = iter(shown[1:])
    for block in model.gpt.h:
        reference = torch.nn.MultiheadAttention(24, 3, batch_first=True)
        reference.in_proj_weight.copy_(block.attn.c_attn.weight)
        reference.in_proj_bias.copy_(block.attn.c_attn.bias)
        normed, later = block.ln_1(x), torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        weights = reference(normed, normed, normed, attn_mask=later)[1][0, 4:, :4]  # (T, P), means of the heads
        for token, light in zip(tokens[1:], weights):  # the row of a token chooses the next one
            image, label, _ = next(told)
            seen = np.asarray(image)[8::16, 8::16, 0].flatten().astype(float)
            assert np.corrcoef(seen, light)[0, 1] > 0.999 and seen.max() == 255
            assert label.startswith(tokenizer.decode([token])) and f"{light.sum():.0%}" in label
        x = block(x)
    assert next(told, None) is None and shown[0][1] == caption
