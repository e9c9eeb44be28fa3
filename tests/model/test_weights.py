"""Released checkpoint files: all forms in which they exist load; whatever is wrong with one is said in one line."""

import json
import random
import re

import pytest
import torch

from mingpt_mm import GPT, GPTConfig, ViT, ViTConfig
from mingpt_mm.console import UserError
from mingpt_mm.model.weights import read_safetensors, write_safetensors

KEY, MASK = "encoder.layer.1.attention.attention.key.weight", torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril()


def small(kind=GPT):
    """A small model, every parameter of which differs from any default."""
    torch.manual_seed(0)
    model = kind(GPTConfig(16, 50, 2, 2, 32) if kind is GPT else ViTConfig(24, 8, 2, 2, 32))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.requires_grad_(False)


def released(prefix=""):
    """The tensors of `small()` as released GPT-2 files hold them: Conv1D weights transposed, head and masks added."""
    state = small().state_dict()
    state |= {"lm_head.weight": state["wte.weight"].clone(), "h.0.attn.bias": MASK, "h.1.attn.masked_bias": -1e4 * MASK[0, 0, 0, 0]}
    return {prefix + name: tensor.T.contiguous() if re.search(r"c_\w+\.weight", name) else tensor
            for name, tensor in state.items()}


def assert_same(model, other):
    assert model.config == other.config and model.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def refusal(source, kind=GPT):
    """The error with which `source` is refused, which must be one line."""
    with pytest.raises(UserError) as error:
        kind.from_pretrained(source)
    assert str(error.value).strip() and "\n" not in str(error.value)
    return str(error.value)


def test_safetensors_are_written_and_read_as_by_the_safetensors_package(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "c": torch.tensor([True, False]), "f": torch.tensor(1.5),
               "d": torch.randn(2, 2).bfloat16(), "e": torch.arange(3), "g": torch.arange(6.0).view(2, 3).T.contiguous()}
    package.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours", tensors | {"g": torch.arange(6.0).view(2, 3).T})
    for back in (package.load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")):
        assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("prefix", ["", "transformer.", "_orig_mod.", "module._orig_mod.transformer."])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_gpt_loads_with_every_prefix_with_the_tied_head_and_with_mask_buffers(tmp_path, prefix, file):
    small().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    if file == "pytorch_model.bin":
        torch.save(released(prefix), tmp_path / file)
    else:
        write_safetensors(tmp_path / file, released(prefix))
    assert_same(GPT.from_pretrained(tmp_path), small())
    assert_same(GPT.from_pretrained(str(tmp_path / file)), small())


@pytest.mark.parametrize("kind", [GPT, ViT])
def test_what_is_saved_loads_again_and_may_be_changed_without_changing_the_file(tmp_path, kind):
    small(kind).save_pretrained(tmp_path / "new" / "folder")
    model = kind.from_pretrained(tmp_path / "new" / "folder")
    assert_same(model, small(kind))
    for parameter in model.requires_grad_(False).parameters():
        parameter.fill_(1)
    assert_same(kind.from_pretrained(tmp_path / "new" / "folder"), small(kind))
    model.save_pretrained(tmp_path / "new" / "folder")  # over the file that it was loaded from
    assert_same(kind.from_pretrained(tmp_path / "new" / "folder"), model)


def test_half_precision_files_become_float32_and_dropout_is_an_option(tmp_path):
    small().save_pretrained(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {name: tensor.bfloat16() for name, tensor in released().items()})
    assert_same(GPT.from_pretrained(tmp_path), small().bfloat16().float())
    assert GPT.from_pretrained(tmp_path, dropout=0.5).h[0].attn.dropout == 0.5


@pytest.mark.parametrize("kind, tensors, header, settings, words", [
    (GPT, {"lm_head.weight": torch.ones(50, 32)}, {}, {}, "lm_head.weight wte.weight"),
    (GPT, {"ln_f.bias": torch.full((32,), torch.nan)}, {}, {}, "ln_f.bias"),
    (GPT, {"wpe.weight": None, "h.0.extra": MASK, "ln_f.bias": torch.ones(5), "h.1.ln_2.bias": torch.ones(1, 32)}, {}, {},
     "wpe.weight h.0.extra ln_f.bias h.1.ln_2.bias"), (GPT, {"h.0.mlp.c_fc.weight": torch.ones(128, 32)}, {}, {}, "mlp.c_fc"),
    (ViT, {KEY: None}, {}, {}, "h.1.attn.c_attn.weight"), (ViT, {"pooled": MASK}, {}, {}, "pooled"),
    *((GPT, {}, header, {}, "") for header in (
        {"data_offsets": [0, 2**40]}, {"data_offsets": [-128, 0]}, {"data_offsets": [128, 0]}, {"shape": [33]},
        {"data_offsets": [2**40, 2**40 + 128]}, {"shape": [2**60], "data_offsets": [0, 2**62]}, {"shape": [-4, -8]},
        {"dtype": "F8_E4M3"}, {"shape": None})),
    *((ViT, {}, {}, dict([setting]), setting[0]) for setting in (
        ("model_type", "deit"), ("layer_norm_eps", 1e-6), ("hidden_act", "relu"), ("qkv_bias", False))),
    *((GPT, {}, {}, settings, " ".join(settings)) for settings in (
        {"activation_function": "relu"}, {"scale_attn_weights": False}, {"layer_norm_epsilon": 1e-6})),
    *((GPT, {}, {}, dict([setting]), word) for *setting, word in (
        ("n_layer", 1, "h.1."), ("n_layer", 3, "h.2."), ("n_positions", 17, "wpe.weight"), ("n_head", 3, ""),
        ("n_layer", "2", ""), ("n_positions", 10**30, ""), ("n_head", 0, ""), ("n_embd", None, ""))),
], ids=lambda value: str(value)[:30])
def test_tensors_and_settings_of_another_model_are_refused_by_name(tmp_path, kind, tensors, header, settings, words):
    small(kind).save_pretrained(tmp_path)
    config, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    state = {name: tensor.clone() for name, tensor in read_safetensors(file).items()} | tensors
    write_safetensors(file, {name: tensor for name, tensor in state.items() if tensor is not None})
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:end])
    entries["ln_f.bias" if kind is GPT else "layernorm.bias"] |= header
    text = json.dumps(entries).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    message = refusal(tmp_path, kind)
    assert all(word in message for word in words.split()) and "h.0.ln_2.bias" not in message, message


def test_a_vit_is_no_gpt_and_a_folder_without_its_files_is_no_checkpoint(tmp_path):
    small(ViT).save_pretrained(tmp_path)
    assert "vit" in refusal(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "config.json" in refusal(tmp_path, ViT)


@pytest.mark.parametrize("content, word", [
    ({"model": released()}, "model"), ([1, 2], ""), (MASK, ""), (released() | {"code": print}, "UnpicklingError")],
    ids=["nested", "list", "tensor", "code"])
def test_a_pickle_of_something_else_is_refused_and_runs_no_code(tmp_path, content, word):
    small().save_pretrained(tmp_path)
    torch.save(content, tmp_path / "a.bin")
    assert word in refusal(tmp_path / "a.bin")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_damaged_file_is_refused_or_read_but_raises_nothing_else(tmp_path, name):
    small().save_pretrained(tmp_path)
    if name == "pytorch_model.bin":
        torch.save(released(), tmp_path / name)
        (tmp_path / "model.safetensors").unlink()
    whole, rng = (tmp_path / name).read_bytes(), random.Random(0)
    for i in range(67):
        damaged = bytearray(whole if i > 9 else whole[:len(whole) * i // 10])  # cut at each tenth; then bytes changed
        for at in rng.sample(range(min(len(whole), rng.choice([1000, 10**9]))), 3 if i > 9 else 0):
            damaged[at] = rng.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            GPT.from_pretrained(tmp_path)
            assert i > 9, "a part is no checkpoint"
        except UserError as error:
            assert "\n" not in str(error)


def test_a_released_model_is_downloaded_once_and_an_unknown_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", (tmp_path / "hub").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    small(ViT).save_pretrained(tmp_path / "hub/google/vit-small/resolve/main")
    assert_same(ViT.from_pretrained("google/vit-small"), small(ViT))
    (tmp_path / "hub").rename(tmp_path / "offline")
    assert_same(ViT.from_pretrained("google/vit-small"), small(ViT))
    assert "gpt5" in refusal("gpt5")
