"""The house stays small and its arrows point down. `python tests/test_house.py` prints the sizes."""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Bottom up: each room with the most code lines that it may have, and the rooms that it may import.
ROOMS = {
    "system": (85, []),
    "linear": (25, []),
    "transformer": (70, ["linear"]),
    "pretrained": (185, ["system"]),
    "gpt": (115, ["linear", "transformer", "pretrained"]),
    "vit": (80, ["transformer", "pretrained"]),
    "multimodal": (60, ["transformer", "gpt", "vit"]),
    "alignment": (50, []),
    "gan": (150, ["alignment"]),
    "tokenizer": (50, []),
    "text": (115, ["system", "tokenizer"]),
    "images": (60, []),
    "data": (125, ["system", "text", "images"]),
    "castle": (140, []),
    "story": (90, ["castle"]),
    "run": (190, ["system"]),
    "log": (70, ["system", "run"]),
    "draw": (95, ["system", "text"]),
    "evaluate": (115, ["text", "multimodal", "alignment", "gan"]),
    "explain": (54, ["draw"]),
    "chat": (45, []),
    "prepare": (180, ["alignment", "castle", "data", "draw", "gan", "gpt", "linear", "multimodal", "run", "story",
                      "text", "tokenizer", "vit"]),
}
INTERNALS, ALL = 470, 2455
PACKAGES = {"torch", "numpy", "tiktoken", "PIL", "mingpt_mm"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
          tokenize.ENDMARKER}


def documented(tree):
    """The module, classes and functions in `tree`, each with whether a docstring stands in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [(node, ast.get_docstring(node)) for node in ast.walk(tree) if isinstance(node, kinds)]


def code_lines(source):
    """The numbers of the lines of `source` that hold code: no blanks, no comments, no docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in LAYOUT for n in range(t.start[0], t.end[0] + 1)}
    for node, text in documented(ast.parse(source)):
        if text:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def sources():
    """{name: source} of all that counts."""
    paths = [*sorted((ROOT / "mingpt_mm").glob("*.py")), ROOT / "train.py", ROOT / "sample.py"]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


SIZES = {name: len(code_lines(source)) for name, source in sources().items()}


def test_code_lines_are_counted_as_a_reader_would():
    source = '"""Doc."""\n\n# comment\nx = [1,\n     2]  # two\n\n\ndef f():\n    """Doc\n    of f."""\n    return x'
    assert code_lines(source) == {4, 5, 8, 11}


def test_every_room_keeps_its_size():
    for name, (most, _) in ROOMS.items():
        assert SIZES[f"mingpt_mm/{name}.py"] <= most, name
    assert SIZES["train.py"] <= 195 and SIZES["sample.py"] <= 176
    rooms = {f"mingpt_mm/{room}.py" for room in ROOMS}
    assert set(SIZES) == rooms | {"mingpt_mm/__init__.py", "train.py", "sample.py"}


def test_the_house_keeps_its_size():
    internals = ("transformer", "gpt", "vit", "multimodal", "gan")
    assert sum(SIZES[f"mingpt_mm/{name}.py"] for name in internals) < INTERNALS and sum(SIZES.values()) < ALL


def test_the_readme_tells_the_sizes_as_they_are():
    table = dict(re.findall(r"^\| `(\S+\.py)` \| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == {name: str(size) for name, size in SIZES.items() if "__init__" not in name}


def test_functions_fit_one_screen_and_lines_the_page():
    for name, source in sources().items():
        lines = code_lines(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                most = 60 if name == "train.py" else 40
                assert len(lines & set(range(node.lineno, node.end_lineno + 1))) <= most, (name, node.name)
        assert all(len(line) <= 110 for line in source.splitlines()), name


def test_imports_point_down_and_bring_no_further_package():
    for name, source in sources().items():
        room = Path(name).stem
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module] + [f"{node.module}.{name}" for name in modules if f"mingpt_mm/{name}.py" in SIZES]
            for module in modules:
                package, _, part = module.partition(".")
                assert package in PACKAGES or package in sys.stdlib_module_names, (name, module)
                if package == "mingpt_mm" and part and room in ROOMS:
                    assert part in ROOMS[room][1], (name, module)


def test_everything_public_has_a_docstring():
    for name, source in sources().items():
        for node, text in documented(ast.parse(source)):
            if not getattr(node, "name", "").startswith("_"):
                assert text, (name, getattr(node, "name", "module"))


if __name__ == "__main__":
    for name, size in SIZES.items():
        print(f"{size:5d}  {name}")
    print(f"{sum(SIZES.values()):5d}  code lines in all")
