"""What a command shows its user: options, errors in one line, and the progress of long work."""

import argparse
import os
import re
import sys
import time
import warnings

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun


class UserError(ValueError):
    """A file or an option that cannot be used; the commands print it in one line and exit with status 2."""


def fail(message):
    """Raise UserError."""
    raise UserError(message)


def parse_options(text, argv, groups):
    """({option: default}, {option: value}): what `text`, a command's help, declares, and what `argv` gives.

    A group of options has a title like "run:". Its lines are "  --name=DEFAULT", "  --name=CHOICE|CHOICE" or
    "  --name" for a switch, and what it does; " ..." makes a list. The default, or the first choice, sets the
    type.

    Numbers are at least 0; dropout and top_p are at most 1. An integer is at least 1 if its default is, but
    warm-up, GAN steps and sentences may be 0. `argv` holds options of `groups`, with underscores or hyphens.
    """
    defaults, parser = {}, argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.format_help, parser.error = lambda: text, fail
    for title, lines in re.findall(r"^([\w ]+):\n((?:  --.*\n)+)", text, re.MULTILINE):
        for name, form, more in re.findall(r"^  --(\w+)(=\S*)?( \.\.\.)?", lines, re.MULTILINE):
            first, *others = form[1:].split("|")
            default = (int, float)["." in first](first) if first[:1].isdigit() else first
            how = {"type": type(default), "choices": [first, *others] if others else None}
            how |= {"nargs": "+", "action": "extend"} if more else {}
            if not form and not more:
                default, how = False, {"action": "store_true"}
            defaults[name] = [] if more else default
            if title in groups:
                parser.add_argument(*sorted({f"--{name}", f"--{name.replace('_', '-')}"}), **how)
    for name, value in (given := vars(parser.parse_args(argv))).items():
        least = int(type(value) is int and defaults[name] > 0 and not re.match("warmup|gan_|sentences", name))
        most = 1 if name in ("dropout", "top_p") else 2**31
        if type(value) in (int, float) and not least <= value <= most:
            fail(f"--{name} {value}: must be at least {least} and at most {most}")
    return defaults, given


def progress(items, what):
    """Yield `items`; every five seconds print the time left."""
    start = shown = time.perf_counter()
    for i, item in enumerate(items):
        if time.perf_counter() > shown + 5:
            shown = time.perf_counter()
            print(f"{what}: {i:,} of {len(items):,}, {(shown - start) / i * (len(items) - i):,.0f} s left")
        yield item


def run_command(main):
    """Call `main()`; an error that the user can fix ends the program with one line and exit status 2.

    Ctrl-C ends it with one line, too.
    """
    warnings.simplefilter("ignore")  # of libraries that read files
    for stream in filter(None, (sys.stdin, sys.stdout, sys.stderr)):
        # Escape what the console's encoding lacks; show each line at once, also in a pipe.
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        main()
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        # A worker of a DataLoader sends its traceback.
        message = (str(error).split("console.UserError: ")[-1].strip() or "out of memory").splitlines()[0]
        if isinstance(error, RuntimeError) and "memory" not in message:
            raise
        argparse.ArgumentParser().exit(2, f"error: {message}\n")
    except KeyboardInterrupt:
        sys.exit("interrupted; to resume training: python train.py --resume --out FOLDER")
