"""Stopping rules judged on problems that had no part in them, beside what they must be compared with.

Knows: nested folds over dealt samples, the sweep over a rule's operating points and the choice among them; and as
controls tuned thresholds, chance and an oracle. Does not know how a gain is fitted, files or result tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.core.sample import Sample
from outthink.engines.traces import Recorded
from outthink.evaluation.calibration.losses import Array, GuardedChoice, LossLimit, LossMatrix, Mask
from outthink.evaluation.calibration.votes import Walk, after, below, reached

LEADS = tuple(float(value) for value in np.arange(0.3, 3.05, 0.1))
"""Leads of the leader in standard deviations; at the last ones a vote of 32 hardly ever stops early."""


class RuleLearner(Protocol):
    """A regression of what going on still gains, on any part of the problems."""

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        """Gains of `problems` as Walk.gains, predicted by a fit on `train`."""
        ...


@dataclass(frozen=True, slots=True)
class Sweep:
    """What every operating point did on each problem, mean over orders; rows as `points`."""

    points: tuple[str, ...]
    accuracy: Array
    cost: Array
    tokens: Array
    """`cost` decides: prompts and whatever else is charged; `tokens` are the generated ones alone."""

    @classmethod
    def of(cls, points: Sequence[str], outcomes: Sequence[tuple[Array, Array, Array]]) -> Sweep:
        """From accuracy, cost and tokens over (problem, order) of each point."""
        accuracy, cost, tokens = (
            np.array([value.mean(axis=1) for value in one]) for one in zip(*outcomes, strict=True)
        )
        return cls(tuple(points), accuracy, cost, tokens)

    @classmethod
    def joined(cls, sweeps: Sequence[Sweep]) -> Sweep:
        """All points of several."""
        points = tuple(point for one in sweeps for point in one.points)
        parts = ([getattr(one, name) for one in sweeps] for name in ("accuracy", "cost", "tokens"))
        return cls(points, *(np.concatenate(part) for part in parts))

    def losses(self, aim: Array, problems: Mask) -> LossMatrix[str]:
        """What is lost and charged on some of the problems."""
        names = tuple(map(str, np.flatnonzero(problems)))
        return LossMatrix(self.points, names, aim[problems] - self.accuracy[:, problems], self.cost[:, problems])


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals after 0, 1, ... samples, over (problem, order, samples): all that is charged, generated tokens."""

    cost: Array
    tokens: Array


def outcome(right: Array, spent: Spent, stop: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """Accuracy, cost and tokens over (problem, order) of stopping after `stop` samples."""
    return after(right, stop), after(spent.cost, stop), after(spent.tokens, stop)


def priced(found: Walk, gains: Array, spent: Spent, prices: Sequence[float], name: str) -> Sweep:
    """A learned rule at every price."""
    ways = [outcome(found.right, spent, below(gains, price)) for price in prices]
    return Sweep.of([f"{name} price {price:.3g}" for price in prices], ways)


def per_cost(gains: Array, spent: Spent) -> Array:
    """Gains over the expected share of all cost that is still to come: so many samples of the mean size so far.

    The mean so far is drawn towards that of everybody by the weight of four samples.
    """
    depth = spent.cost.shape[2] - 1
    taken = np.arange(1, depth)
    each = float(spent.cost[..., -1].mean()) / depth
    size = (spent.cost[..., 1:-1] + 4 * each) / (taken + 4)
    return np.asarray(gains / (size * (depth - taken) / (depth * each)))


def nested_gains(learner: RuleLearner, fold: NDArray[np.int64]) -> list[Array]:
    """Gains of all problems, once for each outer fold: its own problems by a fit on all the others,
    any other problem by a fit without the outer fold and without the problem's own.

    The fit without two folds serves both of them, so k folds take k (k + 1) / 2 fits.
    """
    folds = int(fold.max()) + 1
    found: list[Array] = []
    for outer in range(folds):
        mask = fold == outer
        part = learner.gains_without(~mask, mask)
        found.append(np.zeros((len(fold), *part.shape[1:])))
        found[outer][mask] = part
    for one, other in combinations(range(folds), 2):
        train = (fold != one) & (fold != other)
        both = ~train
        part = learner.gains_without(train, both)
        mine = fold[both] == one
        found[other][fold == one] = part[mine]
        found[one][fold == other] = part[~mine]
    return found


@dataclass(frozen=True, slots=True)
class HeldOutRule:
    """What the chosen operating points did on the problems held out from the choice, over problems."""

    accuracy: Array
    cost: Array
    tokens: Array
    chosen: tuple[str, ...]


def held_out(sweeps: Sequence[Sweep], fold: NDArray[np.int64], aim: Array, margin: float, seed: int = 0) -> HeldOutRule:
    """In each outer fold the operating point of the other folds.

    Args:
        sweeps: one for each outer fold; the same one where nothing is fitted.
        aim: accuracy a problem of what is to be matched.
    """
    values, chosen = np.zeros((3, len(fold))), []
    for outer, sweep in enumerate(sweeps):
        mask = fold == outer
        allowed = LossLimit(margin, 0.1, "self-consistency", seed=seed)
        best, _ = GuardedChoice(sweep.losses(aim, ~mask), allowed, None).promise()
        values[:, mask] = sweep.accuracy[best, mask], sweep.cost[best, mask], sweep.tokens[best, mask]
        chosen.append(sweep.points[best])
    return HeldOutRule(values[0], values[1], values[2], tuple(chosen))


def thresholds(found: Walk, spent: Spent, name: str, leads: Sequence[float] = LEADS) -> Sweep:
    """Adaptive-consistency at every threshold, on votes of one weight."""
    ways = [outcome(found.right, spent, reached(found.lead[..., 1:], limit)) for limit in leads]
    return Sweep.of([f"{name} lead {limit:.1f}" for limit in leads], ways)


def oracle(right: Array, spent: Spent, points: int = 60) -> Sweep:
    """Stops at the first sample after which the leader is right, at once where it never is; one who knows
    the answers and buys the cheapest corrections first, at rising shares of what there is to gain.
    """
    hits = right[..., 1:] > 0
    first = np.where(hits.any(axis=2), hits.argmax(axis=2) + 1, 1)
    extra = after(spent.cost, first) - spent.cost[..., 1]
    bought = np.sort(extra[first > 1])
    limits = [-1.0, *np.quantile(bought, np.linspace(0, 1, points))] if bought.size else [-1.0]
    ways = [outcome(right, spent, np.where(extra <= limit, first, 1)) for limit in limits]
    return Sweep.of([f"corrections up to {max(limit, 0):.0f}" for limit in limits], ways)


def at_random(right: Array, spent: Spent, cost: float) -> tuple[Array, Array, Array]:
    """Stops after each sample with the same chance, at this mean cost: accuracy, cost and tokens in expectation.

    A cost outside of what one and all samples take is the nearer of the two.
    """
    depth = right.shape[2] - 1

    def mean(values: Array, chance: float) -> Array:
        still = (1 - chance) ** np.arange(depth)
        share = still * chance
        share[-1] = still[-1]
        return np.asarray((values[..., 1:] * share).sum(axis=2))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(spent.cost, middle).mean() > cost else (low, middle)
    accuracy, charged, tokens = (mean(values, high) for values in (right, spent.cost, spent.tokens))
    return accuracy, charged, tokens


def in_orders(problem: Recorded, orders: int) -> list[list[Sample]]:
    """The problem's samples in the orders of replay."""
    return [[problem.sampled[place] for place in problem.order(seed)] for seed in range(orders)]
