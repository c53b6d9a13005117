"""Do probabilities mean what they say?

Knows: expected calibration error and the bins of a reliability plot, area under the ROC curve, Platt's
scaling as two numbers. Does not know what was predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from outthink.evaluation.routing.data import Floats

BINS = 10


def reliability(probability: Floats, right: Floats, bins: int = BINS) -> list[dict[str, Any]]:
    """Bins of (nearly) equal size, by probability: `n`, mean `predicted`, share that is `right`."""
    parts = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability)))
    return [
        {"n": len(part), "predicted": float(probability[part].mean()), "right": float(right[part].mean())}
        for part in parts
    ]


def ece(probability: Floats, right: Floats, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of predicted and right over the bins, weighted by size."""
    rows = reliability(probability, right, bins)
    return float(sum(row["n"] * abs(row["predicted"] - row["right"]) for row in rows) / len(probability))


def auc(score: Floats, right: Floats) -> float | None:
    """Probability that a right one scores above a wrong one, ties half; None for one class only."""
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, weights=ranks) / counts)[inverse]
    ones = right.sum()
    zeros = len(right) - ones
    if not ones or not zeros:
        return None
    return float((ranks[right == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def platt(logit: Floats, right: Floats, rounds: int = 50) -> tuple[float, float]:
    """(slope, intercept) that make sigmoid(slope * logit + intercept) likeliest, by Newton's method.

    A slope that is not positive would turn the order round: then the logits say nothing, and the
    result is (0, log-odds of the mean).
    """
    design = np.stack([logit, np.ones_like(logit)], axis=1)
    mean = float(np.clip(right.mean(), 1e-6, 1 - 1e-6))
    constant = 0.0, float(np.log(mean / (1 - mean)))
    found = np.array(constant)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (right - chance))
        # A full step may overshoot where the logits are large: halve it until the likelihood does not fall.
        while _loss(design @ (found + step), right) > _loss(design @ found, right) and np.abs(step).max() > 1e-10:
            step = step / 2
        found = found + step
        if np.abs(step).max() < 1e-10:
            break
    return (float(found[0]), float(found[1])) if found[0] > 0 else constant


def _loss(logit: Floats, right: Floats) -> float:
    """Minus the log-likelihood."""
    return float((np.logaddexp(0.0, logit) - right * logit).sum())
