"""Hostile programs in the sandbox: none escapes, none is judged a pass, each ends within its limits."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE

from outthink.core.errors import Unsupported
from outthink.verifiers.code import CodeLimits, CodeProblem, CodeSandbox, CodeVerdict, check_all
from outthink.verifiers.code.walls import bubblewrap
from support.waiting import PATIENCE, eventually, until

PROBLEM = CodeProblem(
    "def add(a, b):\n    '''The sum.'''\n",
    "add",
    "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 2) == 1\n",
)
LIMITS = CodeLimits(cpu=1, wall=3.0, memory=2**28 + os.getpid() * 4096)  # the odd size finds our processes


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    try:
        bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))


class Host:
    """What hostile code aims at: a secret file, two listeners, a process, a folder anyone may write to."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder / "open"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.canary = self.folder / "canary"
        self.canary.write_text("secret")
        self.canary.chmod(0o666)
        self.before = self.files()
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self.tcp.getsockname()[1]
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", self.port))
        self.named = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.named.bind(str(self.folder.parent / "s"))
        self.hidden = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.hidden.bind(f"\0outthink-hostile-{self.port}")
        for listener in (self.named, self.hidden):
            listener.listen()
        for listener in (self.tcp, self.udp, self.named, self.hidden):
            listener.setblocking(False)
        self.victim = stack.enter_context(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        stack.callback(self.victim.kill)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir()}

    def aim(self, program: str) -> str:
        """The program with its targets filled in."""
        targets = {
            "port": self.port,
            "canary": self.canary,
            "folder": self.folder,
            "pid": self.victim.pid,
            "socket": self.folder.parent / "s",
        }
        for name, value in targets.items():
            program = program.replace("{" + name + "}", str(value))
        return program

    def visitors(self) -> list[str]:
        """The listeners that somebody has called."""
        result = []
        for name, listener in (("tcp", self.tcp), ("unix", self.named), ("abstract", self.hidden)):
            try:
                listener.accept()[0].close()
                result.append(name)
            except BlockingIOError:
                pass
        try:
            self.udp.recv(10)
            result.append("udp")
        except BlockingIOError:
            pass
        return result


def survivors() -> list[str]:
    """Processes of the sandboxes of this test."""
    result = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text().split("\0")
        except OSError:
            continue
        if str(LIMITS.memory) in line:
            result.append(" ".join(line))
    return result


async def _judge_all(programs: dict[str, str]) -> dict[str, CodeVerdict]:
    gate = asyncio.Semaphore(6)  # most of them wait
    sandbox = CodeSandbox(LIMITS)

    async def one(program: str) -> CodeVerdict:
        async with gate, asyncio.timeout(PATIENCE):
            return await sandbox.check(PROBLEM, program)

    verdicts = await asyncio.gather(*(one(program) for program in programs.values()))
    return dict(zip(programs, verdicts, strict=True))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        host = Host(folder, stack)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OUTTHINK_SECRET", "secret")
        # The same blows land on a host without a sandbox: else the listeners could be deaf.
        socket.create_connection(("127.0.0.1", host.port)).close()
        assert host.visitors() == ["tcp"]
        verdicts = asyncio.run(_judge_all({name: host.aim(text) for name, text in HOSTILE.items()}))
        until(lambda: not survivors())
        yield {"host": host, "verdicts": verdicts}


def test_there_are_many() -> None:
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_program_passes(name: str, outcome: dict[str, Any]) -> None:
    verdict = outcome["verdicts"][name]
    assert not verdict.passed
    assert verdict.message


def test_none_escapes(outcome: dict[str, Any]) -> None:
    host = outcome["host"]
    assert host.visitors() == []
    assert host.files() == host.before
    assert host.victim.poll() is None
    assert not Path("/escaped").exists()


def test_an_honest_program_passes_under_the_same_limits() -> None:
    assert asyncio.run(CodeSandbox(LIMITS).check(PROBLEM, "    return a + b\n")) == CodeVerdict(True)


def test_cancelling_ends_the_processes() -> None:
    async def run() -> None:
        task = asyncio.ensure_future(CodeSandbox(LIMITS).check(PROBLEM, "    while True: pass\n"))
        await eventually(lambda: len(survivors()) >= 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    until(lambda: not survivors())


@pytest.mark.parametrize("turns", [0, 1, 10, 100, 1000])
def test_cancelling_at_any_moment_leaves_nothing_behind(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Also while processes start. What asyncio finds unclosed after its loop, it reports with a traceback.
    async def run() -> None:
        tasks = [(PROBLEM, "    while True: pass\n")] * 6
        checks = asyncio.ensure_future(check_all(tasks, CodeSandbox(LIMITS), workers=3))
        while turns and not survivors():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        checks.cancel()
        done, _ = await asyncio.wait([checks], timeout=PATIENCE)
        assert done

    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(run())
        gc.collect()
    assert [str(item.message) for item in caught] == []
    assert complaints == []
    until(lambda: not survivors())
