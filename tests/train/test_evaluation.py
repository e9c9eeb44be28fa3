"""The measures, against slower ways to take them: one text at a time, and generation itself."""

import math
from argparse import Namespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import GPT, GPTConfig
from mingpt_mm.data.datasets import CaptionDataset, TextDataset, load_captions
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.evaluation import ablations, evaluate_captions, evaluate_facts, score_answers

TEXTS = ["Ann lives in Rome.", "Bob lives in Oslo.", "Ann fears Bob.", "the owl fears the long rain"]
TOKENIZER = make_tokenizer(train_bpe(TEXTS, 280))


def framed(text):
    """Its tokens between two end-of-text tokens."""
    return [TOKENIZER.eot_token, *TOKENIZER.encode_ordinary(text), TOKENIZER.eot_token]


def test_ablations_by_hand():
    """All of frame f of row i is 10 i + f."""
    numbers = torch.arange(5)[:, None] * 10 + torch.arange(4)
    clips = numbers[:, :, None, None, None].expand(5, 4, 3, 2, 2).to(torch.uint8)
    assert set(ablations(clips[:, :1])) == {"_blank", "_shuffled"}  # a single frame has no other order
    shown = {name: pixels.flatten(2).unique(dim=2).squeeze(2).tolist() for name, pixels in ablations(clips).items()}
    assert shown.pop("_blank") == [[128] * 4] * 5
    assert all(row[0] // 10 != i for i, row in enumerate(shown["_shuffled"]))
    assert sorted(shown.pop("_shuffled")) == numbers.tolist()
    assert shown.pop("_reversed") == numbers.flip(1).tolist()
    assert shown.pop("_first_frame") == [[10 * i] * 4 for i in range(5)]
    mixed = shown.pop("_shuffled_frames")
    assert [sorted(row) for row in mixed] == numbers.tolist() != mixed and not shown
    assert len({tuple(frame % 10 for frame in row) for row in mixed}) > 1


class Oracle(nn.Module):
    """Its captions tell the color. Its logits are a table of the token before; a gray image doubles them."""

    def __init__(self):
        super().__init__()
        V = TOKENIZER.n_vocab
        self.gpt, self.table = GPT(GPTConfig(8, V, 1, 1, 4)), torch.randn(V, V)

    def forward(self, pixels, tokens):
        return self.table[tokens] * (1 + (pixels[:, 0, 0, 0, 0] == 128))[:, None, None]

    def caption(self, pixels, tokenizer, **_):
        names = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 255, 0): "lime", (128, 128, 128): "gray"}
        return [f"one in {names[tuple(pixel)]}" for pixel in pixels[:, 0, :, 0, 0].tolist()]


def test_captions_are_measured_on_the_first_rows_and_on_what_is_shown_instead(tiny):
    torch.manual_seed(0)
    rows = load_captions(tiny / "images")[:7]
    data, model = CaptionDataset(rows + rows, TOKENIZER, 1, 4), Oracle().train()
    metrics, captions = evaluate_captions(model, data, TOKENIZER, Namespace(eval_samples=7, batch_size=4), ablate=True)
    colors = [row.captions[0].split()[1] for row in rows]
    others = [colors[i] for i in (3, 0, 1, 2, 6, 4, 5)]  # of the same batch
    assert captions == [f"one in {color}" for color in colors] and not model.training
    assert metrics["exact_match"] == 1 and metrics["exact_match_blank"] == 0
    assert metrics["exact_match_shuffled"] == sum(a == b for a, b in zip(colors, others)) / 7 > 0
    texts = [framed(row.captions[0]) for row in rows]
    pairs = [pair for tokens in texts for pair in zip(tokens, tokens[1:])]
    for name, factor in (("", 1), ("_blank", 2), ("_shuffled", 1)):
        log_probs = (model.table * factor).log_softmax(1)
        expected = -sum(log_probs[pair].item() for pair in pairs) / len(pairs)
        assert metrics[f"val_loss{name}"] == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def gpt():
    """A GPT that knows the TEXTS a little, so that some of what it writes is right."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(32, TOKENIZER.n_vocab, 1, 2, 32))
    optimizer = torch.optim.AdamW(gpt.parameters(), 3e-3)
    for _ in range(80):
        for text in TEXTS:
            tokens = torch.tensor(framed(text))
            F.cross_entropy(gpt(tokens[None, :-1])[0], tokens[1:]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return gpt.eval()


def slow_score(gpt, prompt, answer, prefix=None):
    """(mean log-likelihood of the tokens of the answer, whether each is the likeliest), one pass a token."""
    tokens, values, greedy = framed(prompt)[:-1], [], True
    for token in TOKENIZER.encode_ordinary(f" {answer}" if prompt else answer):
        log_probs = gpt(torch.tensor([tokens]), prefix)[0, -1].log_softmax(0)
        values.append(log_probs[token].item())
        greedy &= log_probs.argmax().item() == token
        tokens.append(token)
    return sum(values) / len(values), greedy


@torch.no_grad()
@pytest.mark.parametrize("patches", [0, 3])
def test_scores_of_a_batch_are_those_of_each_text_alone(gpt, patches):
    prompts = ["Ann lives in", "Bob lives in", "Ann lives in", "the owl", "", "Rain"] * 6  # more than a batch
    answers = ["Rome", "Oslo", "Oslo", "fears the long rain", "Ann", "x"] * 6
    prefix = torch.randn(1, patches, 32, generator=torch.Generator().manual_seed(1)) if patches else None
    scores = score_answers(gpt, TOKENIZER, prompts, answers, prefix)
    expected = [slow_score(gpt, *pair, prefix) for pair in zip(prompts, answers)]
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]
    assert patches or {greedy for _, greedy in scores} == {True, False}


@torch.no_grad()
def test_the_loss_is_a_mean_over_tokens_and_recall_a_share_of_each_group(gpt):
    probes = [{"prompt": prompt, "answer": answer, "group": group} for prompt, answer, group in [
        ("Ann lives in", "Rome", "stated"), ("Bob lives in", "Paris", "stated"), ("Bob lives in", "Rome", "graph_only"),
        ("Ann fears", "Bob", "graph_only"), ("Bob lives in", "Oslo", "neither")]]
    data, args = TextDataset(TEXTS, TOKENIZER), Namespace(eval_samples=3, batch_size=2)
    (metrics, captions), losses = evaluate_facts(gpt, (data, probes), TOKENIZER, args), []
    for text in TEXTS[:3]:
        tokens = torch.tensor(framed(text))
        losses += F.cross_entropy(gpt(tokens[None, :-1])[0], tokens[1:], reduction="none").tolist()
    mean = sum(losses) / len(losses)
    assert metrics.pop("val_loss") == pytest.approx(mean, rel=1e-4)
    assert metrics.pop("perplexity") == pytest.approx(math.exp(mean), rel=1e-4)
    assert metrics == {"recall_stated": 0.5, "recall_graph_only": 0.5, "recall_neither": 1} and captions == []
    assert not gpt.training and set(evaluate_facts(gpt, (data, []), TOKENIZER, args)[0]) == {"val_loss", "perplexity"}
