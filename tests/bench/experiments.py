"""Change the architecture and look: each experiment of the README's tour, a small edit of the code, seed by seed.

    python -m tests.bench.experiments --seeds 3
    python -m tests.bench.experiments --seeds 1 --only "a causal ViT"
    python -m tests.bench.experiments --seeds 1 -- --steps 100     options of train.py

An edit replaces one text by another in a copy of the code, so what is tried here is what a reader would type. All are
trained as `python train.py` is, for as many steps; the last two are the recipes for a world and a relation.
"""

import argparse
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.common import ROOT, run, table

COLUMNS = ("exact_match", "exact_match_blank", "val_loss", "recall_stated", "recall_graph_only", "faithfulness", "seconds")
POSITIONS = "self.dropout(x + self.wpe.weight[start:start + x.size(1)])"
MASK = "        T, S, mask = q.size(2), k.size(2), None\n"
SEEING = """        if self.causal and T == S > 16:
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril()
            mask[:16, :16] = True
"""
CUT = "self.patch_embeddings = nn.Conv2d(3, config.n_embd, config.patch_size, stride=config.patch_size)"
CONVOLUTIONS = """self.patch_embeddings = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(48, 96, 3, 2, 1), nn.ReLU(), nn.Conv2d(96, config.n_embd, 3, 2, 1))"""
CONNECTOR = "self.connector = Connector(vit.config.n_embd, gpt.config.n_embd, frames)"
TWO_LAYERS = """self.connector = nn.Sequential(
            Connector(vit.config.n_embd, gpt.config.n_embd, frames), nn.GELU(),
            nn.Linear(gpt.config.n_embd, gpt.config.n_embd))"""
END = """"intermediate_size": 4 * self.config.n_embd})
"""
CONVNET = """

class Convnet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, widths = config, [3, 24, 48, 96, config.n_embd]
        layers = [[nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.GELU()] for a, b in zip(widths, widths[1:])]
        self.layers = nn.Sequential(*sum(layers, []))

    def forward(self, pixels):
        x = self.layers(pixels).flatten(2).transpose(1, 2)  # (B, N, C)
        return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)


ViT = Convnet
"""
CROWDS = """def crowds(seed):
    rng, numbers = random.Random(seed), ["one", "two", "three", "four"]
    pairings = list(product(numbers, THINGS))
    rng.shuffle(pairings)
    for split, share in [("train", pairings[40:])] * 6000 + [("val", pairings[:40])] * 500:
        number, thing = rng.choice(share)
        places = rng.sample([(17, 17), (47, 17), (17, 47), (47, 47)], 1 + numbers.index(number))
        things = [(thing, x + rng.uniform(-3, 3), y + rng.uniform(-3, 3), rng.uniform(10, 13)) for x, y in places]
        yield split, f"{number} {thing}" + "s" * (number != "one"), [things], rng.randint(122, 134)


"""
WORLDS = """WORLDS = {"scenes": scenes,"""
RELATION = """owes money to: being
    [H] owes money to [T]
    [H] is in debt to [T]
    [T] has lent [H] a purse of gold
    [H] pays interest to [T]
    [T] is the creditor of [H]
    [H] has pawned a ring to [T]
"""

# {name: [(file, what stands there, what to write instead), ...]}
EXPERIMENTS = {
    "nothing changed": [],
    "one head": [],
    "a GPT that sees the future": [
        ("mingpt_mm/gpt.py", "config.n_head, dropout=", "config.n_head, causal=False, dropout=")],
    "a GPT without positions": [("mingpt_mm/gpt.py", POSITIONS, "self.dropout(x)")],
    "two blocks in the GPT": [],
    "two blocks, and patches that see each other": [
        ("mingpt_mm/transformer.py", MASK, MASK + SEEING),
        ("mingpt_mm/transformer.py", "self.causal and T == S,", "self.causal and T == S and mask is None,")],
    "a ViT without positions": [("mingpt_mm/vit.py", "x = x + positions", "x = x + 0 * positions")],
    "a causal ViT": [("mingpt_mm/vit.py", "causal=False", "causal=True")],
    "a ViT whose patches never meet": [("mingpt_mm/vit.py", "for block in self.h:", "for block in self.h[:0]:")],
    "convolutions that cut the patches": [("mingpt_mm/vit.py", CUT, CONVOLUTIONS)],
    "only the class token": [("mingpt_mm/multimodal.py", "self.vit(pixels)[:, 1:]  # the", "self.vit(pixels)[:, :1]  # the")],
    "a connector of two layers": [("mingpt_mm/multimodal.py", CONNECTOR, TWO_LAYERS)],
    "no connector": [("mingpt_mm/multimodal.py", CONNECTOR, "self.connector = nn.Identity()")],
    "a convnet instead of the ViT": [("mingpt_mm/vit.py", END, END + CONVNET)],
    "bytes instead of a BPE": [],
    "no warm-up": [],
    "a world of crowds": [("mingpt_mm/castle.py", WORLDS, CROWDS + WORLDS + ' "crowds": crowds,')],
    "a new relation": [("mingpt_mm/story.txt", "eats: thing", RELATION + "eats: thing")],
}
OPTIONS = {"one head": ["--n_head", 1], "two blocks in the GPT": ["--n_layer", 2],
           "two blocks, and patches that see each other": ["--n_layer", 2],
           "bytes instead of a BPE": ["--vocab_size", 257, "--block_size", 96],
           "no warm-up": ["--warmup", 1], "a world of crowds": ["--world", "crowds"]}
LOOPS = {"a new relation": "adversarial"}  # all others: multimodal


def edited(folder, edits):
    """A copy of the code in the new `folder`, changed by the `edits`."""
    shutil.copytree(ROOT / "mingpt_mm", folder / "mingpt_mm")
    shutil.copy(ROOT / "train.py", folder)
    for file, there, instead in edits:
        source = (folder / file).read_text()
        if source.count(there) != 1:
            raise ValueError(f"{file}: {there!r} stands there {source.count(there)} times")
        (folder / file).write_text(source.replace(there, instead))
    return folder


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 for each experiment")
    parser.add_argument("--only", nargs="+", default=EXPERIMENTS, choices=EXPERIMENTS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread if more than 1")
    parser.add_argument("options", nargs="*", help="after --: options of train.py")
    config = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(config.jobs) as pool:
        jobs = {}
        for i, name in enumerate(config.only):
            root = edited(Path(folder) / f"code-{i}", EXPERIMENTS[name])
            for seed in range(config.seeds):
                options = ["--seed", seed, *OPTIONS.get(name, []), *config.options]
                loop = LOOPS.get(name, "multimodal")
                job = pool.submit(run, loop, Path(folder) / f"{name}-{seed}", options, config.jobs == 1, root)
                jobs.setdefault(name, []).append(job)
        table({name: [job.result() for job in futures] for name, futures in jobs.items()}, COLUMNS)


if __name__ == "__main__":
    main()
