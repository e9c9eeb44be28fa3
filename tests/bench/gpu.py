"""What the code does on one GPU: correctness, the default runs, speed beside transformers, and waiting for data.

    python -m tests.bench.gpu --json FILE        up to 17 minutes by its limits, without a network
    python -m tests.bench.gpu --quick            small sizes, also on a CPU: only to see that it runs

Each part runs in a process of its own with a time limit, so that a failure stops no other part. FILE is written
after each part. Weights are random, in the sizes of GPT-2 124M and ViT-B/16. Rates are medians. share of peak: of the
measured speed of large bfloat16 matrix products in training, of the measured memory bandwidth in decoding.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig
from mingpt_mm.model.vit import normalize
from mingpt_mm.training import load_checkpoint
from tests.bench.common import ROOT, make_parser, run, start

DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
COMPILE = torch.compile if DEVICE.type != "cpu" else partial(torch.compile, backend="eager")  # needs no compiler
BFLOAT16 = torch.autocast(DEVICE.type, torch.bfloat16)
SMALL = GPTConfig(256, 512, 2, 2, 64), ViTConfig(32, 16, 2, 2, 64)


def reference_gpt(config):
    """GPT2LMHeadModel of the same sizes, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(
        n_positions=config.block_size, vocab_size=config.vocab_size, n_layer=config.n_layer, n_head=config.n_head,
        n_embd=config.n_embd, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=None))


class Reference(nn.Module):
    """ViTModel and GPT2LMHeadModel of the same sizes, joined as their users do it: through `inputs_embeds`."""

    def __init__(self, gpt, vit):
        super().__init__()
        from transformers import ViTConfig as ReferenceConfig
        from transformers import ViTModel
        self.vit = ViTModel(ReferenceConfig(
            image_size=vit.image_size, patch_size=vit.patch_size, num_hidden_layers=vit.n_layer,
            num_attention_heads=vit.n_head, hidden_size=vit.n_embd, intermediate_size=4 * vit.n_embd,
            hidden_dropout_prob=0, attention_probs_dropout_prob=0), add_pooling_layer=False)
        self.gpt, self.connector = reference_gpt(gpt), nn.Linear(vit.n_embd, gpt.n_embd)

    def forward(self, pixels, tokens):
        """The mean loss of the tokens (B, T) behind uint8 pixels (B, 3, H, W)."""
        prefix = self.connector(self.vit(normalize(pixels)).last_hidden_state[:, 1:])
        embeds = torch.cat([prefix, self.gpt.transformer.wte(tokens)], dim=1)
        labels = torch.cat([tokens.new_full(prefix.shape[:2], -100), tokens], dim=1)
        return self.gpt(inputs_embeds=embeds, labels=labels).loss


def step(model, loss):
    """A function that takes a training step of `model`, in bfloat16, on the value of the function `loss`."""
    optimizer = AdamW(model.parameters(), lr=6e-4, fused=True)

    def work():
        with BFLOAT16:
            value = loss()
        value.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return work


def seconds(work, rounds):
    """The median time of `work()` over `rounds`, after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        work()
        if DEVICE.type != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[2:])


def checks(quick, folder):
    """The largest differences of logits and loss from the CPU, of cached from uncached, and after a resume."""
    gpt, vit = SMALL if quick else (GPTConfig(), ViTConfig())
    model, tokens = MultimodalGPT(GPT(gpt), ViT(vit)).eval(), torch.randint(gpt.vocab_size, (2, 40))
    pixels = torch.randint(256, (2, 1, 3, vit.image_size, vit.image_size), dtype=torch.uint8)
    results, outputs = {}, {}
    with torch.no_grad():
        for name, device, context in (("cpu", "cpu", nullcontext()), ("float32", DEVICE, nullcontext()),
                                      ("bfloat16", DEVICE, BFLOAT16)):
            with context:
                logits = model.to(device)(pixels.to(device), tokens.to(device)).float().cpu()
            outputs[name] = logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        for name in ("float32", "bfloat16"):
            for what, a, b in zip(("logits", "loss"), outputs[name], outputs["cpu"]):
                results[f"{what}_{name}"] = (a - b).abs().max().item()
        cache, parts = model.gpt.new_cache(40), tokens.to(DEVICE).split([7, 1, 31, 1], dim=1)
        cached = torch.cat([model.gpt(part, cache=cache) for part in parts], dim=1)
        results["cached"] = (cached - model.gpt(tokens.to(DEVICE))).abs().max().item()
    argv = ["--steps", 40, "--eval_interval", 20, "--eval_samples", 32, "--dropout", 0.1]
    stop = "save = train.save_checkpoint\ntrain.save_checkpoint = lambda *a: (save(*a), 1 / (a[2] != 20))"
    start([*argv, "--out", "resumed"], folder, patch=stop).communicate()  # ends with an error after step 20
    for name in ("whole", "resumed"):
        run(argv, folder / name)
    a, b = (load_checkpoint(folder / name / "last.pt")["model"] for name in ("whole", "resumed"))
    return results | {"resume": max((a[name] - b[name]).abs().max().item() for name in a)}


def default_run(argv, small, quick, folder):
    """Quality and seconds of a default run; `small` are the options of a quick one."""
    final = run([*argv, *(["--steps", 4, "--eval_samples", 4, *small] if quick else [])], folder / "run", threads=8)
    return {key: final[key] for key in ("exact_match", "recall_graph_only", "gan_seconds", "seconds") if key in final}


def training(quick, folder):
    """Tokens per second of training steps on text, eager and compiled, beside transformers."""
    config, (B, T) = (SMALL[0], (2, 32)) if quick else (GPTConfig(), (16, 1024))
    size, rounds = (512, 2) if quick else (8192, 20)
    matrix = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    peak, results = 2 * size**3 / seconds(lambda: matrix @ matrix, rounds), {}  # FLOP/s
    tokens = torch.randint(config.vocab_size, (B, T + 1), device=DEVICE)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    # FLOPs of a token: 6 for each parameter, and attention (PaLM, Chowdhery et al., 2022, appendix B).
    cost = 6 * sum(p.numel() for p in GPT(config).parameters()) + 12 * config.n_layer * config.n_embd * T
    for name, prepare in (("eager", lambda model: model), ("compiled", COMPILE)):
        ours, theirs = prepare(GPT(config).to(DEVICE)), prepare(reference_gpt(config).to(DEVICE))
        for side, work in {"ours": step(ours, lambda: F.cross_entropy(ours(inputs).flatten(0, 1), targets)),
                           "transformers": step(theirs, lambda: theirs(inputs, labels=inputs).loss)}.items():
            rate = B * T / seconds(work, rounds)
            results |= {f"{side}, {name}: tokens/s": rate, f"{side}, {name}: share of peak": rate * cost / peak}
    return results | {"peak TFLOP/s": peak / 1e12}


def joined(quick, folder):
    """Images per second and peak memory of training steps on images and captions, beside transformers."""
    gpt, vit, n = (*SMALL, 2) if quick else (GPTConfig(), ViTConfig(), 32)
    tokens, results = torch.randint(gpt.vocab_size, (n, 33), device=DEVICE), {}
    pixels = torch.randint(256, (n, 1, 3, vit.image_size, vit.image_size), device=DEVICE).byte()
    ours, theirs = MultimodalGPT(GPT(gpt), ViT(vit)), Reference(gpt, vit)
    for side, model, loss in (
            ("ours", ours, lambda: F.cross_entropy(ours(pixels, tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())),
            ("transformers", theirs, lambda: theirs(pixels[:, 0], tokens))):
        results[f"{side}: images/s"] = n / seconds(step(model.to(DEVICE), loss), 2 if quick else 20)
        if DEVICE.type == "cuda":
            results[f"{side}: GiB"] = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
        model.to("cpu").zero_grad()
    return results


def decoding(quick, folder):
    """Tokens per second of greedy decoding, 64 tokens after 64, in bfloat16, beside transformers."""
    config, results = SMALL[0] if quick else GPTConfig(), {}
    theirs = reference_gpt(config).eval()
    theirs.save_pretrained(folder)
    ours = GPT.from_pretrained(folder).eval().to(DEVICE, torch.bfloat16)
    theirs, plain = theirs.to(DEVICE, torch.bfloat16), {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    memory = torch.zeros(2**(20 if quick else 30), dtype=torch.uint8, device=DEVICE)
    peak = 2 * memory.numel() / seconds(memory.clone, 5)  # bytes/s; each step reads all weights, 2 bytes each
    for n in (1, 16):
        tokens = torch.randint(config.vocab_size, (n, 64), device=DEVICE)
        for side, work in {"ours": lambda: ours.generate(tokens, 64),
                           "transformers": lambda: theirs.generate(tokens, max_new_tokens=64, **plain)}.items():
            rate = 64 * n / seconds(work, 2 if quick else 5)
            share = rate / n * 2 * sum(p.numel() for p in ours.parameters()) / peak
            results |= {f"{side}, batch {n}: tokens/s": rate, f"{side}, batch {n}: share of peak": share}
    return results


def waiting(quick, folder):
    """The share of the time of a run that the training process waits for batches of photographs."""
    (folder / "photos").mkdir(parents=True)
    names = [f"{i}.jpg" for i in range(20 if quick else 800)]
    for name in names:
        Image.effect_noise((500, 375), 60).convert("RGB").save(folder / "photos" / name)
    (folder / "photos/captions.jsonl").write_text("\n".join(
        json.dumps({"image": name, "caption": f"photograph {name[-5]}"}) for name in names))
    patch = """
import time
make_loader, waited = train.make_loader, []
def timed(*args, **kwargs):
    batches = make_loader(*args, **kwargs)
    for _ in range(args[1].steps):
        waited.append(time.perf_counter())
        batch = next(batches)
        waited.append(time.perf_counter())
        with open('share.txt', 'w') as file:
            file.write(str((sum(waited[7::2]) - sum(waited[6::2])) / (waited[-1] - waited[0])))
        yield batch
train.make_loader = timed
"""
    argv = ["--data", "photos", "--image_size", 224, "--steps", 300, "--eval_interval", 300, "--eval_samples", 8]
    small = ["--image_size", 32, "--steps", 12] if quick else ["--n_embd", 768, "--n_head", 12, "--vit_layers", 12]
    run([*argv, *small, "--num_workers", 2 if quick else 8], folder / "run", threads=8, patch=patch)
    return {"share of waiting": float((folder / "share.txt").read_text())}


PARTS = {  # and their seconds, at most
    "joined": (joined, 45), "waiting": (waiting, 75), "decoding": (decoding, 60), "training": (training, 120),
    "scenes": (partial(default_run, [], []), 75), "clips": (partial(default_run, ["--world", "clips"], []), 150),
    "checks": (checks, 150),
    "adversarial": (partial(default_run, ["adversarial"], ["--gan_warmup", 4, "--gan_steps", 4, "--sentences", 1]), 300)}


def main():
    """Run all parts, or the one named."""
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it runs")
    parser.add_argument("--part", choices=PARTS, help="this part only, in this process")
    options = parser.parse_args()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            return print(json.dumps(PARTS[options.part][0](options.quick, Path(folder))))
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else DEVICE.type
    results = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    for part, (_, limit) in PARTS.items():
        argv = [sys.executable, "-m", "tests.bench.gpu", "--part", part, *["--quick"] * options.quick]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            results[part] = json.loads(process.communicate(timeout=limit * (1 + 3 * options.quick))[0].splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            results[part] = f"failed: {type(error).__name__}"
            with suppress(ProcessLookupError):  # its runs of train.py end with it
                os.killpg(process.pid, signal.SIGKILL)
        print(part, results[part], flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    sys.exit(any(isinstance(results[part], str) for part in PARTS))


if __name__ == "__main__":
    main()
