"""What every arm loses and costs on each problem, and the choice of an arm whose promise holds.

An arm is any way to answer: a fixed vote, a threshold, a learned rule at one price, a cascade. All of them are compared
in one matrix, paired problem by problem against what they are to match. Of many arms that seem to keep the accuracy the
cheapest is a lucky one. So an arm qualifies only where the one-sided upper bound of its loss is within the margin; and
since the cheapest of those is still the luckiest, the level of the bound is the mildest at which resampled
calibrations, each choosing anew, keep the margin as often as promised. Knows: matrices, bounds, resamples. Does not
know what an arm is, how it was fitted, or where its outcomes come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from outthink.controller.policy.promise import Promise, State
from outthink.core.errors import BadInput
from outthink.evaluation.rows import resampled_means

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Arm = TypeVar("Arm")


@dataclass(frozen=True, slots=True, eq=False)
class LossMatrix(Generic[Arm]):
    """What each arm loses and costs on each problem.

    Args:
        arms: what competes; the earlier of equals is chosen.
        problems: their names.
        losses: accuracy of what is to be matched minus the arm's, on the same problem: (arm, problem).
        costs: in one currency: (arm, problem).
    """

    arms: tuple[Arm, ...]
    problems: tuple[str, ...]
    losses: Array
    costs: Array

    @classmethod
    def of(cls, problems: Sequence[str], aim: Array, outcomes: Sequence[tuple[Arm, Array, Array]]) -> LossMatrix[Arm]:
        """From arms with their accuracy and cost on each problem.

        Args:
            aim: accuracy on each problem of what is to be matched.
        """
        arms, accuracy, costs = zip(*outcomes, strict=True)
        return cls(arms, tuple(problems), aim - np.array(accuracy), np.array(costs))

    def on(self, problems: Mask) -> LossMatrix[Arm]:
        """Some of the problems."""
        names = tuple(name for name, taken in zip(self.problems, problems, strict=True) if taken)
        return LossMatrix(self.arms, names, self.losses[:, problems], self.costs[:, problems])

    def only(self, places: Sequence[int]) -> LossMatrix[Arm]:
        """Some of the arms."""
        arms = tuple(self.arms[place] for place in places)
        return LossMatrix(arms, self.problems, self.losses[places], self.costs[places])

    @staticmethod
    def joined(parts: Sequence[LossMatrix[Any]]) -> LossMatrix[Any]:
        """The arms of several matrices of the same problems and the same aim."""
        arms = tuple(arm for part in parts for arm in part.arms)
        losses = np.concatenate([part.losses for part in parts])
        costs = np.concatenate([part.costs for part in parts])
        return LossMatrix(arms, parts[0].problems, losses, costs)


LEVELS = (0.1, 0.05, 0.02, 0.01, 0.005)
"""Of the bound, at a risk of 10 %; at another risk in proportion."""
RESAMPLES = 400
_SURE = NormalDist().inv_cdf(0.95)
"""The share of resamples that keep the margin is judged by its own lower bound."""
_ROUNDING = 1e-12
_MOST = 1e9
"""Problems; more are never recorded."""


@dataclass(frozen=True, slots=True)
class LossLimit:
    """What may be lost, and how often.

    Args:
        margin: accuracy that an arm may lose, as a fraction.
        risk: share of calibrations that may lose more.
        against: name of what is to be matched.
        resamples: calibrations that are made to find the level.
        seed: of the resampling.
    """

    margin: float
    risk: float
    against: str
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.risk < 0.5:
            raise BadInput("--risk", self.risk, "is not between 0 and 0.5", "give for example 0.1")

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the bound, the mildest first."""
        return tuple(level * self.risk / LEVELS[0] for level in LEVELS)

    @property
    def trials(self) -> int:
        """Resamples that are enough to tell a share of 1 - risk from less, if not one of them fails."""
        return max(self.resamples, math.ceil(2 * _SURE**2 / self.risk))


def quantile(level: float) -> float:
    """Of the normal distribution, one-sided: 1.28 at 0.1."""
    return NormalDist().inv_cdf(1 - level)


def share_at_least(hits: int, trials: int) -> float:
    """One-sided 95 % lower bound of a share (Wilson 1927, the score interval)."""
    if not trials:
        return 0.0
    share, square = hits / trials, _SURE**2 / trials
    return (share + square / 2 - _SURE * math.sqrt(share * (1 - share) / trials + square / (4 * trials))) / (1 + square)


def typical_loss(losses: Array) -> float:
    """Mean size of what is lost or won where something is, 0 where nothing ever is."""
    sizes = np.abs(losses[np.abs(losses) > _ROUNDING])
    return float(sizes.mean()) if sizes.size else 0.0


def deviation(mean: Array, square: Array, problems: int, typical: float) -> Array:
    """Spread of a loss over problems.

    One problem of a typical loss is added: an arm that was never seen to lose on a few problems may still do so.
    """
    return np.asarray(np.sqrt((problems * np.maximum(0.0, square - mean**2) + typical**2) / (problems + 1)))


@dataclass(frozen=True)
class GuardedChoice(Generic[Arm]):
    """Bounds of one matrix, and the choice among its arms.

    Args:
        reference: place of what is to be matched: it loses nothing, and is taken where no other arm qualifies; None
            where it is none of the arms.
    """

    matrix: LossMatrix[Arm]
    allowed: LossLimit
    reference: int | None

    @cached_property
    def _typical(self) -> float:
        return typical_loss(self.matrix.losses)

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        losses = self.matrix.losses
        return losses.mean(axis=1), (losses**2).mean(axis=1)

    @property
    def _problems(self) -> int:
        return int(self.matrix.losses.shape[1])

    def bounds(self, level: float) -> Array:
        """Upper bound of every arm's loss."""
        return self._bounds(*self._moments, level)

    def _bounds(self, mean: Array, square: Array, level: float) -> Array:
        spread = deviation(mean, square, self._problems, self._typical)
        bounds = mean + quantile(level) * spread / math.sqrt(self._problems)
        if self.reference is not None:
            bounds[self.reference] = 0.0
        return np.asarray(bounds)

    def _cheapest(self, bounds: Array, costs: Array) -> NDArray[np.intp]:
        """Of each column the cheapest arm within the margin; without one the reference, else the least bound."""
        enough = bounds <= self.allowed.margin + _ROUNDING
        cheapest = np.where(enough, costs, np.inf).argmin(axis=0)
        rest = bounds.argmin(axis=0) if self.reference is None else self.reference
        return np.asarray(np.where(enough.any(axis=0), cheapest, rest))

    def at(self, level: float) -> int:
        """Place of the arm that is chosen at this level."""
        return int(self._cheapest(self.bounds(level)[:, None], self.matrix.costs.mean(axis=1)[:, None])[0])

    @cached_property
    def _resampled(self) -> tuple[Array, Array, Array]:
        """Means of losses, of their squares and of costs under each resample of the problems: (arm, resample)."""
        return resampled(self.matrix, self.allowed.trials, self.allowed.seed)

    def chosen(self, mean: Array, square: Array, costs: Array, level: float) -> NDArray[np.intp]:
        """Places of the arms that calibrations on resampled problems choose at this level.

        Args:
            mean, square, costs: of losses, of their squares and of costs under each resample: (arm, resample).
        """
        return self._cheapest(self._bounds(mean, square, level), costs)

    def kept(self, choices: NDArray[np.intp]) -> int:
        """How many of these choices keep the margin on all problems."""
        return int((self._moments[0][choices] <= self.allowed.margin + _ROUNDING).sum())

    def promise(self) -> tuple[int, Promise]:
        """Place of the arm, and what is promised of it."""
        allowed, levels = self.allowed, self.allowed.levels
        for level in levels:
            hits = self.kept(self.chosen(*self._resampled, level))
            if share_at_least(hits, allowed.trials) >= 1 - allowed.risk:
                place = self.at(level)
                if place == self.reference or self.bounds(level)[place] > allowed.margin + _ROUNDING:
                    return self._fallen_back(place, level, hits / allowed.trials)
                return place, self._told(place, level, hits / allowed.trials, None)
        # No level was reliable enough, so nothing is chosen by a bound.
        place = int(self.bounds(levels[-1]).argmin()) if self.reference is None else self.reference
        return self._fallen_back(place, levels[-1], None)

    def _fallen_back(self, place: int, level: float, reliability: float | None) -> tuple[int, Promise]:
        return place, self._told(place, None, reliability, self._needed(level), bound_at=level)

    def _told(
        self, place: int, level: float | None, reliability: float | None, more: int | None, bound_at: float = 0.5
    ) -> Promise:
        allowed = self.allowed
        return Promise(
            margin=allowed.margin,
            risk=allowed.risk,
            bound=float(self.bounds(bound_at if level is None else level)[place]),
            level=level,
            reliability=reliability,
            problems=self._problems,
            against=allowed.against,
            needed=more,
        )

    def _needed(self, level: float) -> int | None:
        """Problems at which the cheapest arm that loses less than the margin qualifies: (z s / (margin - loss))^2."""
        mean, square = self._moments
        costs = self.matrix.costs.mean(axis=1)
        promising = mean < self.allowed.margin
        if self.reference is not None:
            promising &= costs < costs[self.reference]
        if not promising.any():
            return None
        place = int(np.where(promising, costs, np.inf).argmin())
        spread = float(deviation(mean, square, self._problems, self._typical)[place])
        return needed(level, spread, self.allowed.margin - float(mean[place]), self._problems)


def needed(level: float, spread: float, room: float, problems: int) -> int | None:
    """More problems than these, at which a loss would differ from the margin: (z s / (margin - loss))^2; None where no
    number that anybody records is enough."""
    count = (quantile(level) * spread / max(room, _ROUNDING)) ** 2
    return max(problems + 1, math.ceil(count)) if count < _MOST else None


def resampled(matrix: LossMatrix[Arm], trials: int, seed: int) -> tuple[Array, Array, Array]:
    """Means under `trials` resamples of the problems: of losses, of their squares, of costs; (arm, resample) each."""
    rows = len(matrix.arms)
    table = np.concatenate([matrix.losses, matrix.losses**2, matrix.costs])
    means = resampled_means(table, resamples=trials, seed=seed)
    return means[:rows], means[rows : 2 * rows], means[2 * rows :]


@dataclass(frozen=True, slots=True)
class PromiseCheck:
    """What the paired losses of new problems say of a promise.

    Args:
        low, high: one-sided bounds of the loss, each at the promise's risk.
        needed: problems that would decide it, None where it is decided.
    """

    state: State
    loss: float
    low: float
    high: float
    needed: int | None


def judge(losses: Array, promise: Promise) -> PromiseCheck:
    """Whether new problems confirm that at most the margin is lost, refute it, or leave it open.

    Args:
        losses: of the arm on each problem, against what it is to match.
    """
    problems, loss, margin, risk = len(losses), float(losses.mean()), promise.margin, promise.risk
    # An arm that has not lost anything yet may lose a whole answer on the next problem, unless it is what is matched.
    typical = typical_loss(losses) or float(promise.kept)
    spread = float(deviation(np.array(loss), np.array((losses**2).mean()), problems, typical))
    half = quantile(risk) * spread / math.sqrt(problems)
    low, high = loss - half, loss + half
    if low > margin + _ROUNDING:
        return PromiseCheck("broken", loss, low, high, None)
    if high <= margin + _ROUNDING:
        return PromiseCheck("confirmed", loss, low, high, None)
    return PromiseCheck("open", loss, low, high, needed(risk, spread, abs(margin - loss), problems))
