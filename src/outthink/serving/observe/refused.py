"""How many lines the refusals of one kind get: each its own as long as they are few, a count where they are many.

Knows: kinds (status and code), and a rate for each. Keeps nothing of a request, so a flood of them takes no memory.
Does not know what a line looks like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BURST, _RATE = 500.0, 20.0
"""Lines of one kind at once, and a second."""
_EVERY = 5.0
"""Seconds between two counts of what had no line."""
_KINDS = 100
"""Kinds that are told apart; codes are ours, so there are fewer."""


class RefusalCount(NamedTuple):
    """Requests of one kind that had no line of their own; `at` in seconds since the epoch."""

    at: float
    status: int
    code: str
    requests: int


class RefusalLimit:
    """Decides which refusals get a line. `take` and `counts` may be called by different threads."""

    def __init__(self) -> None:
        self._left: dict[tuple[int, str], tuple[float, float]] = {}
        self._without: dict[tuple[int, str], int] = {}
        self._counted_at = 0.0

    def take(self, status: int, code: str, at: float) -> bool:
        """Whether a request that was refused at a moment gets a line; one that does not is counted."""
        kind = (status, code)
        if kind not in self._left and len(self._left) >= _KINDS:
            kind = (0, "other")
        left, before = self._left.get(kind, (_BURST, at))
        left = min(_BURST, left + max(0.0, at - before) * _RATE)
        self._left[kind] = (left - 1 if left >= 1 else left, at)
        if left >= 1:
            return True
        self._without[kind] = self._without.get(kind, 0) + 1
        return False

    def counts(self, at: float, *, now: bool = False) -> Iterator[RefusalCount]:
        """What had no line since the last time; every few seconds, or now."""
        if self._without and (now or not 0 <= at - self._counted_at < _EVERY):
            self._counted_at = at
            without, self._without = self._without, {}
            for (status, code), requests in without.items():
                yield RefusalCount(at, status, code, requests)
