"""Mathematical answers: which expression a text gives, and which of its request's answers it equals.

Knows the order of rules and how equivalent forms merge into the first one seen. Does not know
mathematics: what cannot be decided on exact numbers is asked of the worker process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future

from outthink.answers.latex import expression, light
from outthink.answers.math_process import MathProcess, shared
from outthink.answers.number import far_apart, last_number, stated_number, value_of
from outthink.answers.reading import Reading, offered

_PAIRS = 64  # representatives that a newcomer is compared with; past them only equal strings merge
_HANGS = 2  # comparisons that may hang before a reader merges equal strings only

_Reply = tuple[int, list[int]] | None
_Wait = Callable[[Future[_Reply]], Awaitable[_Reply]]


def candidates(text: str) -> Iterator[tuple[str, str]]:
    """(expression, rule) in the order of the rules; the first readable one is the answer."""
    return offered(text, light, lambda piece: expression(piece) or stated_number(piece), last_number, "last-number")


class MathReader:
    """Reads one request's answers; an answer equivalent to an earlier one becomes that one's string.

    Numbers are compared exactly in this process; everything else takes about 10 ms in the worker.
    """

    def __init__(self, process: MathProcess | None = None) -> None:
        self._process = process
        self._known: dict[str, str | None] = {}
        self._distinct: list[str] = []
        self._hangs = 0

    async def read(self, text: str) -> Reading:
        """Read one completion; several may be read at once."""
        return await self._read(text, asyncio.wrap_future)

    def read_now(self, text: str) -> Reading:
        """The same without an event loop; blocks while the worker thinks."""
        reading = self._read(text, _waited)
        try:
            while True:
                reading.send(None)  # it is never suspended: a reply is there when it is awaited
        except StopIteration as done:
            result: Reading = done.value
            return result

    async def _read(self, text: str, reply: _Wait) -> Reading:
        for answer, rule in candidates(text):
            if answer not in self._known:
                await self._learn(answer, reply)
            known = self._known[answer]
            if known is not None:
                return Reading(known, rule)
            if rule == "boxed":
                break  # a boxed answer that cannot be parsed is unreadable, not an excuse to guess
        return Reading(None, "none")

    def _match(self, answer: str, against: list[str]) -> Future[_Reply]:
        return (self._process or shared()).submit("match", answer=answer, against=against)

    async def _learn(self, answer: str, reply: _Wait) -> None:
        """Find out what `answer` equals and remember it."""
        if value_of(answer) is None and await reply(self._match(answer, [])) is None:
            self._known[answer] = None
            return
        compared: set[str] = set()
        comparable = True
        # Other reads may add representatives while this one waits: go on until none is new.
        while comparable and self._hangs < _HANGS:
            new = [other for other in self._distinct[:_PAIRS] if other not in compared]
            close = [other for other in new if not far_apart(answer, other)]
            compared.update(new)
            if not close:
                break
            matched = await reply(self._match(answer, close))
            if matched is None:  # not even the worker's own limits helped
                self._hangs += 1
                comparable = False
                continue
            index, slow = matched
            if index >= 0:
                self._known[answer] = close[index]
                return
            comparable = self._drop([close[place] for place in slow], answer)
        if answer not in self._known:
            self._known[answer] = answer
            if comparable:
                self._distinct.append(answer)

    def _drop(self, slow: list[str], answer: str) -> bool:
        """Stop comparing what took too long; False if that is `answer` itself. Equal strings merge as before."""
        for other in slow:
            if len(answer) >= len(other):
                return False
            if other in self._distinct:
                self._distinct.remove(other)
        return True


async def _waited(future: Future[_Reply]) -> _Reply:
    return future.result()
