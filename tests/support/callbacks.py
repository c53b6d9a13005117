"""How long single callbacks hold the event loop up, for tests and benchmarks: all other requests wait for each of them.

Knows: processor time of the loop's own thread around every callback, so that other work on the cores costs nobody a
finding, and a proxy as users start it, timed from its first request to its end:

    python tests/support/callbacks.py FOUND.json serve ...

That costs a microsecond a callback, and asyncio's own loop is used, for uvloop lets nobody see its callbacks. Does not
know what a callback does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from outthink.cli.main import main
from outthink.serving import proxy

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
        callback, began = handle._callback, clock()
        run(handle)
        if (seconds := clock() - began) >= _LEAST:
            found.append((seconds, _name(callback)))
            if len(found) > 2 * _KEPT:
                found.sort(reverse=True)
                del found[_KEPT:]

    asyncio.Handle._run = timed
    try:
        yield found
    finally:
        asyncio.Handle._run = run
        found.sort(reverse=True)


def _name(callback: Callable[..., None]) -> str:
    """The callback, or the coroutine whose step it is; by its code, since looking at an object may change it."""
    owner = getattr(callback, "__self__", None)
    found = owner.get_coro() if isinstance(owner, asyncio.Task) else callback
    return str(getattr(found, "__qualname__", type(found).__qualname__))


@contextmanager
def written(file: Path) -> Iterator[None]:
    """The same, written to a file."""
    with measured() as found:
        yield
    rows = [{"seconds": seconds, "callback": name} for seconds, name in found]
    file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.modules["uvloop"] = None
    proxy.serve = partial(proxy.serve, within=written(Path(sys.argv.pop(1))))
    sys.exit(main())
