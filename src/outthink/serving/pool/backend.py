"""One backend as the pool sees it: what it serves, how busy it is, and whether it may be asked.

Knows: calls by their outcome, the breaker that opens when they fail, and places that are taken and given back. Does
not know how its health is checked, or which other backends there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Literal, Self

from outthink.http.server import Address
from outthink.http.transport import TransportFault
from outthink.serving.pool.choice import BackendSettings, PoolSettings, seed_of

_LONGEST = 12.0
"""An open breaker waits at most this many times its first wait."""


class Breaker:
    """A circuit breaker: a backend whose calls fail is left alone for a while, then tried with one call.

    It opens on failures in a row, or on the share of failures among the last calls. After its wait one
    call may try; success closes it, failure opens it for twice as long.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._last: deque[bool] = deque(maxlen=settings.window)  # whether each of the last calls failed
        self._row = 0  # failures one after the other
        self._wait = settings.open_seconds
        self.opened_until: float | None = None
        self._trying = False

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
            self._last.append(False)
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
        self._last.append(True)
        # A share of few calls says little.
        many = len(self._last) >= (self._settings.window + 1) // 2
        share_failed = sum(self._last) >= self._settings.share * len(self._last)
        if self._row >= self._settings.failures or (many and share_failed):
            self._open(now)

    def try_now(self, now: float) -> None:
        """End the wait: there is news that the backend is back."""
        if self.opened_until is not None:
            self.opened_until = min(self.opened_until, now)

    def reset(self) -> None:
        """Close, and forget."""
        self._last.clear()
        self._row = 0
        self._wait = self._settings.open_seconds
        self.opened_until, self._trying = None, False

    def _open(self, now: float) -> None:
        self._trying = False
        self.opened_until = now + self._wait


Health = Literal["unknown", "up", "down"]
_REQUESTS_OWN = frozenset({500})
"""Statuses that a request may bring about by itself."""
ENDLESS = 1 << 60
"""A limit that no number of calls reaches, so that every backend is compared in the same way."""


class Backend:
    """A server and what is known of it now."""

    def __init__(self, given: BackendSettings, settings: PoolSettings) -> None:
        self._settings = settings
        self.address = Address.parse(given.url)
        self.url = self.address.base
        self.headers: Mapping[str, str] = {}
        if given.key:
            self.headers = {"authorization": f"Bearer {given.key}"}
        elif self.address.userinfo:
            self.headers = {"authorization": self.address.userinfo}
        self.weight, self.inverse = given.weight, 1 / given.weight
        self.limit = given.limit or ENDLESS
        self.named = given.models
        self.models: Sequence[str] = given.models
        self.health: Health = "unknown"
        self.trouble: str | None = None
        """Why it is not up."""
        self.active = 0
        self.passed = 0.0
        """Calls it has had, divided by its weight: who is behind is next among equally busy ones."""
        self.rests_until = 0.0
        self.seed = seed_of(self.url)
        self.breaker = Breaker(settings)
        self.waiting: list[asyncio.Future[None]] = []
        """Those who want to know when a place has been given back, first come first."""

    def usable(self, now: float) -> bool:
        """Whether it would take a call if it had a place for it."""
        return self.health == "up" and self.rests_until <= now and self.breaker.passes(now)

    def available(self, now: float) -> bool:
        """Whether it may be asked now."""
        return self.active < self.limit and self.usable(now)

    def wake(self) -> None:
        """Let everybody look again who waits for a place."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long, as it has asked."""
        self.rests_until = max(self.rests_until, monotonic() + min(seconds, self._settings.rest_seconds))


class BackendLease:
    """A place on a backend. Taken by `with`, given back at its end.

    Its headers are what the backend wants with every request (its own key), never what the client sent. What is not
    reported is no verdict on the backend, but for a TransportFault at the end.
    """

    __slots__ = ("_backend", "_reported", "_trial", "headers", "url")

    def __init__(self, backend: Backend) -> None:
        self._backend, self.url, self.headers = backend, backend.url, backend.headers
        self._trial = self._reported = False

    def report(self, *, ok: bool, status: int | None = None, retry_after: float | None = None) -> None:
        """Report how it went. A 429 is no failure; with `retry_after` the backend rests for so many seconds."""
        backend, self._reported = self._backend, True
        if retry_after is not None and status in (429, 503):
            backend.rest(retry_after)
        if status == 429:  # it is well, and busy
            return
        trial, self._trial = self._trial, False
        if ok or (status is not None and status < 500):
            backend.breaker.succeeded(trial=trial)
        else:
            backend.breaker.failed(monotonic(), trial=trial, certain=status not in _REQUESTS_OWN)

    def __enter__(self) -> Self:
        backend = self._backend
        backend.active += 1
        backend.passed += backend.inverse
        self._trial = backend.breaker.enter()
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.active -= 1
        self._backend.wake()
        if not self._reported and isinstance(error[1], TransportFault):
            self.report(ok=False)
        if self._trial:
            self._trial = False
            self._backend.breaker.leave()
