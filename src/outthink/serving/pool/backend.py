"""One backend as the pool sees it: what it serves, how busy it is, and whether it may be asked.

Knows calls by their outcome. Does not know how it is checked, or who else there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Literal, Self

from outthink.http.server import Address
from outthink.http.transport import TransportFault
from outthink.serving.pool.breaker import Breaker
from outthink.serving.pool.rendezvous import seed_of
from outthink.serving.pool.settings import BackendSettings, PoolSettings

Health = Literal["unknown", "up", "down"]
_REQUESTS_OWN = frozenset({500})
"""Statuses that a request may bring about by itself."""
ENDLESS = 1 << 60


class Backend:
    """A server and what is known of it now."""

    __slots__ = (
        "_settings",
        "active",
        "address",
        "breaker",
        "headers",
        "health",
        "inverse",
        "limit",
        "models",
        "named",
        "passed",
        "rests_until",
        "seed",
        "trouble",
        "url",
        "waiting",
        "weight",
    )

    def __init__(self, told: BackendSettings, settings: PoolSettings) -> None:
        self._settings = settings
        self.address = Address.parse(told.url)
        self.url = self.address.base
        self.headers: Mapping[str, str] = {}
        if told.key:
            self.headers = {"authorization": f"Bearer {told.key}"}
        elif self.address.userinfo:
            self.headers = {"authorization": self.address.userinfo}
        self.weight, self.inverse = told.weight, 1 / told.weight
        self.limit = told.limit or ENDLESS
        self.named = told.models
        self.models: Sequence[str] = told.models
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

    def well(self, now: float) -> bool:
        """Whether it would take a call if it had a place for it."""
        return (
            self.health == "up"
            and self.rests_until <= now
            and (self.breaker.opened_until is None or self.breaker.passes(now))
        )

    def able(self, now: float) -> bool:
        """Whether it may be asked now."""
        return self.active < self.limit and self.well(now)

    def wake(self) -> None:
        """Let everybody look again who waits for a place."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long, as it has asked."""
        self.rests_until = max(self.rests_until, monotonic() + min(seconds, self._settings.rest_seconds))


class BackendLease:
    """A place on a backend. Taken by `with`, given back at its end."""

    __slots__ = ("_backend", "_told", "_trial", "headers", "url")

    def __init__(self, backend: Backend) -> None:
        self._backend, self.url, self.headers = backend, backend.url, backend.headers
        self._trial = self._told = False

    def report(self, *, ok: bool, status: int | None = None, retry_after: float | None = None) -> None:
        """Tell how it went. A 429 is no failure; with `retry_after` the backend rests for so many seconds."""
        backend, self._told = self._backend, True
        if retry_after is not None and status in (429, 503):
            backend.rest(retry_after)
        if status == 429:
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
        if backend.breaker.opened_until is not None:
            self._trial = backend.breaker.enter()
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.active -= 1
        if self._backend.waiting:
            self._backend.wake()
        if not self._told and isinstance(error[1], TransportFault):
            self.report(ok=False)
        if self._trial:
            self._trial = False
            self._backend.breaker.leave()
