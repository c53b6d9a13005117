"""Stopping rules judged on problems that had no part in them: neither in the fit nor in the operating point.

Knows: nested folds over dealt samples, the sweep over a rule's operating points, and the choice among
them. Does not know how a gain is fitted or what it is compared with (stopping_controls.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.calibration.dealt import Array
from outthink.evaluation.calibration.gain import Mask, Walk


class Learner(Protocol):
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


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals after 0, 1, ... samples, over (problem, order, samples): all that is charged, generated tokens."""

    cost: Array
    tokens: Array


def outcome(right: Array, spent: Spent, stop: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """Accuracy, cost and tokens over (problem, order) of stopping after `stop` samples."""
    at = stop[..., None]
    first, second, third = (np.take_along_axis(one, at, 2)[..., 0] for one in (right, spent.cost, spent.tokens))
    return first, second, third


def below(gains: Array, price: float) -> NDArray[np.intp]:
    """Samples after which what is left to gain is not worth the price; gains after 1, 2, ... samples."""
    enough = np.concatenate([gains <= price, np.ones((*gains.shape[:2], 1), dtype=bool)], axis=2)
    return np.asarray(enough.argmax(axis=2) + 1)


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


def nested_gains(learner: Learner, fold: NDArray[np.int64]) -> list[Array]:
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
        best = operating_point(sweep, ~mask, aim, margin, seed)
        values[:, mask] = sweep.accuracy[best, mask], sweep.cost[best, mask], sweep.tokens[best, mask]
        chosen.append(sweep.points[best])
    return HeldOutRule(values[0], values[1], values[2], tuple(chosen))


def operating_point(
    sweep: Sweep, problems: Mask, aim: Array, margin: float, seed: int = 0, *, folds: int = 5, partitions: int = 4
) -> int:
    """The cheapest point within the margin on these problems, aimed high enough that the choice itself holds up.

    Choosing the cheapest of many that seem to keep the accuracy favours lucky ones. So the aim is raised
    until what was chosen on some of the problems is within the margin on the others, on average.
    """
    lost, cost = sweep.accuracy[:, problems] - aim[problems], sweep.cost[:, problems]
    return cheapest_kept(lost, cost, margin, seed, folds=folds, partitions=partitions)


def cheapest_kept(lost: Array, cost: Array, margin: float, seed: int, *, folds: int, partitions: int) -> int:
    """`operating_point` on accuracy against the aim and cost, both over (point, problem)."""
    count = lost.shape[1]
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(count) % folds for _ in range(partitions)]
    masks = np.array([part == k for part in parts for k in range(folds)])
    sums, costs, sizes = lost @ masks.T, cost @ masks.T, masks.sum(axis=1)
    kept = (lost.sum(axis=1)[:, None] - sums) / (count - sizes)
    rest = cost.sum(axis=1)[:, None] - costs
    slack = margin
    for slack in np.arange(margin, -2 * margin - 1e-9, -max(margin, 1e-4) / 5):
        chosen = _cheapest(kept, rest, float(slack))
        if sums[chosen, np.arange(len(masks))].sum() / sizes.sum() >= -margin:
            break
    return int(_cheapest(lost.mean(axis=1)[:, None], cost.mean(axis=1)[:, None], float(slack))[0])


def _cheapest(lost: Array, cost: Array, slack: float) -> NDArray[np.intp]:
    """Of the points (rows), for each column: the cheapest that loses at most `slack`, else the most accurate."""
    enough = lost >= -slack
    cheapest = np.where(enough, cost, np.inf).argmin(axis=0)
    return np.asarray(np.where(enough.any(axis=0), cheapest, lost.argmax(axis=0)))
