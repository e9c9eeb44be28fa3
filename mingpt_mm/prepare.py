"""What a training starts from: data, encoding, model and optimizer, new or as a checkpoint has them."""

import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import torch

from mingpt_mm import BadInput
from mingpt_mm.alignment import Examples, align, confusions, fill
from mingpt_mm.castle import WORLDS, world_folder
from mingpt_mm.data import Captions, fingerprint_rows, read_captions
from mingpt_mm.draw import draw_story
from mingpt_mm.gan import GAN
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.linear import in_rows
from mingpt_mm.multimodal import MultimodalGPT, restore
from mingpt_mm.run import FORMAT, kind_of, load_run, make_optimizer, same_data
from mingpt_mm.story import make_parser, story_folder
from mingpt_mm.text import fingerprint, read_documents, read_probes, read_triples
from mingpt_mm.tokenizer import gpt2_encoding, pack_encoding, train_bpe, unpack_encoding
from mingpt_mm.vit import ViT, ViTConfig

SYNTHETIC = ("gan", "mle", "templates", "linear", "none")


def make_encoding(config, checkpoint, texts):
    """The encoding of the `checkpoint` or of the run that --init names; or GPT-2's, or a BPE of `texts`."""
    if not checkpoint:
        begun = kind_of(config.init) == "run"
        if config.tokenizer not in (("run",) if begun else ("bpe", "gpt2")):
            what = f"{config.init} brings its own: leave it out" if begun else "must be bpe or gpt2"
            raise BadInput(f"--tokenizer {config.tokenizer}: {what}")
        checkpoint = begun and load_run(Path(config.init))
    if checkpoint:
        return unpack_encoding(checkpoint["encoding"])
    return gpt2_encoding() if config.tokenizer == "gpt2" else train_bpe(texts, config.vocab_size)


def take_sizes(config, **sizes):
    """`config` with these sizes of its weights; one that the user asked for must be the same."""
    for name, size in sizes.items():
        if getattr(config, name) not in (0, size):
            raise BadInput(f"--{name} {getattr(config, name)}: the weights have {size}: leave it out")
    return replace(config, **sizes)


def make_gpt(config, encoding, device):
    """(gpt, config): new, or with the weights that `init` names; sizes of 0 become theirs."""
    multiple = 64 if device.type == "cuda" else 1
    if kind_of(config.init) == "run":
        begun = load_run(Path(config.init))
        sizes = begun["gpt"] | {"dropout": config.dropout, "vocab_multiple": multiple}
        gpt = restore(begun | {"gpt": sizes})
        gpt = getattr(gpt, "gpt", gpt)
    elif config.init != "scratch":
        gpt = GPT.from_pretrained(config.init, dropout=config.dropout, vocab_multiple=multiple)
    elif config.n_embd % config.n_head:
        raise BadInput(f"--n_embd {config.n_embd} must be a multiple of --n_head {config.n_head}")
    else:
        gpt = GPT(GPTConfig(config.block_size, encoding.n_vocab, config.n_layer, config.n_head, config.n_embd,
                            config.dropout, multiple))
    if gpt.config.vocab_size != encoding.n_vocab:
        raise BadInput(f"--init {config.init}: its {gpt.config.vocab_size:,} tokens are not the "
                       f"{encoding.n_vocab:,} of --tokenizer {config.tokenizer}: give the one that it knows")
    sizes = {name: getattr(gpt.config, name) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    return gpt, take_sizes(config, **sizes)


def make_multimodal(config, encoding, device, frames):
    """(model, config): see `make_gpt`; the ViT is new, or has the weights that `vit` names."""
    gpt, config = make_gpt(config, encoding, device)
    if config.vit == "scratch":
        vit = ViT(ViTConfig(config.image_size, config.patch_size, config.vit_layers, config.n_head,
                            config.n_embd))
    else:
        vit = ViT.from_pretrained(config.vit)
    config = take_sizes(config, patch_size=vit.config.patch_size, vit_layers=vit.config.n_layer)
    config = replace(config, image_size=config.image_size or vit.config.image_size)
    unit = config.patch_size * (2 if frames else 1)
    if config.image_size % unit:
        raise BadInput(f"--image_size {config.image_size}: must be a multiple of {unit}"
                       f"{': of a clip four patches become one' if frames else ''}")
    return MultimodalGPT(gpt, vit, frames), config


def prepare_model(config, checkpoint, texts, device, make):
    """(config, encoding, model, state) of the `checkpoint`, or new by `make` (see `make_gpt`), to be trained.

    texts: what a new BPE is trained on; state: what all checkpoints of the run have. Its tensors are the
    model's own and change with it.
    """
    encoding = make_encoding(config, checkpoint, texts)
    torch.manual_seed(config.seed)
    model, config = (restore(checkpoint), config) if checkpoint else make(config, encoding, device)
    model = in_rows(model).to(device).train()
    gpt = getattr(model, "gpt", model)
    return config, encoding, model, {"format": FORMAT, "config": asdict(config), "model": model.state_dict(),
                                     "encoding": pack_encoding(encoding), "gpt": asdict(gpt.config)}


def read_knowledge(config, checkpoint=None):
    """(training documents, held-out documents, triples, probes, parser, fingerprint): the user's, or the
    castle's. The parser, see `story.make_parser`, is None for a user's.
    """
    if config.synthetic not in SYNTHETIC:
        raise BadInput(f"--synthetic {config.synthetic}: must be one of {', '.join(SYNTHETIC)}")
    whole = config.kg or config.synthetic == "none"  # a text alone can be learned, too
    if config.text and not whole or (config.kg or config.probes) and not config.text:
        raise BadInput("--text and --kg: give both, with --probes or without, or none for the castle's "
                       "story; with --synthetic none a text alone")
    text, kg, probes = config.text, config.kg, config.probes
    if not text:
        folder = story_folder(config.seed, config.two_relations)
        text, kg, probes = folder / "text.txt", folder / "kg.tsv", folder / "probes.jsonl"
    train, val = read_documents(text)
    triples, questions = read_triples(kg) if kg else [], read_probes(probes) if probes else []
    data = same_data(checkpoint, fingerprint(train.digest, triples, questions))
    return train, val, triples, questions, None if config.text else make_parser(), data


def prepare_gan(config, checkpoint, documents, triples):
    """(gan, examples, confusions): a GAN to learn from `documents` how `triples` are put into words, or that
    of the `checkpoint`; and what it still learns from, see `gan.learn`. None for the arms without one.
    """
    if config.synthetic not in ("gan", "mle"):
        return None, None, None
    if checkpoint and checkpoint["step"] > 0:  # it has learned
        return GAN.from_checkpoint(checkpoint), None, None
    examples = align(documents, triples)
    if not examples:
        raise BadInput(f"--text {config.text}: no sentence names the two ends of a triple of {config.kg}, "
                       "and nothing else of it: are they about the same things? --synthetic templates needs "
                       "none")
    gan = GAN.from_checkpoint(checkpoint) if checkpoint else GAN.from_examples(examples, config.seed)
    rows = Examples(gan, examples)
    print(f"{len(rows.rows):,} examples of {len(gan.relations)} relations, {len(gan.units)} units")
    return gan, rows, confusions(triples, gan.relations)


def show_gan(config, gan, measures, triples, log, parse):
    """Log what a step of the GAN's learning measured, and sentences that it writes for the first of `triples`
    of each relation. parse: see `draw_story`.
    """
    first = {triple[1]: triple for triple in reversed(triples)}
    show = torch.Generator().manual_seed(config.seed)  # not the one that the learning draws from
    written = [(score if "discriminator_loss" in measures else None, first[relation], units)
               for relation in gan.relations for units, score in gan.write(relation, 20, show)]
    samples = [(score, triple, fill(units, triple[0], triple[2]))
               for score, triple, units in written[::max(1, math.ceil(len(written) / 3))]]
    log.write("gan", gan.learned, **measures, sentences=samples,
              distinct_wordings=len({(triple[1], *units) for _, triple, units in written}))
    for _, triple, text in samples:
        print(f"    {triple[1]}: {text}")
    draw_story(log.path.with_name("progress.png"), log.events, parse)


def write_graph(config, gan, triples):
    """[(triple, sentence)]: the graph in words, by `gan` some sentences for each triple, or without it one.

    A triple of whose relation the GAN saw no example is told in the graph's own words.
    """
    rng, written = torch.Generator().manual_seed(config.seed), []
    keep = config.keep if config.synthetic == "gan" else 1.0
    for head, relation, tail in triples if config.synthetic != "none" else ():
        if gan and relation in gan.relations:
            texts = [fill(units, head, tail) for units, _ in gan.write(relation, config.sentences, rng, keep)]
        elif config.synthetic == "linear":
            texts = [f"{head} | {relation} | {tail}"]
        else:
            texts = [f"{head} {relation} {tail}."] * (config.sentences if gan else 1)
        written += [((head, relation, tail), text) for text in texts]
    unseen = Counter(relation for _, relation, _ in triples if gan and relation not in gan.relations)
    for relation, count in unseen.items():
        print(f"no sentence shows how to say {relation!r}: its {count} triples are told as templates")
    untold = len(triples) - len({triple for triple, _ in written}) if config.synthetic != "none" else 0
    if untold and untold == len(triples):
        raise BadInput(f"--gan_warmup {config.gan_warmup}: the GAN wrote no sentence with both ends of a "
                       "triple: give it more steps")
    if untold:
        print(f"of {untold} triples the GAN wrote no sentence that names both ends: they are left out")
    return written


def texts_before(config):
    """What the GPT of the run that --init names has read: [its text, its synthetic sentences]"""
    begun = load_run(Path(config.init)) if kind_of(config.init) == "run" else {}
    if begun.get("loop") != "adversarial":
        return []
    before = SimpleNamespace(**begun["config"])
    if config.world == "portraits" and not before.text and before.seed != config.seed:
        raise BadInput(f"--seed {config.seed}: the story of {config.init} is of seed {before.seed}, with "
                       "other individuals: take the same seed")
    documents, _, triples, *_ = read_knowledge(before)
    written = write_graph(before, GAN.from_checkpoint(begun) if begun["gan"] else None, triples)
    texts = list(documents), [text for _, text in written]
    return [text for text in texts if text and config.gpt_rate > 0]  # a frozen GPT forgets nothing


def prepare_multimodal(config, checkpoint, device, autocast):
    """(config, encoding, model, optimizer, training data, validation data, state)

    state: see `prepare_model`; its "texts" are those to keep in mind.
    """
    if not config.gpt_rate + config.vit_rate + config.connector_rate:
        raise BadInput("--gpt_rate, --vit_rate and --connector_rate: one must be more than 0")
    if config.world not in WORLDS:
        raise BadInput(f"--world {config.world}: must be one of {', '.join(WORLDS)}")
    if config.data and config.world != "scenes":
        raise BadInput(f"--world {config.world}: is the castle's: leave out this or --data")
    texts = checkpoint["texts"] if checkpoint else texts_before(config)
    splits = read_captions(config.data or world_folder(config.seed, config.world))
    frames = config.frames if any(row.moves for split in splits for row in split) else 0
    captions = (caption for row in splits[0] for caption in row.captions)
    config, encoding, model, state = prepare_model(config, checkpoint, captions, device,
                                                   lambda *given: make_multimodal(*given, frames))
    state |= {"loop": "multimodal", "vit": asdict(model.vit.config), "frames": frames, "texts": texts,
              "data": same_data(checkpoint, fingerprint_rows(splits))}
    optimizer = make_optimizer([(model.gpt, config.gpt_rate), (model.vit, config.vit_rate),
                                (model.connector, config.connector_rate)], config, checkpoint)
    room = config.block_size - config.prefix(frames)
    data = [Captions(rows, encoding, config.image_size, room, config.cache_mb, frames) for rows in splits]
    if config.vit_rate == 0:
        with autocast:
            for split in data:
                split.remember(lambda x: model.look(torch.as_tensor(x, device=device)).float().cpu().numpy(),
                               config.batch_size)
    kind = "clips" if frames else "pictures"
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {encoding.n_vocab:,} tokens, "
          f"{len(data[0]):,} {kind} to learn from and {len(data[1]):,} to be tested on", flush=True)
    return config, encoding, model, optimizer, *data, state
