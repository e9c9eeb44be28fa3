"""Does the model use the image, and does it know the facts? Measures on held-out data.

Letters: B batch, F frames, H and W height and width in pixels, T tokens, P prefix positions, C embedding width,
V vocabulary size.
"""

import math
from collections import Counter, defaultdict
from statistics import fmean

import torch
from torch.nn import functional as F

from mingpt_mm.data.datasets import IGNORE, collate


def ablations(pixels):
    """{name: what to show instead of `pixels` (B, F, 3, H, W)}; a model that uses the image must fail at it.

    Mid-gray and the image of another row; for videos also other orders of the frames and the first one alone.
    """
    B, F_ = pixels.shape[:2]
    shown = {"_blank": torch.full_like(pixels, 128), "_shuffled": pixels.roll(1, dims=0)}
    if F_ > 1:
        order = torch.rand(B, F_, generator=torch.Generator().manual_seed(0)).argsort(dim=1)  # (B, F)
        shown |= {"_reversed": pixels.flip(1), "_first_frame": pixels[:, :1].expand_as(pixels),
                  "_shuffled_frames": pixels[torch.arange(B)[:, None], order]}
    return shown


def first_batches(dataset, args, device):
    """Yield (pixels, tokens, targets) of the first `eval_samples` rows of `dataset`, with their numbers."""
    for start in range(0, min(args.eval_samples, len(dataset)), args.batch_size):
        rows = range(start, min(start + args.batch_size, args.eval_samples, len(dataset)))
        batch = collate([dataset[i, 0] for i in rows])
        yield rows, *(tensor if tensor is None else tensor.to(device) for tensor in batch)


def token_losses(logits, targets):
    """The cross entropy (B, T) of each token; logits (B, T, V), targets (B, T); 0 where there is no target."""
    return F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")


@torch.no_grad()
def evaluate_captions(model, dataset, tokenizer, args, ablate=False):
    """(metrics, captions) on the first rows of the CaptionDataset `dataset`.

    Metrics are the loss of a token (val_loss) and the share of captions that are right to the last letter
    (exact_match); with `ablate` also both for each of `ablations`.
    """
    model.eval()
    sums, counts, captions = Counter(), Counter(), []
    for rows, pixels, tokens, targets in first_batches(dataset, args, model.gpt.wte.weight.device):
        counts += Counter(val_loss=(targets != IGNORE).sum().item(), exact_match=len(rows))
        for name, shown in ({"": pixels} | (ablations(pixels) if ablate else {})).items():
            sums[f"val_loss{name}"] += token_losses(model(shown, tokens), targets).sum().item()
            texts = model.caption(shown, tokenizer, max_new_tokens=dataset.longest)
            sums[f"exact_match{name}"] += sum(t in dataset.rows[i].captions for i, t in zip(rows, texts))
            captions += [] if name else texts
    model.train()
    return {k: v / counts["val_loss" if "loss" in k else "exact_match"] for k, v in sums.items()}, captions


@torch.no_grad()
def score_answers(gpt, tokenizer, prompts, answers, prefix=None):
    """For each answer after its prompt: (log-likelihood of a token, whether greedy decoding writes it).

    Prompts and answers are strings with a space between them. prefix (1, P, C): see `GPT.forward`.
    """
    scores, device = [], gpt.wte.weight.device
    for start in range(0, len(prompts), 32):
        rows = []
        for prompt, answer in zip(prompts[start:start + 32], answers[start:start + 32]):
            given = [tokenizer.eot_token, *tokenizer.encode_ordinary(prompt)]
            answer = tokenizer.encode_ordinary(f" {answer}" if prompt else answer)
            rows.append((None, given + answer, len(given) - 1))
        _, tokens, targets = collate(rows)
        logits = gpt(tokens.to(device), prefix if prefix is None else prefix.expand(len(rows), -1, -1)).cpu()
        greedy = (logits.argmax(dim=2) == targets) | (targets == IGNORE)  # (B, T)
        means = -token_losses(logits, targets).sum(dim=1) / (targets != IGNORE).sum(dim=1)  # (B,)
        scores += zip(means.tolist(), greedy.all(dim=1).tolist())
    return scores


@torch.no_grad()
def evaluate_facts(gpt, dataset, probes, tokenizer, args):
    """Metrics of a text model: the loss of a token of the TextDataset `dataset`, its perplexity, and for each
    group of `probes` the share of answers that greedy decoding writes (recall_GROUP).
    """
    gpt.eval()
    loss, count, groups = 0.0, 0, defaultdict(list)
    for _, _, tokens, targets in first_batches(dataset, args, gpt.wte.weight.device):
        loss += token_losses(gpt(tokens), targets).sum().item()
        count += (targets != IGNORE).sum().item()
    scores = score_answers(gpt, tokenizer, *([probe[key] for probe in probes] for key in ("prompt", "answer")))
    for probe, (_, greedy) in zip(probes, scores):
        groups[f"recall_{probe['group']}"].append(greedy)
    gpt.train()
    recall = {name: fmean(right) for name, right in groups.items()}
    return {"val_loss": loss / count, "perplexity": math.exp(loss / count)} | recall
