"""The product in slices against torch's own, for all shapes that decoding meets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import linear as room
from mingpt_mm.linear import Linear, in_rows, multiply


@pytest.mark.parametrize("rows", [(), (1,), (1, 1), (2, 1), (4, 1), (5, 1), (2, 8), (17, 1)])
@pytest.mark.parametrize("N", [1, 7, 61, 64, 71, 322, 768])  # 61 is cut into single rows, 71 is not cut
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_of_torch(rows, N, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(*rows, 24, dtype=torch.float64), torch.randn(N, 24, dtype=torch.float64)
    bias = torch.randn(N, dtype=torch.float64) if bias else None
    with torch.no_grad():
        y = multiply(x, weight, bias)
    torch.testing.assert_close(y, F.linear(x, weight, bias), rtol=1e-12, atol=1e-12)


def calls_of_torch(monkeypatch, weight, rows, grad):
    """How often `multiply` leaves the product to torch."""
    calls = []
    monkeypatch.setattr(room.F, "linear", lambda *arguments: calls.append(arguments) or torch.zeros(()))
    with torch.set_grad_enabled(grad):
        multiply(torch.randn(rows, 24), weight)
    return len(calls)


def test_only_decoding_is_cut_and_only_weights_in_rows(monkeypatch):
    weight = torch.randn(64, 24)
    assert calls_of_torch(monkeypatch, weight, rows=1, grad=False) == 0
    assert calls_of_torch(monkeypatch, weight, rows=16, grad=False) == 0
    assert calls_of_torch(monkeypatch, weight, rows=17, grad=False) == 1
    assert calls_of_torch(monkeypatch, weight, rows=1, grad=True) == 1
    assert calls_of_torch(monkeypatch, torch.randn(24, 64).t(), rows=1, grad=False) == 1


def test_the_layer_is_one_of_torch_with_another_product():
    torch.manual_seed(0)
    layer, x = Linear(24, 64), torch.randn(3, 24, requires_grad=True)
    theirs = nn.Linear(24, 64)
    theirs.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), theirs(x))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), theirs(x))


def test_weights_are_brought_into_rows():
    layer = nn.Linear(4, 6)
    layer.weight.data = torch.randn(4, 6).t()
    before = layer.weight.clone()
    assert in_rows(layer) is layer and layer.weight.is_contiguous() and torch.equal(layer.weight, before)
