"""Does the model look at the picture, and does it know the facts? Measures on what training did not show.

Letters: B batch, T tokens, P prefix, C width, V vocabulary, F frames, A all numbers of a frame, L units of a
sentence, R relations.
"""

from collections import defaultdict
from itertools import chain

import numpy as np
import torch
from torch.nn import functional as F

from mingpt_mm.alignment import confusions, read_sentences, with_slots
from mingpt_mm.gan import corrupt
from mingpt_mm.multimodal import loss_sum
from mingpt_mm.text import IGNORE, pad


def other_order(frames, seed):
    """The numbers of so many `frames` (two at least) in an order that is not their own."""
    order = np.random.default_rng(seed).permutation(frames)
    return order[::-1].copy() if sorted(order) == list(order) else order


def in_order(shown, order):
    """The frames of `shown`, pixels or patches of clips (B, ...), in another `order`, (B, F) numbers."""
    frames = shown.reshape(*order.shape, -1)  # (B, F, A)
    return frames[torch.arange(len(order))[:, None], order].reshape(shown.shape)


def blind_arms(shown, indices, data, frames):
    """{measure: what to show instead of `shown`, the rows `indices` of `data`}

    A model that looks must fail at mid-grey, and at what the next row shows; one that sees the time pass at
    `frames` in another order, and at the first one all the time.
    """
    others = data.batch([(i + 1) % len(data) for i in indices])[0]
    arms = {"exact_match_blank": torch.as_tensor(data.blank).expand(shown.shape),
            "exact_match_shuffled": torch.as_tensor(others)}
    if frames > 1:
        order = torch.arange(frames).repeat(len(indices), 1)  # (B, F)
        mixed = torch.tensor(np.stack([other_order(frames, i) for i in indices]))  # (B, F)
        orders = {"reversed": order.flip(1), "first_frame": order * 0, "shuffled_frames": mixed}
        arms |= {f"exact_match_{name}": in_order(shown, order) for name, order in orders.items()}
    return arms


@torch.no_grad()
def evaluate_captions(model, data, encoding, config, device, blind=False):
    """(measures, captions) of the first rows of `data`: the loss a token and the share of exact captions.

    With `blind`, also these shares for what `blind_arms` shows. `data`: see `data.Captions`.
    """
    rows = range(min(config.eval_rows, len(data)))
    loss, count, captions = 0.0, 0, defaultdict(list)
    model.eval()
    for start in range(0, len(rows), config.batch_size):
        indices = rows[start:start + config.batch_size]
        pixels, tokens, targets = (torch.as_tensor(array, device=device) for array in data.batch(indices))
        loss += loss_sum(model(pixels, tokens), targets).item()
        count += (targets >= 0).sum().item()
        arms = {"exact_match": pixels} | (blind_arms(pixels, indices, data, model.frames) if blind else {})
        for arm, shown in arms.items():
            captions[arm] += model.caption(shown.to(device), encoding, max_new_tokens=data.longest)
    model.train()
    measures = {"val_loss": loss / count}
    for arm, texts in captions.items():
        measures[arm] = sum(text in data.rows[i].captions for i, text in enumerate(texts)) / len(rows)
    return measures, captions["exact_match"]


@torch.no_grad()
def score(gpt, encoding, prompts, answers, prefix=None):
    """For each answer (string) after its prompt: (log-likelihood a token, whether greedy decoding writes it).

    A prompt begins a text, and an answer follows it after a space; without one it begins the text itself.
    prefix (1, P, C): see `GPT`.
    """
    scores, device = [], gpt.wte.weight.device
    for start in range(0, len(prompts), 32):
        pairs = [tuple(map(encoding.encode_ordinary, (prompt, " " + answer if prompt else answer)))
                 for prompt, answer in zip(prompts[start:start + 32], answers[start:start + 32])]
        tokens, targets = (torch.as_tensor(array, device=device) for array in
                           pad([prompt + answer for prompt, answer in pairs], encoding.eot_token))  # (B, T)
        for row, (prompt, answer) in zip(targets, pairs):  # only the answer counts, and not how it ends
            row[:len(prompt)] = row[len(prompt) + len(answer):] = IGNORE
        seen = None if prefix is None else prefix.expand(len(pairs), -1, -1)  # (B, P, C)
        logits = gpt(tokens, seen).float()  # (B, T, V)
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, T)
        greedy = (logits.argmax(dim=2) == targets) | (targets == IGNORE)  # (B, T)
        means = -losses.sum(dim=1) / (targets != IGNORE).sum(dim=1)  # (B,)
        scores += zip(means.tolist(), greedy.all(dim=1).tolist())
    return scores


@torch.no_grad()
def evaluate_text(gpt, encoding, data, probes, config, device):
    """The loss a token of `data` (see `text.Documents`), and for each group of `probes` (see
    `text.read_probes`) the share of those whose answer greedy decoding writes.
    """
    rows, loss, count = range(min(config.eval_rows, len(data))), 0.0, 0
    gpt.eval()
    for start in range(0, len(rows), config.batch_size):
        indices = rows[start:start + config.batch_size]
        tokens, targets = (torch.as_tensor(array, device=device) for array in data.batch(indices))  # (B, T)
        loss += loss_sum(gpt(tokens), targets).item()
        count += (targets != IGNORE).sum().item()
    known = score(gpt, encoding, [probe["prompt"] for probe in probes], [probe["answer"] for probe in probes])
    gpt.train()
    groups = defaultdict(list)
    for (_, greedy), probe in zip(known, probes):
        groups[f"recall_{probe['group']}"].append(greedy)
    return {"val_loss": loss / count} | {name: sum(right) / len(right) for name, right in groups.items()}


def ranking(gpt, encoding, probes):
    """{ranking_GROUP: how often a true answer is likelier a token than one of the same relation's others}"""
    gpt.eval()
    shares = defaultdict(list)
    for probe in probes:
        head, relation, _ = probe["triple"]
        same = [(other["triple"][0], other["answer"]) for other in probes if other["triple"][1] == relation]
        true = {answer for other, answer in same if other == head}
        false = sorted({answer for _, answer in same} - true)
        if false:
            prompts = [probe["prompt"]] * (1 + len(false))
            (own, _), *others = score(gpt, encoding, prompts, [probe["answer"], *false])
            shares[probe["group"]].append(sum(own > other for other, _ in others) / len(others))
    return {f"ranking_{group}": sum(values) / len(values) for group, values in shares.items()}


@torch.no_grad()
def discriminator_accuracy(gan, triples, probes):
    """How often the discriminator scores a sentence higher beside its triple than beside a corrupted one.

    The sentences are those of the `probes`. Half of the corrupted triples have another relation, the more
    often one the more easily it is confused; for the other half see `gan.corrupt`.
    """
    rng, rows = torch.Generator().manual_seed(0), []
    for probe in probes:
        sentences = read_sentences([f"{probe['prompt']} {probe['answer']}."], triples)
        rows.append(with_slots(chain(*sentences), probe["triple"][0], probe["triple"][2]))
    sentences = gan.encode(rows)  # (B, L)
    relations = torch.tensor([gan.relations.index(probe["triple"][1]) for probe in probes])  # (B,)
    confused = confusions(triples, gan.relations)[relations]  # (B, R)
    wrong = torch.multinomial(confused, 1, generator=rng).squeeze(1)  # (B,)
    own = gan.discriminator(relations, sentences)  # (B,)
    others = gan.discriminator(relations, corrupt(sentences, rng)), gan.discriminator(wrong, sentences)
    return sum((own > other).float().mean().item() for other in others) / 2


def judge(config, gan, written, triples, probes, parse):
    """What can be told of the synthetic sentences, `written` [(triple, text)], and of the `gan`, if any.

    By `parse` (see `story.make_parser`): "faithfulness", the share of sentences that state their triple, and
    "distinct_wordings", how many wordings these have. By the `probes`: "discriminator_accuracy".
    """
    measures = {}
    if parse and written:
        right = [(triple, text) for triple, text in written if parse(text) == triple]
        wordings = {(r, text.replace(head, "").replace(tail, "")) for (head, r, tail), text in right}
        measures = {"faithfulness": len(right) / len(written), "distinct_wordings": len(wordings)}
    if config.synthetic == "gan" and len(gan.relations) > 1:
        asked = [probe for probe in probes
                 if probe["group"] != "neither" and probe["triple"][1] in gan.relations]
        if asked:
            measures["discriminator_accuracy"] = discriminator_accuracy(gan, triples, asked)
    return measures
