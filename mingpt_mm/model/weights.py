"""Released checkpoints as files: download, read and write them.

A checkpoint is a folder with config.json and the tensors in model.safetensors, in several shards
(model-00001-of-00002.safetensors), or in the older pickle pytorch_model.bin.
"""

import json
import os
import re
from pathlib import Path

import torch

from mingpt_mm.console import UserError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}
# The sizes in config.json, in the order of GPTConfig and ViTConfig, and what else it must say
SIZES = {"gpt2": ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd"),
         "vit": ("image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "hidden_size")}
SETTINGS = {"gpt2": {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
                     "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
            "vit": {"model_type": "vit", "hidden_act": "gelu", "layer_norm_eps": 1e-12}}
# Our names are GPT-2's. ViT's files have these; * is query, key and value, three tensors.
VIT_NAMES = {"patch_embeddings": "embeddings.patch_embeddings.projection", "h.": "encoder.layer.",
             "cls_token": "embeddings.cls_token", "position_embeddings": "embeddings.position_embeddings",
             "ln_1": "layernorm_before", "ln_2": "layernorm_after", "attn.c_attn": "attention.attention.*",
             "attn.": "attention.", "mlp.": "", "c_fc": "intermediate.dense", "c_proj": "output.dense"}
# GPT-2's files hold these transposed, for x @ W.
CONV1D = {"gpt2": ("c_attn.weight", "c_proj.weight", "c_fc.weight"), "vit": ()}
PREFIX = r"^((module|_orig_mod|transformer|vit)\.)+"  # of wrappers and larger models
UNUSED = r"(^|\.)((pooler|classifier)\.|h\.\d+\.attn\.(masked_)?bias$)"  # other heads, and the causal mask


def download(name):
    """The folder, in torch's cache, with the files of the model `name` on the hub; downloaded once."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    folder = Path(torch.hub.get_dir(), f"checkpoints/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in {"config.json", "model.safetensors"}.difference(os.listdir(folder)):
        torch.hub.download_url_to_file(f"{hub}/{name}/resolve/main/{file}", str(folder / file))
    return folder


def read_safetensors(path):
    """{name: tensor} of a file in the safetensors format (https://github.com/huggingface/safetensors).

    8 bytes hold the length of the header (little-endian). The header is JSON, {name: {"dtype", "shape",
    "data_offsets": [start, end]}}. The bytes of the tensors follow. They are mapped into memory, not copied;
    what is written into a tensor does not reach the file.
    """
    data = torch.from_file(str(path), size=os.path.getsize(path), dtype=torch.uint8).numpy()
    first = 8 + int.from_bytes(data[:8], "little")
    header, tensors = json.loads(bytes(data[8:first])), {}
    for name in sorted(header.keys() - {"__metadata__"}):
        start, end = header[name]["data_offsets"]
        flat = torch.frombuffer(data[first:], dtype=torch.uint8, count=end - start, offset=start)
        tensors[name] = flat.view(DTYPES[header[name]["dtype"]]).view(header[name]["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor} to `path` in the safetensors format."""
    names, header, end = {dtype: name for name, dtype in DTYPES.items()}, {}, 0
    for name, t in tensors.items():
        header[name] = dict(dtype=names[t.dtype], shape=[*t.shape], data_offsets=[end, end := end + t.nbytes])
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(t.cpu().contiguous().flatten().view(torch.uint8).numpy() for t in tensors.values())


def released_names(name, kind):
    """The names of our parameter `name` in released files of the model type `kind`."""
    for ours, theirs in VIT_NAMES.items() if kind == "vit" else ():
        name = name.replace(ours, theirs)
    return [name.replace("*", part) for part in ("query", "key", "value")] if "*" in name else [name]


class PretrainedModel(torch.nn.Module):
    """A module with the sizes `config`, to be loaded from and saved as a released checkpoint.

    A subclass names its `model_type`, "gpt2" or "vit", and its `config_class`.
    """

    @classmethod
    def from_pretrained(cls, source, **settings):
        """The model with the weights of `source`, in float32: a folder, a file, or a name on the hub.

        Names are "gpt2" to "gpt2-xl", "distilgpt2", "google/vit-base-patch16-224" and similar ones.
        `settings` go to the config. Raises UserError if the weights cannot be found or read, or are of
        another model. Its message names all tensors that are missing, left over or of another shape.
        """
        tensors, kind = {}, cls.model_type
        try:
            path = Path(source) if Path(source).exists() else download(str(source))
            files = [*path.glob("model*.safetensors")] or [*path.glob("pytorch_model*.bin")]
            for file in files or [path]:  # torch.load runs no code from the file: weights_only is its default
                part = read_safetensors(file) if file.suffix == ".safetensors" else torch.load(file, "cpu")
                tensors |= {re.sub(PREFIX, "", k): x for k, x in part.items() if not re.search(UNUSED, k)}
            config = SETTINGS[kind] | json.loads(file.with_name("config.json").read_bytes())
            wrong = [f"{k} is {config[k]}" for k, value in SETTINGS[kind].items() if config[k] != value]
            wrong += [k for k, x in tensors.items() if not torch.is_tensor(x) or not x.isfinite().all()]
            head = tensors.pop("lm_head.weight", tensors.get("wte.weight"))
            if wrong or "wte.weight" in tensors and not torch.equal(head, tensors["wte.weight"]):
                raise ValueError(f"not usable: {', '.join(wrong) or 'lm_head.weight is not wte.weight'}")
            with torch.device("meta"):  # allocates and draws nothing
                model = cls(cls.config_class(*(config[name] for name in SIZES[kind]), **settings))
            for name, _ in model.named_parameters():
                if parts := [tensors.pop(k).float() for k in released_names(name, kind) if k in tensors]:
                    # cat copies, as the file can change. t() is a view: the file's strides decode faster.
                    tensors[name] = torch.cat(parts).t() if name.endswith(CONV1D[kind]) else torch.cat(parts)
            model.load_state_dict(tensors, assign=True)
        except Exception as error:  # a damaged file can make the readers raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{source}: no {kind} checkpoint that can be loaded ({reason})") from error
        return model

    def save_pretrained(self, folder):
        """Write config.json and model.safetensors into `folder`; `transformers` loads them as well."""
        folder, tensors, kind = Path(folder), {}, self.model_type
        folder.mkdir(parents=True, exist_ok=True)
        for name, x in self.state_dict().items():
            names = released_names(name, kind)
            tensors |= zip(names, (x.t() if name.endswith(CONV1D[kind]) else x).chunk(len(names)))
        config = dict(zip(SIZES[kind], vars(self.config).values()), intermediate_size=4 * self.config.n_embd)
        (folder / "config.json").write_text(json.dumps(SETTINGS[kind] | config, indent=2))
        write_safetensors(folder / "model.safetensors", tensors)
