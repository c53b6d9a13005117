"""No way in which the parent can end leaves a server behind, with eight requests in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from embedded_files import needs_model

from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call

pytestmark = [pytest.mark.embedded, needs_model]
PARENT = Path(__file__).with_name("embedded_parent.py")
LONG = Call((Message("user", "Tell a long story."),), Sampling(max_tokens=900))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pid: int, within: float) -> bool:
    end = time.monotonic() + within
    while runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not runs(pid)


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("exit", None),
        ("exception", None),
        ("wait", signal.SIGTERM),
        ("wait", signal.SIGKILL),
        ("thread", signal.SIGKILL),
        ("fork", signal.SIGKILL),
    ],
)
def test_server_ends_with_its_parent(how: str, number: int | None) -> None:
    parent = subprocess.Popen(
        [sys.executable, str(PARENT), how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert child
        if how == "fork":
            assert parent.stdout.readline() == "forked\n"
        if number is not None:
            assert runs(child)
            parent.send_signal(number)
        parent.wait(20)
        assert gone(child, 3), f"server {child} outlived its parent"
        parent.stdout.close()
    assert parent.returncode == {"exit": 0, "exception": 1}.get(how, -(number or 0))


def test_aclose_ends_it_within_a_second() -> None:
    async def main() -> tuple[int, float]:
        engine = EmbeddedEngine()
        await engine.prepare(LONG)
        assert engine.pid is not None
        pid, began = engine.pid, time.monotonic()
        await engine.aclose()
        return pid, time.monotonic() - began

    pid, seconds = asyncio.run(main())
    assert not runs(pid)
    assert seconds < 1


def test_cancelled_run_ends_it() -> None:
    pids: list[int] = []

    async def main() -> None:
        engine = EmbeddedEngine()
        try:
            async for _ in engine.generate(LONG):
                assert engine.pid is not None
                pids.append(engine.pid)
                raise asyncio.CancelledError
        finally:
            await engine.aclose()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert not runs(pids[0])


def test_cancelled_while_it_starts() -> None:
    async def main() -> None:
        engine = EmbeddedEngine()
        async with asyncio.timeout(0.15):
            await engine.prepare(LONG)

    before = set(children())
    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert set(children()) <= before


def children() -> list[str]:
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "server.py" in line]


def test_forgotten_engine_is_collected() -> None:
    async def main() -> int | None:
        engine = EmbeddedEngine()
        await engine.prepare(LONG)
        return engine.pid

    pid = asyncio.run(main())
    assert pid is not None
    assert gone(pid, 3)
