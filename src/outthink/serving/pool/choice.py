"""Which of several able backends is asked: the one that a prompt prefers, else the least busy.

Knows loads, weights and hashes. Knows no clock, no health, no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from outthink.serving.pool.rendezvous import score


class Loaded(Protocol):
    """What the choice looks at."""

    @property
    def active(self) -> int:
        """Calls in flight."""
        ...

    @property
    def weight(self) -> float:
        """Its share."""
        ...

    @property
    def inverse(self) -> float:
        """1 / weight."""
        ...

    @property
    def passed(self) -> float:
        """Calls it has had, divided by its weight."""
        ...

    @property
    def seed(self) -> int:
        """Its number in the hash."""
        ...


L = TypeVar("L", bound=Loaded)


def least_busy(able: Sequence[L]) -> L:
    """The fewest calls in flight for its weight; of equals the one that has had the fewest."""
    best = able[0]
    load, passed = best.active * best.inverse, best.passed
    for one in able[1:]:
        mine = one.active * one.inverse
        if mine < load or (mine == load and one.passed < passed):
            best, load, passed = one, mine, one.passed
    return best


def preferred(able: Sequence[L], prefix: int, overload: float, slack: int) -> L:
    """The first in the prompt's order of preference that is not overloaded (consistent hashing with bounded loads).

    A backend is overloaded where one more call would bring it above `slack` calls and above `overload`
    times its share of all calls (Mirrokni, Thorup and Zadimoghaddam 2018).
    """
    best, top = able[0], -1.0
    for one in able:
        mine = score(prefix, one.seed, one.weight)
        if mine > top:
            best, top = one, mine
    if best.active < slack:
        return best
    share = overload * (sum(one.active for one in able) + 1) / sum(one.weight for one in able)
    if best.active < share * best.weight:
        return best
    ranked = sorted(able, key=lambda one: -score(prefix, one.seed, one.weight))
    return next((one for one in ranked if one.active < max(slack, share * one.weight)), best)
