"""A worker process that calls functions under a limit: one JSON object a line in, one out.

Knows how to die: with its parent, at the end of its input, or when a call overruns. All limits are processor time of
this process: by the wall clock, other work on the cores would make right answers unreadable. Does not know what it
calls. It is run as a plain script, without the folder that it lies in (`python -P`), whose files would shadow modules
of the same names.

A request: {"call": "package.module:function", "arguments": [...], "limit": seconds of processor time, "backstop":
seconds by the wall clock}. A reply: {"value": ..., "seconds": of processor time}, null where the function raised, or
{"error": ...} where it cannot be imported.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypedDict

_MEMORY = 3 << 30  # bytes of address space: a tower of powers must not take the machine down
_POSIX = os.name == "posix"  # elsewhere there are no interval timers, and the parent's clock is all there is
_PDEATHSIG = 1


class WorkerRequest(TypedDict):
    """One line of input."""

    call: str
    arguments: list[Any]
    limit: float
    backstop: float


def follow_parent(parent: int, *, signalled: bool = True) -> None:
    """Have the kernel end this process with its parent, where it can; end it now where the parent has ended already.

    Args:
        signalled: False where a thread has started this that may end before the process does: the signal comes then.
    """
    # End of input is not enough: a worker deep in a big-integer power does not read it.
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        if signalled:
            ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and _POSIX and os.getppid() != parent:
        os._exit(0)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _start_limits(request: WorkerRequest, nowhere: TextIO) -> None:
    if _POSIX:
        # Nobody handles SIGPROF: it ends this process at once, even within a power of big integers.
        signal.setitimer(signal.ITIMER_PROF, request["limit"])
    # The parent kills a worker that waits for ever; this timer (a C thread, so no lock can stop it) covers its absence.
    faulthandler.dump_traceback_later(request["backstop"] + 1, exit=True, file=nowhere)


def _end_limits() -> None:
    faulthandler.cancel_dump_traceback_later()
    if _POSIX:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(request: WorkerRequest, found: dict[str, Callable[..., Any]], nowhere: TextIO) -> str:
    name = request["call"]
    if name not in found:  # imported outside the limit: sympy takes a second of it
        module, _, function = name.partition(":")
        try:
            found[name] = vars(importlib.import_module(module))[function]
        except (ImportError, KeyError) as error:
            return json.dumps({"error": f"{name}: {error}"})
    _start_limits(request, nowhere)
    try:
        began = time.process_time()
        value = found[name](*request["arguments"])
        reply = json.dumps({"value": value, "seconds": time.process_time() - began})
    except Exception:  # noqa: BLE001 - whatever odd input makes a function raise, there is no value
        reply = json.dumps({"value": None})
    _end_limits()
    return reply


def main() -> None:
    """Serve requests until the input ends."""
    follow_parent(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    _limit_memory()
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.append(str(Path(__file__).parents[2]))
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    logging.disable(logging.CRITICAL)
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    found: dict[str, Callable[..., Any]] = {}
    with os.fdopen(quiet, "w") as nowhere:
        for line in sys.stdin.buffer:
            print(_answer(json.loads(line), found, nowhere), file=replies, flush=True)


if __name__ == "__main__":
    main()
