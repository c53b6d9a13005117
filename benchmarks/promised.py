"""What a guarded choice is worth, on one matrix of losses: reliability, share of the cost, and both at every level.

Knows: bootstrap calibrations with seeds of their own, intervals over problems and fits, and refitting on random splits.
Does not know files, sets, tables or targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.evaluation.calibration.losses import LEVELS, Array, GuardedChoice, LossLimit, LossMatrix
from outthink.evaluation.rows import resampled_means

FRESH = 2000
"""Calibrations that a reliability is counted over; their seeds are not those that calibrated the level."""
_OUTER, _INNER = 200, 50
"""Resamples of the problems for intervals, and calibrations on each of them."""
_SEED = 20261130
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class TestedMatrix:
    """A matrix, what is to be matched in it, and what every arm costs in the currency that is reported.

    Args:
        matrix: its costs decide.
        shown: reported costs, (arm, problem).
    """

    matrix: LossMatrix[Any]
    reference: int
    shown: Array
    allowed: LossLimit

    @property
    def choice(self) -> GuardedChoice[Any]:
        """The guarded choice on all problems."""
        return GuardedChoice(self.matrix, self.allowed, self.reference)

    def only(self, wanted: Callable[[Any], bool]) -> TestedMatrix:
        """Some of the arms, and what is to be matched."""
        arms = self.matrix.arms
        kept = [place for place, arm in enumerate(arms) if place == self.reference or wanted(arm)]
        return TestedMatrix(self.matrix.only(kept), kept.index(self.reference), self.shown[kept], self.allowed)


def wilson(share: float, trials: int) -> tuple[float, float]:
    """95 % score interval of a share."""
    square = _Z**2 / trials
    middle, half = share + square / 2, _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


class Calibrations:
    """Fresh bootstrap calibrations of one matrix, whatever chooses on them."""

    def __init__(self, judged: TestedMatrix, trials: int = FRESH, seed: int = _SEED) -> None:
        self.judged = judged
        matrix = judged.matrix
        table = np.concatenate([matrix.losses, matrix.losses**2, matrix.costs])
        means = resampled_means(table, resamples=trials, seed=seed)
        self.moments = means[: len(matrix.arms)], means[len(matrix.arms) : 2 * len(matrix.arms)]
        self.costs = means[2 * len(matrix.arms) :]

    def guarded(self, level: float) -> NDArray[np.intp]:
        """Places that are chosen by the bound at a level."""
        return self.judged.choice.chosen(*self.moments, self.costs, level)

    def lucky(self) -> NDArray[np.intp]:
        """Places that the point estimate chooses: the cheapest whose mean loss is within the margin."""
        enough = self.moments[0] <= self.judged.allowed.margin + 1e-12
        return np.asarray(np.where(enough, self.costs, np.inf).argmin(axis=0))

    def row(self, chosen: NDArray[np.intp]) -> dict[str, float]:
        """Reliability with its Monte Carlo interval; share of the reference's cost, mean and 95 % over calibrations."""
        judged = self.judged
        losses = judged.matrix.losses.mean(axis=1)[chosen]
        shares = judged.shown.mean(axis=1)[chosen] / judged.shown[judged.reference].mean()
        kept = float((losses <= judged.allowed.margin + 1e-12).mean())
        low, high = wilson(kept, len(chosen))
        few, many = np.quantile(shares, [0.025, 0.975])
        found = {"reliability": kept, "reliability_low": low, "reliability_high": high, "share": float(shares.mean())}
        found |= {"share_of_fits_low": float(few), "share_of_fits_high": float(many)}
        return found | {"loss": float(losses.mean()), "itself": float((chosen == judged.reference).mean())}


def guarded_row(judged: TestedMatrix, name: str) -> dict[str, Any]:
    """The guarded choice at its own level."""
    place, promise = judged.choice.promise()
    level = promise.level
    calibrations = Calibrations(judged)
    # Where nothing is chosen on all problems, calibrations that look alike choose nothing either.
    chosen = np.full(FRESH, judged.reference) if level is None else calibrations.guarded(level)
    low, high = share_interval(judged, level)
    return {
        "way": name,
        "level": level,
        **calibrations.row(chosen),
        "share_low": low,
        "share_high": high,
        "arms": len(judged.matrix.arms),
        "chosen": repr(getattr(judged.matrix.arms[place], "kind", place)),
        "bound": promise.bound,
    }


def share_interval(judged: TestedMatrix, level: float | None) -> tuple[float, float]:
    """95 % interval of the mean share, over problems and fits: each resample of the problems stands for another
    population, from which calibrations are resampled in turn."""
    if level is None:
        return 1.0, 1.0
    rng, problems = np.random.default_rng(_SEED + 1), judged.matrix.losses.shape[1]
    means = []
    for outer in range(_OUTER):
        drawn = rng.integers(problems, size=problems)
        matrix = judged.matrix
        part = LossMatrix(matrix.arms, matrix.problems, matrix.losses[:, drawn], matrix.costs[:, drawn])
        world = TestedMatrix(part, judged.reference, judged.shown[:, drawn], judged.allowed)
        found = Calibrations(world, _INNER, seed=outer)
        shown = world.shown.mean(axis=1)
        means.append(float((shown[found.guarded(level)] / shown[world.reference]).mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def diagram(judged: TestedMatrix) -> list[dict[str, Any]]:
    """Nominal against realised: of each level of the bound, how often calibrations keep the margin, at what cost."""
    calibrations = Calibrations(judged)
    rows = [{"way": "point choice", "level": 0.5, **calibrations.row(calibrations.lucky())}]
    for level in LEVELS:
        rows.append({"way": f"bound at {level:.1%}", "level": level, **calibrations.row(calibrations.guarded(level))})
    return rows


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over splits."""
    table = np.array(values)
    return float(table.mean()), float(table.std(ddof=1) / math.sqrt(len(table)))
