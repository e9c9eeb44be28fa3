"""The block against PyTorch's own encoder layer, and the cache against no cache."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.transformer import Block, KVCache, initialise


def torch_layer(block, activation, eps):
    """PyTorch's encoder layer with the weights of `block`."""
    C = block.ln_1.normalized_shape[0]
    layer = nn.TransformerEncoderLayer(C, block.attn.n_head, 4 * C, dropout=0.0, activation=activation,
                                       layer_norm_eps=eps, batch_first=True, norm_first=True)
    pairs = {layer.self_attn.in_proj_weight: block.attn.c_attn.weight,
             layer.self_attn.in_proj_bias: block.attn.c_attn.bias,
             layer.self_attn.out_proj.weight: block.attn.c_proj.weight,
             layer.self_attn.out_proj.bias: block.attn.c_proj.bias,
             layer.linear1.weight: block.mlp.c_fc.weight, layer.linear1.bias: block.mlp.c_fc.bias,
             layer.linear2.weight: block.mlp.c_proj.weight, layer.linear2.bias: block.mlp.c_proj.bias,
             layer.norm1.weight: block.ln_1.weight, layer.norm1.bias: block.ln_1.bias,
             layer.norm2.weight: block.ln_2.weight, layer.norm2.bias: block.ln_2.bias}
    with torch.no_grad():
        for theirs, ours in pairs.items():
            theirs.copy_(ours)
    return layer


@pytest.mark.parametrize("causal, gelu, eps", [(True, "tanh", 1e-5), (False, "none", 1e-12)], ids=["gpt2", "vit"])
def test_block_equals_the_encoder_layer_of_pytorch(causal, gelu, eps):
    torch.manual_seed(0)
    block = Block(48, 4, causal=causal, gelu=gelu, eps=eps)
    for parameter in block.parameters():  # LayerNorms and biases too, so that none can be left out unseen
        nn.init.normal_(parameter, std=0.3)
    layer = torch_layer(block, lambda x: F.gelu(x, approximate=gelu), eps)
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    x = torch.randn(3, 7, 48, requires_grad=True)
    ours, theirs = block(x), layer(x, src_mask=mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(ours)
    gradients = [torch.autograd.grad((y * direction).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_dropout_is_only_in_training():
    torch.manual_seed(0)
    block, x = Block(24, 2, dropout=0.5), torch.randn(2, 5, 24)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_cache_is_one_buffer_that_is_written_in_place():
    cache, k = KVCache(6), torch.randn(2, 3, 4, 8)
    first, _ = cache.append(k[:, :, :1], k[:, :, :1])
    keys, values = cache.append(k[:, :, 1:], -k[:, :, 1:])
    assert keys.data_ptr() == first.data_ptr() == cache.keys.data_ptr() and cache.length == 4
    assert torch.equal(keys, k) and torch.equal(values[:, :, 1:], -k[:, :, 1:])


def test_initialisation_is_that_of_gpt2_at_width_768():
    torch.manual_seed(0)
    block = Block(768, 12)
    initialise(block, width=768, n_layer=12)
    assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(24), rel=0.02)
    assert block.mlp.c_fc.bias.abs().max() == 0 and (block.ln_1.weight == 1).all()
