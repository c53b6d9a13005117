"""Which of several available backends is asked: the one that a prompt prefers, else the least busy; and the settings.

Knows: loads, weights and hashes, and what an operator may say about backends and how they are watched. Knows no clock,
no health, no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import log
from typing import Protocol, TypeVar
from zlib import crc32

from outthink.core.errors import BadInput
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy

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
