"""Waiting for what must come true, however busy the machine is, and a yardstick for tests of speed.

Knows no limit that a test could fail on by being slow: patience only ends what hangs. Tests in files marked `timing`
compare what they measure with `exchange`, which is as slow as the machine is at that moment.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds after which a wait is given up as a hang."""


def until(condition: Callable[[], T], what: str = "what was waited for") -> T:
    """What the condition gives once it is true; it may change in other threads and processes."""
    moment, end = threading.Event(), time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        moment.wait(0.005)
    return value


async def eventually(condition: Callable[[], T]) -> T:
    """The same inside an event loop, whose other tasks go on meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while not (value := condition()):
            await asyncio.to_thread(threading.Event().wait, 0.002)
    return value


def at_once(port: int, latest: Callable[[], float]) -> bool:
    """Whether the seconds that something takes count as at once in the best of five attempts.

    At once is five hundred times what one plain request to a scripted server takes now: 100 to 200 ms on an idle
    machine, where any time-out is seconds.
    """
    return any(latest() < 500 * exchange(port) for _ in range(5))


def exchange(port: int) -> float:
    """Seconds that one plain request to a scripted server on this machine takes now, median of fifteen."""
    took = []
    for _ in range(15):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        connection.close()
        took.append(time.perf_counter() - began)
    return median(took)
