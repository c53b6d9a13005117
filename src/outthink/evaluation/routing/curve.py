"""Accuracy against the share of strong calls, and what is read off it.

Knows: RouteLLM's deciles, APGR, CPT and the area over cost, also for resampled problems. Does not know
where scores come from. A quantity that is not defined is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.evaluation.bootstrap import COVERAGE, resampled_means
from outthink.evaluation.routing.data import Floats, Ints, RoutingData

DECILES = np.linspace(0.0, 1.0, 11)
_POINTS = len(DECILES) + 2


@dataclass(frozen=True, slots=True)
class Curves:
    """Routing curves, one a resample: arrays (13, resamples), from no strong call to strong calls only.

    share: of requests that the strong model gets; cost: share of the extra cost that is paid; accuracy.
    """

    share: Floats
    cost: Floats
    accuracy: Floats

    def apgr(self) -> Floats:
        """Average performance gap recovered; NaN where the strong model is not better than the weak one."""
        weak, strong = self.accuracy[0], self.accuracy[-1]
        area = np.trapezoid(self.accuracy, self.share, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(strong > weak, (area - weak) / (strong - weak), np.nan))

    def cpt(self, share: float) -> Floats:
        """Per cent of requests sent to the strong model where `share` of the gap is first recovered; NaN if never."""
        weak, strong = self.accuracy[0], self.accuracy[-1]
        # Rounding in weighted sums must not move the last point below a target that it equals.
        target = weak + share * (strong - weak) - 1e-12
        reached = (self.accuracy >= target) & (strong > weak)
        first = np.maximum(reached.argmax(axis=0), 1)
        column = np.arange(self.share.shape[1])
        below, above = self.accuracy[first - 1, column], self.accuracy[first, column]
        left, right = self.share[first - 1, column], self.share[first, column]
        with np.errstate(divide="ignore", invalid="ignore"):
            way = np.clip((target - below) / (above - below), 0.0, 1.0)
        return np.asarray(np.where(reached.any(axis=0), 100 * (left + way * (right - left)), np.nan))

    def charged(self, router: float) -> Floats:
        """Share of the extra cost at each point with the router's own cost, `router`, added; the two ends need none."""
        cost = self.cost.copy()
        cost[1:-1] += router
        return cost

    def auc_cost(self, router: float = 0.0) -> Floats:
        """Mean accuracy over the share of the extra cost, 0 to 1.

        Args:
            router: what the router costs a request, as a share of the mean extra cost. A point that it
                makes dearer than the strong model alone gives way to that.
        """
        cost, accuracy = self.charged(router), self.accuracy
        late = cost > 1
        return np.asarray(np.trapezoid(np.where(late, accuracy[-1], accuracy), np.where(late, 1.0, cost), axis=0))


def curves(score: Floats, data: RoutingData, group: Ints | None = None, *, resamples: int = 0, seed: int = 0) -> Curves:
    """The curve of a score, or with `resamples` those of bootstrap samples of the groups of prompts.

    Points: nothing strong; score >= each of its eleven deciles, ties together; everything strong. The
    deciles stay those of all rows: they are the thresholds in use, a resample changes the requests.
    """
    chosen = np.zeros((_POINTS, len(data)), dtype=bool)
    chosen[1:-1] = score >= np.quantile(score, DECILES)[::-1, None]
    chosen[-1] = True
    table = np.concatenate(
        [
            np.ones((1, len(data))),
            data.extra[None],
            chosen,
            chosen * data.extra,
            np.where(chosen, data.strong, data.weak),
        ]
    )
    if resamples:
        assert group is not None
        table = resampled_means(_summed(table, group), resamples=resamples, seed=seed)
    else:
        table = table.mean(axis=1, keepdims=True)
    share, cost, accuracy = table[2:].reshape(3, _POINTS, -1)
    return Curves(share / table[0], cost / table[1], accuracy / table[0])


def _summed(table: Floats, group: Ints) -> Floats:
    """Sums over the rows of each group: groups are what is resampled, whole."""
    count = int(group.max()) + 1
    return np.stack([np.bincount(group, weights=row, minlength=count) for row in table])


def defined(value: float) -> float | None:
    """A number, or None for NaN."""
    return None if np.isnan(value) else float(value)


def interval(values: Floats) -> tuple[float | None, float | None]:
    """95 % percentile interval of resampled values; None where any of them is undefined."""
    if np.isnan(values).any():
        return None, None
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
