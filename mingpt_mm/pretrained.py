"""Released checkpoints as files: find or download them, read and check them, write them.

A checkpoint is {name: tensor} in a file, model.safetensors or, of old, the pickle pytorch_model.bin, with the
sizes of the model in a config.json beside it. This room knows names and tensors but no model: how the
parameters of a model are called in its files, the model says in a `Layout`.
"""

import json
import math
import os
import re
import urllib.error
import urllib.request
import zipfile
from dataclasses import astuple, dataclass
from http.client import HTTPException
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from mingpt_mm import BadInput
from mingpt_mm.system import write_file

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def fetch(url, path):
    """Download `url` to `path`, whole or not at all; False if the server has no such file."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            size = answer.length
        torch.hub.download_url_to_file(url, str(part))
        if size not in (None, part.stat().st_size):  # a broken connection is no error to torch.hub
            raise OSError(f"only {part.stat().st_size:,} of {size:,} bytes came")
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    finally:
        part.unlink(missing_ok=True)
    return path.exists()


def download(name):
    """The folder, in torch's cache, with the files of the model `name` of the hub, downloaded but once."""
    hub = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    folder = Path(torch.hub.get_dir()) / "checkpoints" / name
    if any((folder / weights).exists() for weights in WEIGHTS):  # the last file to come
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for alternatives in (["config.json"], WEIGHTS):
            if not any(fetch(f"{hub}/{name}/resolve/main/{file}", folder / file) for file in alternatives):
                raise OSError(f"it has no {alternatives[0]} of that name")
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{name}: no such file or folder, and no download from {hub} ({reason}): if that is a "
                       f"model, put its config.json and {WEIGHTS[0]} into {folder}") from error
    return folder


def find(source):
    """The file of weights that `source` names: a file, a folder with one, or a model of the hub."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(source)):
            raise BadInput(f"{source}: no such file or folder: give one with weights, a run, or gpt2")
        path = download(source)
    for weights in WEIGHTS:
        if (path / weights).is_file():
            return path / weights
    raise BadInput(f"{path}: a folder without weights: {' or '.join(WEIGHTS)} must be in it")


def read_safetensors(path):
    """{name: tensor} of a file in the safetensors format; ValueError where it breaks the format's rules.

    It holds the length of its header in 8 bytes (little-endian), the header in JSON, {name: {"dtype",
    "shape", "data_offsets": [start, end]}}, and the bytes of the tensors, one behind the other without a gap
    (https://github.com/huggingface/safetensors).
    """
    with open(path, "rb") as file:
        length, room = int.from_bytes(file.read(8), "little"), path.stat().st_size - 8
        if length > room:
            raise ValueError(f"its header of {length:,} bytes is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    raw = np.memmap(path, np.uint8, "c")  # copy on write: what changes in memory does not change the file
    tensors, place = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, end), shape = entry["data_offsets"], entry["shape"]
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} has the unknown type {entry['dtype']}")
        dtype = DTYPES[entry["dtype"]]
        size = math.prod(shape) * dtype.itemsize
        if start != place or end - start != size or min(shape, default=0) < 0 or end > room - length:
            raise ValueError(f"{name} {shape} cannot lie at {start} to {end}")
        data = torch.from_numpy(raw[8 + length + start:8 + length + end])
        tensors[name], place = data.view(dtype).view(shape), end
    if place != room - length:
        raise ValueError(f"{room - length - place:,} bytes at its end belong to no tensor")
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor} to `path` in the safetensors format."""
    names, header, place = {dtype: name for name, dtype in DTYPES.items()}, {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [place, place := place + tensor.nbytes]}
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    data = (tensor.cpu().flatten().view(torch.uint8).numpy() for tensor in tensors.values())
    write_file(path, lambda file: file.writelines(chain([len(text).to_bytes(8, "little"), text], data)))


@dataclass
class Layout:
    """How a kind of model lies in its released files."""

    prefix: str  # stands before each name in some files
    unused: str  # a pattern of the names, without prefix, that this model has no use for
    fixed: dict  # what config.json says, if it says it, of a model with the released numbers
    sizes: tuple  # the sizes in config.json, as the model's config orders them: layers, heads and width last
    guess: object  # the function {name: tensor} -> these sizes, for where there is no config.json
    renamed: dict  # {part of a parameter's name here: its name there}; * is query, key and value, one by one
    transposed: tuple  # ends of the names of matrices that are transposed there

    def names(self, parameter):
        """The names of the tensors that make up `parameter`, one below the other."""
        for ours, theirs in self.renamed.items():
            parameter = parameter.replace(ours, theirs)
        parts = ("query", "key", "value") if "*" in parameter else ("",)
        return [parameter.replace("*", part) for part in parts]


def read_checkpoint(source, layout):
    """(file, sizes, {name: tensor}) of the checkpoint `source` (see `find`)."""
    file = find(source)
    config = file.with_name("config.json")
    try:
        settings = json.loads(config.read_bytes()) if config.exists() else {}
        wrong = [key for key, value in layout.fixed.items() if settings.get(key, value) != value]
    except (ValueError, AttributeError) as error:
        raise BadInput(f"{config}: not an object in JSON: fetch it anew") from error
    try:
        if file.suffix == ".safetensors":
            tensors = read_safetensors(file)
        else:  # weights_only: a pickle may otherwise run any code
            tensors = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        tensors = {name.removeprefix(layout.prefix): tensor for name, tensor in tensors.items()}
        tensors = {name: tensors[name] for name in tensors if not re.search(layout.unused, name)}
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise ValueError("not all numbers in it are of a floating-point type")
        sizes = [settings.get(name) for name in layout.sizes] if settings else layout.guess(tensors)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        told = isinstance(error, (ValueError, KeyError, OSError))
        reason = f"{type(error).__name__} {' '.join(str(error).split()) if told else ''}".strip()
        raise BadInput(f"{file}: not such a model's tensors, or damaged ({reason}): fetch it anew") from error
    wrong += [name for name, n in zip(layout.sizes, sizes) if type(n) is not int or not 0 < n < 2**20]
    if not wrong and sizes[-1] % sizes[-2]:
        wrong = layout.sizes[-2:]
    if wrong:
        values = ", ".join(f"{name} {settings.get(name)!r}" for name in wrong)
        raise BadInput(f"{config}: " + (f"not of a model that can be loaded here: {values}: take another"
                                        if config.exists() else f"missing: put it beside {file.name}"))
    if sizes[-3] > len(tensors):
        raise BadInput(f"{file}: has {len(tensors)} tensors, but config.json promises {sizes[-3]} layers: "
                       "fetch both anew")
    return file, sizes, tensors


class NoDraws(TorchFunctionMode):
    """Nothing is drawn for tensors without memory, for which torch would import its compiler: a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.nn.init.normal_:
            return function(*args, **(kwargs or {}))


def load(source, layout, build):
    """The model `build`(sizes) with the weights of `source` (see `find`), which lie as `layout` says.

    It is built without memory and takes the tensors of the mapped file as they are; what is transposed there
    becomes a transposed view. BadInput names all that is missing or of another shape (by its name here), and
    all that is left over (by its name there).
    """
    file, sizes, tensors = read_checkpoint(source, layout)
    with torch.device("meta"), NoDraws():
        model = build(sizes)
    state = {}
    try:
        for name, _ in model.named_parameters():
            names = layout.names(name)
            shapes = [tensors[part].shape for part in names if part in tensors]
            if len(shapes) == len(names) and len(set(shapes)) == 1:
                parts = [tensors.pop(part).float() for part in names]
                tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
                state[name] = tensor.t() if name.endswith(layout.transposed) else tensor
        rest = {layout.prefix + name: tensor for name, tensor in tensors.items()}  # no name of ours
        model.load_state_dict(state | rest, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{file}: fetch it anew, for it does not fit: {reason}") from error
    return model


def write_checkpoint(folder, model, layout, settings):
    """Write the `model` into `folder` as `layout` says; `settings` is what config.json says besides."""
    folder, tensors = Path(folder), {}
    for name, parameter in model.named_parameters():
        names = layout.names(name)
        for part, tensor in zip(names, parameter.detach().chunk(len(names))):
            tensors[part] = tensor.t() if name.endswith(layout.transposed) else tensor
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS[0], tensors)
    text = json.dumps(layout.fixed | dict(zip(layout.sizes, astuple(model.config))) | settings, indent=2)
    write_file(folder / "config.json", lambda file: file.write(text.encode()))
