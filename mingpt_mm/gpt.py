"""GPT-2: tokens, after an optional prefix of embeddings, to the logits of the token that follows each.

Language Models are Unsupervised Multitask Learners (Radford et al., 2019). To GPT-2 a prefix is just more
positions: whatever stands there as vectors of its width (here: a picture's patches) can be attended to.

Letters: B batch, T tokens, P prefix, C width, V vocabulary, W vocabulary with the rows that fill it up, new
tokens that were generated.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import BadInput
from mingpt_mm.linear import multiply
from mingpt_mm.pretrained import Layout, load, write_checkpoint
from mingpt_mm.transformer import Block, KVCache, initialise


@dataclass
class GPTConfig:
    """The sizes of a GPT; the defaults are those of the released "gpt2" with 124M parameters."""

    block_size: int = 1024  # most positions, prefix and tokens together
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0  # on embeddings, attention weights and residual branches
    vocab_multiple: int = 1  # the head is rounded up to a multiple of this, and cut again: 64 is fast on GPUs


def guess_sizes(tensors):
    """The first five of GPTConfig from the shapes; a head of all released GPT-2s is 64 wide."""
    vocab_size, n_embd = tensors["wte.weight"].shape
    layers = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    return [len(tensors["wpe.weight"]), vocab_size, len(layers), 0 if n_embd % 64 else n_embd // 64, n_embd]


LAYOUT = Layout(
    prefix="transformer.",
    unused=r"^lm_head\.weight$|\.attn\.(masked_)?bias$",  # the head is `wte`, and a mask is no parameter
    fixed={"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
           "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True},
    sizes=("n_positions", "vocab_size", "n_layer", "n_head", "n_embd"),
    guess=guess_sizes,
    renamed={},
    transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),  # "Conv1D", which computes x @ W
)


def sample_next(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    """The next token of each row, (B, 1) int64, drawn from `logits` (B, V): temperature, top-k, top-p.

    Temperature 0 is greedy: the likeliest token. `top_k` keeps the k likeliest. `top_p` keeps the fewest
    tokens whose probabilities sum to p at least (The Curious Case of Neural Text Degeneration, Holtzman et
    al., 2020).
    """
    if temperature < 1e-6:  # to divide by less overflows
        return logits.argmax(dim=-1, keepdim=True)
    logits, order = torch.sort(logits / temperature, dim=-1, descending=True)  # (B, V)
    if top_k is not None:
        logits[:, top_k:] = -torch.inf
    probs = F.softmax(logits, dim=-1)  # (B, V)
    if top_p is not None:  # a token goes if those before it already reach p; so the first one always stays
        probs[:, 1:][(probs.cumsum(dim=-1) >= top_p)[:, :-1]] = 0
    return order.gather(1, torch.multinomial(probs, 1, generator=generator))


class GPT(nn.Module):
    """GPT-2, with the parameter names of its released files. Its head is `wte` again (tied weights)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(
            Block(config.n_embd, config.n_head, dropout=config.dropout) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self, config.n_embd, config.n_layer)

    def embed(self, tokens, prefix=None, start=0):
        """tokens (B, T) behind a prefix (B, P, C), at positions from `start` on -> (B, P + T, C)"""
        x = self.wte(tokens)  # (B, T, C)
        if prefix is not None:
            x = torch.cat([prefix, x], dim=1)  # (B, P + T, C)
        self.check_length(start + x.size(1))
        return self.dropout(x + self.wpe.weight[start:start + x.size(1)])

    def forward(self, tokens, prefix=None, cache=None, last=False):
        """tokens (B, T) int64, prefix (B, P, C) -> logits (B, T, V) of the token that follows each.

        With a `cache` (see `new_cache`), prefix and tokens come after the positions that it holds. With
        `last`, only the last token is answered, (B, 1, V): decoding asks for no more.
        """
        x = self.embed(tokens, prefix, cache[0].length if cache else 0)  # (B, P + T, C)
        for i, block in enumerate(self.h):
            x = block(x, cache[i] if cache else None)  # (B, P + T, C)
        asked = 1 if last else tokens.size(1)  # the head is dear, and no prediction is asked of the prefix
        x = self.ln_f(x[:, x.size(1) - asked:])  # (B, asked, C)
        head, V = self.wte.weight, self.config.vocab_size  # (V, C)
        if self.config.vocab_multiple > 1:
            head = F.pad(head, (0, 0, 0, -V % self.config.vocab_multiple))  # (W, C), zeros below
        return multiply(x, head)[..., :V]  # (B, asked, V)

    def check_length(self, positions):
        """Raise BadInput if so many `positions`, prefix and tokens together, do not fit the block size."""
        most = self.config.block_size
        if positions > most:
            raise BadInput(f"prefix and tokens take {positions} positions, {positions - most} over the block "
                           f"size of {most}: shorten one of them, or train with a larger --block_size")

    def new_cache(self, size):
        """An empty key-value cache for `size` positions."""
        self.check_length(size)
        return [KVCache(size) for _ in self.h]

    @torch.no_grad()
    def stream(self, tokens, cache, prefix=None, **sampling):
        """Continue `tokens` (B, T) without end: yield the next token of each row, (B, 1), and the next.

        A token goes into the `cache` when the one after it is asked for. `sampling`: see `sample_next`.
        """
        while True:
            logits = self(tokens, prefix, cache, last=True)[:, -1]  # (B, V)
            tokens, prefix = sample_next(logits, **sampling), None  # (B, 1); the prefix is in the cache now
            yield tokens

    def generate(self, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None, prefix=None,
                 stop=None, generator=None):
        """Continue `tokens` (B, T), T >= 1, one token at a time -> (B, T + new), new <= max_new_tokens.

        How a token is drawn: see `sample_next`; `generator` is the only source of chance. A row that has
        drawn the token `stop` goes on with `stop`; when all rows have, generation ends. Call `eval()` before.
        """
        P = 0 if prefix is None else prefix.size(1)
        cache = self.new_cache(P + tokens.size(1) + max_new_tokens)
        done = torch.zeros_like(tokens[:, :1], dtype=torch.bool)  # (B, 1)
        stream = self.stream(tokens, cache, prefix, temperature=temperature, top_k=top_k, top_p=top_p,
                             generator=generator)
        for count, new in zip(range(1, 1 + max_new_tokens), stream):
            if stop is not None:
                new = new.masked_fill(done, stop)  # (B, 1)
                done = done | (new == stop)  # (B, 1)
            tokens = torch.cat([tokens, new], dim=1)  # (B, T + count)
            if done.all():
                break
        return tokens

    def complete(self, encoding, prompt="", prefix=None, max_new_tokens=100, temperature=0.0, **sampling):
        """Texts that start with the string `prompt`, one for each row of `prefix` (B, P, C) -> B strings.

        Greedy, unless a `temperature` is given; `sampling`: see `generate`. A text stands between two
        end-of-text tokens, in training as here; it also ends where the block does, or after `max_new_tokens`.
        """
        start = [encoding.eot_token, *encoding.encode_ordinary(prompt)]
        B, P = (1, 0) if prefix is None else prefix.shape[:2]
        room = self.config.block_size - P - len(start)
        if room < 1:
            raise BadInput(f"the prompt is {1 - room} tokens too long for the context: shorten it")
        tokens = torch.tensor([start] * B, device=self.wte.weight.device)  # (B, T)
        tokens = self.generate(tokens, min(max_new_tokens, room), temperature, prefix=prefix,
                               stop=encoding.eot_token, **sampling)  # (B, T + new)
        texts = [row[1:] + [encoding.eot_token] for row in tokens.tolist()]
        return [encoding.decode(text[:text.index(encoding.eot_token)]) for text in texts]

    @classmethod
    def from_pretrained(cls, source, **options):
        """GPT-2 with the weights of `source`: "gpt2" to "gpt2-xl", "distilgpt2", a folder, or a file.

        `options`: those of GPTConfig that the weights leave open. Raises BadInput if the weights are not to
        be had, are damaged, or are another model's.
        """
        return load(source, LAYOUT, lambda sizes: cls(GPTConfig(*sizes, **options)))

    def save_pretrained(self, folder):
        """Write config.json and model.safetensors, from which `transformers` too makes this model."""
        dropouts = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), self.config.dropout)
        ends = dict.fromkeys(("bos_token_id", "eos_token_id"), self.config.vocab_size - 1)
        write_checkpoint(folder, self, LAYOUT, {"architectures": ["GPT2LMHeadModel"]} | dropouts | ends)
