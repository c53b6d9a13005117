"""What import-linter cannot say: values are plain Python, and every room has its place in the layers."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def test_core_imports_the_standard_library_only(root: Path) -> None:
    strangers = {
        f"{path.name}: {name}"
        for path in (root / "src/outthink/core").glob("*.py")
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("outthink.core")
    }
    assert not strangers


def test_strategies_see_the_session_and_values_only(root: Path) -> None:
    allowed = ("outthink.core.", "outthink.session.session", "outthink.strategies", "outthink.verifiers.protocol")
    plain = {"__future__", "dataclasses", "functools", "inspect", "itertools", "json", "math", "random", "re", "typing"}
    plain |= {"collections", "collections.abc", "warnings"}
    strangers = {
        f"{path.name}: {name}"
        for path in (root / "src/outthink/strategies").rglob("*.py")
        for name in imported(path)
        if name not in plain and not name.startswith(allowed)
    }
    assert not strangers


def test_imports_are_absolute(root: Path) -> None:
    relative = [
        str(path) for path in (root / "src").rglob("*.py") if any(name.startswith(".") for name in imported(path))
    ]
    assert not relative


def test_every_room_is_a_package(root: Path) -> None:
    """import-linter does not look into folders without an __init__.py."""
    package = root / "src/outthink"
    folders = {path.parent for path in package.rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_every_room_has_a_layer(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    named = {room.strip(" ()") for layer in layers for room in layer.split("|")}
    package = root / "src/outthink"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= named
