"""Train a GPT to describe pictures.

    python train.py                              the castle, a built-in world, from nothing on any machine
    python train.py multimodal --data FOLDER     your own pictures: FOLDER/captions.jsonl
    python train.py --resume                     go on with the newest run
    python train.py --help                       all options

The folder of the run gets last.pt, best.pt, log.jsonl and progress.png.
"""

import sys
import time
from dataclasses import asdict, dataclass

import torch
from PIL import Image
from torch.utils.data import DataLoader

from mingpt_mm import BadInput
from mingpt_mm.castle import world_folder
from mingpt_mm.data import Batches, Captions, read_captions
from mingpt_mm.log import Log, draw_progress
from mingpt_mm.multimodal import MultimodalGPT, build, caption_loss, evaluate_captions
from mingpt_mm.run import (FORMAT, Config, choose_device, learning_rate, load_checkpoint, make_optimizer,
                           run_command, save, start_run)
from mingpt_mm.tokenizer import gpt2_encoding, pack_encoding, train_bpe, unpack_encoding


@dataclass
class MultimodalConfig(Config):
    """Teach a GPT to describe pictures."""

    data: str = ""  # folder with a captions.jsonl; without it, the castle
    image_size: int = 64  # pixels a side
    patch_size: int = 16  # pixels a side
    n_embd: int = 96  # width of the GPT and the ViT
    n_head: int = 3  # attention heads of both
    n_layer: int = 1  # blocks of the GPT
    vit_layers: int = 2  # blocks of the ViT
    block_size: int = 64  # the most positions: the patches of a picture and the tokens of its caption
    dropout: float = 0.0  # in the GPT
    vit: str = "scratch"  # the ViT to begin with: scratch, or google/vit-base-patch16-224, a folder, a file
    gpt_rate: float = 1.0  # learning rate of the GPT, times --learning_rate; 0 freezes it
    vit_rate: float = 1.0  # of the ViT; frozen, it looks at each picture once if --cache_mb has room
    connector_rate: float = 1.0  # of the connector; with --init, unless given, 20
    tokenizer: str = "bpe"  # bpe: trained on the captions; gpt2: GPT-2's own, as with --init, unless given
    vocab_size: int = 512  # the most tokens of a bpe
    cache_mb: int = 1000  # megabytes of pictures, or of what a frozen ViT sees, to keep of either split

    # The defaults that go with weights; a size of 0 is theirs.
    presets = {"init": {"learning_rate": 5e-5, "connector_rate": 20.0, "tokenizer": "gpt2",
                        "block_size": 0, "n_layer": 0, "n_head": 0, "n_embd": 0},
               "vit": {"image_size": 0, "patch_size": 0, "vit_layers": 0}}

    @property
    def patches(self):
        """How many patches a picture is cut into."""
        return (self.image_size // self.patch_size)**2


def prepare(config, checkpoint, device, autocast):
    """(config, encoding, model, optimizer, training data, validation data), new or as in the `checkpoint`."""
    if config.tokenizer not in ("bpe", "gpt2"):
        raise BadInput(f"--tokenizer {config.tokenizer}: must be bpe or gpt2")
    if config.dropout >= 1 or not config.gpt_rate + config.vit_rate + config.connector_rate:
        raise BadInput("--dropout must be less than 1, and one of the rates more than 0")
    train_rows, val_rows = read_captions(config.data or world_folder(config.seed))
    if checkpoint:
        encoding = unpack_encoding(checkpoint["encoding"])
    elif config.tokenizer == "gpt2":
        encoding = gpt2_encoding()
    else:
        encoding = train_bpe((caption for row in train_rows for caption in row.captions), config.vocab_size)
    torch.manual_seed(config.seed)
    if checkpoint:
        model = MultimodalGPT.from_checkpoint(checkpoint).to(device).train()
    else:
        model, config = build(config, encoding, device)
    if config.n_embd % config.n_head or config.image_size % config.patch_size:
        raise BadInput(f"--n_embd {config.n_embd} must be a multiple of --n_head {config.n_head}, and "
                       f"--image_size {config.image_size} of --patch_size {config.patch_size}")
    optimizer = make_optimizer([(model.gpt, config.gpt_rate), (model.vit, config.vit_rate),
                                (model.connector, config.connector_rate)], config)
    if checkpoint:
        optimizer.load_state_dict(checkpoint["optimizer"])
    room = config.block_size - config.patches
    data = [Captions(rows, encoding, config.image_size, room, config.cache_mb)
            for rows in (train_rows, val_rows)]
    if config.vit_rate == 0:
        with autocast:
            for split in data:
                split.remember(lambda x: model.look(torch.as_tensor(x, device=device)).float().cpu().numpy(),
                               config.batch_size)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {encoding.n_vocab:,} tokens, "
          f"{len(train_rows):,} pictures to learn from and {len(val_rows):,} to be tested on", flush=True)
    return config, encoding, model, optimizer, *data


def draw_run(path, log, data, captions):
    """Draw the curves of the `log`, and six pictures of `data` with their `captions`, to `path`."""
    curves = {"training": log.curve("step", "loss"), "validation": log.curve("eval", "val_loss")}
    samples = [(Image.fromarray(data.pixels(i).transpose(1, 2, 0)), captions[i], data.rows[i].captions)
               for i in range(0, len(captions), -(-len(captions) // 6))]
    draw_progress(path, curves, samples)


def multimodal(argv):
    """The multimodal loop: pictures with captions, the loss on the captions, a step down its gradient."""
    config, folder, checkpoint = start_run(MultimodalConfig, argv, "multimodal")
    first, seconds = (checkpoint["step"], checkpoint["seconds"]) if checkpoint else (0, 0)
    if config.steps < first:
        raise BadInput(f"--steps {config.steps}: {folder} has taken {first} steps already: ask for more")
    began = time.perf_counter() - seconds
    device, autocast = choose_device(config.device)
    config, encoding, model, optimizer, train_data, val_data = prepare(config, checkpoint, device, autocast)
    forward = torch.compile(model) if config.compile else model
    batches = iter(DataLoader(Batches(train_data, config.batch_size, config.seed), batch_size=None,
                              sampler=range(first, config.steps), num_workers=config.workers,
                              pin_memory=device.type == "cuda"))
    log = Log(folder, first, config)
    for step in range(first, config.steps + 1):
        if step % config.eval_interval == 0 or step == config.steps:
            pause = time.perf_counter()
            state = {"format": FORMAT, "config": asdict(config), "encoding": pack_encoding(encoding),
                     "gpt": asdict(model.gpt.config), "vit": asdict(model.vit.config),
                     "model": model.state_dict(), "step": step, "seconds": pause - began}
            if step > first:  # there is something new; saved before the evaluation, which might fail
                save(folder / "last.pt", state | {"optimizer": optimizer.state_dict()})
            with autocast:
                measures, captions = evaluate_captions(model, val_data, encoding, config, device)
            earlier = [(e["exact_match"], -e["val_loss"]) for e in log.events if e["event"] == "eval"]
            if (measures["exact_match"], -measures["val_loss"]) > max(earlier, default=(-1, 0)):
                save(folder / "best.pt", state)  # captions may still improve when the loss already overfits
            log.write("eval", step, **measures, seconds=time.perf_counter() - began)
            draw_run(folder / "progress.png", log, val_data, captions)
            log.since += time.perf_counter() - pause
        if step == config.steps:
            break

        torch.manual_seed(hash((config.seed, step)))  # dropout too is a function of (seed, step)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(step, config)
        batch = [tensor.to(device, non_blocking=True) for tensor in next(batches)]
        count, total = (batch[2] >= 0).sum(), 0  # the targets of all parts, which add up to the batch's mean
        for part in zip(*(tensor.chunk(config.accumulate) for tensor in batch)):
            with autocast:
                loss = caption_loss(forward, *part) / count
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log.step(step + 1, total, norm, batch[1].size(0) * (config.patches + batch[1].size(1)))

    model.load_state_dict(load_checkpoint(folder / "best.pt")["model"])  # what sample.py will ask
    with autocast:
        measures, _ = evaluate_captions(model, val_data, encoding, config, device, blind=True)
    speeds = [speed for _, speed in log.curve("step", "tokens_per_second")]
    log.write("final", config.steps, **measures, seconds=time.perf_counter() - began,
              tokens_per_second=sum(speeds) / max(1, len(speeds)))
    print(f"python sample.py --run {folder}")


LOOPS = {"multimodal": multimodal}


def main(argv):
    """Run the loop that `argv` names first, or the multimodal one."""
    name = argv[0] if argv and not argv[0].startswith("-") else "multimodal"
    if name not in LOOPS:
        raise BadInput(f"{name}: no such loop; there is {', '.join(LOOPS)}")
    LOOPS[name](argv[1:] if argv[:1] == [name] else argv)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
