"""Ask a trained model.

    python sample.py                             the newest run, on a few pictures of its own validation split
    python sample.py --image FILE ...            what is in your pictures
    python sample.py --prompt "a red bat"        go on from a text
    python sample.py --init gpt2 --prompt TEXT   ask a released GPT-2
    python sample.py --help                      all options
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mingpt_mm import BadInput
from mingpt_mm.castle import world_folder
from mingpt_mm.data import read_captions, read_image
from mingpt_mm.gpt import GPT
from mingpt_mm.multimodal import MultimodalGPT
from mingpt_mm.run import choose_device, load_checkpoint, newest_run, parse, run_command
from mingpt_mm.tokenizer import gpt2_encoding, unpack_encoding
from mingpt_mm.vit import preprocess


@dataclass
class SampleConfig:
    """Ask a trained model to describe pictures or to go on from a text."""

    run: str = ""  # folder of the run to ask; without it, the newest under runs/
    init: str = ""  # ask released weights instead: gpt2 to gpt2-xl, distilgpt2, a folder or a file
    image: tuple = ()  # pictures to describe
    prompt: str = ""  # text to go on from; with --image, the beginning of the caption
    max_new_tokens: int = 100  # the most tokens to write; a text that ends, or fills the context, is shorter
    num_samples: int = 1  # texts for each picture or prompt
    temperature: float = 0.0  # 0 takes the likeliest token each time; 1 samples as the model believes
    top_k: int = 0  # sample from so many of the likeliest tokens; 0: from all
    top_p: float = 0.0  # sample from the likeliest tokens that sum to this probability; 0: from all
    seed: int = 0  # of the sampling
    device: str = "auto"  # auto, cpu, cuda or mps


def load_run(folder, device):
    """(model, encoding, config) of the best checkpoint in `folder`, or else of the last."""
    best = folder / "best.pt"
    checkpoint = load_checkpoint(best if best.exists() else folder / "last.pt")
    model = MultimodalGPT.from_checkpoint(checkpoint).to(device)
    return model, unpack_encoding(checkpoint["encoding"]), checkpoint["config"]


def main(argv):
    """Print what the model says."""
    config = SampleConfig(**parse(SampleConfig, argv, "sample.py"))
    device, _ = choose_device(config.device, quiet=True)
    if config.init:
        if config.image or config.run:
            raise BadInput("--init: released weights are no run and saw no picture: give a --prompt only")
        gpt, encoding = GPT.from_pretrained(config.init).to(device), gpt2_encoding()
        if gpt.config.vocab_size != encoding.n_vocab:
            raise BadInput(f"--init {config.init}: {gpt.config.vocab_size:,} tokens are not those of GPT-2")
    else:
        model, encoding, trained = load_run(Path(config.run) if config.run else newest_run(), device)
        gpt = model.gpt
    sampling = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature,
                "top_k": config.top_k or None, "top_p": config.top_p or None,
                "generator": torch.Generator(device).manual_seed(config.seed)}
    if config.init or config.prompt and not config.image:
        for _ in range(config.num_samples):
            print(*gpt.complete(encoding, config.prompt, **sampling))
        return
    captions = {image: None for image in config.image}
    if not captions:
        rows = read_captions(trained["data"] or world_folder(trained["seed"]))[1][:6]
        captions = {str(row.image): row.captions for row in rows}
    for image, truths in captions.items():
        pixels = preprocess(read_image(image), trained["image_size"]).to(device)
        pixels = pixels.expand(config.num_samples, -1, -1, -1)
        for caption in model.caption(pixels, encoding, config.prompt, **sampling):
            verdict = "" if truths is None else "  (right)" if caption in truths else f"  (it is {truths[0]})"
            print(f"{image}: {caption}{verdict}")


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
