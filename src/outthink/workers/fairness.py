"""Askers take turns, for programs that serve several: threads for calls, and an event loop's rounds for long work.

Knows: on whose behalf something is done, who has waited longest, and that all threads share one interpreter. Does not
know what is done.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

asker: ContextVar[str | None] = ContextVar("asker", default=None)
"""On whose behalf calls are made. Askers take turns, and none has all workers."""

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
_THREADS, _THREADS_EACH = 8, 2
_IMPATIENT = 0.00005
"""Seconds after which a thread asks for the interpreter while long work goes on."""


class LongWork:
    """While any goes on, threads ask for the interpreter sooner than every 5 ms: an event loop asks at each connection.

    And a loop with long work lets go of the interpreter thousands of times a second, each time for microseconds. A
    thread that is woken by that finds it taken again, and waits anew without having asked: it stands there for a tenth
    of a second. It asks once it has waited undisturbed, so that has to be sooner than the next such moment. For short
    work the many switches would cost a fifth of the requests.
    """

    def __init__(self) -> None:
        self._mutex, self._going_on, self._usual = threading.Lock(), 0, 0.0

    def begin(self) -> None:
        """One more."""
        with self._mutex:
            if not self._going_on:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _IMPATIENT))
            self._going_on += 1

    def end(self) -> None:
        """One less."""
        with self._mutex:
            self._going_on -= 1
            if not self._going_on:
                sys.setswitchinterval(self._usual)


_long_work = LongWork()


def take(turns: OrderedDict[K, deque[T]], name: K) -> T:
    """The first of those that wait under a name, which goes to the end of the round."""
    line = turns.pop(name)
    first = line.popleft()
    if line:
        turns[name] = line
    return first


class FairThreads(ThreadPoolExecutor):
    """An event loop's threads, for programs that serve several askers: they take turns, and none has more than two."""

    def __init__(self) -> None:
        super().__init__(_THREADS, "outthink-thread")
        self._turns: OrderedDict[str | None, deque[Callable[[], None]]] = OrderedDict()
        self._busy: Counter[str | None] = Counter()
        self._mutex = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call for the asker of this context."""
        future: Future[T] = Future()
        with self._mutex:
            jobs = self._turns.setdefault(asker.get(), deque())
            jobs.append(partial(_carry_out, future, partial(fn, *args, **kwargs)))
        super().submit(self._work)
        return future

    def _work(self) -> None:
        """Do what is due, until nothing is."""
        while True:
            with self._mutex:
                due = [name for name in self._turns if name is None or self._busy[name] < _THREADS_EACH]
                if not due:
                    return
                job = take(self._turns, name := due[0])
                self._busy[name] += 1
            _long_work.begin()
            try:
                job()
            finally:
                _long_work.end()
            del job  # what it was given is let go of before the next one comes
            with self._mutex:
                self._busy[name] -= 1
                self._busy += Counter()  # drops what is 0


def _carry_out(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        future.set_exception(error)
        del future, call  # the error's own frame must not hold them


class Rounds:
    """Work that holds an event loop up, one piece in each of its rounds: whoever wants little goes on in between.

    Askers take turns, so that one with many pieces leaves another's no more than as many rounds as there are askers.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False

    async def turn(self) -> None:
        """Wait for a round that is nobody else's; at once where this one is."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            _long_work.begin()
            loop.call_soon(self._next)
            return
        turn = loop.create_future()
        self._waiting.setdefault(asker.get(), deque()).append(turn)
        await turn

    def _next(self) -> None:
        while self._waiting:
            turn = take(self._waiting, next(iter(self._waiting)))
            if not turn.done():  # or else its asker has left
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
        _long_work.end()
