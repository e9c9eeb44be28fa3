"""What the bench of speed counts, against a count by torch; that it runs at all is seen by `--quick` in CI."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import loss_sum
from mingpt_mm.vit import ViT, ViTConfig

pytest.importorskip("transformers", reason="the extra parity is not installed")

from tests.bench.speed_models import flops  # noqa: E402
from tests.bench.speed_runs import reach  # noqa: E402

CONFIG = GPTConfig(block_size=16, vocab_size=50, n_layer=2, n_head=2, n_embd=32)


def counted(work):
    """The operations that torch counts, with attention written out and no part of it left out."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def test_operations_of_a_step_on_text():
    gpt, tokens = GPT(CONFIG), torch.randint(50, (3, 16))
    expected = flops(CONFIG, rows=3 * 16, seen=16) + 6 * 3 * 16 * 32 * 50
    assert counted(lambda: loss_sum(gpt(tokens), tokens).backward()) == expected


def test_operations_of_a_vit_that_learns_and_of_one_that_only_looks():
    config = ViTConfig(32, 8, 2, 2, 32)
    vit, pixels = ViT(config), torch.randn(3, 3, 32, 32)
    patches = 2 * 3 * 16 * (3 * 8 * 8) * 32  # their embedding, forwards, and its weights' gradient
    assert counted(lambda: vit(pixels).sum().backward()) == flops(config, 3 * 17, 17) + 2 * patches
    with torch.no_grad():
        assert counted(lambda: vit(pixels)) == flops(config, 3 * 17, 17, backward=0) + patches


def test_the_first_good_line_ends_a_run_or_else_the_last():
    lines = [(1.0, "step 0: val loss 4.1"), (1.5, "iter 0"), (2.0, "step 5: val loss 1.8"), (3.0, "step 9: val loss 1.7")]
    assert reach(iter(lines), r"val loss ([\d.]+)", lambda loss: loss <= 1.9) == (2.0, 1.8)
    assert reach(iter(lines), r"val loss ([\d.]+)", lambda loss: loss <= 1.0) == (3.0, 1.7)
