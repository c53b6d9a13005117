"""Files, functions, folders and names stay such that a reader can hold them; measures.py has the same figures."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.measures import LONGEST_FILE, LONGEST_FUNCTION, measured

HELD = ("long_files", "long_functions", "median", "full_folders", "class_names", "headers", "circles")
FIGURES = {figure.key: figure for figure in measured(Path(__file__).parents[2] / "src")}


def sources(files: list[Path], root: Path) -> list[Path]:
    """Files of ours that hold code."""
    rooms = ("src", "tests", "docs", "benchmarks", "examples")
    kinds = {".py", ".js", ".css", ".html"}
    return [path for path in files if path.suffix in kinds and path.relative_to(root).parts[0] in rooms]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of every function; its docstring does not count."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None and body:
                lines -= (body[0].end_lineno or 0) - body[0].lineno + 1
            yield node.name, lines


def test_files(files: list[Path], root: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(files, root)}
    assert not {str(path): count for path, count in lengths.items() if count > LONGEST_FILE}


@pytest.mark.parametrize("key", HELD)
def test_the_package_keeps_its_measures(key: str) -> None:
    figure = FIGURES[key]
    assert figure.met, f"{figure.what}: {figure.value}, target {figure.target}\n" + "\n".join(figure.found)


def test_functions(files: list[Path], root: Path) -> None:
    long = [
        f"{path.relative_to(root)}: {name} has {lines} lines"
        for path in sources(files, root)
        if path.suffix == ".py"
        for name, lines in functions(path)
        if lines > LONGEST_FUNCTION
    ]
    assert not long


def test_every_module_says_what_it_knows(root: Path) -> None:
    silent = [
        str(path.relative_to(root))
        for path in (root / "src").rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_the_package_holds_nothing_but_code(files: list[Path], root: Path) -> None:
    strangers = [
        str(path.relative_to(root))
        for path in files
        if path.is_relative_to(root / "src") and path.suffix not in {".py", ".html", ".css", ".js", ".typed"}
    ]
    assert not strangers
