"""Shapes in comments and docstrings as claims: `Checker` reads them, `tracing` checks them while the code runs.

A trailing comment `# (B, T, C)` speaks of the tensors that its statement assigns or returns, `# (B, T), (R,)` of the
first and of the second. A docstring speaks of a parameter in `tokens (B, T)` and of what is returned behind `->`. The
letters are those that the file's docstring explains. A name that is a whole number where the line runs has that value;
a letter is bound by the first line that needs it, until that line runs again; everything else must agree.
"""

import ast
import inspect
import io
import re
import sys
import threading
import tokenize
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

TENSOR = (torch.Tensor, np.ndarray)
SHAPE = r"\([^()]*,[^()]*\)"
SIMPLE = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)


def dimensions(text):
    """The dimensions in a text like "(B, P + T, 3)", or None if it is no shape."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    allowed = (ast.Tuple, ast.Name, ast.Constant, ast.BinOp, ast.operator, ast.expr_context)
    if not isinstance(tree, ast.Tuple) or not all(isinstance(node, allowed) for node in ast.walk(tree)):
        return None
    return [ast.unparse(dimension) for dimension in tree.elts]


@lru_cache(maxsize=None)
def names(dimension):
    """The names in a dimension."""
    return frozenset(node.id for node in ast.walk(ast.parse(dimension)) if isinstance(node, ast.Name))


@lru_cache(maxsize=None)
def code(dimension):
    """A dimension, to be evaluated."""
    return compile(dimension, "a comment", "eval")


def solve(dimension, size, known):
    """{the one name of `dimension` that is not known: its value}, if only one value gives `size`."""
    unknown = names(dimension) - set(known)
    if len(unknown) != 1:
        return {}
    name, = unknown
    found = [n for n in range(16 * size + 17) if eval(code(dimension), {}, {**known, name: n}) == size]
    return {name: found[0]} if len(found) == 1 else {}


def agree(claim, shape, known):
    """Whether a tensor of `shape` is what the `claim` (dimensions) says where `known` is: {name: value}, newly bound.

    None if it is not, and "open" among the names if something could not be told.
    """
    if claim[0] == "...":
        claim, shape = claim[1:], shape[len(shape) - len(claim) + 1:]
    if len(claim) != len(shape):
        return None
    bound, left = {}, [pair for pair in zip(claim, shape)]
    while left:
        waiting = []
        for dimension, size in left:
            values = known | bound
            if names(dimension) <= set(values):
                if eval(code(dimension), {}, values) != size:
                    return None
            elif found := solve(dimension, size, values):
                bound |= found
            else:
                waiting.append((dimension, size))
        if len(waiting) == len(left):
            return bound | {"open": True}
        left = waiting
    return bound


class Checker:
    """The claims of one source file, which ones were reached, and which ones were wrong."""

    def __init__(self, name, source, strict=False):
        self.name, self.strict, self.wrong, self.reached = name, strict, {}, set()
        tree = ast.parse(source)
        letters = re.search(r"Letters?: (.*?)(?:\n\n|$)", ast.get_docstring(tree) or "", re.DOTALL)
        words = re.split(r",|\band\b|\bor\b|\(|\)", letters[1] if letters else "")
        self.letters = {word.split()[0] for word in words if word.split()}
        self.statements, self.functions, self.comments = {}, {}, {}
        for node in ast.walk(tree):
            if isinstance(node, SIMPLE):
                self.statements |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), node)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            found = re.match(rf"# (?:.*; )?({SHAPE}(, {SHAPE})*)", token.string) if token.type == tokenize.COMMENT else None
            claims = [dimensions(text) for text in re.findall(SHAPE, found[1])] if found else [None]
            if None not in claims and token.line[:token.start[1]].strip():
                self.comments[token.start[0]] = claims
        self.claims = {id(self.statements[line]): (line, claims) for line, claims in self.comments.items()
                       if line in self.statements}
        for node in ast.walk(tree):  # that have anything to be checked
            if isinstance(node, ast.FunctionDef):
                told = re.findall(SHAPE, ast.get_docstring(node) or "") + (["(1, 1)"] if node.name == "forward" else [])
                if any(map(dimensions, told)) or set(self.comments) & set(range(node.lineno, node.end_lineno + 1)):
                    self.functions[node.name, min([node.lineno] + [d.lineno for d in node.decorator_list])] = node
        self.unread = set(self.comments) - {line for line, _ in self.claims.values()}

    def fail(self, line, claim, truth):
        """Note that what stands in `line` is not so."""
        self.wrong.setdefault(line, f"{self.name}:{line}: says {claim}, is {truth}")

    def check(self, line, claim, tensor, call):
        """Hold a `claim` against a tensor."""
        told = f"({', '.join(claim)}{',' if len(claim) == 1 else ''})"
        known = call.known({name for dimension in claim for name in names(dimension)})
        strange = {name for dimension in claim if dimension != "..." for name in names(dimension)} - set(known) - self.letters
        if strange:
            return self.fail(line, told, f"{', '.join(sorted(strange))}: a letter that the file's docstring does not explain")
        for name in [name for name, owner in call.owners.items() if owner == line]:
            known.pop(name, None) if call.number(name) is None else None
        found = agree(claim, tuple(tensor.shape), known)
        if found is None:
            values = ", ".join(f"{name} = {value}" for name, value in known.items())
            return self.fail(line, told, f"{tuple(tensor.shape)}" + (f" ({values})" if values else ""))
        if found.pop("open", False):
            return call.later.append((line, claim, tensor))
        call.letters |= found
        call.owners |= dict.fromkeys(found, line)
        self.reached.add(line)

    def assigned(self, node, call):
        """The tensors that the statement `node` has assigned, and the places where no tensor is, as None."""
        values = []
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                value = None
                if isinstance(part, ast.Name) and part.id != "_":
                    value = call.frame.f_locals.get(part.id)
                elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                    value = getattr(call.frame.f_locals.get(part.value.id), part.attr, None)
                values.append(value if isinstance(value, TENSOR) else None)
        return values

    def executed(self, call, value=None):
        """Check what stands beside the statement that the `call` has executed; a `return` has the `value`."""
        node, call.statement = call.statement, None
        if not isinstance(node, (ast.Assign, ast.AugAssign, ast.Return)):
            return
        tensors = [value if isinstance(value, TENSOR) else None] if isinstance(node, ast.Return) else self.assigned(node, call)
        if id(node) in self.claims:
            line, claims = self.claims[id(node)]
            tensors = [tensor for tensor in tensors if tensor is not None]
            if len(claims) > 1 and tensors and len(tensors) != len(claims):
                return self.fail(line, f"{len(claims)} shapes", f"{len(tensors)} tensors")
            for claim, tensor in zip(claims if len(claims) > 1 else claims * len(tensors), tensors):
                self.check(line, claim, tensor, call)
        elif self.strict and isinstance(node, ast.Assign) and call.node.name != "from_checkpoint":
            for name, shape in call.shapes().items():
                if shape and call.before.get(name) != shape:
                    self.fail(node.lineno, "nothing", f"{name} {shape}: a line that changes a shape needs a comment")

    def begun(self, call):
        """Check the parameters of a function by its docstring."""
        text = " ".join((ast.get_docstring(call.node) or "").split())
        parameters = [argument.arg for argument in call.node.args.args]
        bare = next((p for p in parameters if isinstance(call.frame.f_locals.get(p), TENSOR)), None)
        for parameter in parameters:
            tensor = call.frame.f_locals.get(parameter)
            place = re.search(rf"\b{parameter}`? (?={SHAPE})", text)
            start = place.end() if place else 0 if parameter == bare and text.startswith("(") else None
            if start is not None and isinstance(tensor, TENSOR):
                told = re.match(rf"{SHAPE}(?: or {SHAPE})*", text[start:])
                self.hold(call, told[0] if told else "", [tensor], f"{call.node.name}: {parameter}")

    def hold(self, call, text, tensors, what):
        """Check that one of the shapes in `text`, if there are any, is that of one of the `tensors`."""
        claims = [claim for told in re.findall(SHAPE, text) if (claim := dimensions(told))]
        claims = [claim for claim in claims if all(name in self.letters or call.number(name) is not None
                                                   for d in claim if d != "..." for name in names(d))]
        if not claims or not tensors:
            return
        for claim in claims:
            for tensor in tensors:
                found = agree(claim, tuple(tensor.shape), call.known({n for d in claim for n in names(d)}))
                if found is not None:
                    found.pop("open", None)
                    call.letters |= found
                    return
        self.fail(call.node.lineno, f"in its docstring {text[:60]!r}", f"{what} {[tuple(t.shape) for t in tensors]}, {call.letters}")

    def ended(self, call, value):
        """Check what a function returns by its docstring, and what could not be told before."""
        _, arrow, text = " ".join((ast.get_docstring(call.node) or "").split()).partition("->")
        values = value if isinstance(value, (tuple, list)) else [value]
        if arrow:
            self.hold(call, text, [value for value in values if isinstance(value, TENSOR)], f"{call.node.name} returns")
        for line, claim, tensor in call.later:
            known = call.known({name for dimension in claim for name in names(dimension)})
            found = agree(claim, tuple(tensor.shape), known)
            if found is None or "open" in found:
                self.fail(line, f"({', '.join(claim)})", f"{tuple(tensor.shape)}, {known}")
            else:
                self.reached.add(line)


class Call:
    """A call of a function, while it is traced: its letters, who bound them, and the statement at work."""

    def __init__(self, checker, frame):
        self.checker, self.frame = checker, frame
        self.node = checker.functions[frame.f_code.co_name, frame.f_code.co_firstlineno]
        self.letters, self.owners, self.later = {}, {}, []
        self.statement, self.before = None, {}

    def number(self, name):
        """The whole number of that name among the locals and the constants of the module, or None."""
        value = self.frame.f_locals.get(name, self.frame.f_globals.get(name))
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def known(self, wanted):
        """{name: value} of those of the `wanted` names that have one."""
        values = {name: self.number(name) for name in wanted}
        return {name: self.letters.get(name) if value is None else value for name, value in values.items()
                if value is not None or name in self.letters}

    def shapes(self):
        """{name: shape} of the local tensors."""
        return {name: tuple(value.shape) for name, value in self.frame.f_locals.items() if isinstance(value, TENSOR)}

    def event(self, event, argument):
        """What Python tells of it: that a line begins, that something was raised or that it returns."""
        statement = self.checker.statements.get(self.frame.f_lineno)
        if event == "exception":
            self.statement = None
        elif event == "return":
            self.checker.executed(self, argument)
            if argument is not None and not generates(self.frame):
                self.checker.ended(self, argument)
        elif statement is None or statement is not self.statement:
            self.checker.executed(self)
            self.statement, self.before = statement, self.shapes()


def generates(frame):
    """Whether it is that of a generator, which returns more than once."""
    return frame.f_code.co_flags & inspect.CO_GENERATOR


@contextmanager
def tracing(checkers):
    """While this lasts, all functions of the files in `checkers`, {path: [Checker, ...]}, are checked."""
    calls, before = {}, sys.gettrace()

    def local(frame, event, argument):
        """Called by Python for each line of a traced function."""
        for call in calls[frame]:
            call.event(event, argument)
        if event == "return" and not generates(frame):
            del calls[frame]
        return local

    def begin(frame, event, argument):
        """Called by Python for each new frame."""
        own, code = checkers.get(frame.f_code.co_filename), frame.f_code
        if not own or (code.co_name, code.co_firstlineno) not in own[0].functions:
            return None
        if frame not in calls:
            calls[frame] = [Call(checker, frame) for checker in own]
            for call in calls[frame]:
                call.checker.begun(call)
        return local

    threading.settrace(begin)
    sys.settrace(begin)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before)
