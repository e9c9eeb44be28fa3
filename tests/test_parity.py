"""The same numbers as the reference implementation, `transformers`, in both directions: the extra "parity"."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mingpt_mm.evaluate import score
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import MultimodalGPT
from mingpt_mm.pretrained import read_safetensors, write_safetensors
from mingpt_mm.tokenizer import train_bpe
from mingpt_mm.vit import ViT, ViTConfig, preprocess

transformers = pytest.importorskip("transformers", reason='needs the extra "parity": pip install -e ".[parity]"')
safetensors = pytest.importorskip("safetensors.torch", reason='needs the extra "parity"')


def loud(model):
    """The `model` with parameters so large that no part of it is without effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.2 if parameter.dim() < 2 else parameter.size(-1)**-0.5)
    return model.eval()


def reference_gpt(n_layer=3, n_head=4, n_embd=128, vocab_size=211, n_positions=96):
    """A random GPT-2 of the reference implementation, without dropout."""
    config = transformers.GPT2Config(vocab_size=vocab_size, n_positions=n_positions, n_embd=n_embd, n_layer=n_layer,
                                     n_head=n_head, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0, bos_token_id=0,
                                     eos_token_id=vocab_size - 1)
    return loud(transformers.GPT2LMHeadModel(config))


def reference_vit(kind="ViTModel"):
    """A random ViT of the reference implementation, the base model or another `kind`."""
    config = transformers.ViTConfig(image_size=48, patch_size=8, hidden_size=128, num_hidden_layers=3,
                                    num_attention_heads=4, intermediate_size=512)
    return loud(getattr(transformers, kind)(config))


def error(ours, theirs):
    """The largest difference, relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def both_gpts(tmp_path, reference):
    """The `reference` and our model of its files."""
    reference.save_pretrained(tmp_path)
    return GPT.from_pretrained(tmp_path).eval(), reference


def both_vits(tmp_path, reference):
    """The `reference` and our model of its files."""
    reference.save_pretrained(tmp_path)
    return ViT.from_pretrained(tmp_path).eval(), reference


# ---- GPT-2 ----

@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_gpt_gives_the_logits_of_the_reference(tmp_path, dtype, most):
    ours, theirs = (model.to(dtype) for model in both_gpts(tmp_path, reference_gpt()))
    tokens = torch.randint(211, (3, 96))
    logits = theirs(tokens).logits
    assert error(ours(tokens), logits) < most and logits.std() > 0.9


def test_gpt_gives_the_loss_and_the_gradients_of_the_reference(tmp_path):
    ours, theirs = both_gpts(tmp_path, reference_gpt())
    tokens = torch.randint(211, (3, 96))
    loss = F.cross_entropy(ours(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    expected = theirs(tokens, labels=tokens).loss
    assert abs(loss.item() - expected.item()) < 1e-5
    loss.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in theirs.transformer.named_parameters()}
    for name, parameter in ours.named_parameters():
        gradient = gradients[name].T if gradients[name].shape != parameter.shape else gradients[name]
        if parameter.dim() > 1 and parameter.size(0) == parameter.size(1):  # attn.c_proj: the shape does not tell
            gradient = gradients[name].T
        assert error(parameter.grad, gradient) < 1e-4, name


def test_gpt_writes_the_tokens_of_the_reference(tmp_path):
    ours, theirs = both_gpts(tmp_path, reference_gpt())
    tokens = torch.randint(210, (4, 20))
    expected = theirs.generate(tokens, max_new_tokens=64, do_sample=False, eos_token_id=None,
                               attention_mask=torch.ones_like(tokens), pad_token_id=0)
    assert torch.equal(ours.generate(tokens, 64, temperature=0), expected)
    assert len(set(expected[0].tolist())) > 10


def test_gpt_reads_a_prefix_as_the_reference_reads_input_embeddings(tmp_path):
    ours, theirs = both_gpts(tmp_path, reference_gpt())
    prefix, tokens = torch.randn(2, 9, 128), torch.randint(211, (2, 12))
    embeddings = torch.cat([prefix, theirs.transformer.wte(tokens)], dim=1)
    assert error(ours(tokens, prefix), theirs(inputs_embeds=embeddings).logits[:, 9:]) < 1e-5


def test_a_rounded_vocabulary_changes_nothing(tmp_path):
    reference_gpt().save_pretrained(tmp_path)
    plain, rounded = GPT.from_pretrained(tmp_path), GPT.from_pretrained(tmp_path, vocab_multiple=64)
    tokens = torch.randint(211, (3, 20))
    assert rounded(tokens).shape == (3, 20, 211) and error(rounded(tokens), plain(tokens)) < 1e-6
    for model in (plain, rounded):
        model(tokens).logsumexp(dim=-1).sum().backward()
    assert error(rounded.wte.weight.grad, plain.wte.weight.grad) < 1e-5
    for options in ({"temperature": 0}, {"generator": 0}):
        drawn = []
        for model in (plain, rounded):
            chance = {"generator": torch.Generator().manual_seed(0)} if "generator" in options else options
            drawn.append(model.generate(tokens, 64, **chance))
        assert torch.equal(*drawn)


def test_gpt2_itself_at_its_full_size(tmp_path):
    ours, theirs = both_gpts(tmp_path, reference_gpt(12, 12, 768, 50257, 1024))
    assert ours.config == GPTConfig()
    tokens = torch.randint(50257, (1, 64))
    with torch.no_grad():
        assert error(ours(tokens), theirs(tokens).logits) < 1e-5


@pytest.mark.parametrize("form", ["with the prefix", "without the prefix", "without the head"])
def test_gpt_reads_the_pickles_of_the_reference(tmp_path, form):
    reference = reference_gpt(n_head=2)
    state = reference.state_dict() if form == "with the prefix" else reference.transformer.state_dict()
    if form == "without the prefix":
        state["lm_head.weight"] = reference.lm_head.weight
        state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 96, 96, dtype=torch.bool).tril() for i in range(3)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokens = torch.randint(211, (2, 30))
    assert error(GPT.from_pretrained(tmp_path)(tokens), reference(tokens).logits) < 1e-5


def test_the_reference_reads_what_gpt_saves(tmp_path):
    model = loud(GPT(GPTConfig(48, 99, 2, 3, 96, dropout=0.1, vocab_multiple=64)))
    model.save_pretrained(tmp_path)
    reference, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()) and reference.config.resid_pdrop == 0.1
    tokens = torch.randint(99, (2, 48))
    assert error(reference.eval()(tokens).logits, model(tokens)) < 1e-5


# ---- ViT ----

@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_vit_gives_the_hidden_states_of_the_reference(tmp_path, kind, dtype, most):
    ours, theirs = (model.to(dtype) for model in both_vits(tmp_path, reference_vit(kind)))
    theirs = getattr(theirs, "vit", theirs)
    for size in [(48, 48), (96, 96), (40, 72), (24, 24)]:  # its own resolution, and others
        pixels = torch.randn(2, 3, *size, dtype=dtype)
        expected = theirs(pixels, interpolate_pos_encoding=True).last_hidden_state
        assert error(ours(pixels), expected) < most, size


def test_vit_gives_the_gradients_of_the_reference(tmp_path):
    ours, theirs = both_vits(tmp_path, reference_vit())
    pixels = torch.randn(2, 3, 64, 48, requires_grad=True)
    weights = torch.randn(2, 49, 128)
    ours_gradient, = torch.autograd.grad((ours(pixels) * weights).sum(), pixels)
    states = theirs(pixels, interpolate_pos_encoding=True).last_hidden_state
    expected, = torch.autograd.grad((states * weights).sum(), pixels, retain_graph=True)
    assert error(ours_gradient, expected) < 1e-4
    (ours(pixels) * weights).sum().backward()
    (states * weights).sum().backward()
    assert error(ours.position_embeddings.grad, theirs.embeddings.position_embeddings.grad) < 1e-4
    assert error(ours.cls_token.grad, theirs.embeddings.cls_token.grad) < 1e-4


def test_vit_reads_a_pickle_of_released_names(tmp_path):
    reference = reference_vit()
    reference.save_pretrained(tmp_path)
    state = {f"vit.{name}": tensor for name, tensor in safetensors.load_file(tmp_path / "model.safetensors").items()}
    assert "vit.encoder.layer.2.attention.attention.query.weight" in state  # the names since 2020
    torch.save(state | {"classifier.weight": torch.zeros(10, 128)}, tmp_path / "old.bin")
    pixels = torch.randn(1, 3, 48, 48)
    assert error(ViT.from_pretrained(tmp_path / "old.bin")(pixels), reference(pixels).last_hidden_state) < 1e-5


def test_the_reference_reads_what_vit_saves(tmp_path):
    model = loud(ViT(ViTConfig(32, 8, 2, 3, 96)))
    model.save_pretrained(tmp_path)
    reference, report = transformers.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False,
                                                              output_loading_info=True)
    assert not any(report.values())
    pixels = torch.randn(2, 3, 32, 32)
    assert error(reference.eval()(pixels).last_hidden_state, model(pixels)) < 1e-5


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (31, 64), (1, 1), (3, 700), (640, 480)])
def test_preprocess_gives_the_pixels_of_the_released_processor(size):
    processor = transformers.ViTImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2,
                                                  size={"height": 224, "width": 224})
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    assert (preprocess(Image.fromarray(pixels), 224) - expected).abs().max() < 1e-6


# ---- the format ----

def test_safetensors_of_both_sides_read_each_other(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "c": torch.tensor([True, False]),
               "d": torch.randn(2, 2).bfloat16(), "e": torch.arange(3), "f": torch.tensor(1.5)}
    safetensors.save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours", tensors)
    for back in (read_safetensors(tmp_path / "theirs"), safetensors.load_file(tmp_path / "ours")):
        assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)


# ---- both together ----

@torch.no_grad()
@pytest.mark.parametrize("sees", [False, True], ids=["text", "picture"])
def test_scores_are_the_log_likelihoods_a_token_of_the_reference(tmp_path, sees):
    choices = ["crypt", "tower of the old king", "x", "garden, where nobody has been for a long, long time", ""]
    encoding = train_bpe(choices, 290)
    gpt, reference = both_gpts(tmp_path / "gpt", reference_gpt(vocab_size=encoding.n_vocab))
    vit, eyes = both_vits(tmp_path / "vit", reference_vit())
    model, pixels = MultimodalGPT(gpt, vit), torch.randn(1, 3, 48, 48)
    loud(model.connector)
    prompts = ["Ann lives in the", "", "Ann lives in the", "the owl fears the", "Bob"]
    scores = score(gpt, encoding, prompts, choices, model.embed(pixels) if sees else None)
    prefix = F.linear(eyes(pixels).last_hidden_state[:, 1:], model.connector.weight, model.connector.bias)
    for prompt, choice, (value, greedy) in zip(prompts, choices, scores):
        start = [encoding.eot_token, *encoding.encode(prompt)]
        answer = encoding.encode(f" {choice}" if prompt else choice)
        embeddings = reference.transformer.wte(torch.tensor([start + answer]))  # (1, T, C)
        seen = prefix if sees else prefix[:, :0]
        labels = torch.tensor([[-100] * (seen.size(1) + len(start)) + answer])
        output = reference(inputs_embeds=torch.cat([seen, embeddings], dim=1), labels=labels)
        assert value == pytest.approx(-output.loss.item(), abs=1e-4)
        assert greedy == (output.logits[0, -1 - len(answer):-1].argmax(dim=1).tolist() == answer)
    assert len(set(scores)) == 5
