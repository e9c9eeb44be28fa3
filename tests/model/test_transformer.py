"""What must be true of a Transformer block: which position reads from which, the formula, PyTorch's own layer. Start here."""

import math

import pytest
import torch
from torch import nn

from mingpt_mm import GPT, GPTConfig, ViT, ViTConfig
from mingpt_mm.model.transformer import Attention, Block, init_weights

NAMES = {"attn.c_attn.": "self_attn.in_proj_", "attn.c_proj": "self_attn.out_proj", "ln_1": "norm1", "ln_2": "norm2",
         "mlp.c_fc": "linear1", "mlp.c_proj": "linear2"}  # in torch.nn.TransformerEncoderLayer


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_block_reads_from_no_later_position_and_any_block_from_all_others(causal):
    torch.manual_seed(0)
    block, x = Block(24, 3, causal=causal), torch.randn(2, 6, 24)
    for i, one in enumerate(torch.eye(6)):
        moved = (block(x + one[:, None]) - block(x)).abs().amax(dim=(0, 2)) > 0  # by a change at position i
        assert moved.tolist() == [j >= i or not causal for j in range(6)]


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_attention_is_softmax_of_scaled_products_of_queries_and_keys_times_values(causal):
    torch.manual_seed(0)
    attention, x, rows = Attention(12, 3, causal, dropout=0.0), torch.randn(5, 12), torch.zeros(5, 12)
    query, key, value = (x @ w.T + b for w, b in zip(attention.c_attn.weight.chunk(3), attention.c_attn.bias.chunk(3)))
    for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
        for i in range(5):
            weights = [math.exp(query[i, head] @ key[j, head] / math.sqrt(4)) for j in range(i + 1 if causal else 5)]
            rows[i, head] = sum(w / sum(weights) * value[j, head] for j, w in enumerate(weights))
    expected = rows @ attention.c_proj.weight.T + attention.c_proj.bias
    torch.testing.assert_close(attention(x[None])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model, gelu, eps, mask", [
    (GPT(GPTConfig(8, 9, 1, 4, 48)), "tanh", 1e-5, nn.Transformer.generate_square_subsequent_mask(7)),
    (ViT(ViTConfig(8, 4, 1, 4, 48)), "none", 1e-12, None)], ids=["gpt", "vit"])
def test_the_blocks_of_gpt_and_vit_equal_the_encoder_layer_of_pytorch(model, gelu, eps, mask):
    torch.manual_seed(0)
    for parameter in model.parameters():  # LayerNorms and biases too: none can be left out unseen
        nn.init.normal_(parameter, std=0.3)
    layer = nn.TransformerEncoderLayer(48, 4, 192, 0.0, nn.GELU(gelu), eps, True, True)
    state = model.h[0].state_dict()
    for ours, theirs in NAMES.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    layer.load_state_dict(state)
    x = torch.randn(3, 7, 48)
    x[0] *= 1e-3  # here LayerNorm's eps counts
    torch.testing.assert_close(model.h[0](x), layer(x, src_mask=mask), rtol=1e-4, atol=2e-5)


def test_dropout_is_on_both_branches_attention_weights_and_embeddings_and_only_in_training():
    torch.manual_seed(0)
    gpt, x = GPT(GPTConfig(8, 9, 1, 2, 24, dropout=1.0)), torch.randn(2, 5, 24)
    gpt.h[0].attn.c_proj.bias.data.fill_(1)
    assert gpt.h[0].attn(x).eq(1).all() and gpt.h[0](x).equal(x) and gpt(torch.zeros(2, 5).long()).eq(0).all()
    assert gpt.eval().h[0](x).equal(gpt.h[0](x)) and not gpt.h[0](x).equal(x) and not gpt.h[0].attn(x).eq(1).any()


@pytest.mark.parametrize("width, std", [(768, 0.02), (192, 0.04)])
def test_initial_weights_have_the_deviation_of_gpt2_scaled_to_the_width(width, std):
    torch.manual_seed(0)
    block = Block(width, 12)
    init_weights(block, width, n_layer=8)
    for name, parameter in block.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == (name in ("ln_1.weight", "ln_2.weight"))).all(), name
        else:  # 16 sublayers add to the residual stream
            assert parameter.std().item() == pytest.approx(std / 4 if "c_proj" in name else std, rel=0.03), name
