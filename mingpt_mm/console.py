"""What a command shows its user: options, errors in one line, and the progress of long work."""

import argparse
import os
import re
import sys
import time
from math import inf

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun


class UserError(ValueError):
    """A file or an option that cannot be used; the commands print it in one line and exit with status 2."""


def fail(message):
    """Raise UserError."""
    raise UserError(message)


def parse_options(text, argv, groups):
    """({option: default}, {option: value}): what `text`, a command's help, declares, and what `argv` gives.

    A group of options has a title like "run:". Its lines are "  --name=DEFAULT", "  --name=DEFAULT|CHOICE",
    "  --name ..." for a list or "  --name" for a switch, and what it does. The default tells the type. Numbers
    are at least 0, integers at least 1 if their default is, dropout and top_p at most 1. `argv` may have
    options of `groups` only, with underscores or hyphens.
    """
    parser = argparse.ArgumentParser("", argparse.SUPPRESS, text, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error, defaults, title = fail, {}, ""
    for group, name, form in re.findall(r"^(\w+):$|^  --(\w+)( \.\.\.|=\S*)?", text, re.MULTILINE):
        title, choices = group or title, form[1:].split("|")
        if re.fullmatch(r"=[\d.]+", form):
            kind = float if "." in form else int
            how = {"type": kind, "default": kind(choices[0])}
        elif form.startswith("="):
            how = {"default": choices[0], "choices": choices if choices[1:] else None}
        else:
            how = {"nargs": "+", "default": []} if form else {"action": "store_true", "default": False}
        if name:
            defaults[name] = how["default"]
        if name and title in groups:
            parser.add_argument(f"--{name}", help=argparse.SUPPRESS, **how | {"default": argparse.SUPPRESS})
    argv = [re.sub(r"(?<=\w)-(?=[\w-]*(=|$))", "_", arg) if arg.startswith("--") else arg for arg in argv]
    given = vars(parser.parse_args(argv))
    for name, value in given.items():
        least, most = int(type(value) is int and defaults[name] > 0), 1 if name in ("dropout", "top_p") else inf
        if type(value) in (int, float) and not least <= value <= most:
            fail(f"--{name} {value}: must be at least {least} and at most {most}")
    return defaults, given


def progress(items, what, total=None):
    """Yield `items` (`total`, if they have no length); every five seconds print the time left."""
    total, start = total or len(items), time.perf_counter()
    shown = start
    for done, item in enumerate(items):
        now = time.perf_counter()
        if now - shown > 5:
            left = (now - start) / done * (total - done)
            print(f"{what}: {done:,} of {total:,}, {left:,.0f} s left", flush=True)
            shown = now
        yield item


def run_command(main):
    """Call `main()`; an error that the user can fix ends the program with one line and exit status 2."""
    for stream in filter(None, (sys.stdin, sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # escape what the console's encoding lacks
    try:
        main()
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or ["out of memory"]
        if isinstance(error, RuntimeError) and "memory" not in lines[0]:
            raise
        print("error:", lines[-1].split("UserError: ")[-1], file=sys.stderr)  # a worker sends its traceback
        sys.exit(2)
