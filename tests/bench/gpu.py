"""What the code does on one GPU: correctness, the default runs, speed beside transformers, and waiting for data.

    python -m tests.bench.gpu --json FILE        about six minutes on an H100 or H200, without a network
    python -m tests.bench.gpu --quick            small sizes, also on a CPU: only to see that it runs

Each part runs in a process of its own with a time limit, so that a failure stops no other part. FILE is written
after each part. Weights are random, in the layouts of the released files. tokens_per_second and images_per_second
are medians. ceiling: the share of the measured peak, which is bfloat16 matrix products in training and bandwidth in decoding.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch.nn import functional as F

from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig
from mingpt_mm.training import load_checkpoint
from tests.bench.common import ROOT, make_parser, run, start
from tests.bench.speed import SMALL, decoding, joined_step, text_step

DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
COMPILE = torch.compile if DEVICE.type != "cpu" else partial(torch.compile, backend="eager")  # needs no compiler
BFLOAT16 = torch.autocast(DEVICE.type, torch.bfloat16)
QUICK_RUN = ["--steps", 4, "--eval_interval", 2, "--eval_samples", 4]


def seconds(work, rounds):
    """The median time of `work()` over `rounds`, after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        work()
        torch.accelerator.synchronize() if DEVICE.type != "cpu" else None
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
    run([*argv], folder / "whole")
    start([*argv, "--out", "resumed"], folder, patch=stop).communicate()  # ends with an error after step 20
    run(argv, folder / "resumed")
    a, b = (load_checkpoint(folder / name / "last.pt")["model"] for name in ("whole", "resumed"))
    return results | {"resume": max((a[name] - b[name]).abs().max().item() for name in a)}


def runs(quick, folder):
    """Quality and seconds of the default runs."""
    results = {}
    for name, argv in (("scenes", []), ("clips", ["--world", "clips"]), ("adversarial", ["adversarial"])):
        more = ["--gan_warmup", 4, "--gan_steps", 4, "--sentences", 1] if quick and argv == ["adversarial"] else []
        final = run([*argv, *(QUICK_RUN if quick else []), *more], folder / name, threads=8)
        results |= {f"{name} {key}": final[key] for key in ("exact_match", "recall_graph_only", "seconds") if key in final}
    return results


def training(quick, folder):
    """Tokens per second of training steps on text, eager and compiled, beside transformers."""
    config, batch = SMALL[0] if quick else GPTConfig(), (2, 33) if quick else (16, 1025)
    size, rounds = (512, 2) if quick else (8192, 20)
    matrix = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    flops = 2 * size**3 / seconds(lambda: matrix @ matrix, rounds)
    tokens = torch.randint(config.vocab_size, batch, device=DEVICE)
    n, T = tokens[:, 1:].numel(), batch[1] - 1
    # FLOPs of a token: 6 for each parameter, and attention (PaLM, Chowdhery et al., 2022, appendix B).
    cost = 6 * sum(p.numel() for p in GPT(config).parameters()) + 12 * config.n_layer * config.n_embd * T
    results = {"matrix TFLOP/s": flops / 1e12}
    for name, compiled in (("eager", lambda model: model), ("compiled", COMPILE)):
        with DEVICE:
            works = text_step(config, tokens, compiled)
        for side, work in works.items():
            def step(work=work):
                with BFLOAT16:
                    work()
            rate = n / seconds(step, rounds)
            results |= {f"{side} {name} tokens_per_second": rate, f"{side} {name} ceiling": rate * cost / flops}
    return results


def joined(quick, folder):
    """Images per second and peak memory of training steps on images and captions, beside transformers."""
    gpt, vit, n = (*SMALL, 2) if quick else (GPTConfig(), ViTConfig(), 32)
    tokens, results = torch.randint(gpt.vocab_size, (n, 33), device=DEVICE), {}
    for side in ("ours_ms", "transformers_ms"):
        with DEVICE:
            work = joined_step(gpt, vit, tokens)[side]
        def step():
            with BFLOAT16:
                work()
        torch.cuda.reset_peak_memory_stats() if DEVICE.type == "cuda" else None
        results[f"{side} images_per_second"] = n / seconds(step, 2 if quick else 20)
        if DEVICE.type == "cuda":
            results[f"{side} GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return results


def decode(quick, folder):
    """Tokens per second of greedy decoding in bfloat16, beside transformers."""
    config, results = SMALL[0] if quick else GPTConfig(), {}
    memory = torch.zeros(2**(20 if quick else 30), dtype=torch.uint8, device=DEVICE)
    bandwidth = 2 * memory.numel() / seconds(lambda: memory.clone(), 5)
    for n in (1, 16):
        tokens = torch.randint(config.vocab_size, (n, 64), device=DEVICE)
        with torch.device(DEVICE):
            works = decoding(config, tokens, lambda model: model.to(DEVICE, torch.bfloat16))
        for side, work in works.items():
            rate = 64 * n / seconds(work, 2 if quick else 5)
            read = 2 * sum(p.numel() for p in GPT(config).parameters())  # bytes of the weights, for each step
            results |= {f"{side} batch {n} tokens_per_second": rate, f"{side} batch {n} ceiling": rate / n * read / bandwidth}
    return results


def waiting(quick, folder):
    """The share of the time of a run that the training process waits for batches of photographs."""
    (folder / "photos").mkdir(parents=True)
    rows = []
    for i in range(20 if quick else 800):
        Image.effect_noise((500, 375), 60).convert("RGB").save(folder / f"photos/{i}.jpg")
        rows.append(json.dumps({"image": f"{i}.jpg", "caption": f"photograph {i % 10}"}))
    (folder / "photos/captions.jsonl").write_text("\n".join(rows))
    patch = """
import time
make_loader, waited = train.make_loader, []
def timed(*args, **kwargs):
    batches = make_loader(*args, **kwargs)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waited.append((began, time.perf_counter()))
        yield batch
        if len(waited) % 4 == 0:
            share = sum(b - a for a, b in waited[3:]) / (waited[-1][1] - waited[3][0])
            open('share.txt', 'w').write(str(share))
train.make_loader = timed
"""
    argv = ["--data", "photos", "--image_size", 224, "--steps", 300, "--eval_interval", 300, "--eval_samples", 8]
    small = ["--image_size", 32, "--steps", 12] if quick else ["--n_embd", 768, "--n_head", 12, "--vit_layers", 12]
    run([*argv, *small, "--num_workers", 2 if quick else 8], folder / "run", threads=8, patch=patch)
    return {"share of waiting": float((folder / "share.txt").read_text())}


PARTS = {checks: 60, runs: 150, training: 90, joined: 45, decode: 45, waiting: 75}  # seconds, at most


def main():
    """Run all parts, or the one named."""
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it runs")
    parser.add_argument("--part", choices=[part.__name__ for part in PARTS], help="this part only, in this process")
    options = parser.parse_args()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            return print(json.dumps(globals()[options.part](options.quick, Path(folder))))
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else DEVICE.type
    results = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    print(results)
    for part, limit in PARTS.items():
        argv = [sys.executable, "-m", "tests.bench.gpu", "--part", part.__name__, *["--quick"] * options.quick]
        try:
            done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=limit)
            results[part.__name__] = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            results[part.__name__] = f"failed: {type(error).__name__}"
        print(part.__name__, results[part.__name__], flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    sys.exit(any(isinstance(results[part.__name__], str) for part in PARTS))


if __name__ == "__main__":
    main()
