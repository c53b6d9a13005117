"""Mathematical answers: which expression a text gives, and which of its request's answers it equals.

Knows the order of rules, and that answers with one key are one answer, shown as it was first written. Does not know
mathematics: a key that is no plain number is asked of a worker process.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from outthink.answers.literal import value_of
from outthink.answers.math.formulas import first_value, last_value, light
from outthink.answers.reading import IN_PLACE, UNREADABLE, Reading, placed
from outthink.workers.pool import WorkerPool, shared

_Key = str | None
_KEY = "outthink.answers.math.keys:key"


class MathReader:
    """Reads one request's answers; an answer equal to an earlier one becomes that one's string.

    Numbers have their keys in this process; everything else takes about 10 ms in a worker.
    """

    def __init__(self, workers: WorkerPool | None = None) -> None:
        self._workers = workers
        self._keys: dict[str, _Key] = {}
        self._shown: dict[str, str] = {}

    async def read(self, text: str) -> Reading:
        """Read one completion; several may be read at once."""
        answer, rule = _found(text) if len(text) <= IN_PLACE else await asyncio.to_thread(_found, text)
        if (asked := self._asked(answer)) is not None:
            self._keys[answer] = await asyncio.wrap_future(asked)
        return self._reading(answer, rule)

    def read_now(self, text: str) -> Reading:
        """The same without an event loop; blocks while the worker thinks."""
        answer, rule = _found(text)
        if (asked := self._asked(answer)) is not None:
            self._keys[answer] = asked.result()
        return self._reading(answer, rule)

    def _asked(self, answer: str) -> Future[_Key] | None:
        """The key of an answer from a worker; None where it is known."""
        if answer in self._keys:
            return None
        if not answer or value_of(answer) is not None:
            self._keys[answer] = answer or None
            return None
        return (self._workers or shared()).submit(_KEY, answer, turn=id(self))

    def _reading(self, answer: str, rule: str) -> Reading:
        key = self._keys[answer]
        return UNREADABLE if key is None else Reading(self._shown.setdefault(key, answer), rule)


def _found(text: str) -> tuple[str, str]:
    """(expression, rule) by the first rule that gives one, empty where it is in doubt."""
    return placed(text, light, first_value) or last_value(text) or ("", "none")
