"""Worker processes seen from this one: started on first use, restarted when they hang, never left behind.

Knows pipes, limits, turns and forks. The limit of a call is processor time and is kept by the worker, so that
other work on the cores costs nobody an answer; the wall clock here is only the backstop. Does not know what is called,
or event loops: a call is a `concurrent.futures.Future`, which any thread can wait for and any event loop can wrap.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from outthink.core.errors import OutthinkError
from outthink.workers.fairness import asker, take

LIMIT = 5.0  # seconds of processor time for one call before its worker is killed, where the call names no other
# A worker that cannot stop itself has this many times as long by the wall clock. Without interval timers (Windows)
# the wall clock is all there is.
_POSIX = os.name == "posix"
_BACKSTOP = 30 if _POSIX else 1
_OVERRAN = -signal.SIGPROF if _POSIX else None  # exit code of a worker that its own timer has ended
_START = 60.0  # seconds for the start, which a busy machine can make long
_SCRIPT = Path(__file__).with_name("process.py")
_COMMAND = (sys.executable, "-P", str(_SCRIPT))
_LEAST, _MOST = 2, 4  # workers of one process: with one alone, what hangs for its limit holds up everybody
_ALLOWED = 10.0
_REMEMBERED = 1024  # turns and askers whose seconds are known
_FADES = 60.0  # seconds after which a third is left of what an asker has used


Value = Any
"""JSON whose shape depends on the function; of an answer None where there is none."""
_Job = tuple[dict[str, Value], "Future[Value]"]
_Turn = tuple[str | None, Hashable]


class _Overrun(Exception):
    """The worker took longer than it may."""


class _Worker:
    """One process and its pipes, used by one thread.

    Args:
        command: what to run; it gets this process's id as its last argument.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.spent = 0.0
        """Seconds of processor time of the last call."""

    def call(self, request: dict[str, Value]) -> Value:
        """The function's value; None where it raised, hung or took the process with it.

        Args:
            request: the call, its arguments, and its limit in seconds of processor time.
        """
        if self.process is None or self.process.poll() is not None:
            self.close()
            self._start()
        self.spent = request["limit"]  # unless it says less
        backstop = request["limit"] * _BACKSTOP
        request = request | {"backstop": backstop}
        try:
            reply = self._exchange(request, backstop)
            if reply is None:  # it died without hanging: once more, with a fresh one
                self._start()
                reply = self._exchange(request, backstop)
        except _Overrun:
            return None
        if reply is not None and "error" in reply:
            raise OutthinkError(f"worker: cannot call {reply['error']}; check the installation")
        if reply is None:
            return None
        self.spent = reply.get("seconds", 0.0)
        return reply.get("value")

    def close(self) -> None:
        """End the process; a later call starts another."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # a request was left unwritten in a pipe that nobody reads
                        pass

    def _start(self) -> None:
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own script
                [*self._command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            reply = self._exchange(None, _START)
        except _Overrun:
            reply = None
        except OSError as error:
            reply = {"error": str(error)}
        if reply is None or "ready" not in reply:
            self.close()
            why = "it gave no sign of life" if reply is None else reply.get("error")
            raise OutthinkError(f"worker: could not start ({why}); check the installation")

    def _exchange(self, request: dict[str, Value] | None, seconds: float) -> dict[str, Value] | None:
        """One line out, one line in; None, and no process any more, if it died.

        Raises _Overrun if it ended itself at its limit, or had not answered after `seconds` by the wall clock.
        """
        process = self.process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
            reply = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            reply = None
        finally:
            timer.cancel()
        if not isinstance(reply, dict):
            self.close()
            if late.is_set() or process.returncode == _OVERRAN:
                raise _Overrun
            return None
        return reply


class WorkerPool:
    """Workers behind one queue, each with a thread that owns its pipes; whoever asks is served in turns.

    Args:
        limit: seconds of processor time that a call may take which names no limit of its own.
        count: workers at most; each starts when a call finds none idle. Half the cores, and two at least, if not given.
        command: what a worker runs; it gets this process's id as its last argument.
        allowed: seconds of processor time of all calls of one turn; what is asked beyond them gives None at once.
    """

    def __init__(
        self,
        *,
        limit: float = LIMIT,
        count: int | None = None,
        command: Sequence[str] = _COMMAND,
        allowed: float = _ALLOWED,
    ) -> None:
        self._limit, self._command, self._allowed = limit, tuple(command), allowed
        self._count = count or max(_LEAST, min(_MOST, (os.cpu_count() or 1) // 2))
        self._ready = threading.Condition()
        self._askers: OrderedDict[str | None, OrderedDict[Hashable, deque[_Job]]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()  # calls in workers, by asker and by turn
        self._seconds: OrderedDict[_Turn, float] = OrderedDict()
        self._used: OrderedDict[str | None, tuple[float, float]] = OrderedDict()  # by asker: seconds, and when
        self._workers: list[_Worker] = []
        self._waiting = self._idle = 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that there are."""
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    def submit(
        self, function: str, *arguments: Value, turn: Hashable = None, limit: float | None = None
    ) -> Future[Value]:
        """Queue one call of `package.module:function`; arguments and value are JSON.

        Args:
            turn: who asks. Of several that wait each has one call in turn, however many it has queued; one that is
                named has no more than all workers but one, and so many seconds in all.
            limit: seconds of processor time; an overrun ends the worker and the call gives None.

        The result is None where the function raised, hung or died. Cancelling the future before its turn drops the
        call. It raises OutthinkError if no worker can start or the function is not there.
        """
        future: Future[Value] = Future()
        job = ({"call": function, "arguments": arguments, "limit": limit or self._limit}, future)
        with self._ready:
            turns = self._askers.setdefault(asker.get(), OrderedDict())
            turns.setdefault(turn, deque()).append(job)
            self._waiting += 1
            if self._waiting > self._idle and len(self._workers) < self._count:
                worker = _Worker(self._command)
                self._workers.append(worker)
                # A daemon: an abandoned call must not hold up the end of the program.
                threading.Thread(target=self._serve, args=(worker,), name="outthink-worker", daemon=True).start()
            self._ready.notify()
        return future

    def close(self) -> None:
        """End the workers; a later call starts others."""
        for worker in self._workers:
            worker.close()

    def _next(self) -> tuple[_Turn, _Job]:
        with self._ready:
            self._idle += 1
            while (turn := self._due()) is None:
                self._ready.wait()
            self._idle, self._waiting = self._idle - 1, self._waiting - 1
            name, number = turn
            turns = self._askers.pop(name)
            job = take(turns, number)
            if turns:
                self._askers[name] = turns  # at the end of the round
            self._running.update(_counted(turn))
            return turn, job

    def _due(self) -> _Turn | None:
        """Whose turn it is: of those who do not have all their workers, the asker that has used the least lately."""
        most = max(1, self._count - 1)
        due: dict[str | None, _Turn] = {}
        for name, turns in self._askers.items():
            for number in turns:
                if all(self._running[who] < most for who in _counted((name, number))):
                    due[name] = name, number
                    break
        return due[min(due, key=self._lately)] if due else None

    def _lately(self, name: str | None) -> float:
        """Seconds of processor time that an asker has used, those of the last minute above all."""
        seconds, at = self._used.get(name, (0.0, 0.0))
        return seconds * math.exp((at - time.monotonic()) / _FADES)

    def _ended(self, turn: _Turn, seconds: float) -> None:
        with self._ready:
            self._running.subtract(_counted(turn))
            self._running += Counter()  # drops what is 0
            self._used[turn[0]] = self._lately(turn[0]) + seconds, time.monotonic()
            self._used.move_to_end(turn[0])
            if len(self._used) > _REMEMBERED:
                self._used.popitem(last=False)
            if turn[1] is not None:
                self._seconds[turn] = self._seconds.pop(turn, 0.0) + seconds
                if len(self._seconds) > _REMEMBERED:
                    self._seconds.popitem(last=False)
            self._ready.notify_all()

    def _serve(self, worker: _Worker) -> None:
        while True:
            turn, (request, future) = self._next()
            worker.spent = 0.0
            try:
                if not future.set_running_or_notify_cancel():
                    continue
                if self._seconds.get(turn, 0.0) > self._allowed:
                    future.set_result(None)
                else:
                    future.set_result(worker.call(request))
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits; the thread must live on
                worker.close()
                future.set_exception(error)
            finally:
                self._ended(turn, worker.spent)


def _counted(turn: _Turn) -> list[Hashable]:
    """Who is bounded in the workers that they have."""
    name, number = turn
    return [who for who in (name, None if number is None else turn) if who is not None]


_shared = WorkerPool()
_forgotten: list[WorkerPool] = []  # kept, for collecting them would warn of children that are not ours


def shared() -> WorkerPool:
    """The workers of this process."""
    return _shared


def _forget() -> None:
    # A forked child has neither the threads nor a right to the parent's pipes.
    global _shared
    _forgotten.append(_shared)
    _shared = WorkerPool()


atexit.register(lambda: _shared.close())
if _POSIX:
    os.register_at_fork(after_in_child=_forget)
