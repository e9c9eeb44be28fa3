"""Shapes in comments and docstrings as claims: `Checker` reads them, `tracing` checks them while the code runs.

A trailing comment `# (B, T, C)` is about the tensors that its statement assigns or returns, `# (B, T), (R,)` about the
first and the second. In a docstring, `tokens (B, T)` is about a parameter, what follows `->` about what is returned,
and any other shape about one of these. Letters are defined in the file's docstring, after "Letters:". A local integer
of that name is its value. Otherwise the first line that needs a letter binds it, until that line runs again.
"""

import ast
import io
import re
import sys
import tokenize
from contextlib import contextmanager

import torch

SHAPE = r"\([^()]*,[^()]*\)"


def dimensions(text):
    """The dimensions in a text like "(B, P + T, 3)", or [] if it is no shape."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return []
    allowed = (ast.Tuple, ast.Name, ast.Constant, ast.BinOp, ast.operator, ast.expr_context)
    found = isinstance(tree, ast.Tuple) and all(isinstance(node, allowed) for node in ast.walk(tree))
    return [ast.unparse(part) for part in tree.elts] if found else []


def names(dimension):
    return {node.id for node in ast.walk(ast.parse(dimension)) if isinstance(node, ast.Name)}


def match(claim, shape, known):
    """`known` {letter: value} and what the `claim` adds to it for a tensor of `shape`; None if the claim is wrong."""
    for dimension, size in sorted(zip(claim, shape), key=lambda pair: len(names(pair[0]))):
        unknown = names(dimension) - known.keys()
        values = range(size + 1) if unknown else [0]
        fitting = [n for n in values if len(unknown) < 2 and eval(dimension, {}, known | dict.fromkeys(unknown, n)) == size]
        if not fitting:  # of two unknown letters one size tells neither
            return None
        known = known | dict.fromkeys(unknown, fitting[0])
    return known if len(claim) == len(shape) else None


class Checker:
    """The claims of one source file, those that were checked, and those that were `wrong` {place: message}.

    change: a function that plants an error in each claim (list of dimensions).
    """

    def __init__(self, source, change=lambda claim: claim):
        tree, self.checked, self.wrong, self.comments, self.functions = ast.parse(source), set(), {}, {}, {}
        letters = re.search(r"Letters: (.*?)(?:\n\n|$)", ast.get_docstring(tree) or "", re.DOTALL)
        self.letters = {part.split()[0] for part in re.split(r",|\band\b", letters[1])} if letters else set()
        comments = {}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            told = re.match(rf"# ({SHAPE}(, {SHAPE})*)", token.string) if token.type == tokenize.COMMENT else None
            if told and token.line[:token.start[1]].strip():
                comments[token.start[0]] = [change(dimensions(text)) for text in re.findall(SHAPE, told[1])]
        self.statements, self.claims = {}, {("comment", line) for line in comments}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)):
                for line in range(node.lineno, node.end_lineno + 1):
                    self.statements[line] = node
                    self.comments |= {node: (line, comments[line])} if line in comments else {}
            elif isinstance(node, ast.FunctionDef):
                before, _, after = " ".join((ast.get_docstring(node) or "").split()).partition("->")
                told = [(name, text) for name, text in re.findall(rf"(?:(\w+)`? )?({SHAPE})", before)]
                told += [("->", text) for text in re.findall(SHAPE, after)]
                claims = [(name, change(claim)) for name, text in told if (claim := dimensions(text))
                          and all(names(dimension) <= self.letters for dimension in claim)]
                self.functions[min([node.lineno] + [d.lineno for d in node.decorator_list])] = node, claims


class Call:
    """A running function: the letters that are bound, by which line, and the statement at work."""

    def __init__(self, checker, frame):
        self.checker, self.frame, self.letters, self.owners, self.statement = checker, frame, {}, {}, None
        self.node, self.claims = checker.functions[frame.f_code.co_firstlineno]
        self.arguments = {arg.arg: value for arg in self.node.args.args if torch.is_tensor(value := frame.f_locals[arg.arg])}
        for name, claim in self.claims:
            if name in self.arguments:
                self.check(self.node.lineno, [claim], [self.arguments[name]])

    def check(self, line, claims, tensors, kind="docstring"):
        """One of the `claims` in this `line` must hold for one of the `tensors`."""
        for name in [name for name, owner in self.owners.items() if owner == line]:
            del self.letters[name], self.owners[name]
        known = self.letters | {name: n for name, n in self.frame.f_locals.items() if type(n) is int}
        undefined = {n for claim in claims for d in claim for n in names(d)} - self.checker.letters - {*self.frame.f_locals}
        for claim in claims:
            for tensor in tensors:
                found = match(claim, tensor.shape, known)
                if found is not None and not undefined:
                    self.owners |= dict.fromkeys(found.keys() - known if kind == "comment" else (), line)
                    self.letters |= {name: found[name] for name in found.keys() - known}
                    return self.checker.checked.add((kind, line))
        self.checker.wrong[kind, line] = f"{claims}, but {[(*t.shape,) for t in tensors]}; undefined: {undefined}"

    def finish(self, value=None):
        """Check the comment of the statement that has run; a `return` gave the `value`."""
        node, self.statement = self.statement, None
        if node not in self.checker.comments:
            return
        line, claims = self.checker.comments[node]
        targets = [] if isinstance(node, ast.Return) else node.targets if isinstance(node, ast.Assign) else [node.target]
        targets = [part for target in targets for part in getattr(target, "elts", [target]) if ast.unparse(part) != "_"]
        values = [eval(ast.unparse(target), self.frame.f_globals, {**self.frame.f_locals}) for target in targets] or [value]
        tensors = [value for value in values if torch.is_tensor(value)]
        for claim, tensor in zip(claims if len(claims) > 1 else claims * len(tensors), tensors):
            self.check(line, [claim], [tensor], "comment")

    def event(self, event, argument):
        statement = self.checker.statements.get(self.frame.f_lineno)
        if event == "exception":
            self.statement = None
        elif event == "return" or statement is None or statement is not self.statement:
            self.finish(argument)
            self.statement = statement
        if event == "return" and argument is not None:
            returned = [v for v in (argument if isinstance(argument, (tuple, list)) else [argument]) if torch.is_tensor(v)]
            others = [[claim] for name, claim in self.claims if name not in (*self.frame.f_locals, "->")]
            for claims in others + [[claim for name, claim in self.claims if name == "->"]]:
                tensors = returned if claims not in others else returned + [*self.arguments.values()]
                if claims and tensors:
                    self.check(self.node.lineno, claims, tensors)


@contextmanager
def tracing(checkers):
    """While this lasts, all functions of the files in `checkers`, {path: [Checker, ...]}, are checked."""
    def start(frame, event, argument):
        own, line = checkers.get(frame.f_code.co_filename, ()), frame.f_code.co_firstlineno
        calls = [Call(checker, frame) for checker in own if line in checker.functions]

        def step(frame, event, argument):
            for call in calls:
                call.event(event, argument)
            return step
        return step if calls else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)
