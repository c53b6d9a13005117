"""No way in which the parent can end leaves a server behind, with eight requests in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from embedded_files import needs_model

from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call
from support.waiting import eventually, until

pytestmark = [pytest.mark.faults, pytest.mark.embedded, needs_model]
PARENT = Path(__file__).with_name("embedded_parent.py")
LONG = Call((Message("user", "Tell a long story."),), Sampling(max_tokens=900))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


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
        parent.wait()
        until(lambda: not runs(child), f"the end of server {child}, whose parent is gone,")
        parent.stdout.close()
    assert parent.returncode == {"exit": 0, "exception": 1}.get(how, -(number or 0))


def test_aclose_ends_it() -> None:
    async def main() -> int:
        engine = EmbeddedEngine()
        await engine.prepare(LONG)
        assert engine.pid is not None
        pid = engine.pid
        await engine.aclose()
        return pid

    assert not runs(asyncio.run(main()))


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
    before = set(children())

    async def main() -> None:
        starting = asyncio.create_task(EmbeddedEngine().prepare(LONG))
        await eventually(lambda: set(children()) - before)
        starting.cancel()
        await starting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert set(children()) <= before


def children() -> list[str]:
    command = ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="]  # -ww: whole lines, whatever COLUMNS says
    listed = subprocess.run(command, capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "server.py" in line]


def test_forgotten_engine_is_collected() -> None:
    async def main() -> int | None:
        engine = EmbeddedEngine()
        await engine.prepare(LONG)
        return engine.pid

    pid = asyncio.run(main())
    assert pid is not None
    until(lambda: not runs(pid))
