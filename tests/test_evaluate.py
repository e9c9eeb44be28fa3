"""The measures, against slower ways to take them: one text at a time, and generation itself."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mingpt_mm.text import Documents
from mingpt_mm.evaluate import (blind_arms, discriminator_accuracy, evaluate_text, in_order, judge, other_order,
                                ranking, score)
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.story import make_parser
from mingpt_mm.tokenizer import train_bpe

TEXTS = ["Ann lives in Rome.", "Bob lives in Oslo.", "Ann fears Bob.", "the owl fears the long rain"]
ENCODING = train_bpe(TEXTS, 280)


@dataclass
class Options:
    """The options that an evaluation reads."""

    eval_rows: int = 3
    batch_size: int = 2
    synthetic: str = "gan"


@pytest.fixture(scope="module")
def gpt():
    """A GPT that has learned the TEXTS a little, so that some of what it writes is right."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(32, ENCODING.n_vocab, 1, 2, 32))
    optimizer = torch.optim.AdamW(gpt.parameters(), 3e-3)
    tokens, targets = map(torch.as_tensor, Documents(TEXTS, ENCODING, 32).batch(range(4)))
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(gpt(tokens).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    return gpt.eval()


def slow_score(gpt, prompt, answer, prefix=None):
    """The mean log-likelihood of the answer's tokens, one forward pass a token."""
    tokens, values = [ENCODING.eot_token, *ENCODING.encode_ordinary(prompt)], []
    for token in ENCODING.encode_ordinary(f" {answer}" if prompt else answer):
        values.append(gpt(torch.tensor([tokens]), prefix)[0, -1].log_softmax(0)[token].item())
        tokens.append(token)
    return sum(values) / len(values)


@torch.no_grad()
@pytest.mark.parametrize("patches", [0, 3])
def test_scores_of_a_batch_are_those_of_each_text_alone(gpt, patches):
    prompts = ["Ann lives in", "Bob lives in", "Ann fears", "the owl", "", "Rain"]
    answers = ["Rome", "Oslo", "Bob", "fears the long rain", "Ann", "x"]
    prefix = torch.randn(1, patches, 32, generator=torch.Generator().manual_seed(1)) if patches else None
    for (value, greedy), prompt, answer in zip(score(gpt, ENCODING, prompts, answers, prefix), prompts, answers):
        assert value == pytest.approx(slow_score(gpt, prompt, answer, prefix), abs=1e-4)
        start = torch.tensor([[ENCODING.eot_token, *ENCODING.encode_ordinary(prompt)]])
        wanted = ENCODING.encode_ordinary(f" {answer}" if prompt else answer)
        written = gpt.generate(start, len(wanted), temperature=0, prefix=prefix)[0, start.size(1):].tolist()
        assert greedy == (written == wanted)
    if not patches:
        assert score(gpt, ENCODING, ["Ann lives in"], ["Rome"])[0][1]  # so that both cases occur
        assert not score(gpt, ENCODING, ["Ann lives in"], ["Oslo"])[0][1]


def test_more_texts_than_a_batch_and_none_at_all(gpt):
    whole = score(gpt, ENCODING, ["Ann lives in"] * 300, ["Rome"] * 299 + ["Oslo"])
    assert len(whole) == 300 and whole[0][0] == pytest.approx(whole[298][0]) and whole[299][0] < whole[0][0]
    assert score(gpt, ENCODING, [], []) == []


def probe(prompt, answer, group, *triple):
    """A line of probes.jsonl."""
    return {"prompt": prompt, "answer": answer, "group": group, "triple": triple}


PROBES = [probe("Ann lives in", "Rome", "stated", "Ann", "lives in", "Rome"),
          probe("Bob lives in", "Rome", "graph_only", "Bob", "lives in", "Rome"),
          probe("Ann fears", "Bob", "graph_only", "Ann", "fears", "Bob"),
          probe("Bob lives in", "Oslo", "neither", "Bob", "lives in", "Oslo"),
          probe("Bob lives in", "Paris", "stated", "Bob", "lives in", "Paris")]


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_first_rows_and_recall_a_share_of_each_group(gpt):
    data = Documents(TEXTS, ENCODING, 32)
    measures = evaluate_text(gpt, ENCODING, data, PROBES, Options(), torch.device("cpu"))
    losses = []
    for text in TEXTS[:3]:
        tokens = torch.tensor([[ENCODING.eot_token, *ENCODING.encode_ordinary(text), ENCODING.eot_token]])
        losses += F.cross_entropy(gpt(tokens[:, :-1])[0], tokens[0, 1:], reduction="none").tolist()
    assert measures.pop("val_loss") == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert measures == {"recall_stated": 0.5, "recall_graph_only": 0.5, "recall_neither": 1.0}
    assert set(evaluate_text(gpt, ENCODING, data, [], Options(), torch.device("cpu"))) == {"val_loss"}
    assert gpt.training  # dropout is on again
    gpt.eval()


def test_ranking_compares_with_the_false_answers_of_the_same_relation(gpt):
    # "lives in" has Rome, Oslo and Paris for answers, all true of Bob; of Ann only Rome is. "fears" has no other.
    with torch.no_grad():
        values = {answer: slow_score(gpt, "Ann lives in", answer) for answer in ("Rome", "Oslo", "Paris")}
    beaten = sum(values["Rome"] > values[other] for other in ("Oslo", "Paris")) / 2
    assert ranking(gpt, ENCODING, PROBES) == {"ranking_stated": beaten}


class Judge:
    """A GAN whose discriminator likes relation 0, and slots that stand as they should."""

    relations = ["lives in", "fears"]
    length = 8
    likes = 1.0

    def encode(self, rows):
        self.rows = rows
        ids = {"[H]": 1, "[T]": 2, "[N]": 3, " [H]": 4, " [T]": 5, " [N]": 6}
        return torch.tensor([[ids.get(unit, 7) for unit in row][:4] for row in rows])

    def discriminator(self, relations, sentences):
        return self.likes * ((sentences == 1).any(1) & (sentences == 5).any(1) & (relations == 0)).float()


def test_the_discriminator_is_right_if_it_prefers_the_triple_of_the_sentence():
    triples = [("Ann", "lives in", "Rome"), ("Bob", "lives in", "Rome"), ("Ann", "fears", "Bob")]
    probes = [probe(f"{name} lives in", "Rome", "graph_only", name, "lives in", "Rome") for name in ("Ann", "Bob")]
    gan = Judge()
    assert discriminator_accuracy(gan, triples, probes) == 1
    assert gan.rows == [("[H]", " lives", " in", " [T]", ".")] * 2
    others = [probe("Eve lives in", "Rome", "neither", "Eve", "lives in", "Rome"),
              probe("Ann dreams of", "Rome", "stated", "Ann", "dreams of", "Rome")]
    assert judge(Options(), gan, [], triples, probes + others, None) == {"discriminator_accuracy": 1}
    assert len(gan.rows) == 2 and judge(Options(), gan, [], triples, others, None) == {}
    gan.likes = -1.0
    assert discriminator_accuracy(gan, triples, probes) == 0


def test_sentences_are_judged_by_the_grammar():
    ann = ("Ann", "lives in", "crypt")
    written = [(ann, "Ann lives in the crypt."), (ann, "They say that Ann lives in the crypt."),
               (("Bob", "lives in", "crypt"), "Bob lives in the crypt."), (ann, "Ann guards the crypt."),
               (ann, "Bob lives in the crypt."), (ann, "Ann the crypt.")]
    options = Options(synthetic="templates")
    measures = judge(options, None, written, [], [], make_parser())
    assert measures == {"faithfulness": 0.5, "distinct_wordings": 2}
    assert judge(options, None, written, [], [], None) == judge(options, None, [], [], [], make_parser()) == {}


# ---- what a clip's frames are worth ----

class Rows(list):
    """Pixels or patches as data.Captions gives them."""

    def batch(self, indices):
        return np.stack([self[i] for i in indices]), None, None

    @property
    def blank(self):
        return np.full_like(self[0], 128)[None]


def test_another_order_is_never_the_own_one_and_is_any_other():
    orders = {tuple(other_order(3, seed).tolist()) for seed in range(200)}
    assert orders == set(itertools.permutations(range(3))) - {(0, 1, 2)}
    assert all(other_order(2, seed).tolist() == [1, 0] for seed in range(50))


@pytest.mark.parametrize("shape, dtype", [((4, 3, 2, 5), torch.uint8), ((8, 6), torch.float32)],
                         ids=["pixels", "patches"])  # of 4 frames: each its own, or two patches of each
def test_the_frames_are_shown_backwards_mixed_and_only_the_first(shape, dtype):
    rows = torch.arange(5)[:, None] * 10 + torch.arange(4)  # frame f of row i is all 10 i + f
    clips = rows.repeat_interleave(shape[0] // 4, dim=1).reshape(5, shape[0], *[1] * len(shape[1:]))
    clips = clips.expand(5, *shape).to(dtype)
    data = Rows(clips.numpy())
    arms = blind_arms(clips[2:5], range(2, 5), data, frames=4)
    arms = {name.removeprefix("exact_match_"): shown for name, shown in arms.items()}
    assert all(shown.shape == (3, *shape) for shown in arms.values()) and (arms.pop("blank") == 128).all()
    assert torch.equal(arms.pop("shuffled"), clips[[3, 4, 0]])
    assert all(shown.dtype == dtype for shown in arms.values())
    seen = {name: shown.reshape(3, 4, -1) for name, shown in arms.items()}  # (B, F, all of a frame)
    assert all((frames == frames[..., :1]).all() for frames in seen.values())  # none was torn
    orders = {name: (frames[..., 0].int() - 10 * torch.arange(2, 5)[:, None]).tolist() for name, frames in seen.items()}
    assert orders.pop("reversed") == [[3, 2, 1, 0]] * 3 and orders.pop("first_frame") == [[0] * 4] * 3
    mixed = orders.pop("shuffled_frames")
    assert all(sorted(order) == [0, 1, 2, 3] != order for order in mixed) and mixed[0] != mixed[1] and not orders
    alone = blind_arms(clips[3:4], [3], data, frames=4)["exact_match_shuffled_frames"]
    assert torch.equal(alone, arms["shuffled_frames"][1:2])  # however the rows are cut into batches


def test_pictures_and_clips_of_one_frame_have_no_other_order():
    shown = torch.ones(2, 3, 2, 2)
    for frames in (0, 1):
        assert set(blind_arms(shown, [0, 1], Rows(shown.numpy()), frames)) == {"exact_match_blank", "exact_match_shuffled"}


def test_frames_stand_in_the_order_of_the_numbers():
    shown = torch.randn(2, 3, 5)
    expected = torch.stack([shown[0, [2, 0, 2]], shown[1, [0, 1, 2]]])
    assert torch.equal(in_order(shown, torch.tensor([[2, 0, 2], [0, 1, 2]])), expected)
