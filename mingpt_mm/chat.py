"""A dialogue that stays in the key-value cache: a turn costs its own tokens, not those of all before.

Letters: T tokens that are new, P prefix, C width.
"""

import codecs
from itertools import chain, islice

import torch

from mingpt_mm import BadInput


class Chat:
    """A dialogue with `gpt`, after the `prefix` (1, P, C) of a picture, if any: a text as any other.

    It begins with an end-of-text token, and its turns stand on lines of their own.
    """

    def __init__(self, gpt, encoding, prefix=None):
        self.gpt, self.encoding, self.prefix = gpt, encoding, prefix
        self.positions = 0 if prefix is None else prefix.size(1)
        self.turns, self.cache = [], gpt.new_cache(gpt.config.block_size)
        self.newline = encoding.encode_ordinary("\n")

    @property
    def tokens(self):
        """The tokens of the whole dialogue."""
        between = chain(*(self.newline + turn for turn in self.turns[1:]))
        return [self.encoding.eot_token, *chain(*self.turns[:1]), *between]

    @property
    def room(self):
        """How many more tokens fit into the context."""
        return self.gpt.config.block_size - self.positions - len(self.tokens)

    def say(self, text, max_new_tokens):
        """Begin a turn with `text`; return how many of the oldest turns are dropped so that an answer fits.

        An answer to a sentence stands on the next line; a text that is left open is gone on with.
        """
        text, before = text.strip(), len(self.turns)
        turn = self.encoding.encode_ordinary(text + "\n" * text.endswith((".", "!", "?")))
        over = self.positions + 2 + len(turn) - self.gpt.config.block_size
        if over > 0:
            raise BadInput(f"this line is {over} tokens too long for the context: say it shorter")
        self.turns.append(turn)
        wanted = min(max_new_tokens, self.gpt.config.block_size // 4)
        while self.room < wanted and len(self.turns) > 1:
            del self.turns[0]  # what follows gets other positions, so its keys and values are made anew
            self.cache = self.gpt.new_cache(self.gpt.config.block_size)
        return before + 1 - len(self.turns)

    def answer(self, max_new_tokens, **sampling):
        """Yield the model's answer as it comes, in strings; `sampling`: see `sample_next`.

        It ends with its line, or with the text, or after `max_new_tokens`.
        """
        done = max(0, self.cache[0].length - self.positions)
        tokens = torch.tensor([self.tokens[done:]], device=self.gpt.wte.weight.device)  # (1, T)
        prefix = None if self.cache[0].length else self.prefix
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may have several tokens
        stream, written = self.gpt.stream(tokens, self.cache, prefix, **sampling), False
        for new in islice(stream, min(max_new_tokens, self.room)):
            if new.item() == self.encoding.eot_token:
                return
            piece = self.encoding.decode_single_token_bytes(new.item())
            if b"\n" in piece and written:
                return
            self.turns[-1].append(new.item())
            written = written or bool(piece.strip())  # empty lines in front of an answer do not end it
            if written:
                yield decoder.decode(piece)
