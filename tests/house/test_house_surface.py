"""The public surface: one list of names, the same to type checkers and at run time; docs and examples use no other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import outthink as ot
from outthink.core.former import FORMER

INNER = re.compile(r"\bfrom outthink\.[a-z]|\bimport outthink\.|`outthink\.(?!strategies\b)[a-z_]+\.[a-z_.]+")


def shown_to_type_checkers() -> set[str]:
    """The names of the block that only type checkers read."""
    (block,) = [
        node
        for node in ast.parse(Path(ot.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_every_public_name_is_there_and_shown_to_type_checkers() -> None:
    assert shown_to_type_checkers() | {"__version__"} == set(ot.__all__)
    assert set(ot._PLACES) | {"__version__", "strategies"} == set(ot.__all__)
    for name in ot.__all__:
        getattr(ot, name)
    assert dir(ot) == sorted(ot.__all__)
    with pytest.raises(AttributeError, match="no attribute 'tell'"):
        ot.tell  # noqa: B018


def test_docs_and_examples_use_public_names_only(root: Path) -> None:
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "examples").rglob("*.py")]
    inner = [
        f"{page.relative_to(root)}: {line.strip()[:100]}"
        for page in pages
        if "_build" not in page.parts
        for line in page.read_text().splitlines()
        if INNER.search(line)
    ]
    assert not inner


def test_names_that_have_moved_work_with_a_warning() -> None:
    for module, names in FORMER.items():
        for name, public in names.items():
            namespace: dict[str, object] = {}
            with pytest.warns(DeprecationWarning, match=rf"is outthink\.{public} now"):
                exec(f"from {module} import {name}", namespace)
            assert namespace[name] is getattr(ot, public)


def test_a_module_that_never_was_is_not_found() -> None:
    done = subprocess.run([sys.executable, "-c", "import outthink.nothing"], capture_output=True, text=True)
    assert "No module named 'outthink.nothing'" in done.stderr


def test_every_name_that_has_moved_is_in_the_changelog(root: Path) -> None:
    received = (root / "CHANGELOG.md").read_text()
    assert not [f"{module}.{name}" for module, names in FORMER.items() for name in names if module not in received]
