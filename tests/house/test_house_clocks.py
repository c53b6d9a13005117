"""Tests wait for events and not for seconds, so that a busy machine makes them slow and never red.

Knows the names of clocks and of waits. In files marked `timing` and in the doubles below, which delay in their own
time because the delay is the script, they are allowed. Processor time is no clock: other work does not stretch it. Text
that another process runs is not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
CLOCKS = {"sleep", "monotonic", "perf_counter", "timeout", "wait_for"}
DOUBLES = {"chat_server.py", "judges.py", "waiting.py"}
PATIENT = 30
"""Seconds from which on a limit only ends what hangs."""


def _waits_for_an_event(call: ast.Call, name: str) -> bool:
    """Whether a call gives way for a turn, or has a limit that nobody meets by being slow."""
    if not call.args:
        return True  # a browser's wait_for(), which has a limit of its own
    first, last = call.args[0], call.args[-1]
    if name == "sleep":
        return isinstance(first, ast.Constant) and first.value == 0
    if name in ("timeout", "wait_for"):
        return not isinstance(last, ast.Constant) or last.value >= PATIENT
    return False


def looks_at_clocks(source: str) -> Iterator[str]:
    """Line and text of every call that waits for seconds or reads a clock."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            waits = name in ("sleep", "timeout", "wait_for") and _waits_for_an_event(node, name)
            if name in CLOCKS and not waits:
                yield f"{node.lineno}: {lines[node.lineno - 1].strip()}"


def _checked() -> list[Path]:
    tests = [path for path in TESTS.rglob("*.py") if path.name.startswith(("test_", "conftest"))]
    files = [*tests, *(TESTS / "support").glob("*.py")]
    return sorted(path for path in files if path.name not in DOUBLES)


def test_no_test_waits_for_seconds_or_judges_by_a_clock() -> None:
    result = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in _checked()
        if "pytest.mark.timing" not in (source := path.read_text())
        for line in looks_at_clocks(source)
    ]
    assert not result, "wait with support.waiting, or move the test into a file marked timing:\n" + "\n".join(result)


def test_clocks_are_seen() -> None:
    kept = "await sleep(0)\nasyncio.timeout(60)\nbutton.wait_for()\n"
    refused = "time.sleep(1)\ntime.monotonic()\nasyncio.timeout(2)\nawait wait_for(it, 5)\n"
    assert list(looks_at_clocks(kept)) == []
    assert len(list(looks_at_clocks(refused))) == 4
