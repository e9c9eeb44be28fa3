"""Train a GPT to describe pictures, or to know what only a knowledge graph says.

    python train.py                              the castle's pictures, from nothing on any machine
    python train.py multimodal --world clips     the castle's clips; --world portraits --init RUN: its people
    python train.py multimodal --data FOLDER     your own pictures and clips: FOLDER/captions.jsonl
    python train.py adversarial                  the castle's story: a text, and a graph that a GAN tells
    python train.py adversarial --text FILE --kg FILE.tsv
    python train.py LOOP --resume                go on with the newest run, one of that loop
    python train.py LOOP --help                  all options

The folder of the run gets last.pt, log.jsonl and progress.png, and of the multimodal loop best.pt.

Letters: B batch, T tokens.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial

import torch

from mingpt_mm import BadInput
from mingpt_mm.data import read_ahead
from mingpt_mm.draw import draw_captions, draw_story
from mingpt_mm.evaluate import evaluate_captions, evaluate_text, judge, ranking
from mingpt_mm.gan import learn
from mingpt_mm.log import Log, must_be_finite
from mingpt_mm.multimodal import loss_sum
from mingpt_mm.prepare import (make_gpt, prepare_gan, prepare_model, prepare_multimodal, read_knowledge,
                               show_gan, write_graph)
from mingpt_mm.run import (Config, begin_step, choose_device, finish_step, load_checkpoint, make_optimizer,
                           run_command, save, start_run)
from mingpt_mm.story import TWO_RELATIONS
from mingpt_mm.system import RANK, WORLD, Interruption, share, total
from mingpt_mm.text import Documents


@dataclass
class MultimodalConfig(Config):
    """Teach a GPT to describe pictures and clips."""

    data: str = ""  # folder with a captions.jsonl; without it, the castle
    world: str = "scenes"  # what the castle shows: scenes, clips, duets or portraits
    frames: int = 4  # how many of each clip are seen, evenly in time
    accumulate: int = 1  # cut each batch of captions into so many parts, one after another, to save memory
    image_size: int = 64  # pixels a side
    patch_size: int = 16  # pixels a side
    n_embd: int = 96  # width of the GPT and the ViT
    n_head: int = 3  # attention heads of both
    n_layer: int = 1  # blocks of the GPT
    vit_layers: int = 2  # blocks of the ViT
    vit: str = "scratch"  # the ViT to begin with: scratch, or google/vit-base-patch16-224, a folder, a file
    gpt_rate: float = 1.0  # learning rate of the GPT, times --learning_rate; 0 freezes it
    vit_rate: float = 1.0  # of the ViT; frozen, it looks at each picture once if --cache_mb has room
    connector_rate: float = 1.0  # of the connector; with a released GPT, unless given, 20
    cache_mb: int = 1000  # megabytes of pictures, or of what a frozen ViT sees, to keep of either split

    presets = {("init", "run"): Config.presets["init", "run"],
               ("init", "released"): Config.presets["init", "released"] | {"connector_rate": 20.0},
               ("vit", "released"): {"image_size": 0, "patch_size": 0, "vit_layers": 0},
               ("world", "clips"): {"n_layer": 2, "steps": 1600, "learning_rate": 2e-3},
               ("world", "duets"): {"n_layer": 2, "steps": 2400, "learning_rate": 2e-3},
               ("world", "portraits"): {"steps": 600}}

    def prefix(self, frames):
        """How many positions a picture takes, or a clip of `frames`, where four patches become one."""
        patches = (self.image_size // self.patch_size)**2
        return patches * frames // 4 if frames else patches


@dataclass
class AdversarialConfig(Config):
    """Teach a GPT the facts of a knowledge graph, in sentences that a GAN learns from a text to write."""

    text: str = ""  # text file, documents separated by blank lines; without it, the castle's story
    kg: str = ""  # the graph that goes with --text, a head<TAB>relation<TAB>tail each line
    probes: str = ""  # questions to ask: {"prompt", "answer", "group", "triple"} each line
    synthetic: str = "gan"  # what each second batch is of: gan, mle, templates, linear, or none (text again)
    steps: int = 800  # steps of two updates each, on a batch of the text and one of synthetic sentences
    batch_size: int = 64  # documents in each batch
    learning_rate: float = 3e-3  # its peak; with released weights, unless given, 5e-5
    n_embd: int = 128  # width of the GPT
    n_head: int = 4  # attention heads
    n_layer: int = 2  # blocks
    dropout: float = 0.1  # in the GPT
    gan_warmup: int = 1000  # steps of the generator by maximum likelihood
    gan_steps: int = 800  # steps of the adversarial game; with --synthetic mle, that many more of likelihood
    sentences: int = 40  # synthetic sentences for each triple
    keep: float = 0.85  # share of the GAN's sentences, the best by its discriminator, to choose these from
    two_relations: float = TWO_RELATIONS  # share of the castle's pairs of head and tail with two relations


def multimodal(argv):
    """The multimodal loop: pictures with captions, the loss on the captions, a step down its gradient."""
    config, folder, checkpoint, first, began = start_run(MultimodalConfig, argv, "multimodal")
    device, autocast = choose_device(config.device)
    config, encoding, model, optimizer, data, val_data, state = prepare_multimodal(config, checkpoint, device,
                                                                                   autocast)
    forward = share(torch.compile(model) if config.compile else model)
    log, stop = Log(folder, checkpoint, config), Interruption()  # which the processes that read inherit
    batches = read_ahead(data, config, first, device)
    texts = [read_ahead(Documents(text, encoding, config.block_size), config, first, device, stream)
             for stream, text in enumerate(state["texts"], 1)]
    log.since = time.perf_counter()
    for step in range(first, config.steps + 1):
        if stop.asked() or step % config.eval_interval == 0 or step == config.steps:
            pause = time.perf_counter()
            log.check()
            state |= {"step": step, "seconds": pause - began}
            if step > first or stop.number:  # saved before the evaluation, which might fail
                save(folder / "last.pt", state | {"optimizer": optimizer.state_dict()})
            stop.leave("multimodal", folder)  # if it was asked for
            with autocast:
                measures, captions = evaluate_captions(model, val_data, encoding, config, device)
            earlier = [(e["exact_match"], -e["val_loss"]) for e in log.events if e["event"] == "eval"]
            if (measures["exact_match"], -measures["val_loss"]) > max(earlier, default=(-1, 0)):
                save(folder / "best.pt", state)  # captions may still improve when the loss already overfits
            log.write("eval", step, **measures, seconds=time.perf_counter() - began)
            draw_captions(folder / "progress.png", log.events, val_data, captions)
            log.since += time.perf_counter() - pause
        if step == config.steps:
            break

        begin_step(optimizer, step, config)
        losses = {"loss": 0}
        for text in texts:  # what the GPT has read before stays in the mix, or it would be forgotten
            tokens, targets = next(text)  # (B, T)
            with autocast:
                loss = loss_sum(model.gpt(tokens), targets) / total((targets >= 0).sum())
            (WORLD * loss).backward()
            losses["text_loss"] = losses.get("text_loss", 0) + loss.detach() / len(texts)
        batch = next(batches)
        parts = list(zip(*(tensor.chunk(config.accumulate) for tensor in batch)))
        count = total((batch[2] >= 0).sum())  # targets of all parts, whose losses add up to the batch's mean
        for i, (pixels, tokens, targets) in enumerate(parts, 1):
            forward.require_backward_grad_sync = i == len(parts)  # with `share`: meet once a step
            with autocast:
                loss = loss_sum(forward(pixels, tokens), targets) / count
            (WORLD * loss).backward()  # of which `share` takes the mean
            losses["loss"] += loss.detach()
        norm = finish_step(model, optimizer, config)
        log.step(step + 1, norm, len(batch[1]) * (config.prefix(model.frames) + batch[1].size(1)), **losses)

    if RANK == 0:
        model.load_state_dict(load_checkpoint(folder / "best.pt")["model"])  # what sample.py will ask
        with autocast:
            measures, _ = evaluate_captions(model, val_data, encoding, config, device, blind=True)
        log.finish(began, measures)


def teach_gan(config, gan, examples, confused, show, keep, stop):
    """The first part of the adversarial loop: the GAN learns, for the arm "mle" by likelihood alone."""
    game = config.gan_steps if config.synthetic == "gan" else 0
    for measures in learn(gan, examples, confused, config.gan_warmup + config.gan_steps - game, game):
        must_be_finite(f"{gan.learned} of the GAN", measures,
                       ": take another --seed, or fewer --gan_steps; what was saved is from before")
        if gan.learned % 100 == 0:
            show(measures)
        if stop.asked() or gan.learned % config.eval_interval == 0:
            keep(0)


def adversarial(argv):
    """The adversarial loop: in each step an update on a batch of real text, and one on synthetic text."""
    config, folder, checkpoint, first, began = start_run(AdversarialConfig, argv, "adversarial")
    device, autocast = choose_device(config.device)
    documents, val_documents, triples, probes, parse, data = read_knowledge(config, checkpoint)
    config, encoding, gpt, state = prepare_model(config, checkpoint, documents, device, make_gpt)
    optimizer = make_optimizer([(gpt, 1.0)], config, checkpoint)
    gan, examples, confused = prepare_gan(config, checkpoint, documents, triples)  # None in arms without one
    state |= {"loop": "adversarial", "data": data, "gan_seconds": checkpoint and checkpoint["gan_seconds"]}
    log, stop = Log(folder, checkpoint, config), Interruption()

    def keep(step):
        """Save all that a resume needs, and end the run if that was asked for."""
        save(folder / "last.pt", state | {"step": step, "seconds": time.perf_counter() - began,
                                          "optimizer": optimizer.state_dict(), "gan": gan and gan.packed(),
                                          "gan_step": gan.learned if gan else 0})
        stop.leave("adversarial", folder)

    real, val_data = (Documents(texts, encoding, config.block_size) for texts in (documents, val_documents))
    if examples:
        show = partial(show_gan, config, gan, triples=triples, log=log, parse=parse)
        teach_gan(config, gan, examples, confused, show, keep, stop)
    state["gan_seconds"] = state["gan_seconds"] or time.perf_counter() - began
    written = write_graph(config, gan, triples)
    synthetic = Documents([text for _, text in written], encoding, config.block_size) if written else real
    print(f"{sum(p.numel() for p in gpt.parameters()):,} parameters, {encoding.n_vocab:,} tokens, "
          f"{len(real):,} documents and {len(written):,} synthetic sentences to learn from", flush=True)
    forward = share(torch.compile(gpt) if config.compile else gpt)
    sources = {"loss": read_ahead(real, config, first, device),
               "synthetic_loss": read_ahead(synthetic, config, first, device, stream=1)}
    log.since = time.perf_counter()
    for step in range(first, config.steps + 1):
        if stop.asked() or step % config.eval_interval == 0 or step == config.steps:
            pause = time.perf_counter()
            log.check()
            if step > first or stop.number:
                keep(step)
            with autocast:
                measures = evaluate_text(gpt, encoding, val_data, probes, config, device)
            log.write("eval", step, **measures, seconds=time.perf_counter() - began)
            draw_story(folder / "progress.png", log.events, parse)
            log.since += time.perf_counter() - pause
        if step == config.steps:
            break

        begin_step(optimizer, step, config)
        losses, positions = {}, 0
        for name, source in sources.items():
            tokens, targets = next(source)  # (B, T)
            with autocast:
                loss = loss_sum(forward(tokens), targets) / total((targets >= 0).sum())
            (WORLD * loss).backward()
            norm = finish_step(gpt, optimizer, config)
            losses[name], positions = loss.detach(), positions + tokens.numel()
        log.step(step + 1, norm, positions, **losses)

    if RANK == 0:
        with autocast:
            measures |= ranking(gpt, encoding, probes)
        measures |= judge(config, gan, written, triples, probes, parse)
        perplexity = torch.tensor(measures["val_loss"]).exp().item()
        measures |= {"perplexity": perplexity, "gan_seconds": state["gan_seconds"]}
        log.finish(began, measures)


LOOPS = {"multimodal": multimodal, "adversarial": adversarial}


def main(argv):
    """Run the loop that `argv` names first, or the multimodal one."""
    name = argv[0] if argv and not argv[0].startswith("-") else "multimodal"
    if name not in LOOPS:
        raise BadInput(f"{name}: no such loop; there is {', '.join(LOOPS)}")
    LOOPS[name](argv[1:] if argv[:1] == [name] else argv)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
