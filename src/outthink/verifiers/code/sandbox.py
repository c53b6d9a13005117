"""One check in two sandboxes: the tested code in one, its test in the other, plain values between them.

Knows processes, pipes and deadlines. Does not know requests or scores. The verdict comes from the process
that runs the test; tested code shares no memory, process table or descriptor with it.
"""

from __future__ import annotations

import asyncio
import keyword
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from outthink.core.errors import BadInput, EngineError
from outthink.core.text import writable
from outthink.verifiers.code.inside.values import Others, pack, unpack
from outthink.verifiers.code.inside.wire import Malformed
from outthink.verifiers.code.walls import bubblewrap, filter_pipe, inside


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """One problem.

    Args:
        prompt: Python that stands in front of the code: imports, helpers, the head of the function.
        entry_point: the function that is tested.
        test: Python that defines `check(candidate)`, which raises where the candidate is wrong.

    Raises BadInput for an entry point that is no name, or a blank test.
    """

    prompt: str
    entry_point: str
    test: str

    def __post_init__(self) -> None:
        if not self.entry_point.isidentifier() or keyword.iskeyword(self.entry_point):
            raise BadInput("entry_point", self.entry_point, "is not the name of a function", "name the tested function")
        if not self.test.strip():
            raise BadInput("test", self.test, "is empty", "give code that defines check(candidate)")


T = TypeVar("T")
_START = 60.0  # seconds until both sandboxes run, on a machine busy with other things
_HEAD = 5  # bytes before a frame's content
_SAID = 4096  # bytes read of a verdict or a complaint


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """What one check may take. Each of the two processes has the limits to itself; neither may start others.

    Args:
        cpu: seconds of processor time. wall: seconds from the start of the tested code.
        memory: bytes of address space.
    """

    cpu: int = 3
    wall: float = 5.0
    memory: int = 2 * 2**30

    def __post_init__(self) -> None:
        for name, value, least in (("cpu", self.cpu, 1), ("wall", self.wall, 0.1), ("memory", self.memory, 2**26)):
            if not value >= least:
                raise BadInput(name, value, f"is below {least}", "give more")


@dataclass(frozen=True, slots=True)
class CodeVerdict:
    """Whether the test ran to its end, and if not, why; the reason is for people and may quote the test."""

    passed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class CodeSandbox:
    """Judges code. Holds no process between checks, so it can be used from any event loop or thread.

    Args:
        bwrap: path of bubblewrap; found and tested once if not given.
    """

    limits: CodeLimits = field(default_factory=CodeLimits)
    bwrap: str | None = None

    async def check(
        self, problem: CodeProblem, code: str, others: Sequence[str] = (), rest: Sequence[str] = ()
    ) -> CodeVerdict:
        """Run a problem's test on code.

        Args:
            code: the block that defines the entry point, or the function's body alone.
            others: further blocks, of which what `code` uses and does not define is taken along.
            rest: what to take for the code instead, in turn, where `code` is no Python.

        Raises Unsupported where no sandbox can run, EngineError where one did not start, BadInput for
        a test that is itself broken.
        """
        bwrap = self.bwrap if self.bwrap is not None else await asyncio.to_thread(bubblewrap)
        try:
            program = problem.prompt, code, tuple(others), tuple(rest)
            task, _ = pack((program, problem.prompt, problem.entry_point, problem.test), Others())
        except Malformed as error:
            return CodeVerdict(False, f"the code is too long: {error}")
        processes: list[Process] = []
        try:
            judge = await _unbroken(self._start(bwrap, processes))
            word, message = await self._verdict(judge, task)
            if word == "gone":
                message += await _exit(processes[0])
        finally:
            await _end(processes)
        if word == "broken":
            raise BadInput("test", problem.entry_point, f"has a test that cannot be used: {message}", "mend the test")
        return CodeVerdict(word == "passed", message)

    async def _start(self, bwrap: str, processes: list[Process]) -> Process:
        limits = self.limits.cpu, self.limits.memory
        with ExitStack() as stack:
            calls, replies = _pipe(stack), _pipe(stack)
            fd = _kept(stack, filter_pipe())
            solver = await asyncio.create_subprocess_exec(
                *inside(bwrap, fd, "solver", *limits),
                stdin=calls[0],
                stdout=replies[1],
                stderr=DEVNULL,
                pass_fds=(fd,),
                start_new_session=True,
            )
            processes.append(solver)
            fd = _kept(stack, filter_pipe())
            judge = await asyncio.create_subprocess_exec(
                *inside(bwrap, fd, "judge", *limits, calls[1], replies[0]),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=(fd, calls[1], replies[0]),
                start_new_session=True,
            )
            processes.append(judge)
        return judge

    async def _verdict(self, judge: Process, task: bytes) -> tuple[str, str]:
        feeding = asyncio.ensure_future(_feed(judge, task))
        try:
            try:
                async with asyncio.timeout(_START):
                    started = await _frame(judge)
            except TimeoutError:
                started = None
            if started is None:
                _kill(judge)
                output = await judge.stderr.read(_SAID) if judge.stderr is not None else b""
                why = output.decode(errors="replace").strip()[-300:] or "no sign of life"
                raise EngineError(f"code verifier: the sandbox did not start ({why}); check that bwrap runs")
            try:
                async with asyncio.timeout(self.limits.wall):
                    last = await _frame(judge)
            except TimeoutError:
                return "failed", f"not done after {self.limits.wall:g} s"
        finally:
            feeding.cancel()
        if last is None:
            return "failed", "the test ended without a verdict: out of time or memory"
        (word, message), _ = unpack(last, Others())
        # It may quote what the code says of itself: halves of letters, and marks that a terminal would heed.
        return str(word), "".join(letter if letter.isprintable() else " " for letter in writable(str(message)))


def _pipe(stack: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    return _kept(stack, reader), _kept(stack, writer)


def _kept(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


async def _feed(judge: Process, task: bytes) -> None:
    if judge.stdin is None:
        return
    try:
        judge.stdin.write(len(task).to_bytes(4, "little") + b"T" + task)
        await judge.stdin.drain()
    except ConnectionError:  # it died; whoever reads its answer will see that
        pass


async def _frame(judge: Process) -> bytes | None:
    """One frame's content, None where the judge is gone."""
    if judge.stdout is None:
        return None
    try:
        head = await judge.stdout.readexactly(_HEAD)
        return await judge.stdout.readexactly(int.from_bytes(head[:4], "little"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def _exit(solver: Process) -> str:
    """How the code's process ended: bubblewrap reports a signal as 128 and its number."""
    try:
        async with asyncio.timeout(1):
            code = await solver.wait()
    except TimeoutError:  # it closed its pipe and lives on
        return ""
    if code == 128 + signal.SIGKILL:
        return " (killed, as at the end of its processor time)"
    # The code may leave with any number, also one that stands for no signal.
    names = {128 + number: number.name for number in signal.Signals}
    return f" ({names.get(code, f'exit code {code}')})"


def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it ended, and nobody has told us yet
            os.killpg(process.pid, signal.SIGKILL)


async def _end(processes: list[Process]) -> None:
    """Kill both sandboxes with everything in them; their first process dies with bubblewrap, the rest with it."""
    for process in processes:
        _kill(process)
    await _unbroken(_reap(processes))


async def _reap(processes: list[Process]) -> None:
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else its pipes wait for the collector


async def _unbroken(work: Awaitable[T]) -> T:
    """Await work to its end although this is cancelled, even repeatedly; that is raised afterwards.

    A process whose start is broken off is killed by asyncio without the sandbox in it, and waited for
    for ever; one whose end is broken off outlives the event loop.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
