"""A circuit breaker: a backend whose calls fail is left alone for a while, then tried with one call.

Knows outcomes and a clock that is passed in. Does not know backends, statuses or health checks.
"""

from __future__ import annotations

from typing import Literal

from outthink.serving.pool.settings import PoolSettings

State = Literal["closed", "open", "half-open"]
_LONGEST = 12.0
"""An open breaker waits at most this many times its first wait."""


class Breaker:
    """Closed, open or half-open.

    It opens on failures in a row, or on the share of failures among the last calls. After its wait one
    call may try; success closes it, failure opens it for twice as long.
    """

    __slots__ = ("_count", "_mask", "_past", "_row", "_settings", "_trying", "_wait", "opened_until")

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._mask = (1 << settings.window) - 1
        self._past = self._count = self._row = 0  # outcomes as bits, a failure is 1
        self._wait = settings.open_seconds
        self.opened_until: float | None = None
        self._trying = False

    def state(self, now: float) -> State:
        """What it is at this moment."""
        if self.opened_until is None:
            return "closed"
        return "open" if now < self.opened_until else "half-open"

    def passes(self, now: float) -> bool:
        """Whether a call may go through."""
        return self.opened_until is None or (now >= self.opened_until and not self._trying)

    def enter(self) -> bool:
        """A call begins; whether it is the trial of a breaker that is not closed."""
        if self.opened_until is None or self._trying:
            return False
        self._trying = True
        return True

    def leave(self) -> None:
        """The trial has ended without a verdict, so another call may try."""
        self._trying = False

    def succeeded(self, *, trial: bool = False) -> None:
        """A call went well. Only the trial closes a breaker; others began before it opened."""
        if self.opened_until is None:
            self._row = 0
            self._note(0)
        elif trial:
            self.reset()

    def failed(self, now: float, *, trial: bool = False, certain: bool = True) -> None:
        """A call failed. `certain` is False where the request itself may be to blame: only the share counts it."""
        if self.opened_until is not None:
            if trial:
                self._wait = min(self._wait * 2, self._settings.open_seconds * _LONGEST)
                self._open(now)
            return
        self._row += certain
        self._note(1)
        many = self._count >= (self._settings.window + 1) // 2
        failed = self._past.bit_count()
        if self._row >= self._settings.failures or (many and failed >= self._settings.share * self._count):
            self._open(now)

    def try_now(self, now: float) -> None:
        """End the wait: there is news that the backend is back."""
        if self.opened_until is not None:
            self.opened_until = min(self.opened_until, now)

    def reset(self) -> None:
        """Close, and forget."""
        self._past = self._count = self._row = 0
        self._wait = self._settings.open_seconds
        self.opened_until, self._trying = None, False

    def _open(self, now: float) -> None:
        self._trying = False
        self.opened_until = now + self._wait

    def _note(self, outcome: int) -> None:
        self._past = (self._past << 1 | outcome) & self._mask
        if self._count < self._settings.window:
            self._count += 1
