"""Examples in README and docs do what they say.

A Python block behind `<!-- run -->` is executed, all of one page in one namespace, and what it prints
must equal the text block behind it. All other Python blocks must at least parse.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"(<!-- run -->\n)?```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_of_a_page(page: Path) -> None:
    space: dict[str, object] = {}
    for marked, code, expected in _BLOCK.findall(page.read_text()):
        ast.parse(code) if marked else compile(code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if not marked:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), space)
        assert printed.getvalue() == expected, f"{page.name} prints\n{printed.getvalue()}"


def test_examples_are_there() -> None:
    marked = [page for page in PAGES if "<!-- run -->" in page.read_text()]
    assert len(marked) >= 5
