"""Rows 1 to 5 and 7 of tests.bench.speed: models of GPT-2's and ViT-B/16's size, with random weights."""

import gc
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from mingpt_mm.gpt import GPT
from mingpt_mm.linear import in_rows
from mingpt_mm.multimodal import MultimodalGPT, loss_sum
from mingpt_mm.run import make_optimizer
from mingpt_mm.vit import ViT
from tests.bench import loading
from tests.bench.common import ROOT
from tests.bench.peers import CONFIG, ReferencePair, nanogpt, pair_arms, text_arms, transformers
from tests.bench.speed import per, shares


def step(bench, arm, *batch):
    """A function that takes one training step of the `arm`: see `peers.text_arms`."""
    model, loss, optimizer = arm

    def work():
        with bench.autocast:
            value = loss(*batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return work


def flops(config, rows, seen, backward=2):
    """Operations of a step through the blocks of `config`: see the docstring of speed.py."""
    return config.n_layer * rows * (24 * config.n_embd**2 + 4 * config.n_embd * seen) * (1 + backward)


def text(bench, batch_size, length):
    """(tokens, targets), both (B, T), at random."""
    tokens = torch.randint(bench.gpt.vocab_size, (batch_size, length + 1), device=bench.device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def compare(bench, row, seconds, ours="ours", name="{}"):
    """Note the seconds of each arm, and how many times as fast as each other one ours is."""
    for arm in [arm for arm in seconds if arm not in ("flops", "bandwidth")]:
        bench.note(row, name.format(arm), seconds[arm], "s")
    for arm in [arm for arm in seconds if arm not in (ours, "flops", "bandwidth")]:
        bench.note(row, f"{name.format(ours)} is so many times as fast as {arm}", per(seconds[arm], seconds[ours]))


def text_step(bench):
    """A training step on text, GPT-2 124M"""
    B, T = (16, 1024) if bench.device.type == "cuda" else (2, 256)
    arms, batch = text_arms(bench.gpt, bench.device, bench.nanogpt), text(bench, B, T)
    seconds = bench.alternate({name: step(bench, arm, *batch) for name, arm in arms.items()})
    compare(bench, "1", seconds, name=f"{B} x {T}: {{}}")
    head = 6 * B * T * bench.gpt.n_embd * bench.gpt.vocab_size
    shares(bench, "1", seconds, flops=flops(bench.gpt, B * T, T / 2) + head)


def pictures_step(bench):
    """A training step on pictures and captions, ViT-B/16 and GPT-2 124M, 196 patches and 32 tokens"""
    side, P, T = bench.vit.image_size, (bench.vit.image_size // bench.vit.patch_size)**2, 32
    for B in (2, 8) if bench.device.type == "cpu" else (32,):
        pixels, batch = torch.randn(B, 3, side, side, device=bench.device), text(bench, B, T)
        for frozen in (False, True):
            arms = pair_arms(bench.gpt, bench.vit, bench.device, frozen)
            works = {name: step(bench, arm, pixels, *batch) for name, arm in arms.items()}
            if frozen:
                with torch.no_grad():
                    seen = arms["ours"][0].look(pixels)  # (B, P, D)
                works["ours, features kept"] = step(bench, arms["ours"], seen, *batch)
            seconds = bench.alternate(works)
            kept = {"transformers": seconds["transformers"], "ours": seconds.pop("ours, features kept", [])}
            kind = f"{B} pictures, ViT {'frozen' if frozen else 'trained'}: "
            compare(bench, "2", seconds, name=kind + "{}")
            if frozen:
                compare(bench, "2", kept, name=f"{B} pictures, what it saw kept: {{}}")
            operations = flops(bench.gpt, B * (P + T), (P + T) / 2) + flops(bench.vit, B * (P + 1), P + 1,
                                                                            0 if frozen else 2)
            shares(bench, "2", seconds, flops=operations + 6 * B * T * bench.gpt.n_embd * bench.gpt.vocab_size)
            del arms, works
            gc.collect()


def decode(bench):
    """Decoding, GPT-2 124M, 64 tokens of prompt and 128 new ones"""
    with tempfile.TemporaryDirectory() as folder:
        GPT(bench.gpt).save_pretrained(Path(folder))
        ours = in_rows(GPT.from_pretrained(folder)).to(bench.device).eval()
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).to(bench.device).eval()
    nano = bench.nanogpt and nanogpt(bench.nanogpt, bench.gpt).to(bench.device).eval()
    new, plain = 16 if bench.quick else 128, dict(do_sample=False, eos_token_id=None, pad_token_id=0)
    for B in (1, 16):
        tokens, _ = text(bench, B, 64)
        arms = {"ours": lambda: ours.generate(tokens, new, temperature=0.0),
                "transformers": lambda: theirs.generate(tokens, max_new_tokens=new, **plain)}
        if nano and B == 1:  # it has no cache: with 16 rows this takes minutes
            arms["nanoGPT"] = lambda: nano.generate(tokens, new, top_k=1)
        with bench.autocast:
            compare(bench, "3", bench.alternate(arms), name=f"batch {B}: {{}}")
            streams = [ours.stream(tokens, ours.new_cache(1024), temperature=0.0)]
            [next(stream) for stream in streams]
            each = bench.alternate({"ours": lambda: [next(streams[0]) for _ in range(16)]})
        each["ours"] = [seconds / 16 for seconds in each["ours"]]
        bench.note("3", f"batch {B}: ours, a token after the prompt", [1000 * s for s in each["ours"]], "ms")
        size = sum(p.nbytes for p in ours.parameters()) - ours.wpe.weight.nbytes
        shares(bench, "3", each, weights=size)


def captions(bench):
    """Captions a second, ViT-B/16 and GPT-2 124M, 16 pictures, 20 tokens each"""
    ours = MultimodalGPT(GPT(bench.gpt), ViT(bench.vit)).to(bench.device).eval()
    theirs = ReferencePair(bench.gpt, bench.vit).to(bench.device).eval()
    side, B, new = bench.vit.image_size, 16, 20
    pixels, first = torch.randn(B, 3, side, side, device=bench.device), text(bench, B, 1)[0]
    plain = dict(do_sample=False, eos_token_id=None, pad_token_id=0)

    @torch.no_grad()
    def reference():
        start = torch.cat([theirs.embed(pixels), theirs.gpt.transformer.wte(first)], dim=1)  # (B, P + 1, C)
        theirs.gpt.generate(inputs_embeds=start, max_new_tokens=new, **plain)

    @torch.no_grad()
    def own():
        ours.gpt.generate(first, new, temperature=0.0, prefix=ours.embed(pixels))
    with bench.autocast:
        seconds = bench.alternate({"ours": own, "transformers": reference})
    for name in ("ours", "transformers"):
        bench.note("4", f"{name}, captions a second", [B / s for s in seconds[name]])
    bench.note("4", "ours is so many times as fast", per(seconds["transformers"], seconds["ours"]))


def load(bench):
    """Loading a checkpoint of GPT-2's size: see tests.bench.loading"""
    figures = loading.measure("gpt2", 1 if bench.quick else bench.rounds)
    for name, (seconds, peaks) in figures.items():
        bench.note("5", f"{name}, the file warm", seconds, "s")
        bench.note("5", f"{name}, peak memory over the size of the parameters", peaks)
    ours, theirs = (figures[name][0] for name in ("mingpt_mm", "transformers"))
    bench.note("5", "ours is so many times as fast", per(theirs, ours))


def step_memory(config, B, T):
    """The most memory in GB of a forward and a backward pass beside the parameters, gradients included; print it.

    In a process of its own, whose memory nothing else has used.
    """
    gpt, tokens = GPT(config), torch.randint(config.vocab_size, (B, T))
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak
    before = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[1])
    loss_sum(gpt(tokens), tokens).backward()
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    print((peak - before) / 1e9)


def growth(bench):
    """Growth: a token by the context in the cache; a step and its memory by batch and length"""
    gpt = GPT(bench.gpt).to(bench.device).eval()
    weights = sum(p.nbytes for p in gpt.parameters()) - gpt.wpe.weight.nbytes
    contexts, streams = (64, 256, 1000), {}
    for context in contexts:
        streams[context] = gpt.stream(text(bench, 1, context)[0], gpt.new_cache(1024), temperature=0.0)
        next(streams[context])
    count = 1 if bench.quick else 3
    seconds = bench.alternate({c: lambda s=s: [next(s) for _ in range(count)] for c, s in streams.items()})
    for context in contexts:
        kept = 8 * bench.gpt.n_layer * bench.gpt.n_embd * context
        bench.note("7", f"a token after {context}: over one after 64, expected {1 + (kept - kept * 64 / context) / weights:.2f}",
                   per(seconds[context], seconds[64]))
    arm = (gpt.train(), lambda x, y: loss_sum(gpt(x), y) / y.numel(), make_optimizer([(gpt, 1.0)], CONFIG))
    shapes = [(1, 128), (2, 128), (4, 128), (8, 128), (1, 256), (1, 512), (1, 1024)]
    works = {shape: step(bench, arm, *text(bench, *shape)) for shape in shapes}
    seconds = bench.alternate(works)

    def operations(B, T):
        """All of a step, that of the optimizer left out."""
        return flops(bench.gpt, B * T, T / 2) + 6 * B * T * bench.gpt.n_embd * bench.gpt.vocab_size
    for shape in shapes[:1] if bench.quick else shapes:
        expected = operations(*shape) / operations(1, 128)
        bench.note("7", "a step of {} x {}: over one of 1 x 128, operations {:.2f}".format(*shape, expected),
                   per(seconds[shape], seconds[1, 128]))
        program = (f"from mingpt_mm.gpt import GPTConfig; from tests.bench.speed_models import step_memory; "
                   f"step_memory({bench.gpt}, *{shape})")
        memory = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
        bench.note("7", "a step of {} x {}: memory beside the parameters".format(*shape), float(memory.stdout), "GB")
