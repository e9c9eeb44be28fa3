"""Does a model recall what it learned as text about the inhabitant that it sees? No caption gives these facts.

    python -m tests.bench.facts --seeds 3 --jobs 2

For each seed: the adversarial loop on the story, then the portraits with the story's texts. Shares of right answers:

    story    the story's model, asked by name
    name     the model of the portraits, asked by name without an image
    context  asked after its own caption of a validation portrait, in one context, as sample.py --ask does
    blank    the same with a blank image, whose caption can only guess a name
"""

from collections import defaultdict

import torch

from mingpt_mm import load_run
from mingpt_mm.data.datasets import load_captions, load_frames, load_probes, split_rows
from mingpt_mm.evaluation import score_answers
from tests.bench.common import bench, make_parser, run

COLUMNS = ("exact_match", *(f"{way}_{group}" for way in ("story", "name", "context", "blank")
                            for group in ("stated", "graph_only")), "seconds")


@torch.no_grad()
def measure_facts(out, story, portraits=5):
    """{way_group: share right} of the run in `out`, on so many portraits of each inhabitant."""
    (model, tokenizer, args), asked, right = load_run(out), defaultdict(list), defaultdict(list)
    rows = split_rows(load_captions(out.parent / args.data))[1]
    for probe in load_probes(out.parent / load_run(story)[2].probes):
        asked[probe["prompt"].split(" ", 1)[0]].append(probe)

    def ask(way, probes, prompts, prefix=None):
        scores = score_answers(model.gpt, tokenizer, prompts, [probe["answer"] for probe in probes], prefix)
        for probe, (_, greedy) in zip(probes, scores):
            right[f"{way}_{probe['group']}"].append(greedy)

    for name, probes in asked.items():
        ask("name", probes, [probe["prompt"] for probe in probes])
        own = [row.path for row in rows if row.captions[0].startswith(f"{name},")][:portraits]
        images = [("context", load_frames(path, model.frames, args.image_size)) for path in own]
        images += [("blank", torch.full((model.frames, 3, args.image_size, args.image_size), 128, dtype=torch.uint8))]
        for way, pixels in images:
            caption, = model.caption(pixels[None], tokenizer, max_new_tokens=20)
            start = f"{caption}. {caption.split(',')[0][:12]} "  # an untrained model may write no comma
            prompts = [start + probe["prompt"].split(" ", 1)[1] for probe in probes]
            ask(way, probes, prompts, model.encode_images(pixels[None]))
    return {key: sum(greedy) / len(greedy) for key, greedy in right.items()}


def measure(options, name, out, seed):
    """The measures of a run on portraits, after one on the story."""
    story = out.parent / f"story-{seed}"
    recall = run(["adversarial", "--seed", seed, *options.story.split()], story, options.threads)
    texts = [story / "text.txt", story / "synthetic.txt"]
    argv = ["--world", "portraits", "--seed", seed, "--init", story, "--text", *texts, *options.options]
    record = run(argv, out, options.threads)
    asked = {f"story_{group}": recall[f"recall_{group}"] for group in ("stated", "graph_only")}
    return {"exact_match": record["exact_match"], "seconds": record["seconds"]} | asked | measure_facts(out, story)


def main():
    """Run what the options say."""
    parser = make_parser(__doc__)
    parser.add_argument("--story", default="", help="options of train.py adversarial, in quotes")
    bench(parser, ["portraits and story"], measure, COLUMNS)


if __name__ == "__main__":
    main()
