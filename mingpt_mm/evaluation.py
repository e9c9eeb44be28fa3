"""Does the model use the image, and does it know the facts? Measures on held-out data.

Letters: B batch, F frames, H and W height and width in pixels, T tokens, P prefix positions, C embedding
width, V vocabulary size.
"""

from collections import Counter, defaultdict

import torch
from torch.nn import functional as F

from mingpt_mm.data.datasets import IGNORE, collate


def ablations(pixels):
    """{name: what to show instead of `pixels` (B, F, 3, H, W)}; a model that uses the image fails on these.

    Mid-gray, and the image of the row before; for videos also other orders of the frames and the first alone.
    """
    order = torch.rand(pixels.shape[:2], generator=torch.Generator().manual_seed(0)).argsort()  # (B, F)
    images = {"_blank": torch.full_like(pixels, 128), "_shuffled": pixels.roll(1, dims=0)}
    videos = {"_reversed": pixels.flip(1), "_first_frame": pixels[:, :1].expand_as(pixels),
              "_shuffled_frames": torch.stack([video[frames] for video, frames in zip(pixels, order)])}
    return images | videos if pixels.size(1) > 1 else images


def first_batches(dataset, args, device):
    """Yield (rows, pixels, tokens, targets): batches of the first `eval_samples` rows of `dataset`."""
    for rows in torch.arange(min(args.eval_samples, len(dataset))).split(args.batch_size):
        yield rows, *(x if x is None else x.to(device) for x in collate([dataset[i, 0] for i in rows]))


def token_losses(logits, targets):
    """Cross entropy of each token (B, T), 0 where there is no target; logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")


@torch.no_grad()
def evaluate_captions(model, dataset, tokenizer, args, ablate=False):
    """(metrics, captions) on the first rows of the CaptionDataset `dataset`.

    Metrics are the mean loss of a token (val_loss) and the share of captions that are right to the last
    letter (exact_match). With `ablate` both are also measured for each of `ablations`. The model is left in
    eval mode.
    """
    model.eval()
    sums, count, captions = Counter(), 0, []
    for rows, pixels, tokens, targets in first_batches(dataset, args, model.gpt.wte.weight.device):
        count += (targets != IGNORE).sum().item()
        for name, shown in ({"": pixels} | (ablations(pixels) if ablate else {})).items():
            sums[f"val_loss{name}"] += token_losses(model(shown, tokens), targets).sum().item()
            texts = model.caption(shown, tokenizer, max_new_tokens=dataset.longest)
            sums[f"exact_match{name}"] += sum(t in dataset.rows[i].captions for i, t in zip(rows, texts))
            captions += [] if name else texts
    return {k: v / (count if "loss" in k else len(captions)) for k, v in sums.items()}, captions


@torch.no_grad()
def score_answers(gpt, tokenizer, prompts, answers, prefix=None):
    """For each answer after its prompt: (mean log-likelihood of a token, whether greedy decoding writes it).

    Prompts and answers are strings; a space is put between them. prefix (1, P, C): see `GPT.forward`.
    """
    rows, scores, device = [], [], gpt.wte.weight.device
    for prompt, answer in zip(prompts, answers):
        past = [tokenizer.eot_token, *tokenizer.encode_ordinary(prompt)]
        rows += [(None, past + tokenizer.encode_ordinary(f" {answer}" if prompt else answer), len(past) - 1)]
    for _, tokens, targets in (collate(rows[i:i + 32]) for i in range(0, len(rows), 32)):
        logits = gpt(tokens.to(device), prefix if prefix is None else prefix.repeat(len(tokens), 1, 1)).cpu()
        greedy = (logits.argmax(dim=2) == targets) | (targets == IGNORE)  # (B, T)
        means = -token_losses(logits, targets).sum(dim=1) / (targets != IGNORE).sum(dim=1)  # (B,)
        scores += zip(means.tolist(), greedy.all(dim=1).tolist())
    return scores


@torch.no_grad()
def evaluate_facts(gpt, data, tokenizer, args, ablate=False):
    """(metrics, no captions) of a text model on `data`, a TextDataset and probes.

    Metrics are the mean loss of a token (val_loss), perplexity, and for each group of probes the share of
    answers that greedy decoding writes (recall_GROUP). Nothing is ablated. The model is left in eval mode.
    """
    gpt.eval()
    (dataset, probes), sums, groups = data, Counter(), defaultdict(list)
    for _, _, tokens, targets in first_batches(dataset, args, gpt.wte.weight.device):
        sums.update(loss=token_losses(gpt(tokens), targets).sum().item(), n=(targets != IGNORE).sum().item())
    scores = score_answers(gpt, tokenizer, [p["prompt"] for p in probes], [p["answer"] for p in probes])
    for probe, (_, greedy) in zip(probes, scores):
        groups[f"recall_{probe['group']}"].append(greedy)
    loss = sums["loss"] / sums["n"]
    recall = {group: sum(right) / len(right) for group, right in groups.items()}
    return {"val_loss": loss, "perplexity": torch.tensor(min(loss, 88.0)).exp().item()} | recall, []
