"""A batch is a function of (seed, step); it holds rows whose targets are the tokens that follow."""

from argparse import Namespace
from itertools import chain, product

import pytest
import torch
from PIL import Image

from mingpt_mm.data.datasets import IGNORE, CaptionDataset, Row, TextDataset, collate, make_loader
from mingpt_mm.data.tokenizer import make_tokenizer

TOKENIZER = make_tokenizer([])  # a token for each byte
EOT, CPU = TOKENIZER.eot_token, torch.device("cpu")
DOCUMENTS = ["abcdefgh", "xy", "", "mnopqrstuvw"]


@pytest.fixture
def rows(tmp_path):
    """Ten images, each of its own gray level, with one, two or three captions."""
    for i in range(10):
        Image.new("L", (4, 4), 20 * i).save(tmp_path / f"{i}.png")
    return [Row(tmp_path / f"{i}.png", False, [f"{i}" + "abc"[:j] for j in range(i % 3 + 1)], None) for i in range(10)]


def batches(dataset, checkpoint=None, stream=0, **options):
    options = {"seed": 0, "batch_size": 4, "steps": 15, "num_workers": 0} | options
    return list(make_loader(dataset, Namespace(**options), CPU, checkpoint, stream))


def same(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, chain(*ours), chain(*theirs)))


def texts(batch):
    """The captions of a batch, by its targets."""
    return [TOKENIZER.decode([t for t in row if t not in (IGNORE, EOT)]) for row in batch[2].tolist()]


def test_targets_are_the_tokens_that_follow_and_padding_has_none():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = torch.randint(2, 12, (5,), generator=generator).tolist()
        rows = [torch.randint(300, (n,), generator=generator).tolist() for n in lengths]
        skips = [n % 3 if n > 3 else 0 for n in lengths]
        pixels, tokens, targets = collate([(None, row, skip) for row, skip in zip(rows, skips)])
        assert pixels is None and tokens.shape == targets.shape == (5, max(lengths) - 1)
        for row, skip, given, wanted in zip(rows, skips, tokens.tolist(), targets.tolist()):
            assert given[:len(row) - 1] == row[:-1]
            assert wanted == [IGNORE] * skip + row[1 + skip:] + [IGNORE] * (max(lengths) - len(row))


def test_pixels_and_captions_of_a_batch_belong_together_and_all_captions_appear(rows):
    data = CaptionDataset(rows, TOKENIZER, 2, 4)
    assert len(data) == 10 and data.longest == 1 + max(len(caption) for row in rows for caption in row.captions)
    loaded = batches(data, steps=60)
    assert {text for batch in loaded for text in texts(batch)} == {text for row in rows for text in row.captions}
    for batch in loaded:
        assert batch[0].shape == (4, 2, 3, 4, 4) and batch[0].dtype == torch.uint8 and batch[1].size(1) <= data.longest
        for pixels, tokens, text in zip(*batch[:2], texts(batch)):
            assert text in rows[int(text[0])].captions and (pixels == 20 * int(text[0])).all()
            assert tokens[:len(text) + 1].tolist() == [EOT, *text.encode()]


def test_the_targets_of_a_drawing_are_the_image_tokens_of_its_row_after_one_of_its_captions(rows):
    data = CaptionDataset(rows, TOKENIZER, 1, 4, image_tokens=[[1000 + 9 * i + j for j in range(9)] for i in range(10)])
    for pixels, tokens, targets in batches(data, steps=30):
        for given, wanted in zip(tokens.tolist(), targets.tolist()):
            n = next(n for n, target in enumerate(wanted) if target != IGNORE)  # bytes of the caption
            i, image = (wanted[n] - 1000) // 9, wanted[n:n + 9]
            assert image == data.image_tokens[i] and wanted[n + 9:] == [IGNORE] * (len(wanted) - n - 9)
            assert bytes(given[1:n + 1]).decode() in rows[i].captions and given[n + 1:n + 9] == image[:-1]
        assert pixels is None


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 8, 9, 500])
def test_a_document_cut_into_pieces_loses_no_token(block_size):
    data = TextDataset(DOCUMENTS, TOKENIZER)
    assert data.longest == 12  # positions of the longest document, without the last target
    data = data.cut(block_size)
    pieces = [collate([data[i, 0]])[1:] for i in range(len(data))]
    assert all(0 < tokens.size(1) <= block_size for tokens, _ in pieces)
    assert torch.cat([tokens[0] for tokens, _ in pieces]).tolist() == [t for d in DOCUMENTS for t in [EOT, *d.encode()]]
    assert torch.cat([wanted[0] for _, wanted in pieces]).tolist() == [t for d in DOCUMENTS for t in [*d.encode(), EOT]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_starts_at_a_step_goes_on_as_the_original(num_workers, rows):
    data, state = CaptionDataset(rows, TOKENIZER, 1, 4), torch.get_rng_state()
    original = batches(data)
    for step in (0, 1, 7, 14):
        assert same(batches(data, {"step": step}, num_workers=num_workers), original[step:])
    assert same(batches(data, steps=6), original[:6])
    assert torch.equal(torch.get_rng_state(), state)  # of weights and dropout


def test_seeds_and_streams_and_epochs_have_orders_of_their_own(rows):
    data = CaptionDataset(rows, TOKENIZER, 1, 4)
    others = [batches(data), batches(data, seed=1), batches(data, stream=1), batches(data, stream=2)]
    assert not any(same(a, b) for i, a in enumerate(others) for b in others[:i])
    shown = [int(text[0]) for loaded in others for batch in loaded for text in texts(batch)]
    epochs = [shown[i:i + 10] for i in range(0, 4 * 60, 10)]  # they end inside batches
    assert all(sorted(epoch) == [*range(10)] for epoch in epochs) and len(set(map(tuple, epochs))) == 24


@pytest.mark.parametrize("room", [5, 8, 99])
def test_behind_an_image_and_its_caption_only_the_document_has_targets(room, rows):
    expected = set()
    for caption, document in product([caption for row in rows for caption in row.captions], DOCUMENTS):
        ids, start = [EOT, *f"{caption}.{document}".encode(), EOT][:room + 1], len(caption) + 1  # of the full stop
        expected.add((tuple(ids[:-1]), (*[IGNORE] * start, *ids[1 + start:])))
    data = CaptionDataset(rows, TOKENIZER, 1, 4, TextDataset(DOCUMENTS, TOKENIZER), room)
    loaded = batches(data, batch_size=1, steps=1500)
    assert {(*map(tuple, (tokens[0].tolist(), targets[0].tolist())),) for _, tokens, targets in loaded} == expected
