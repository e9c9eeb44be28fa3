"""Shapes in comments and docstrings as claims: `Checker` reads them, `tracing` checks them while the code runs.

A trailing comment `# (B, T, C)` is about the tensors that its statement assigns or returns, `# (B, T), (R,)` about the
first and the second. In a docstring, `tokens (B, T)` is about a parameter, what follows `->` about what is returned,
and any other shape about one of these. Letters are defined in the file's docstring, after "Letters:". A local integer
of that name is its value. Otherwise the first line that needs a letter binds it, until that line runs again.
"""

import ast
import re
import sys
from contextlib import contextmanager

import torch

DIMENSION = r"\w+(?: ?(?:\+|\*\*?) ?\w+)*"
SHAPE = rf"\({DIMENSION}(?:,|(?:, {DIMENSION})+)\)"
COMMENT = rf"\S  # ({SHAPE}(?:, {SHAPE})*)"


def names(text):
    return set(re.findall(r"[A-Za-z]\w*", text))


def match(claim, shape, known):
    """`known` {letter: value} and what the `claim` adds to it for a tensor of `shape`; None if the claim is wrong."""
    for dimension, size in sorted(zip(claim, shape), key=lambda pair: len(names(pair[0]))):
        unknown = names(dimension) - known.keys()  # one size tells one letter, but not two
        fitting = [n for n in range(size + 1 if unknown else 1) if len(unknown) < 2
                   and eval(dimension, {}, known | dict.fromkeys(unknown, n)) == size]
        if not fitting:
            return None
        known = known | dict.fromkeys(unknown, fitting[0])
    return known if len(claim) == len(shape) else None


class Checker:
    """The `claims` of one source file {line: shapes}, the lines that were `checked`, and `wrong` {line: message}.

    change: a function that plants an error in each claim (list of dimensions). For docstrings the line is that of
    the function.
    """

    def __init__(self, source, change=lambda claim: claim):
        tree, self.statements, self.functions, self.checked, self.wrong = ast.parse(source), {}, {}, set(), {}
        letters = re.search(r"Letters: (.*?)(?:\n\n|$)", ast.get_docstring(tree) or "", re.DOTALL)
        self.letters = {*re.findall(r"(?:^|,|\band\b)\s*(\w+)", letters[1])} if letters else set()

        def read(text):
            return [change(re.findall(DIMENSION, shape)) for shape in re.findall(SHAPE, text)]

        lines = enumerate(source.splitlines(), 1)
        self.claims = {number: read(told[1]) for number, line in lines if (told := re.search(COMMENT, line))}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.Return)):
                self.statements |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), node)
            elif isinstance(node, ast.FunctionDef):
                before, _, after = " ".join((ast.get_docstring(node) or "").split()).partition("->")
                told = re.findall(rf"(?:(\w+)`? )?({SHAPE})", before) + [("->", t) for t in re.findall(SHAPE, after)]
                self.functions[min([node.lineno] + [d.lineno for d in node.decorator_list])] = [
                    (name if name in [arg.arg for arg in node.args.args] + ["->"] else "", *read(text))
                    for name, text in told if names(text) <= self.letters]


class Call:
    """A running function: the letters that are bound {name: (value, line)} and the statement at work."""

    def __init__(self, checker, frame):
        self.checker, self.frame, self.line, self.letters = checker, frame, frame.f_code.co_firstlineno, {}
        self.arguments = {name: value for name, value in frame.f_locals.items() if torch.is_tensor(value)}
        self.statement, self.told = None, checker.functions[self.line]
        for name, claim in self.told:
            if name in self.arguments:
                self.check(self.line, [claim], [self.arguments[name]])

    def check(self, line, claims, tensors):
        """One of the `claims` in this `line` must hold for one of the `tensors`."""
        known = {name: value for name, (value, owner) in self.letters.items() if owner != line}
        known |= {name: value for name, value in self.frame.f_locals.items() if type(value) is int}
        defined = names(str(claims)) <= self.checker.letters | {*self.frame.f_locals}
        found = [match(claim, tensor.shape, known) for claim in claims for tensor in tensors if defined]
        if found := [new for new in found if new is not None]:
            owner = line if line != self.line else None
            self.letters |= {name: (n, owner) for name, n in found[0].items() if name not in known}
            self.checker.checked.add(line)
        else:
            self.checker.wrong[line] = f"{claims}: {[(*t.shape,) for t in tensors]}; {known}, letters known: {defined}"

    def finish(self, value):
        """Check the comment of the statement that has run; a `return` gave the `value`."""
        node, self.statement = self.statement, None
        for line in self.checker.claims.keys() & range(node.lineno, node.end_lineno + 1) if node else ():
            parts = [part for target in getattr(node, "targets", ()) for part in getattr(target, "elts", [target])]
            values = [eval(name, self.frame.f_globals, {**self.frame.f_locals})
                      for part in parts if (name := ast.unparse(part)) != "_"] or [value]
            tensors, claims = [v for v in values if torch.is_tensor(v)], self.checker.claims[line]
            for claim, tensor in zip(claims if len(claims) > 1 else claims * len(tensors), tensors):
                self.check(line, [claim], [tensor])

    def event(self, event, value):
        statement = self.checker.statements.get(self.frame.f_lineno)
        if event == "exception":
            self.statement = None
        elif event == "return" or statement is None or statement is not self.statement:
            self.finish(value)
            self.statement = statement
        returned = [v for v in (value if isinstance(value, tuple) else [value]) if torch.is_tensor(v)]
        for name, tensors in (("->", returned), ("", returned + [*self.arguments.values()])):
            claims = [claim for place, claim in self.told if place == name]
            if event == "return" and value is not None and claims and tensors:
                self.check(self.line, claims, tensors)


@contextmanager
def tracing(checkers):
    """While this lasts, all functions of the files in `checkers`, {path: [Checker, ...]}, are checked."""
    def start(frame, event, value):
        own, line = checkers.get(frame.f_code.co_filename, ()), frame.f_code.co_firstlineno
        calls = [Call(checker, frame) for checker in own if line in checker.functions]

        def step(frame, event, value):
            for call in calls:
                call.event(event, value)
            return step
        return step if calls else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)
