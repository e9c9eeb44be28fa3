"""Train a GPT to describe and draw images, or to recall facts that only a knowledge graph states.

    python train.py                              built-in images, from scratch, on any machine
    python train.py --world clips                built-in videos
    python train.py --draw                       learn to draw images from captions, too
    python train.py --data FOLDER                your own images and videos: FOLDER/captions.jsonl
    python train.py adversarial                  built-in story: a text, and a graph that a GAN verbalizes
    python train.py adversarial --text FILE --kg FILE.tsv
    python train.py --resume                     continue the newest run, also with other options of "run"

The run's folder gets last.pt, best.pt, log.jsonl and progress.png, and in adversarial runs the texts that the
GPT learns, text.txt and synthetic.txt. The lines below declare the options with their defaults. DEFAULTS, in
train.py, holds those that differ for some runs.

run:
  --out=                     folder of the run; else the next free number under runs/
  --resume                   continue from last.pt in --out, or in the newest run
  --steps=1200               training steps; the cosine spans all: more with --resume raise the rate
  --batch_size=32            rows in a batch, over all processes
  --learning_rate=0.0015     peak of the learning rate
  --warmup_steps=50          steps to the peak, from which a cosine falls to 0
  --weight_decay=0.1         for matrices and embeddings
  --grad_clip=1.0            largest norm of the gradient
  --eval_interval=200        steps between evaluations; each saves last.pt
  --eval_samples=500         validation rows in an evaluation, at most
  --log_interval=50          steps between lines of the log
  --num_workers=0            processes that read data; with 0 the training process does
  --seed=0                   of weights, order of the data and built-in data
  --device=auto|cpu|cuda|mps
  --compile                  torch.compile the model: slow start, fast steps on a GPU

model:
  --init=                    start from gpt2 to gpt2-xl, distilgpt2, a folder, a file, or the GPT of a run
  --dropout=0.0              dropout of the GPT
  --optimizer=adamw|muon     of the matrices of the blocks; the rest learns by AdamW
  --text ...                 text files, documents separated by blank lines

new GPT:
  --tokenizer=bpe|gpt2       byte-pair encoding of the run's own text, or GPT-2's
  --vocab_size=512           tokens of a new bpe, at most
  --block_size=0             positions of image and text together; 0: fit the data, 64 to 1,024
  --n_layer=1                Transformer blocks
  --n_head=3                 attention heads, also of a new ViT
  --n_embd=96                embedding width, also of a new ViT

multimodal:
  --data=                    folder with captions.jsonl; else the built-in --world
  --world=scenes|clips|portraits  built-in images, videos, or images of the story's inhabitants
  --frames=4                 frames of each video that the model sees
  --image_size=64            height and width in pixels to which images are resized
  --vit=                     start from google/vit-base-patch16-224, a folder or a file
  --draw                     also learn to draw (of videos frame 1); a larger GPT and ViT, by Muon
  --freeze=gpt|vit ...       parts that do not learn
  --connector_lr_factor=1.0  factor on the learning rate of the connector and the frame embeddings

new ViT:
  --patch_size=16            height and width of a patch
  --vit_layers=2             Transformer blocks

adversarial:
  --kg=                      knowledge graph of --text, head<TAB>relation<TAB>tail on each line
  --probes=                  questions, {"prompt", "answer", "group"} on each line
  --sentences=40             synthetic sentences for each triple, at most; with 0 the text alone
  --gan_warmup=1000          steps of the generator by maximum likelihood
  --gan_steps=800            adversarial steps; with 0 maximum likelihood alone

Letters: B batch, F frames, S pixels on a side, T tokens, V vocabulary size, L words in a sentence, R
relations.
"""

import copy
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, AdamW, Muon

from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig
from mingpt_mm.console import RANK, WORLD_SIZE, UserError, parse_options, progress, run_command
from mingpt_mm.data import castle, story
from mingpt_mm.data.datasets import (CaptionDataset, TextDataset, load_captions, load_documents, load_probes,
                                     load_triples, make_loader, split_documents, split_rows)
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.evaluation import evaluate_captions, evaluate_facts
from mingpt_mm.graph.alignment import Examples, align, hard_negatives
from mingpt_mm.graph.gan import Discriminator, Generator, discriminator_loss, generator_loss, verbalize
from mingpt_mm.model import codebook
from mingpt_mm.plots import caption_samples, plot_run
from mingpt_mm.training import (Logger, init_device, latest_run, load_checkpoint, parameter_groups, restore,
                                save_checkpoint, set_step)

DEFAULTS = {  # what a loop, a world or released weights change
    "adversarial": dict(n_layer=2, n_head=4, n_embd=128, batch_size=64, learning_rate=3e-3, dropout=0.1),
    "clips": dict(n_layer=2, steps=1600, learning_rate=2e-3), "portraits": dict(steps=900),
    "draw": dict(n_layer=2, n_head=4, n_embd=128, steps=1500, learning_rate=3e-3, optimizer="muon"),
    "vit": dict(image_size=224), "released": dict(learning_rate=5e-5, connector_lr_factor=20.0),
}
KL_WEIGHT = 0.1  # of the penalty that keeps the generator near its maximum-likelihood copy: sentences vary


def parse_args(argv):
    """(args, checkpoint): the options, and the checkpoint to continue from or None."""
    loop, argv = ("adversarial", argv[1:]) if argv[:1] == ["adversarial"] else ("multimodal", argv)
    names = {arg.split("=")[0] for arg in argv}
    groups = ["run", "model", loop] + ["new GPT"] * ("--init" not in names)
    groups += ["new ViT"] * (loop == "multimodal" and "--vit" not in names)
    args, given = parse_options(__doc__, argv, ["run"] if "--resume" in argv else groups)
    if "resume" in given:
        folder = Path(given["out"]) if "out" in given else latest_run()
        checkpoint = load_checkpoint(folder / "last.pt")
        print(f"resuming {folder} from step {checkpoint['step']}")
        args = Namespace(**(checkpoint["args"] | given | {"out": str(folder)}))
        if args.steps < checkpoint["step"]:
            raise UserError(f"--steps {args.steps}: {folder} has made {checkpoint['step']} steps already")
        return args, checkpoint if "model" in checkpoint else None
    released = "init" in given and not Path(given["init"], "last.pt").exists()
    for name in (loop, given.get("world"), *given.keys() & {"vit", "draw"}, released and "released"):
        args |= DEFAULTS.get(name, {})
    args = Namespace(loop=loop, **(args | given))
    args.out = args.out or next(name for i in range(1, 9999) if not Path(name := f"runs/{loop}-{i}").exists())
    if RANK == 0 and any(Path(args.out).glob("*")):
        raise UserError(f"--out {args.out}: not empty; name another folder, or continue with --resume")
    if "gpt" in args.freeze and (args.text or args.draw):
        raise UserError("--freeze gpt: a GPT that does not learn cannot learn the --text or to --draw")
    if loop == "multimodal":
        args.data = args.data or str(
            castle.world_folder(f"runs/{args.world}-{args.seed}", castle.write_world, args.world, args.seed))
    elif not (args.text or args.kg or args.probes):
        folder = castle.world_folder(f"runs/story-{args.seed}", story.write_story, args.seed)
        args.text, args.kg, args.probes = [f"{folder}/text.txt"], f"{folder}/kg.tsv", f"{folder}/probes.jsonl"
    elif not args.text or args.sentences and not args.kg:
        raise UserError("name both --text and --kg, or --text alone with --sentences 0")
    return args, None


def load_model(args, checkpoint, texts):
    """(model or None, tokenizer): of the checkpoint, or of --init; for a new GPT a tokenizer of `texts`."""
    if checkpoint:
        return restore(checkpoint)
    if not args.init:
        return None, make_tokenizer("gpt2" if args.tokenizer == "gpt2" else train_bpe(texts, args.vocab_size))
    if Path(args.init, "last.pt").exists():
        run = load_checkpoint(Path(args.init, "best.pt"))
        gpt, tokenizer = restore(run | {"gpt": run["gpt"] | {"dropout": args.dropout}})
        gpt = getattr(gpt, "gpt", gpt)
    else:
        gpt, tokenizer = GPT.from_pretrained(args.init, dropout=args.dropout), make_tokenizer("gpt2")
    if gpt.config.vocab_size < tokenizer.n_vocab:
        raise UserError(f"--init {args.init}: {gpt.config.vocab_size:,} tokens, fewer than GPT-2's tokenizer")
    vars(args).update(vars(gpt.config))
    return gpt, tokenizer


def train_model(args, checkpoint, model, tokenizer, loaders, data, evaluate, logger, autocast, synthetic=()):
    """The training loop: a step makes one update for each of `loaders` {name of its loss: batches}.

    evaluate: a function (model, validation `data`, tokenizer, args, ablate) -> (metrics, captions).
    synthetic: the sentences of the GAN.
    """
    start, folder, images, events = 0, Path(args.out), args.loop == "multimodal", logger.events
    forward = torch.compile(model) if args.compile else model
    groups, muon_groups = parameter_groups(model, args)
    optimizers = [AdamW(groups, betas=(0.9, 0.95), fused=True)]
    if muon_groups:  # updates are as large as those of AdamW, so that both have the same learning rate
        optimizers.append(Muon(muon_groups, adjust_lr_fn="match_rms_adamw"))
    if WORLD_SIZE > 1:  # batches of text or drawings leave the ViT without a gradient
        forward = DistributedDataParallel(forward, find_unused_parameters=images and len(loaders) > 1)
    if checkpoint:  # weight decay and factor of a group come from the options
        start = checkpoint["step"]
        for optimizer, saved in zip(optimizers, checkpoint["optimizers"]):
            optimizer.load_state_dict(saved | {"param_groups": optimizer.state_dict()["param_groups"]})
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.n_vocab:,} tokens")
    logger.begin(start, args.steps)
    for step in range(start, args.steps + 1):
        if step % args.eval_interval == 0 or step == args.steps:
            state = args, step, model, optimizers, tokenizer, [*events], synthetic
            save_checkpoint(folder / "last.pt", *state)  # before the evaluation: a crash there costs nothing
            with autocast:
                metrics, captions = evaluate(model, data, tokenizer, args)
            logger.log("eval", step, **metrics)
            # A text model has no exact match, and drawings are not measured here: their best is the last.
            scores = [(e.get("exact_match"), -e["val_loss"]) for e in events if "val_loss" in e]
            if args.draw or not images or scores[-1] == max(scores):
                save_checkpoint(folder / "best.pt", *state)
            plot_run(folder / "progress.png", events, [*caption_samples(data, captions, model, tokenizer)])
            model.train()
        if step == args.steps:
            break

        set_step(optimizers, step, args)  # learning rate and seed are functions of the step: exact resume
        losses, n_tokens = {}, 0
        for name, batches in loaders.items():
            # pixels: uint8 (B, F, 3, S, S) or None; tokens, targets: (B, T), a target of -100 is skipped
            pixels, tokens, targets = next(batches)
            with autocast:
                logits = forward(pixels, tokens) if images else forward(tokens)  # (B, T, V)
                losses[name] = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
            n_tokens += tokens.numel()
            losses[name].backward()
            grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
            for optimizer in optimizers:  # AdamW; with --optimizer muon also Muon
                optimizer.step()
                optimizer.zero_grad()
        logger.step(step + 1, n_tokens, **losses, grad_norm=grad_norm)

    if RANK == 0:
        best = load_checkpoint(folder / "best.pt")
        model.load_state_dict(best["model"])
        with autocast:
            metrics, captions = evaluate(model, data, tokenizer, args, ablate=True)
        plot_run(folder / "progress.png", events, [*caption_samples(data, captions, model, tokenizer)])
        logger.finish(best["step"], metrics)


def train_multimodal(args, checkpoint):
    """Learn to describe images and videos, with --draw to draw, with --text to remember documents."""
    device, autocast = init_device(args.device)
    rows, val_rows = split_rows(load_captions(args.data))
    documents = load_documents(args.text)
    args.frames = args.frames if any(row.video for row in rows + val_rows) else 1
    captions = [caption for row in rows for caption in row.captions]
    model, tokenizer = load_model(args, checkpoint, captions + documents)
    data, val_data = (CaptionDataset(r, tokenizer, args.frames, args.image_size) for r in (rows, val_rows))
    texts = TextDataset(documents, tokenizer)

    torch.manual_seed(args.seed)
    if checkpoint is None:
        vit = ViT.from_pretrained(args.vit) if args.vit else ViT(ViTConfig(
            args.image_size, args.patch_size, args.vit_layers, args.n_head, args.n_embd))
        args.patch_size = vit.config.patch_size
    prefix = MultimodalGPT.prefix_length(args.image_size, args.patch_size, args.frames)
    n_image = codebook.LENGTH * args.draw
    # A caption before a document also has a "." and the document's start.
    longest = max(prefix, n_image) + max(data.longest, val_data.longest) + 2 * bool(documents)
    args.block_size = args.block_size or min(1024, max(64 + n_image, longest + texts.longest))
    if longest > args.block_size:
        raise UserError(f"block size {args.block_size}: captions with images take up to {longest} positions")
    if checkpoint is None:
        gpt = model or GPT(GPTConfig(
            args.block_size, tokenizer.n_vocab, args.n_layer, args.n_head, args.n_embd, args.dropout))
        model = MultimodalGPT(gpt, vit, args.frames)
        if args.draw:
            some = data.first_frames(torch.randperm(len(rows))[:2000])
            model.add_codebook(codebook.fit(some), tokenizer.n_vocab)

    loaders = {"loss": make_loader(data, args, device, checkpoint)}
    if args.draw:  # the other direction: [caption | image tokens]
        image_tokens = []
        for part in progress(torch.arange(len(rows)).split(256), "reading images"):
            codes = codebook.encode(model.codebook, data.first_frames(part))  # (B, 64)
            image_tokens += (codes + tokenizer.n_vocab).tolist()
        drawings = CaptionDataset(rows, tokenizer, args.frames, args.image_size, image_tokens=image_tokens)
        loaders["draw_loss"] = make_loader(drawings, args, device, checkpoint, stream=3)
    if documents:  # documents alone, and after an image: [patches | caption. document]
        behind = CaptionDataset(rows, tokenizer, args.frames, args.image_size, TextDataset(
            [f" {document}" for document in documents], tokenizer), args.block_size - prefix)
        loaders["text_loss"] = make_loader(texts.cut(args.block_size), args, device, checkpoint, stream=1)
        loaders["image_text_loss"] = make_loader(behind, args, device, checkpoint, stream=2)

    model.to(device)
    logger = Logger(args, checkpoint)
    train_model(args, checkpoint, model, tokenizer, loaders, val_data, evaluate_captions, logger, autocast)


def train_gan(args, documents, triples, logger):
    """Synthetic sentences for the graph `triples`, in wordings that a GAN learns from `documents`.

    It is a function of options, documents and triples: a run interrupted here repeats it on --resume.
    """
    if not args.sentences:
        return []
    examples = Examples(align(documents, triples))
    R = len(examples.relations)
    negatives = hard_negatives(triples, examples.relations)
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    G, D = Generator(len(examples.words), R), Discriminator(len(examples.words), R, examples.length)
    mle_optimizer = Adam(G.parameters(), 2e-3)
    g_optimizer = Adam(G.parameters(), 1.2e-3, betas=(0.5, 0.99))
    d_optimizer = Adam(D.parameters(), 1e-3, betas=(0.5, 0.99))
    print(f"{len(examples.rows):,} sentences are examples of {R} relations, in {len(examples.words):,} words")
    logger.begin(0, args.gan_warmup + (args.gan_steps if R > 1 else 0))  # a single relation has no wrong one
    for step in range(1, logger.total + 1):
        if step <= args.gan_warmup:  # maximum likelihood
            relation = torch.randint(R, (64,), generator=rng)
            mle_loss = -G.log_prob(relation, examples.sample(relation, rng)).mean()
            mle_loss.backward()
            mle_optimizer.step()
            mle_optimizer.zero_grad()
            metrics = {"mle_loss": mle_loss}
        else:
            reference = copy.deepcopy(G) if step == args.gan_warmup + 1 else reference
            relation = torch.randperm(R, generator=rng)[:9].repeat_interleave(16)  # 16 sentences of each
            wrong_relation = torch.multinomial(negatives[relation], 1, generator=rng).squeeze(1)  # (B,)
            real, fake = examples.sample(relation, rng), G.sample(relation, examples.length, rng)  # (B, L)

            # Train the discriminator: real sentences against fake ones and real ones with a wrong relation.
            real_score, fake_score = D(relation, real), D(relation, fake)  # (B,)
            d_loss = discriminator_loss(real_score, fake_score, D(wrong_relation, real))
            d_loss.backward()
            d_optimizer.step()
            d_optimizer.zero_grad()

            # Train the generator (REINFORCE): reward = discriminator score - KL penalty to the generator
            # after maximum likelihood (Sequence Tutor, Jaques et al., 2017, section 3).
            log_prob = G.log_prob(relation, fake)  # (B,)
            with torch.no_grad():
                kl = log_prob - reference.log_prob(relation, fake)  # (B,)
                reward = D(relation, fake) - KL_WEIGHT * kl  # (B,)
            g_loss = generator_loss(log_prob.view(-1, 16), reward.view(-1, 16))
            g_loss.backward()
            g_optimizer.step()
            g_optimizer.zero_grad()
            metrics = {"d_loss": d_loss, "g_loss": g_loss, "D(x)": real_score.sigmoid().mean(),
                       "D(G(z))": fake_score.sigmoid().mean()}
        if step % 100 == 0 or step == logger.total:
            shown = verbalize(G, examples, triples[:3], 1, torch.Generator().manual_seed(0))
            logger.log("gan", step, **{name: x.item() for name, x in metrics.items()}, sentences=shown)
            plot_run(Path(args.out, "progress.png"), logger.events)
    return verbalize(G, examples, triples, args.sentences, rng)


def train_adversarial(args, checkpoint):
    """Learn from real text and from synthetic sentences that a GAN writes for a knowledge graph."""
    device, autocast = init_device(args.device)
    documents, held_out = split_documents(load_documents(args.text))
    triples = load_triples(args.kg) if args.kg else []
    probes = load_probes(args.probes) if args.probes else []
    model, tokenizer = load_model(args, checkpoint, documents)

    logger = Logger(args, checkpoint)
    synthetic = checkpoint["synthetic"] if checkpoint else train_gan(args, documents, triples, logger)
    for name, written in (("text.txt", documents), ("synthetic.txt", synthetic)):
        Path(args.out, name).write_text("\n\n".join(written) + "\n", encoding="utf-8")

    # Without synthetic sentences the documents come twice: the text alone takes as many updates.
    texts, second = (TextDataset(some, tokenizer) for some in (documents, synthetic or documents))
    torch.manual_seed(args.seed)
    args.block_size = args.block_size or min(1024, max(64, texts.longest))
    gpt = model or GPT(GPTConfig(
        args.block_size, tokenizer.n_vocab, args.n_layer, args.n_head, args.n_embd, args.dropout))
    gpt.to(device)
    data = TextDataset(held_out, tokenizer).cut(args.block_size), probes
    loaders = {"loss": make_loader(texts.cut(args.block_size), args, device, checkpoint),
               "synthetic_loss": make_loader(second.cut(args.block_size), args, device, checkpoint, stream=1)}
    train_model(args, checkpoint, gpt, tokenizer, loaders, data, evaluate_facts, logger, autocast, synthetic)


def main():
    """Run the loop that the command line names."""
    args, checkpoint = parse_args(sys.argv[1:])
    with TemporaryDirectory() as scratch:  # for what processes other than the first write
        args.out = scratch if RANK else args.out
        {"multimodal": train_multimodal, "adversarial": train_adversarial}[args.loop](args, checkpoint)


if __name__ == "__main__":
    run_command(main)
