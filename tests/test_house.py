"""The code stays small, and its imports keep their directions."""

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE, ALL = 540, 1380  # code lines, at most
PACKAGES = {"torch", "numpy", "tiktoken", "PIL", "mingpt_mm"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
MAY_IMPORT = {  # what files may import of mingpt_mm, beside console
    "model": {"model"}, "graph": {"graph"}, "data": {"data"}, "console": set(), "evaluation": {"data"},
    "plots": {"data"}, "training": {"model", "data"}}


def code_lines(source):
    """The numbers of the lines of `source` that hold code: no blanks, no comments, no docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in LAYOUT for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def sources(*patterns):
    """{path relative to the root: source}"""
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
            for pattern in patterns for path in sorted(ROOT.glob(pattern))}


PRODUCT = sources("mingpt_mm/**/*.py", "train.py", "sample.py")
SIZES = {name: len(code_lines(source)) for name, source in PRODUCT.items()}


def test_code_lines_are_counted_as_a_reader_would():
    source = '"""Doc."""\n\n# comment\nx = [1,\n     2]  # two\n\n\ndef f():\n    """Doc\n    of f."""\n    return x'
    assert code_lines(source) == {4, 5, 8, 11}


def test_the_core_and_the_whole_keep_their_sizes():
    """The core is model/ without weights.py, graph/ and the training loops."""
    core = sum(size for name, size in SIZES.items()
               if name.startswith(("mingpt_mm/model/", "mingpt_mm/graph/")) and "weights" not in name)
    for node in ast.parse(PRODUCT["train.py"]).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("train_"):
            core += len(code_lines(PRODUCT["train.py"]) & set(range(node.lineno, node.end_lineno + 1)))
    assert core <= CORE and sum(SIZES.values()) <= ALL and f"**{core}** lines" in (ROOT / "README.md").read_text()


def test_tests_and_benches_are_at_most_twice_the_product():
    assert sum(len(code_lines(source)) for source in sources("tests/**/*.py").values()) <= 2 * sum(SIZES.values())


def test_lines_are_short_and_hold_one_statement_without_nested_conditions():
    for name, source in PRODUCT.items():
        assert max(map(len, source.splitlines()), default=0) <= 110, name
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        assert not [t.start for t in tokens if t.type == tokenize.OP and t.string == ";"], name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.IfExp):
                assert sum(isinstance(inner, ast.IfExp) for inner in ast.walk(node)) == 1, (name, node.lineno)


def test_imports_keep_their_directions_and_bring_no_further_package():
    for name, source in PRODUCT.items():
        place = name.removesuffix(".py").partition("/")[2].partition("/")[0]
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        for module in [getattr(node, "module", None) or alias.name for node in nodes for alias in node.names]:
            package, part, *_ = (*module.split("."), "")
            assert package in PACKAGES or package in sys.stdlib_module_names, (name, module)
            if package == "mingpt_mm" and place in MAY_IMPORT:
                assert part in MAY_IMPORT[place] | {"console"}, (name, module)


def test_everything_public_has_a_docstring():
    for name, source in PRODUCT.items():
        tree = ast.parse(source)
        owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
        for node in [tree, *(node for owner in owners for node in owner.body)] if source.strip() else ():
            if hasattr(node, "body") and not getattr(node, "name", "_").startswith("_") or node is tree:
                assert ast.get_docstring(node), (name, node)
