"""Released checkpoints: their formats byte by byte, every damage that was thought of, and a hub on the loopback."""

import http.server
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from mingpt_mm import BadInput, gpt, vit
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.pretrained import find, read_safetensors, write_safetensors
from mingpt_mm.vit import ViT, ViTConfig

SMALL_GPT = GPTConfig(block_size=16, vocab_size=50, n_layer=2, n_head=2, n_embd=128)
SMALL_VIT = ViTConfig(image_size=24, patch_size=8, n_layer=2, n_head=2, n_embd=128)


def small(kind=GPT):
    """A small model of that kind, every parameter of which differs from any default."""
    torch.manual_seed(0)
    model = kind(SMALL_GPT if kind is GPT else SMALL_VIT)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def released(model, prefix="", extras=False):
    """The tensors of a GPT under the names of the released GPT-2 files, which are spelled out here once more."""
    tensors = {"wte.weight": model.wte.weight, "wpe.weight": model.wpe.weight,
               "ln_f.weight": model.ln_f.weight, "ln_f.bias": model.ln_f.bias}
    for i, block in enumerate(model.h):
        for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            module = block.get_submodule(name)
            weight = module.weight.T.contiguous() if ".c_" in name else module.weight
            tensors |= {f"h.{i}.{name}.weight": weight, f"h.{i}.{name}.bias": module.bias}
        if extras:
            tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril()
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors = {prefix + name: tensor.detach() for name, tensor in tensors.items()}
    return tensors | ({"lm_head.weight": model.wte.weight.detach()} if extras else {})


def assert_same(model, other):
    """Both have the same sizes and the same parameters."""
    assert model.config == other.config
    for (name, parameter), (_, expected) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(parameter, expected), name


def write_raw(path, header, data):
    """A file in the safetensors format, from its parts: no code of the project."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype="F32", shape=(2,), start=0, end=8):
    """An entry of a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


# ---- the safetensors format ----

def test_safetensors_are_read_byte_by_byte(tmp_path):
    numbers = torch.tensor([[1.0, -2.0, 0.5], [3.0, 4.0, 65504.0]])
    data = b"\x07" + numbers.numpy().tobytes() + numbers.half().numpy().tobytes() + b"\x80\x3f\x00\xc0" + b"\x01\x00"
    header = {"__metadata__": {"format": "pt"}, "half": tensor("F16", (2, 3), 25, 37),
              "byte": tensor("U8", (), 0, 1), "single": tensor("F32", (2, 3), 1, 25),  # not aligned: allowed
              "brain": tensor("BF16", (2,), 37, 41), "truth": tensor("BOOL", (1, 2), 41, 43)}
    tensors = read_safetensors(write_raw(tmp_path / "a.safetensors", header, data))
    assert torch.equal(tensors["single"], numbers) and torch.equal(tensors["half"], numbers.half())
    assert tensors["brain"].tolist() == [1.0, -2.0] and tensors["truth"].tolist() == [[True, False]]
    assert tensors["byte"].item() == 7


def test_safetensors_go_back(tmp_path):
    written = {"b": torch.randn(3, 5).t(), "a": torch.randn(7).bfloat16(), "c": torch.arange(4), "d": torch.zeros(1, 0)}
    write_safetensors(tmp_path / "a.safetensors", written)
    back = read_safetensors(tmp_path / "a.safetensors")
    assert back.keys() == written.keys() and all(torch.equal(back[name], written[name]) for name in back)
    assert int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little") % 8 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("header, data, message", [
    (b"{", b"", "JSONDecodeError Expecting"),
    (b"[]", b"", "TypeError"),
    (b'{"\xff"}', b"", "decode"),
    ({"a": tensor("F8_E4M3")}, bytes(8), "unknown type F8_E4M3"),
    ({"a": tensor(end=12)}, bytes(12), "cannot lie at 0 to 12"),
    ({"a": tensor(shape=(-2, -1))}, bytes(8), "cannot lie"),
    ({"a": tensor()}, bytes(7), "cannot lie at 0 to 8"),
    ({"a": tensor()}, bytes(9), "1 bytes at its end"),
    ({"a": tensor(), "b": tensor()}, bytes(8), "b .* cannot lie at 0 to 8"),
    ({"a": tensor(), "b": tensor(start=4, end=12)}, bytes(12), "b .* cannot lie at 4 to 12"),
    ({"a": tensor(), "b": tensor(start=12, end=20)}, bytes(20), "b .* cannot lie at 12 to 20"),
    ({"a": tensor(start=-8, end=0)}, b"", "cannot lie"),
    ({"a": tensor(shape=(2**61,), end=2**63)}, bytes(8), "cannot lie"),
    ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "KeyError 'data_offsets'"),
    ({"a\nb": tensor("X")}, bytes(8), "a b has the unknown type X"),
    ({"a": tensor("I32")}, bytes(8), "not all numbers in it are of a floating-point type"),
    ({"a": 5}, bytes(8), "TypeError"),
], ids=str)
def test_a_damaged_file_is_one_clear_line(tmp_path, header, data, message):
    path = write_raw(tmp_path / "a.safetensors", header, data)
    with pytest.raises(BadInput, match=message) as error:
        GPT.from_pretrained(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x01", (2**40).to_bytes(8, "little") + b"{}"], ids=["0", "1", "2**40"])
def test_a_header_longer_than_the_file_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="longer than the file"):
        GPT.from_pretrained(tmp_path / "a.safetensors")


def test_whatever_is_flipped_or_cut_nothing_but_bad_input_is_raised(tmp_path):
    small().save_pretrained(tmp_path)
    rng, path = random.Random(0), tmp_path / "model.safetensors"
    good = path.read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    for _ in range(300):
        bad = bytearray(good[:rng.randrange(len(good))] if rng.random() < 0.2 else good)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(min(end, len(bad)))] = rng.randrange(256)
        path.write_bytes(bad)
        try:
            GPT.from_pretrained(tmp_path)
        except BadInput as error:
            assert "\n" not in str(error)


# ---- the layouts of the two models ----

@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("extras", [False, True], ids=["bare", "with masks and head"])
@pytest.mark.parametrize("kind", ["safetensors", "pickle", "old pickle"])
def test_gpt_loads_all_forms_in_which_it_was_released(tmp_path, prefix, extras, kind):
    model = small()
    tensors, path = released(model, prefix, extras), tmp_path / "pytorch_model.bin"
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        write_safetensors(path, tensors)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "pickle")
    assert_same(GPT.from_pretrained(path), model)  # without a config: from the shapes, a head is 64 wide
    assert_same(GPT.from_pretrained(str(tmp_path)), model)
    sizes = {"n_positions": 16, "vocab_size": 50, "n_layer": 2, "n_head": 4, "n_embd": 128}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert GPT.from_pretrained(tmp_path).config.n_head == 4


@pytest.mark.parametrize("kind", [GPT, ViT])
def test_what_is_saved_loads_again(tmp_path, kind):
    model = small(kind)
    model.save_pretrained(tmp_path / "new" / "folder")
    assert_same(kind.from_pretrained(tmp_path / "new" / "folder"), model)
    (tmp_path / "new/folder/config.json").unlink()
    assert_same(kind.from_pretrained(tmp_path / "new/folder/model.safetensors"), model)


def test_options_that_the_weights_leave_open(tmp_path):
    small().save_pretrained(tmp_path)
    model = GPT.from_pretrained(tmp_path, dropout=0.5, vocab_multiple=64)
    assert model.h[0].attn.dropout == model.dropout.p == 0.5 and model.config.vocab_multiple == 64


def test_loading_leaves_torch_as_it_was(tmp_path):
    small().save_pretrained(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(GPT.from_pretrained, [tmp_path] * 30))
    assert 0.9 < torch.nn.init.normal_(torch.empty(1000)).std() < 1.1


def test_what_is_loaded_may_be_changed_without_changing_the_file(tmp_path):
    small().save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = GPT.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    model.save_pretrained(tmp_path)  # over the very file that it lies in
    assert GPT.from_pretrained(tmp_path).h[1].mlp.c_fc.weight.eq(1).all()


def test_weights_become_float32(tmp_path):
    model = small()
    write_safetensors(tmp_path / "a.safetensors", {name: t.bfloat16() for name, t in released(model).items()})
    loaded = GPT.from_pretrained(tmp_path / "a.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.wte.weight, model.wte.weight.bfloat16().float())


RELEASED = {
    "gpt2": (GPTConfig(), 124_439_808),
    "gpt2-medium": (GPTConfig(n_layer=24, n_head=16, n_embd=1024), 354_823_168),
    "gpt2-large": (GPTConfig(n_layer=36, n_head=20, n_embd=1280), 774_030_080),
    "gpt2-xl": (GPTConfig(n_layer=48, n_head=25, n_embd=1600), 1_557_611_200),
    "distilgpt2": (GPTConfig(n_layer=6), 81_912_576),
    "vit-base-patch16-224": (ViTConfig(), 85_798_656),
    "vit-base-patch32-224": (ViTConfig(patch_size=32), 87_455_232),
    "vit-base-patch16-384": (ViTConfig(image_size=384), 86_090_496),
    "vit-large-patch16-224": (ViTConfig(n_layer=24, n_head=16, n_embd=1024), 303_301_632),
    "vit-huge-patch14-224": (ViTConfig(patch_size=14, n_layer=32, n_head=16, n_embd=1280), 630_764_800),
    "deit-tiny-patch16-224": (ViTConfig(n_head=3, n_embd=192), 5_524_416),
    "deit-small-patch16-224": (ViTConfig(n_head=6, n_embd=384), 21_665_664),
}


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_model_has_its_size_and_shows_it_by_its_shapes(name):
    config, published = RELEASED[name]
    kind, room = (GPT, gpt) if isinstance(config, GPTConfig) else (ViT, vit)
    with torch.device("meta"):
        model = kind(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    names = {n: p for n, p in model.named_parameters()}
    tensors = {room.LAYOUT.names(n)[0]: p for n, p in names.items()}
    assert kind is ViT or tensors["wte.weight"].shape == (50257, config.n_embd)
    assert type(config)(*room.LAYOUT.guess(tensors)) == config


# ---- what does not fit ----

def damaged(tmp_path, change, kind=GPT, **settings):
    """The message about a small model whose tensors `change` has changed and whose config.json has `settings`."""
    small(kind).save_pretrained(tmp_path)
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    tensors = read_safetensors(path)
    change(tensors)
    write_safetensors(path, tensors)
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(BadInput) as error:
        kind.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_message_names_all_that_does_not_fit(tmp_path):
    def change(tensors):
        del tensors["wpe.weight"], tensors["h.1.ln_2.bias"]
        tensors |= {"h.0.extra": torch.zeros(1), "ln_f.bias": torch.zeros(5), "h.0.attn.c_proj.bias": torch.zeros(1, 4)}
    message = damaged(tmp_path, change)
    for word in ("wpe.weight", "h.1.ln_2.bias", "h.0.extra", "ln_f.bias", "h.0.attn.c_proj.bias", "[5]", "[128]"):
        assert word in message
    assert "h.0.ln_2.bias" not in message


@pytest.mark.parametrize("name, shape", [("h.0.attn.c_attn.weight", (384, 128)), ("h.0.mlp.c_fc.weight", (2, 3, 4)),
                                         ("wte.weight", (49, 128)), ("wte.weight", ())])
def test_a_misshapen_tensor_is_refused(tmp_path, name, shape):
    message = damaged(tmp_path, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    assert "does not fit" in message


def test_query_key_and_value_must_all_be_there_and_fit(tmp_path):
    key = "encoder.layer.1.attention.attention.key.weight"
    for change in (lambda tensors: tensors.pop(key),
                   lambda tensors: tensors.update({key: torch.zeros(128, 64)}),
                   lambda tensors: tensors.update({key: torch.zeros(200, 128),
                                                   key.replace("key", "query"): torch.zeros(56, 128)})):
        message = damaged(tmp_path, lambda tensors: (change(tensors), tensors.pop("layernorm.bias")), ViT)
        assert '"h.1.attn.c_attn.weight", ' in message + ", " and '"layernorm.bias"' in message
        assert "attention.attention.value.weight" in message


def test_no_name_of_ours_gets_past_the_layout(tmp_path):
    extra = {"h.1.attn.c_attn.weight": torch.zeros(384, 128), "patch_embeddings.bias": torch.zeros(128)}
    message = damaged(tmp_path, lambda tensors: tensors.update(extra), ViT)
    assert '"vit.h.1.attn.c_attn.weight"' in message and '"vit.patch_embeddings.bias"' in message


@pytest.mark.parametrize("settings, word", [
    ({"n_layer": 1}, "h.1."), ({"n_layer": 3}, "h.2."), ({"vocab_size": 51}, "wte.weight"), ({"n_embd": 64}, "wte"),
    ({"n_positions": 17}, "wpe.weight"), ({"n_layer": 10**9}, "n_layer 1000000000"), ({"n_layer": 999}, "28 tensors, but"),
    ({"n_layer": "2"}, "here: n_layer '2'"), ({"n_head": 0}, "here: n_head 0"), ({"n_head": 3}, "n_head 3, n_embd 128"),
    ({"n_embd": -128}, "here: n_embd -128"), ({"n_head": None}, "here: n_head None"), ({"n_layer": 2.0}, "n_layer 2.0"),
    ({"activation_function": "relu", "n_layer": True}, "here: activation_function 'relu', n_layer True"),
], ids=str)
def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path, settings, word):
    assert word in damaged(tmp_path, lambda tensors: None, **settings)


@pytest.mark.parametrize("kind, key", [(kind, key) for kind, room in ((GPT, gpt), (ViT, vit)) for key in room.LAYOUT.fixed])
def test_a_config_of_another_architecture_is_refused(tmp_path, kind, key):
    assert f"here: {key} 'other'" in damaged(tmp_path, lambda tensors: None, kind, **{key: "other"})


@pytest.mark.parametrize("text", ["{", "[]", "null", "3"])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    small().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match="config.json: not an object in JSON"):
        GPT.from_pretrained(tmp_path)


def test_heads_of_another_width_need_a_config(tmp_path):
    GPT(GPTConfig(16, 50, 1, 3, 96)).save_pretrained(tmp_path)
    assert GPT.from_pretrained(tmp_path).config.n_head == 3
    (tmp_path / "config.json").unlink()
    with pytest.raises(BadInput, match="config.json: missing: put it beside"):
        GPT.from_pretrained(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path):
    small(ViT).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="model_type 'vit'"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(BadInput, match="KeyError 'wte.weight'"):
        GPT.from_pretrained(tmp_path)


class Bomb:
    """What a pickle can do that is not read with care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_runs_no_code(tmp_path, zipped):
    marker, path = tmp_path / "marker", tmp_path / "pytorch_model.bin"
    torch.save(released(small()) | {"bomb": Bomb(str(marker))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match="UnpicklingError"):
        GPT.from_pretrained(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the bomb is one
    assert marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": torch.zeros(1)}}, torch.zeros(3), {"ln_f.bias": "text"},
                                     {"ln_f.bias": torch.zeros(3, dtype=torch.int64)}], ids=str)
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.bin")
    with pytest.raises(BadInput, match="not such a model's tensors, or damaged"):
        GPT.from_pretrained(tmp_path / "a.bin")


def test_a_truncated_pickle_is_refused(tmp_path):
    torch.save(released(small()), tmp_path / "a.bin")
    whole = (tmp_path / "a.bin").read_bytes()
    for part in range(10):
        (tmp_path / "a.bin").write_bytes(whole[:len(whole) * part // 10])
        with pytest.raises(BadInput, match="damaged"):
            GPT.from_pretrained(tmp_path / "a.bin")


def test_a_folder_without_weights_and_a_path_to_nothing(tmp_path):
    with pytest.raises(BadInput, match="without weights: model.safetensors or pytorch_model.bin"):
        GPT.from_pretrained(tmp_path)
    for source in (tmp_path / "missing", "a/b/c", "../x", ""):
        with pytest.raises(BadInput, match="no such file or folder|without weights"):
            GPT.from_pretrained(source)


# ---- a hub on the loopback ----

class Hub(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, notes what is asked for, and breaks off in the middle of `cut`."""

    asked, cut = [], None

    def do_GET(self):
        """Answer."""
        self.asked.append(self.path)
        path = self.translate_path(self.path)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return self.send_error(404 if "/gpt2/" in self.path else 401)  # as the real one answers
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:len(content) // 2] if self.cut and path.endswith(self.cut) else content)

    def log_message(self, *args):
        """Be quiet."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a hub that has the model "gpt2"; its address is in HF_ENDPOINT."""
    root = tmp_path / "hub"
    small().save_pretrained(root / "gpt2/resolve/main")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.chdir(tmp_path)
    yield root
    server.shutdown()
    server.server_close()


def test_a_model_is_downloaded_once(hub, monkeypatch, capfd):
    assert_same(GPT.from_pretrained("gpt2"), small())
    assert set(Hub.asked) == {f"/gpt2/resolve/main/{name}" for name in ("config.json", "model.safetensors")}
    assert "100%" in capfd.readouterr().err  # the progress bar
    asked = len(Hub.asked)
    assert_same(GPT.from_pretrained("gpt2"), small())
    assert len(Hub.asked) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # offline, but cached
    assert_same(GPT.from_pretrained("gpt2"), small())


def test_a_model_without_safetensors_is_downloaded_as_a_pickle(hub):
    (hub / "gpt2/resolve/main/model.safetensors").unlink()
    torch.save(released(small()), hub / "gpt2/resolve/main/pytorch_model.bin")
    assert_same(GPT.from_pretrained("gpt2"), small())


def test_a_name_may_have_an_owner(hub):
    (hub / "google").mkdir()
    small(ViT).save_pretrained(hub / "google/vit-base-patch16-224/resolve/main")
    assert_same(ViT.from_pretrained("google/vit-base-patch16-224"), small(ViT))


@pytest.mark.parametrize("cut", ["config.json", "model.safetensors"])
def test_half_a_download_is_never_loaded(hub, tmp_path, monkeypatch, cut):
    monkeypatch.setattr(Hub, "cut", cut)
    with pytest.raises(BadInput, match="gpt2: .*only [0-9,]+ of [0-9,]+ bytes came.* put its config.json and"):
        GPT.from_pretrained("gpt2")
    left = {path.name for path in (tmp_path / "cache/checkpoints/gpt2").iterdir()}
    assert left == {"config.json"} - {cut}
    monkeypatch.setattr(Hub, "cut", None)
    assert_same(GPT.from_pretrained("gpt2"), small())


def test_a_name_that_does_not_exist(hub):
    with pytest.raises(BadInput, match="gpt5: no such file or folder, and no download.* 401"):
        GPT.from_pretrained("gpt5")


def test_offline_with_nothing_cached_says_what_to_put_where(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = tmp_path / "cache/checkpoints/gpt2"
    with pytest.raises(BadInput, match=f"put its config.json and model.safetensors into {folder}") as error:
        GPT.from_pretrained("gpt2")
    assert "\n" not in str(error.value)
    small().save_pretrained(folder)  # as it says
    assert_same(GPT.from_pretrained("gpt2"), small())
    (folder / "config.json").unlink()
    assert find("gpt2") == folder / "model.safetensors"


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[bad", "http://127.0.0.1:9"])
def test_an_address_that_is_none(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(BadInput, match="gpt2: no such file or folder, and no download from"):
        GPT.from_pretrained("gpt2")


def test_an_answer_that_is_no_http(hub, monkeypatch):
    monkeypatch.setattr(Hub, "do_GET", lambda self: self.wfile.write(b"SSH-2.0-hello\r\n"))
    with pytest.raises(BadInput, match="no download from .* \\(SSH-2.0-hello\\)"):
        GPT.from_pretrained("gpt2")


def test_a_folder_goes_before_a_name(hub):
    GPT(GPTConfig(8, 30, 1, 1, 64)).save_pretrained("gpt2")
    assert GPT.from_pretrained("gpt2").config.vocab_size == 30 and not Hub.asked
