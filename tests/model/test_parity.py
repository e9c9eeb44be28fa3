"""The same numbers as the reference implementation, `transformers`, with the same files, in both directions."""

import numpy as np
import pytest
import torch
from PIL import Image

from mingpt_mm import GPT, GPTConfig, ViT, ViTConfig
from mingpt_mm.data.datasets import load_frames
from mingpt_mm.model.vit import normalize

transformers = pytest.importorskip("transformers", reason='needs the extra "parity": pip install -e ".[parity]"')
TOKENS = torch.randint(210, (3, 40), generator=torch.Generator().manual_seed(0))
GPT2_SIZES = dict(vocab_size=211, n_positions=96, n_embd=128, n_layer=3, n_head=4)
VIT_SIZES = dict(image_size=48, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512)


def loud(model):
    """The `model` with parameters so large that no part of it is without effect."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * (0.2 if parameter.dim() < 2 else parameter.size(-1)**-0.5)
    return model.eval()


@pytest.fixture
def both(tmp_path, request):
    """Our model of the files that a random model of the reference saves, and that model, in double precision."""
    kind = getattr(request, "param", "GPT2LMHeadModel")
    ours, name, sizes = (ViT, "ViT", VIT_SIZES) if "ViT" in kind else (GPT, "GPT2", GPT2_SIZES)
    theirs = loud(getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**sizes)))
    theirs.save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list(tmp_path.glob("model*.safetensors"))) > 2  # in several shards
    return ours.from_pretrained(tmp_path).eval().double(), theirs.double()


def error(ours, theirs):
    """The largest difference, relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_gpt_gives_the_hidden_states_logits_loss_and_gradients_of_the_reference(both):
    (ours, theirs), states = both, []
    for block in ours.h:
        block.register_forward_hook(lambda module, args, output: states.append(output))
    logits, expected = ours(TOKENS), theirs(TOKENS, labels=TOKENS, output_hidden_states=True)
    states[-1:] = [ours.ln_f(states[-1]), logits]  # their last hidden state comes after the LayerNorm
    assert max(map(error, states, [*expected.hidden_states[1:], expected.logits])) < 1e-10
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())
    assert abs(loss - expected.loss) < 1e-5  # theirs is computed in float32
    loss.backward()
    expected.loss.backward()
    for name, parameter in theirs.transformer.named_parameters():
        gradient = parameter.grad.T if ".c_" in name and name.endswith("weight") else parameter.grad
        assert error(ours.get_parameter(name).grad, gradient) < 1e-4, name


def test_gpt_writes_the_tokens_of_the_reference(both):
    expected = both[1].generate(TOKENS, max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=210)
    assert torch.equal(both[0].generate(TOKENS, 50), expected) and len(expected[:, 40:].unique()) > 2


@pytest.mark.parametrize("parts, prefix", [(1, "transformer."), (2, "transformer."), (1, "")])
def test_gpt_reads_the_pickles_of_the_reference(tmp_path, both, parts, prefix):
    both[1].config.save_pretrained(tmp_path / "old")
    state = both[1].state_dict() | {"transformer.h.0.attn.bias": torch.ones(1, 1, 96, 96).tril()}  # in old files
    items = [(name.replace("transformer.", prefix), tensor) for name, tensor in state.items()]
    for i in range(parts):
        torch.save(dict(items[i::parts]), tmp_path / f"old/pytorch_model{f'-0000{i}-of-00002' * (parts > 1)}.bin")
    assert error(GPT.from_pretrained(tmp_path / "old").double()(TOKENS), both[1](TOKENS).logits) < 1e-10


@pytest.mark.parametrize("both", ["ViTModel", "ViTForImageClassification"], indirect=True)
@pytest.mark.parametrize("size", [(48, 48), (96, 96), (48, 80), (32, 32)], ids=str)
def test_vit_gives_the_hidden_states_and_gradients_of_the_reference_at_every_resolution(both, size):
    ours, theirs, pixels = both[0], getattr(both[1], "vit", both[1]), torch.randn(2, 3, *size).double().requires_grad_()
    result, expected = ours(pixels), theirs(pixels, interpolate_pos_encoding=True).last_hidden_state
    direction, e = torch.randn_like(result), theirs.embeddings
    gradients = torch.autograd.grad((result * direction).sum(), [pixels, ours.position_embeddings, ours.cls_token])
    others = torch.autograd.grad((expected * direction).sum(), [pixels, e.position_embeddings, e.cls_token])
    assert error(result, expected) < 1e-10 and max(map(error, gradients, others)) < 1e-9


@pytest.mark.parametrize("ours, kind, inputs, options", [
    (GPT(GPTConfig(48, 211, 2, 3, 96)), "GPT2LMHeadModel", TOKENS, {}),
    (ViT(ViTConfig(32, 8, 2, 3, 96)), "ViTModel", torch.randn(2, 3, 32, 32), {"add_pooling_layer": False})])
def test_the_reference_reads_what_we_save(tmp_path, ours, kind, inputs, options):
    loud(ours).save_pretrained(tmp_path)
    theirs, report = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True, **options)
    assert not any(report.values()) and error(ours(inputs), theirs.eval()(inputs)[0]) < 1e-5


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (31, 64), (1, 1), (3, 700)], ids=str)
def test_an_image_becomes_the_pixels_of_the_released_processor(tmp_path, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    expected = transformers.ViTImageProcessorPil()(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalize(load_frames(tmp_path / "image.png", 1, 224)), expected, rtol=0, atol=1e-6)
