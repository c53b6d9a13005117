"""Sessions and runners are built in one place."""

from __future__ import annotations

import ast
from pathlib import Path

_BUILT = {"Session", "LiveRunner", "RateRunner", "StepRunner"}
_ALLOWED = {"session/open.py", "session/session.py"}  # the second builds the sessions of branches


def test_only_open_session_builds_runners_and_sessions(root: Path) -> None:
    source = root / "src/outthink"
    result = []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _BUILT:
                result += [f"{name}:{node.lineno}"] if name not in _ALLOWED else []
    assert not result


def test_the_client_without_async_is_no_second_implementation(root: Path) -> None:
    assert len((root / "src/outthink/client/sync.py").read_text().splitlines()) <= 80
