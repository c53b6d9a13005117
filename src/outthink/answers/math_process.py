"""The math worker seen from this process: started on first use, restarted when it hangs, never left behind.

Knows pipes, limits, threads and forks. The limit of an operation is processor time and is kept by the worker, so that
other work on the cores costs nobody an answer; the wall clock here is only the backstop. Does not know mathematics or
event loops: a call is a `concurrent.futures.Future`, which any thread can wait for and any event loop can wrap.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from outthink.core.errors import OutthinkError

LIMIT = 5.0  # seconds of processor time for one operation before the worker is killed
# A worker that cannot stop itself has this many times as long by the wall clock. Without interval timers (Windows)
# the wall clock is all there is.
_POSIX = os.name == "posix"
_BACKSTOP = 30 if _POSIX else 1
_OVERRAN = -signal.SIGPROF if _POSIX else None  # exit code of a worker that its own timer has ended
_START = 60.0  # seconds for the start: importing sympy takes 1 s, far more on a busy machine
_SCRIPT = Path(__file__).with_name("math_worker.py")
_COMMAND = (sys.executable, "-P", str(_SCRIPT))


Value = Any
"""JSON whose shape depends on the operation (math_worker.py); of an answer None where there is none."""


class _Overrun(Exception):
    """The worker took longer than it may."""


class MathProcess:
    """One worker process behind one thread that owns its pipes; calls are served in order.

    Args:
        limit: seconds of processor time an operation may take; an overrun ends the worker and the call gives None.
        command: what to run; it gets this process's id as its last argument.
    """

    def __init__(self, *, limit: float = LIMIT, command: Sequence[str] = _COMMAND) -> None:
        self._limit, self._command = limit, tuple(command)
        self._calls: queue.SimpleQueue[tuple[dict[str, Value], Future[Value]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        worker = self._worker
        return None if worker is None else worker.pid

    def submit(self, op: str, **fields: Value) -> Future[Value]:
        """Queue one operation. The result is the worker's value, None where it hung, died or could not answer.

        Cancelling the future before its turn drops the call. It raises OutthinkError if no worker can start.
        """
        future: Future[Value] = Future()
        with self._lock:
            if self._thread is None:
                # A daemon: an abandoned call must not hold up the end of the program.
                self._thread = threading.Thread(target=self._serve, name="outthink-math", daemon=True)
                self._thread.start()
        limits = {"limit": self._limit, "backstop": self._limit * _BACKSTOP}
        self._calls.put(({"op": op, **fields, **limits}, future))
        return future

    def close(self) -> None:
        """End the worker; a later call starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # a request was left unwritten in a pipe that nobody reads
                        pass

    def _serve(self) -> None:
        while True:
            request, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._call(request))
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits; the thread must live on
                self.close()
                future.set_exception(error)

    def _call(self, request: dict[str, Value]) -> Value:
        if self._worker is None or self._worker.poll() is not None:
            self.close()
            self._start()
        try:
            reply = self._exchange(request, self._limit * _BACKSTOP)
            if reply is None:  # it died without hanging: once more, with a fresh one
                self._start()
                reply = self._exchange(request, self._limit * _BACKSTOP)
        except _Overrun:
            return None
        return None if reply is None else reply.get("value")

    def _start(self) -> None:
        try:
            self._worker = subprocess.Popen(  # noqa: S603 - our own script
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
            raise OutthinkError(f"math worker: could not start ({why}); check that math-verify imports")

    def _exchange(self, request: dict[str, Value] | None, seconds: float) -> dict[str, Value] | None:
        """One line out, one line in; None, and no worker any more, if it died.

        Raises _Overrun if it ended itself at its limit, or had not answered after `seconds` by the wall clock.
        """
        worker = self._worker
        if worker is None or worker.stdin is None or worker.stdout is None:
            return None
        late = threading.Event()

        def kill() -> None:
            late.set()
            worker.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                worker.stdin.flush()
            line = worker.stdout.readline()
            reply = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            reply = None
        finally:
            timer.cancel()
        if not isinstance(reply, dict):
            self.close()
            if late.is_set() or worker.returncode == _OVERRAN:
                raise _Overrun
            return None
        return reply


_shared = MathProcess()
_forgotten: list[MathProcess] = []  # kept, for collecting them would warn of a child that is not ours


def shared() -> MathProcess:
    """The worker of this process."""
    return _shared


def _forget() -> None:
    # A forked child has neither the thread nor a right to the parent's pipes.
    global _shared
    _forgotten.append(_shared)
    _shared = MathProcess()


atexit.register(lambda: _shared.close())
if _POSIX:
    os.register_at_fork(after_in_child=_forget)
