"""What a learned stopping rule must be compared with: tuned thresholds, chance, and an oracle.

Knows: how each is computed from dealt samples. Does not know how a gain is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.calibration.dealt import Array
from outthink.evaluation.calibration.gain import Walk
from outthink.evaluation.calibration.nested import Spent, Sweep, outcome

LEADS = tuple(float(value) for value in np.arange(0.3, 3.05, 0.1))
"""Leads of the leader in standard deviations; at the last ones a vote of 32 hardly ever stops early."""


def leading(found: Walk, limit: float) -> NDArray[np.intp]:
    """Samples after which the leader leads by so many standard deviations.

    The lead, (a - b) / sqrt(a + b + 1), is what adaptive-consistency's probability depends on.
    """
    enough = found.lead[..., 1:] >= limit
    enough[..., -1] = True
    return np.asarray(enough.argmax(axis=2) + 1)


def thresholds(found: Walk, spent: Spent, name: str, leads: Sequence[float] = LEADS) -> Sweep:
    """Adaptive-consistency at every threshold, on votes of one weight."""
    ways = [outcome(found.right, spent, leading(found, limit)) for limit in leads]
    return Sweep.of([f"{name} lead {limit:.1f}" for limit in leads], ways)


def oracle(right: Array, spent: Spent, points: int = 60) -> Sweep:
    """Stops at the first sample after which the leader is right, at once where it never is; one who knows
    the answers and buys the cheapest corrections first, at rising shares of what there is to gain.
    """
    hits = right[..., 1:] > 0
    first = np.where(hits.any(axis=2), hits.argmax(axis=2) + 1, 1)
    extra = np.take_along_axis(spent.cost, first[..., None], 2)[..., 0] - spent.cost[..., 1]
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
