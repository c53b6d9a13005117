"""How well a prediction orders questions and means what it says, with intervals over questions.

Knows: area under the curve of samples, rank correlation, calibration error, errors of token counts, and
paired differences between two predictions. Does not know where predictions come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.evaluation.bootstrap import COVERAGE
from outthink.evaluation.routing.data import Floats, Ints
from outthink.evaluation.routing.reliability import BINS, ece, reliability

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Ordering:
    """One score of all questions: `auc` and `spearman` on all of them, and on each bootstrap sample."""

    auc: float | None
    spearman: float | None
    auc_drawn: Floats
    spearman_drawn: Floats


def drawn(group: Ints, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each question occurs in each bootstrap sample of whole groups, (resamples, questions)."""
    count = int(group.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(times[:, group], dtype=np.float64)


def ordering(score: Floats, truth: Floats, counts: Floats, right: Floats | None = None) -> Ordering:
    """How a score orders questions.

    Args:
        truth: what it should order: the success rate, or the mean tokens.
        right: success rate, for the area under the curve: the probability that a right sample's question
            scores above a wrong sample's, ties half, samples of one question included. None without one.
        counts: of `drawn`.
    """
    everyone = np.ones((1, len(score)))
    ranks = _ranks(score), _ranks(truth)
    rho, rhos = (_correlation(*ranks, weight) for weight in (everyone, counts))
    if right is None:
        return Ordering(None, _defined(rho[0]), np.full(len(counts), np.nan), rhos)
    above = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    table = right[:, None] * above * (1 - right)[None]
    areas = [
        np.einsum("rq,rq->r", weight @ table, weight) / ((weight @ right) * (weight @ (1 - right)))
        for weight in (everyone, counts)
    ]
    return Ordering(_defined(areas[0][0]), _defined(rho[0]), areas[1], rhos)


def success_figures(right: Floats, truth: Floats, found: Ordering) -> dict[str, Any]:
    """Of predicted success rates: order with intervals, calibration error with its bins."""
    return {
        "auc": found.auc,
        **_ends("auc", found.auc_drawn),
        "spearman": found.spearman,
        **_ends("spearman", found.spearman_drawn),
        "ece": ece(right, truth),
        "ece_by_chance": _chance(right, truth),
        "brier": float(((right - truth) ** 2).mean()),
        "reliability": reliability(right, truth),
    }


def _chance(right: Floats, truth: Floats) -> float:
    """Calibration error that a perfectly calibrated prediction would show on so few questions."""
    parts = np.array_split(np.argsort(right, kind="stable"), min(BINS, len(right)))
    spread = [len(part) * truth[part].std() / np.sqrt(len(part)) for part in parts]
    return float(np.sqrt(2 / np.pi) * sum(spread) / len(right))


def token_figures(tokens: Floats, truth: Floats, counts: Floats) -> dict[str, Any]:
    """Of expected tokens: order, the median error as a share, and the total against the true one."""
    found = ordering(tokens, truth, counts)
    return {
        "spearman": found.spearman,
        **_ends("spearman", found.spearman_drawn),
        "median_error": float(np.median(np.abs(tokens / truth - 1))),
        "total": float(tokens.sum() / truth.sum()),
    }


def difference(mine: Floats, other: Floats) -> dict[str, float | None]:
    """95 % interval of what one prediction has over another on the same bootstrap samples."""
    return _ends("paired", mine - other)


def _ends(name: str, values: Floats) -> dict[str, float | None]:
    if np.isnan(values).any():
        return {f"{name}_low": None, f"{name}_high": None}
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def _correlation(a: Floats, b: Floats, weight: Floats) -> Floats:
    """Weighted correlation for each row of weights; NaN where one side is constant.

    On a bootstrap sample the ranks stay those of all questions, as the usual shortcut has it.
    """
    total = weight.sum(axis=1)
    mean_a, mean_b = weight @ a / total, weight @ b / total
    both = weight @ (a * b) / total - mean_a * mean_b
    spread = (weight @ (a * a) / total - mean_a**2) * (weight @ (b * b) / total - mean_b**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(spread > 1e-12, both / np.sqrt(np.maximum(spread, 1e-300)), np.nan))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
