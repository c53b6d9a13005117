"""Stops a vote where the samples still to come would change too little, by a fitted linear formula.

Knows: the shape of the vote so far, its confidence and lengths, and coefficients for the expected
gain in accuracy. Does not know how the coefficients were fitted (evaluation/calibration/gain.py,
which computes the same terms over arrays; a test holds the two together).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import comb, exp, lgamma
from typing import Any, ClassVar, NamedTuple, Protocol

from outthink.core.errors import BadInput
from outthink.core.receipt import Stopped, Verdict
from outthink.core.sample import TOP, Sample
from outthink.strategies import Votes
from outthink.strategies.votes import leader_probability
from outthink.strategies.voting import Step

TERMS = 15
"""Terms before products; see `Shape.terms`."""
COEFFICIENTS = 1 + TERMS + TERMS * (TERMS + 1) // 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and spread over the calibration samples of mean log-probability, confidence and length."""

    logprob: tuple[float, float]
    confidence: tuple[float, float]
    tokens: tuple[float, float]
    weight: float = 1.0
    """Mean of the unscaled vote weights."""

    @staticmethod
    def standard(value: float | None, of: tuple[float, float]) -> float:
        """In spreads from the mean; 0 for what is unknown."""
        return 0.0 if value is None else (value - of[0]) / of[1]


class VoteShape:
    """The votes of one request as the formula sees them.

    Args:
        horizon: samples at which the calibration's votes ended.
        sway: how much the standardised log-probability and confidence sway a vote's weight, exp(s1 z1 + s2 z2).
    """

    def __init__(self, scale: Scale, horizon: int, sway: tuple[float, float]) -> None:
        self._scale, self._horizon, self._sway = scale, horizon, sway
        self.votes = Votes()
        self.drawn = 0
        self._unreadable = 0
        self._answers: set[str] = set()
        self._sums = [0.0, 0.0, 0.0]

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        scale = self._scale
        conf = None if sample.confidence is None else sample.confidence.mean()
        tokens = None if sample.tokens is None else float(sample.tokens)
        told = ((sample.mean_logprob, scale.logprob), (conf, scale.confidence), (tokens, scale.tokens))
        z = [scale.standard(value, of) for value, of in told]
        self._sums = [total + value for total, value in zip(self._sums, z, strict=True)]
        self.drawn += 1
        self.votes.add(sample, math.exp(self._sway[0] * z[0] + self._sway[1] * z[1]) / scale.weight)
        if sample.answer is None:
            self._unreadable += 1
        else:
            self._answers.add(sample.answer)

    def _top(self) -> tuple[float, float]:
        leader = second = 0.0
        for weight in self.votes.weights.values():
            if weight > leader:
                leader, second = weight, leader
            elif weight > second:
                second = weight
        return leader, second

    @property
    def lead(self) -> float:
        """How far the leader is ahead, in standard deviations."""
        leader, second = self._top()
        return (leader - second) / math.sqrt(leader + second + 1)

    def terms(self) -> list[float]:
        """What the formula is linear in, before products; after the first sample and before the horizon."""
        k = self.drawn
        leader, second = self._top()
        lead = self.lead
        left = math.sqrt(1 - k / (self._horizon + 1))
        sure = lead / left
        logprob, confidence, tokens = (total / k for total in self._sums)
        shape = [lead, sure, leader / k, second / k, leader, second, confidence, logprob, tokens]
        return [*shape, len(self._answers) / k, self._unreadable / k, 1 / k, left, math.exp(-sure), math.exp(-2 * sure)]


class ShapeRule(Protocol):
    """A rule that stops by the shape of the vote."""

    @property
    def scale(self) -> Scale:
        """Of the calibration's samples."""
        ...

    @property
    def horizon(self) -> int:
        """Samples at which the calibration's votes ended."""
        ...

    @property
    def sway(self) -> tuple[float, float]:
        """Of log-probability and confidence on a vote's weight."""
        ...

    def enough(self, shape: VoteShape) -> bool:
        """Whether to stop."""
        ...


@dataclass(frozen=True, slots=True)
class LinearGain:
    """Draw until the expected gain in accuracy of going on is at most `price`.

    Args:
        coefficients: of 1, the terms, and their products in pairs (i <= j, row by row).
        horizon: samples at which the calibration's votes ended; the gain is what remains up to there.
        price: the least gain worth going on for, in correct answers a request.
    """

    scale: Scale
    coefficients: tuple[float, ...]
    horizon: int
    sway: tuple[float, float]
    price: float
    kind: ClassVar[str] = "linear-gain"
    carries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.coefficients) != COEFFICIENTS:
            problem = f"are {len(self.coefficients)} instead of {COEFFICIENTS}"
            raise BadInput("policy", "coefficients", problem, "calibrate again")

    def gain(self, shape: VoteShape) -> float:
        """Expected gain in accuracy of drawing on to the horizon."""
        terms = shape.terms()
        total, place = self.coefficients[0], 1
        for term in terms:
            total += self.coefficients[place] * term
            place += 1
        for i, left in enumerate(terms):
            for right in terms[i:]:
                total += self.coefficients[place] * left * right
                place += 1
        return total

    def enough(self, shape: VoteShape) -> bool:
        """Whether going on is worth less than its price."""
        return shape.drawn >= self.horizon or self.gain(shape) <= self.price

    def json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["scale"] = {name: list(v) if isinstance(v, tuple) else v for name, v in values["scale"].items()}
        values |= {"coefficients": list(self.coefficients), "sway": list(self.sway)}
        return {"kind": self.kind, **values}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LinearGain:
        """From plain values; BadInput for what is malformed."""
        try:
            return cls(
                scale_of_json(values["scale"]),
                tuple(float(value) for value in values["coefficients"]),
                int(values["horizon"]),
                pair_of(values["sway"]),
                float(values["price"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("policy", cls.kind, f"is malformed ({error!r})", "calibrate again") from None

    def start(self, n: int, features: Sequence[float] | None) -> Stopping:
        """The rule for one request of at most n samples; features of the question are not used."""
        return Stopping(self, n)


class Stopping:
    """A rule on the vote's shape, on one request."""

    def __init__(self, rule: ShapeRule, n: int) -> None:
        self._rule, self._n = rule, n
        self._shape = VoteShape(rule.scale, rule.horizon, rule.sway)
        self._stopped: Stopped = "finished"

    def carry(self, sample: Sample, weight: float) -> None:
        """A vote from elsewhere: it weighs, and is no draw of this model."""
        self._shape.votes.add(sample, weight)

    def next(self) -> Step | None:
        """The samples that are left."""
        left = self._n - self._shape.drawn
        if left <= 0 or self._stopped != "finished":
            return None
        return Step(None, left, alternatives=TOP if self._rule.sway[1] else 0)

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a vote; True where going on is not worth it."""
        self._shape.add(sample)
        if self._shape.drawn < self._n and self._rule.enough(self._shape):
            self._stopped = "consensus"
        return self._stopped != "finished"

    def verdict(self) -> Verdict:
        """The answer with the most weight."""
        return self._shape.votes.winner(self._stopped)


def scale_of_json(values: Mapping[str, Any]) -> Scale:
    """A scale from plain values; KeyError, TypeError or ValueError for what is malformed."""
    known = {name: pair_of(values[name]) for name in ("logprob", "confidence", "tokens")}
    return Scale(**known, weight=float(values["weight"]))


def pair_of(values: Sequence[float]) -> tuple[float, float]:
    """Two numbers; TypeError or ValueError for anything else."""
    first, second = values
    return float(first), float(second)


# What one more sample has gained so far, by the state of a vote.
#
# Knows: the cells, and what stands in for a cell that was never seen. Does not know how
# the gains were measured; `evaluation.gains` does that on recorded samples.

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
