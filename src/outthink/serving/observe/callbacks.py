"""How long single callbacks hold the event loop up, for tests and benchmarks: all other requests wait for each of them.

Knows: processor time of the loop's own thread around every callback, so that other work on the cores costs nobody a
finding. Switched on by `$OUTTHINK_CALLBACKS`, the file for what was found; it then costs a microsecond a callback, and
asyncio's own loop is used, for uvloop lets nobody see its callbacks. Does not know what a callback does.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "OUTTHINK_CALLBACKS"
_LEAST = 0.005
"""Seconds of a callback that is noted."""
_KEPT = 100


@contextmanager
def measured() -> Iterator[list[tuple[float, str]]]:
    """Seconds and names of the callbacks of the running event loop that took long, the longest first at the end.

    Raises RuntimeError within uvloop's, of which nothing would be found.
    """
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        raise RuntimeError("callbacks can be timed in asyncio's own event loop alone")
    found: list[tuple[float, str]] = []
    run, thread, clock = asyncio.Handle._run, threading.get_ident(), time.thread_time

    def timed(handle: asyncio.Handle) -> None:
        if threading.get_ident() != thread:
            run(handle)
            return
        callback, began = handle._callback, clock()  # type: ignore[attr-defined]
        run(handle)
        if (seconds := clock() - began) >= _LEAST:
            found.append((seconds, _name(callback)))
            if len(found) > 2 * _KEPT:
                found.sort(reverse=True)
                del found[_KEPT:]

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        found.sort(reverse=True)


def _name(callback: Callable[..., None]) -> str:
    """The callback, or the coroutine whose step it is; by its code, since looking at an object may change it."""
    owner = getattr(callback, "__self__", None)
    found = owner.get_coro() if isinstance(owner, asyncio.Task) else callback
    return str(getattr(found, "__qualname__", type(found).__qualname__))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop to serve in: uvloop's where it is installed, a third more requests a second; asyncio's to time it."""
    if os.environ.get(VARIABLE) or importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@contextmanager
def measured_if_asked() -> Iterator[None]:
    """The same, written to the file that the environment names; nothing where it names none."""
    file = os.environ.get(VARIABLE)
    if not file:
        yield
        return
    with measured() as found:
        yield
    rows = [{"seconds": seconds, "callback": name} for seconds, name in found]
    Path(file).write_text(json.dumps(rows, indent=1), encoding="utf-8")
