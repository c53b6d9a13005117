"""What one more sample has gained so far, by the state of a vote.

Knows: the cells, and what stands in for a cell that was never seen. Does not know how
the gains were measured; `evaluation.gains` does that on recorded samples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, exp, lgamma
from typing import Any, NamedTuple

from outthink.core.errors import BadInput
from outthink.strategies.votes import leader_probability

SCHEMA = 1
_AHEAD = (1, 2, 3, 4, 6, 8, 12, 16)
_MOST = 40
"""Votes beyond which the posterior is taken at the same shares: it is settled by then."""

Key = tuple[int, ...]


class State(NamedTuple):
    """A vote: samples drawn, votes of the leader and of the second, mean log-probability behind the leader."""

    n: int
    leader: int
    second: int
    certainty: float | None


def step(n: int) -> int:
    """Samples in classes: one each up to 8, then two a doubling."""
    return n if n <= 8 else 8 + sum(n >= bound for bound in (12, 16, 23, 32, 46, 64, 91, 128))


def keys(state: State, edges: Sequence[float]) -> tuple[Key, ...]:
    """The cells of a state, the coarser first."""
    votes = (step(state.n), min(state.leader, 63), min(state.second, 63))
    if state.certainty is None or not edges:
        return (votes,)
    return votes, (*votes, bisect_right(edges, state.certainty))


@dataclass(frozen=True, slots=True)
class GainTable:
    """Accuracy gained per further sample, by state.

    Args:
        cells: gain by key: samples drawn (in classes), votes of leader and second, and, where the key is
            longer, the class of certainty.
        edges: limits between classes of certainty (mean log-probability), empty to leave it out.
        slope: gain per assumed gain, for states that were not seen.
        at_most: samples a request that the recorded ones tell of.
        source: the files it was measured on.
        problems: how many problems they hold.
    """

    cells: Mapping[Key, float]
    edges: tuple[float, ...]
    slope: float
    at_most: int
    source: tuple[str, ...] = ()
    problems: int = 0

    def gain(self, state: State) -> float:
        """Of the finest cell that was seen; 0 beyond what was recorded."""
        if state.n >= self.at_most:
            return 0.0
        for key in reversed(keys(state, self.edges)):
            if (found := self.cells.get(key)) is not None:
                return found
        return self.slope * assumed_gain(state)

    def json(self) -> dict[str, Any]:
        """Plain values; `of` reads them back."""
        return {
            "schema_version": SCHEMA,
            "source": list(self.source),
            "problems": self.problems,
            "at_most": self.at_most,
            "slope": self.slope,
            "edges": list(self.edges),
            "cells": [[*key, gain] for key, gain in sorted(self.cells.items())],
        }

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> GainTable:
        """Read what `json` gave; BadInput for another version or a damaged table."""
        version = value.get("schema_version")
        if version != SCHEMA:
            raise BadInput("gains schema_version", version, f"is not {SCHEMA}", "measure the gains again")
        try:
            cells = {tuple(int(part) for part in row[:-1]): float(row[-1]) for row in value["cells"]}
            edges = tuple(float(edge) for edge in value["edges"])
            source, problems = tuple(value["source"]), int(value["problems"])
            return cls(cells, edges, float(value["slope"]), int(value["at_most"]), source, problems)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BadInput("gains", type(error).__name__, f"cannot be read ({error})", "measure them again") from None


def assumed_gain(state: State) -> float:
    """Without recorded samples: how much surer further samples are expected to make the leader.

    The leader is right if it is the answer the model prefers; what the two leading answers will get is
    beta-binomial under Beta(leader + 1, second + 1), and only their share of the samples votes for them.
    """
    if state.n == 0:
        return 1.0  # nothing is known, and nothing pays more than the first sample
    top = state.leader + state.second
    share = (top + 1) / (state.n + 1)
    if top > _MOST:
        return share * _surer(round(state.leader * _MOST / top), round(state.second * _MOST / top))
    return share * _surer(state.leader, state.second)


@lru_cache(maxsize=4096)
def _surer(leader: int, second: int) -> float:
    """Best mean rise of P(the leader is preferred) per vote, over the numbers of votes ahead."""
    now = leader_probability(leader, second)
    best = 0.0
    for ahead in _AHEAD:
        later = sum(
            _beta_binomial(more, ahead, leader + 1, second + 1)
            * leader_probability(max(leader + more, second + ahead - more), min(leader + more, second + ahead - more))
            for more in range(ahead + 1)
        )
        best = max(best, (later - now) / ahead)
    return best


def _beta_binomial(k: int, n: int, a: int, b: int) -> float:
    """P(k of n) under a success probability drawn from Beta(a, b)."""

    def log_beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    return comb(n, k) * exp(log_beta(k + a, n - k + b) - log_beta(a, b))
