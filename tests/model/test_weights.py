"""Released checkpoint files: all forms in which they exist load; whatever is wrong with one is said in one line."""

import json
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
    model = kind(GPTConfig(16, 50, 2, 2, 32) if kind is GPT else ViTConfig(24, 8, 2, 2, 32)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_()
    return model


def released():
    """The tensors of `small()` as released GPT-2 files hold them: Conv1D weights transposed, head and masks added."""
    state = {name: tensor.T.contiguous() if re.search(r"c_\w+\.weight", name) else tensor
             for name, tensor in small().state_dict().items()}
    return state | {"lm_head.weight": state["wte.weight"], "h.0.attn.bias": MASK, "h.1.attn.masked_bias": MASK[0]}


def assert_same(model, other):
    assert model.config == other.config
    assert all(a.dtype == b.dtype and a.equal(b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def refusal(source, kind=GPT):
    """The error with which `source` is refused, which must be one line."""
    with pytest.raises(UserError, match=r"\A.+\Z") as error:
        kind.from_pretrained(source)
    return str(error.value)


def test_safetensors_are_written_and_read_as_by_the_safetensors_package(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    types = "float64 float32 float16 bfloat16 int64 int32 uint8 bool".split()
    tensors = {name: torch.randint(9, (3, 4)).to(getattr(torch, name)) for name in types}
    package.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours", {name: t.T.contiguous().T for name, t in tensors.items()})  # in columns
    for back in (package.load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")):
        assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)


# A23: prefixes of wrappers
@pytest.mark.parametrize("prefix", ["", "transformer.", "_orig_mod.", "module._orig_mod.transformer."])
@pytest.mark.parametrize("file, dtype, save", [
    ("pytorch_model.bin", torch.float32, torch.save),
    ("model.safetensors", torch.bfloat16, lambda tensors, path: write_safetensors(path, tensors))], ids=["bin", "safe"])
def test_gpt_loads_with_every_prefix_with_the_tied_head_and_with_mask_buffers(tmp_path, prefix, file, dtype, save):
    small().save_pretrained(tmp_path)
    save({prefix + name: tensor.to(dtype) for name, tensor in released().items()}, tmp_path / file)
    assert_same(GPT.from_pretrained(tmp_path / file), small().to(dtype).float())
    assert GPT.from_pretrained(str(tmp_path / file), dropout=0.5).h[0].attn.dropout == 0.5


@pytest.mark.parametrize("kind, other", [(GPT, ViT), (ViT, GPT)])
def test_what_is_saved_loads_again_and_may_be_changed_without_changing_the_file(tmp_path, kind, other):
    small(kind).save_pretrained(tmp_path / "new" / "folder")
    model = kind.from_pretrained(tmp_path / "new" / "folder")
    assert_same(model, small(kind))
    model.h[1].mlp.c_fc.weight.data.fill_(1)
    assert_same(kind.from_pretrained(tmp_path / "new" / "folder"), small(kind))
    model.save_pretrained(tmp_path / "new" / "folder")  # over the file that it was loaded from
    assert_same(kind.from_pretrained(tmp_path / "new" / "folder"), model)
    assert "model_type" in refusal(tmp_path / "new" / "folder", other)
    assert "directory" in refusal(tmp_path, kind)


# A12: another head; A22: DeiT; A23: a wrapper, sizes that differ from config.json
@pytest.mark.parametrize("kind, tensors, settings, words", [
    (GPT, {"lm_head.weight": torch.ones(50, 32)}, {}, "lm_head.weight wte.weight"),
    (GPT, {"ln_f.bias": torch.full((32,), torch.nan)}, {}, "ln_f.bias"),
    (GPT, {"wpe.weight": None, "h.0.new": MASK, "ln_f.bias": MASK, "h.1.ln_2.bias": torch.ones(1, 32)}, {},
     "wpe.weight h.0.new ln_f.bias h.1.ln_2.bias"), (GPT, {"h.0.mlp.c_fc.weight": torch.ones(128, 32)}, {}, "mlp.c_fc"),
    (ViT, {KEY: None}, {}, "h.1.attn.c_attn.weight"), (ViT, {"pooled": MASK}, {}, "pooled"),
    *((ViT, {}, settings, " ".join(settings)) for settings in (
        {"model_type": "deit"}, {"layer_norm_eps": 1e-6}, {"hidden_act": "relu"})),
    *((GPT, {}, settings, word) for settings, word in (
        ({"activation_function": "relu"}, "relu"), ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"n_layer": 1}, "h.1."), ({"n_layer": 3}, "h.2."), ({"n_positions": 17}, "wpe.weight"), ({"n_head": 3}, ""),
        ({"n_layer": "2"}, ""), ({"n_positions": 10**30}, ""), ({"n_head": 0}, ""), ({"n_embd": None}, ""))),
], ids=lambda value: str(value)[:30])
def test_tensors_and_settings_of_another_model_are_refused_by_name(tmp_path, kind, tensors, settings, words):
    small(kind).save_pretrained(tmp_path)
    config, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    tensors = {name: tensor.clone() for name, tensor in read_safetensors(file).items()} | tensors
    write_safetensors(file, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    message = refusal(tmp_path, kind)
    assert all(word in message for word in words.split()) and "h.0.ln_2.bias" not in message, message


@pytest.mark.parametrize("entry", [
    {"data_offsets": [0, 2**40]}, {"data_offsets": [-8, 0]}, {"data_offsets": [8, 0]}, {"data_offsets": [8, 16]},
    {"shape": [3]}, {"shape": [-2, -1]}, {"shape": [2**60], "data_offsets": [0, 2**62]}, {"dtype": "F8"}], ids=str)
def test_a_tensor_outside_of_its_file_is_refused(tmp_path, entry):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        read_safetensors(tmp_path / "a")


@pytest.mark.parametrize("content, word", [
    ({"model": released()}, "model"), ([1], ""), (MASK, ""), (released() | {"": print}, "Unpickling")], ids=range(4))
def test_a_pickle_of_something_else_is_refused_and_runs_no_code(tmp_path, content, word):
    small().save_pretrained(tmp_path)
    torch.save(content, tmp_path / "a.bin")
    assert word in refusal(tmp_path / "a.bin")


def test_a_released_model_is_downloaded_once_and_an_unknown_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", (tmp_path / "hub").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    small(ViT).save_pretrained(tmp_path / "hub/google/vit-small/resolve/main")
    assert_same(ViT.from_pretrained("google/vit-small"), small(ViT))
    (tmp_path / "hub").rename(tmp_path / "offline")
    assert_same(ViT.from_pretrained("google/vit-small"), small(ViT))
    assert "gpt5" in refusal("gpt5")
