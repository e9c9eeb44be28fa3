"""GPT-2 maps tokens, after an optional prefix of embeddings, to the logits of the token that follows each.

Language Models are Unsupervised Multitask Learners (Radford et al., 2019). A prefix is a sequence of vectors
of GPT-2's width, here the patches of an image. To GPT-2 they are just more positions.

The released names of GPT-2's parameters. wte: token embeddings; wpe: position embeddings; h: blocks; ln_1,
ln_2, ln_f: LayerNorms; c_attn: query, key and value; c_fc: the MLP's first layer; c_proj: output projections.

Letters: B batch, T tokens, P prefix positions, N positions with logits, C embedding width, V vocabulary size,
new generated tokens.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm.console import UserError
from mingpt_mm.model.transformer import Block, KVCache, init_weights
from mingpt_mm.model.weights import PretrainedModel


@dataclass
class GPTConfig:
    """The sizes of a GPT; the defaults are those of the released "gpt2" with 124M parameters."""

    block_size: int = 1024  # the largest number of positions, prefix and tokens together
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0  # on embeddings, attention weights and residual branches


def sample_next(logits, temperature=None, top_k=None, top_p=None, generator=None):
    """Draw the next token of each row from `logits` (B, V) -> (B, 1) int64.

    Temperature 0 is greedy decoding. The default is 0, or 1 if `top_k` or `top_p` is given. `top_k` keeps
    the k most likely tokens. `top_p` keeps the fewest tokens whose probabilities add up to p (The Curious
    Case of Neural Text Degeneration, Holtzman et al., 2020).
    """
    temperature = float(bool(top_k or top_p)) if temperature is None else temperature
    if temperature < 1e-6:  # dividing by less overflows
        return logits.argmax(dim=-1, keepdim=True)
    logits, order = torch.sort(logits / temperature, dim=-1, descending=True)  # (B, V)
    probs = F.softmax(logits[:, :top_k or None], dim=-1)
    if top_p:  # drop a token if those before it already reach p; the first one always stays
        probs[:, 1:][(probs.cumsum(dim=-1) >= top_p)[:, :-1]] = 0
    return order.gather(1, torch.multinomial(probs, 1, generator=generator))


class GPT(PretrainedModel):
    """GPT-2 with the parameter names of its released files. The LM head is `wte` again (tied weights)."""

    model_type, config_class = "gpt2", GPTConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(
            Block(config.n_embd, config.n_head, dropout=config.dropout) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.dropout = nn.Dropout(config.dropout)
        init_weights(self, config.n_embd, config.n_layer)

    def forward(self, tokens, prefix=None, cache=None, n_logits=None):
        """tokens (B, T) int64, prefix (B, P, C) -> logits (B, T, V) of the token that follows each.

        With a `cache` (see `new_cache`), prefix and tokens follow the positions that it holds. `n_logits`
        asks for the last N positions only, (B, N, V).
        """
        x = self.wte(tokens)  # (B, T, C)
        if prefix is not None:
            x = torch.cat([prefix, x], dim=1)  # (B, P + T, C)
        start = cache[0].length if cache else 0
        end = start + x.size(1)
        if end > self.config.block_size:
            raise UserError(f"{end} positions are {end - self.config.block_size} over the block size")
        x = self.dropout(x + self.wpe.weight[start:end])
        for i, block in enumerate(self.h):
            x = block(x, cache[i] if cache else None)  # (B, P + T, C)
        N = n_logits or tokens.size(1)  # the LM head is expensive; skip the prefix, which has no targets
        x = self.ln_f(x[:, x.size(1) - N:])  # (B, N, C)
        return F.linear(x, self.wte.weight)  # (B, N, V)

    def new_cache(self, size):
        """An empty key-value cache for `size` positions: a KVCache for each layer."""
        return [KVCache(size) for _ in self.h]

    @torch.no_grad()
    def stream(self, tokens, cache, prefix=None, **sampling):
        """Continue `tokens` (B, T): yield (B, 1), the next token of each row. A full block raises UserError.

        A token enters the `cache` when the one after it is asked for. `sampling`: see `sample_next`.
        """
        while True:
            logits = self(tokens, prefix, cache, n_logits=1)[:, -1]  # (B, V)
            tokens, prefix = sample_next(logits, **sampling), None  # (B, 1); the prefix is in the cache now
            yield tokens

    def generate(self, tokens, max_new_tokens, prefix=None, eos_token_id=None, **sampling):
        """Continue `tokens` (B, T) -> (B, T + new) with new <= `max_new_tokens`.

        A row that drew `eos_token_id` repeats it. Generation ends when all rows have drawn it, or one token
        after the block is full. `sampling`: see `sample_next`. Call `eval()` first.
        """
        start = tokens.size(1) + (0 if prefix is None else prefix.size(1))
        room = min(max_new_tokens, max(1, self.config.block_size - start + 1))
        cache, done = self.new_cache(start + room), torch.zeros_like(tokens[:, :1]).bool()  # (B, 1)
        for _, new in zip(range(room), self.stream(tokens, cache, prefix, **sampling)):
            if eos_token_id is not None:
                new = new.masked_fill(done, eos_token_id)  # (B, 1)
                done = done | (new == eos_token_id)  # (B, 1)
            tokens = torch.cat([tokens, new], dim=1)
            if done.all():
                break
        return tokens

    def complete(self, tokenizer, prompt="", prefix=None, max_new_tokens=100, **sampling):
        """`prefix` (B, P, C) -> B strings that start with `prompt`, without its trailing space.

        As in training, a text starts after an end-of-text token. It ends at the next one, after
        `max_new_tokens` or at the block size. Call `eval()` first.
        """
        eot, B = tokenizer.eot_token, 1 if prefix is None else prefix.size(0)
        start = [[eot, *tokenizer.encode_ordinary(prompt.rstrip())]]
        tokens = torch.tensor(start * B, device=self.wte.weight.device)  # (B, T)
        tokens = self.generate(tokens, max_new_tokens, prefix, eot, **sampling)  # (B, T + new)
        return [tokenizer.decode([token for token in row[1:] if token < eot]) for row in tokens.tolist()]
