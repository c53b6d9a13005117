"""One backend as the pool sees it, and which of several is asked: the one that a prompt prefers, else the least busy.

Knows: what an operator may say about backends and how they are watched; calls by their outcome, the breaker that opens
when they fail, places that are taken and given back; loads, weights and hashes. Does not know how a backend's health is
checked, or which others there are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import log
from time import monotonic
from typing import Literal, Self
from zlib import crc32

from outthink.core.errors import BadInput
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy
from outthink.http.server import Address
from outthink.http.transport import TransportFault
from outthink.serving.pool.rules import FieldSettings

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


def least_busy(available: Sequence[Backend]) -> Backend:
    """The fewest calls in flight for its weight; of equals the one that has had the fewest."""
    best = available[0]
    load, passed = best.active * best.inverse, best.passed
    for backend in available[1:]:
        its_load = backend.active * backend.inverse
        if its_load < load or (its_load == load and backend.passed < passed):
            best, load, passed = backend, its_load, backend.passed
    return best


def preferred(available: Sequence[Backend], prefix: int, overload: float, slack: int) -> Backend:
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


_FIELDS = FieldSettings()


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
        parameters: weights read per token, None for what it tells.
        alias: its operator's name for it, None without one.
        fields: what limited keys may send to it, and what bounds that.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    limit: int | None = None
    models: tuple[str, ...] = ()
    price: Pricing | None = None
    energy: Energy | None = None
    parameters: int | None = None
    alias: str | None = None
    fields: FieldSettings = _FIELDS

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
        failures: calls of one API key in a row that fail for its vote against a backend; each key has one vote.
        share: of the keys heard lately that must vote against a backend, and two at least, for its breaker to open.
        window: keys that the share is taken over, at most 1,024, the last ones heard.
        open_seconds: that an open breaker waits before the check that may close it; doubled with every failed one.
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
            raise BadInput("window", self.window, "is no window", "give 2 to 1024 keys")
        if not 1 <= self.overload <= 100:
            raise BadInput("overload", self.overload, "is no factor", "give 1 to 100")
        if self.slack < 0:
            raise BadInput("slack", self.slack, "is no count", "give 0 or more")


_LONGEST = 12.0
"""An open breaker waits at most this many times its first wait."""
_SEVERAL = 2
"""Keys that must meet a failure: what one client sends may be what fails."""
_FRESH = 60.0
"""Seconds after its last call that a key's vote counts."""


class Breaker:
    """A circuit breaker: a backend whose calls fail for several keys, and whose own check fails too, is left alone.

    No client's request opens it by itself, and none is the trial that closes it: that is the next check that passes.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._rows: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """By key, the last heard last: its failures one after the other, and when it was heard."""
        self._wait = settings.open_seconds
        self.opened_until: float | None = None
        """When the check is due that may close it; None while it is closed."""

    def succeeded(self, key: str, now: float) -> None:
        """A call went well."""
        if self._rows:  # what nobody complains of need not be counted
            self._heard(key, 0, now)

    def failed(self, key: str, now: float) -> bool:
        """A call failed, whatever the failure; whether its key now votes against the backend."""
        row, heard = self._rows.get(key, (0, now))
        row = row + 1 if now - heard <= _FRESH else 1
        self._heard(key, row, now)
        return row >= self._settings.failures

    def checked(self, now: float, *, well: bool) -> None:
        """A check of our own has ended."""
        if well:
            if self.opened_until is not None:
                self.reset()
        elif self.opened_until is not None:
            if now >= self.opened_until:
                self._wait = min(self._wait * 2, self._settings.open_seconds * _LONGEST)
                self.opened_until = now + self._wait
        elif self._outvoted(now):
            self.opened_until = now + self._wait

    def reset(self) -> None:
        """Close, and forget."""
        self._rows.clear()
        self._wait = self._settings.open_seconds
        self.opened_until = None

    def _heard(self, key: str, row: int, now: float) -> None:
        self._rows[key] = row, now
        self._rows.move_to_end(key)
        if len(self._rows) > self._settings.window:
            self._rows.popitem(last=False)

    def _outvoted(self, now: float) -> bool:
        rows = [row for row, heard in self._rows.values() if now - heard <= _FRESH]
        against = sum(row >= self._settings.failures for row in rows)
        return against >= max(_SEVERAL, self._settings.share * len(rows))


Health = Literal["unknown", "up", "down"]
ENDLESS = 1 << 60
"""A limit that no number of calls reaches, so that every backend is compared in the same way."""


class Backend:
    """A server and what is known of it now."""

    def __init__(self, given: BackendSettings, settings: PoolSettings) -> None:
        self._settings = settings
        self.address = Address.parse(given.url)
        self.url = self.address.base
        authorizations = [f"Bearer {given.key}" if given.key else "", self.address.userinfo or ""]
        authorization = next(filter(None, authorizations), None)
        self.headers: Mapping[str, str] = {"authorization": authorization} if authorization else {}
        self.credentials = [(told, "") for told in authorizations if told]
        if self.address.query:
            self.credentials.append(("", self.address.query))
        """All that its operator has told of it in confidence, sent or not."""
        self.weight, self.inverse = given.weight, 1 / given.weight
        self.limit = given.limit or ENDLESS
        self.alias, self.named = given.alias, given.models
        self.models: Sequence[str] = given.models
        self.told: Mapping[str, int] = {}
        """Weights of its models, as far as it tells them."""
        self.length_name: str | None = None
        """What caps a chat on a server of its kind, where that can be told."""
        self.health: Health = "unknown"
        self.trouble: str | None = None
        """Why it is not up."""
        self.active = 0
        self.passed = 0.0
        """Calls it has had, divided by its weight: who is behind is next among equally busy ones."""
        self._rests: dict[tuple[str, str | None], float] = {}
        """Until when it rests for a model, by key, None for all: what one has brought about holds for it alone."""
        self.rested: Callable[[float], asyncio.TimerHandle | None] = lambda seconds: None
        """Called with the seconds of a rest when it begins."""
        self.wants_check: Callable[[], None] = lambda: None
        """Called when a key votes against it, so that it is checked soon."""
        self.seed = seed_of(self.url)
        self.breaker = Breaker(settings)
        self.waiting: list[asyncio.Future[None]] = []
        """Those who want to know when a place has been given back, first come first."""

    def usable(self, now: float, model: str, key: str | None = None) -> bool:
        """Whether it would take a call for a model, of a key, if it had a place for it."""
        return self.health == "up" and self.breaker.opened_until is None and self.rests(model, key) <= now

    def available(self, now: float, model: str, key: str | None = None) -> bool:
        """Whether it may be asked now."""
        return self.active < self.limit and self.usable(now, model, key)

    def rests(self, model: str, key: str | None = None) -> float:
        """Until when it is left alone, by the monotonic clock."""
        if not self._rests:
            return 0.0
        return max(self._rests.get((model, None), 0.0), self._rests.get((model, key), 0.0))

    def wake(self) -> None:
        """Let everybody look again who waits for a place."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def rest(self, seconds: float, model: str, key: str | None = None) -> None:
        """Leave it alone for so long, as it has asked for a model; once it has asked several keys, or None, for all."""
        now, seconds = monotonic(), min(seconds, self._settings.rest_seconds)
        rests = {who: ends for who, ends in self._rests.items() if ends > now}
        rests[model, key] = now + seconds
        if sum(of == model and who is not None for of, who in rests) >= _SEVERAL:
            rests[model, None] = max(rests.get((model, None), 0.0), now + seconds)
        self._rests = rests
        self.rested(seconds)


class BackendLease:
    """A place on a backend. Taken by `take` or `with`, and given back once: at the end of `with`, or by `close`.

    The key is the client's, which has one vote on the backend; the headers are what the backend wants with every
    request (its own key), never what the client sent. What is not reported is no verdict on the backend, but for a
    TransportFault at the end.
    """

    __slots__ = ("_backend", "_key", "_model", "_reported", "_taken", "headers", "url")

    def __init__(self, backend: Backend, model: str, key: str) -> None:
        self._backend, self._model, self._key = backend, model, key
        self.url, self.headers = backend.url, backend.headers
        self._reported = self._taken = False

    def report(self, *, ok: bool, status: int | None = None, retry_after: float | None = None) -> None:
        """Report how it went. A 429 is no failure; with `retry_after` the backend rests for so many seconds."""
        backend, self._reported = self._backend, True
        if retry_after is not None and status in (429, 503):
            backend.rest(retry_after, self._model, self._key)
        if status == 429:  # it is well, and busy
            return
        if ok or (status is not None and status < 500):
            backend.breaker.succeeded(self._key, monotonic())
        elif backend.breaker.failed(self._key, monotonic()):
            backend.wants_check()

    def take(self) -> None:
        """Take the place, if it is not taken."""
        if not self._taken:
            self._taken, backend = True, self._backend
            backend.active += 1
            backend.passed += backend.inverse

    def close(self) -> None:
        """Give the place back, if it is taken."""
        if self._taken:
            self._taken = False
            self._backend.active -= 1
            self._backend.wake()

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if not self._reported and isinstance(error[1], TransportFault):
            self.report(ok=False)
