"""A minimal multimodal GPT: GPT-2 and ViT from one Transformer block, joined so that the first describes what
the second sees.
"""


class BadInput(ValueError):
    """Something that the user gave cannot be used. The message says what, where, and what to do, in one line;
    the command line prints it without a traceback and exits with status 2."""
