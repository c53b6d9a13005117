"""One backend as the pool sees it, and which of several is asked: the one that a prompt prefers, else the least busy.

Knows: what an operator may say about backends and how they are watched; calls by their outcome, the breaker that opens
when they fail, places that are taken and given back; loads, weights and hashes. Does not know how a backend's health is
checked, or which others there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import log
from time import monotonic
from typing import Literal, Protocol, Self, TypeVar
from zlib import crc32

from outthink.core.errors import BadInput
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy
from outthink.http.server import Address
from outthink.http.transport import TransportFault

# A prompt prefers the backend with the highest of one random number per pair, weighted: losing a backend moves only
# the prompts that preferred it, and spreads them over the others (Thaler and Ravishankar 1998; weights as in
# Schindelhauer and Schomaker 2005).

_WORD = (1 << 64) - 1


def seed_of(url: str) -> int:
    """The number that stands for a backend; the same in every process and replica."""
    raw = url.encode()  # two checksums of 32 bits make one of 64; `hash` differs in every process
    return crc32(raw) | crc32(raw[::-1], 0x9E3779B9) << 32


def preference(prefix: int, seed: int, weight: float) -> float:
    """How much a prompt prefers a backend: larger is better, uniform over pairs for equal weights."""
    mixed = (prefix * 0x9E3779B97F4A7C15 ^ seed) & _WORD  # splitmix64's finish
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _WORD
    return -weight / log(((mixed ^ mixed >> 31) + 1) / (_WORD + 2))


class Loaded(Protocol):
    """What the choice looks at."""

    active: int
    """Calls in flight."""
    weight: float
    """Its share."""
    inverse: float
    """1 / weight."""
    passed: float
    """Calls it has had, divided by its weight."""
    seed: int
    """Its number in the hash."""


L = TypeVar("L", bound=Loaded)


def least_busy(available: Sequence[L]) -> L:
    """The fewest calls in flight for its weight; of equals the one that has had the fewest."""
    best = available[0]
    load, passed = best.active * best.inverse, best.passed
    for backend in available[1:]:
        its_load = backend.active * backend.inverse
        if its_load < load or (its_load == load and backend.passed < passed):
            best, load, passed = backend, its_load, backend.passed
    return best


def preferred(available: Sequence[L], prefix: int, overload: float, slack: int) -> L:
    """The first in the prompt's order of preference that is not overloaded (consistent hashing with bounded loads).

    A backend is overloaded where one more call would bring it above `slack` calls and above `overload`
    times its share of all calls (Mirrokni, Thorup and Zadimoghaddam 2018).
    """
    best, top = available[0], -1.0
    for backend in available:
        its_preference = preference(prefix, backend.seed, backend.weight)
        if its_preference > top:
            best, top = backend, its_preference
    if best.active < slack:
        return best
    share = overload * (sum(each.active for each in available) + 1) / sum(each.weight for each in available)
    if best.active < share * best.weight:
        return best
    ranked = sorted(available, key=lambda each: -preference(prefix, each.seed, each.weight))
    return next((each for each in ranked if each.active < max(slack, share * each.weight)), best)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One backend.

    Args:
        url: with or without `/v1`.
        key: bearer token that it wants, None for none. Never shown.
        weight: its share of the requests, relative to the other backends of the same model.
        limit: calls in flight at once, None for as many as come.
        models: names that it is asked for, empty for all that it lists.
        price: of its tokens, None for the published one, if there is any.
        energy: joules of its tokens, None where nobody knows.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    limit: int | None = None
    models: tuple[str, ...] = ()
    price: Pricing | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1e6:
            raise BadInput("weight", self.weight, "is no share", "give a number above 0")
        if self.limit is not None and self.limit < 1:
            raise BadInput("limit", self.limit, "lets no call through", "give 1 or more, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How backends are watched and chosen. Times in seconds.

    Args:
        interval: between two health checks of a backend, 20 % more or less at random.
        timeout: of one check.
        down_after: failed checks in a row after which a backend is down.
        up_after: passed checks in a row after which it is up again; one is enough for its first time.
        failures: calls in a row that fail for the breaker to open.
        share: failed share of the last `window` calls for the breaker to open.
        window: calls that the share is taken over, at most 1,024; fewer than half of them open nothing.
        open_seconds: that an open breaker waits before one trial call; doubled with every failed trial.
        rest_seconds: the longest rest that a backend's Retry-After may ask for.
        affinity: equal prompts prefer one backend, whose cache then holds their prefix.
        overload: the preferred backend is left when its load is this many times the mean.
        slack: calls in flight up to which no backend is overloaded.
    """

    interval: float = 5.0
    timeout: float = 5.0
    down_after: int = 3
    up_after: int = 2
    failures: int = 5
    share: float = 0.5
    window: int = 40
    open_seconds: float = 5.0
    rest_seconds: float = 60.0
    affinity: bool = True
    overload: float = 1.25
    slack: int = 16

    def __post_init__(self) -> None:
        values = asdict(self)
        for name in ("interval", "timeout", "open_seconds", "rest_seconds"):
            if not 0 < values[name] <= 86_400:
                raise BadInput(name, values[name], "is no time", "give seconds above 0, at most 86400")
        for name in ("down_after", "up_after", "failures"):
            if values[name] < 1:
                raise BadInput(name, values[name], "is no count", "give 1 or more")
        if not 0 < self.share <= 1:
            raise BadInput("share", self.share, "is no share", "give a number above 0, at most 1")
        if not 2 <= self.window <= 1024:
            raise BadInput("window", self.window, "is no window", "give 2 to 1024 calls")
        if not 1 <= self.overload <= 100:
            raise BadInput("overload", self.overload, "is no factor", "give 1 to 100")
        if self.slack < 0:
            raise BadInput("slack", self.slack, "is no count", "give 0 or more")


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
