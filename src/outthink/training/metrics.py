"""How good scores are: ranking, calibration, and finding the first wrong step.

Knows: arrays of scores and labels. Does not know models, files or votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput

Array = npt.NDArray[np.float64]


def _pair(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    first, second = np.asarray(scores, np.float64).ravel(), np.asarray(labels, np.float64).ravel()
    if first.shape != second.shape:
        raise BadInput("scores", first.shape, f"do not match labels {second.shape}", "give one label a score")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise BadInput("scores", "NaN or infinity", "cannot be ranked", "leave out what has no score")
    return first, second


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a right one scores above a wrong one, ties one half.

    Labels may be shares between 0 and 1: a step with label 0.25 then counts as a quarter right and three
    quarters wrong. None where all are right or all wrong.
    """
    value, right = _pair(scores, labels)
    order = np.argsort(value, kind="stable")
    _, start, place = np.unique(value[order], return_index=True, return_inverse=True)
    positive = np.bincount(place, right[order], len(start))
    negative = np.bincount(place, 1 - right[order], len(start))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else None


def auc_within(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[float | None, Array]:
    """Mean AUC over the groups (problems) that hold right and wrong ones, and the AUC of each of these."""
    value, right = _pair(scores, labels)
    names = np.asarray(groups)
    order = np.argsort(names, kind="stable")
    cuts = np.flatnonzero(np.diff(np.unique(names[order], return_inverse=True)[1])) + 1
    each = [auc(value[part], right[part]) for part in np.split(order, cuts)] if len(order) else []
    known = np.array([area for area in each if area is not None])
    return (float(known.mean()) if len(known) else None), known


def calibration(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error with equally wide bins, and the table behind it.

    Rows: `low`, `high`, `count`, mean `score`, mean `label`; empty bins are left out. BadInput for no scores.
    """
    value, right = _pair(scores, labels)
    if len(value) == 0:
        raise BadInput("scores", 0, "are none", "score something first")
    place = np.clip((value * bins).astype(int), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, value, bins) / counts
        share = np.bincount(place, right, bins) / counts
    full = np.flatnonzero(counts)
    error = float((counts[full] * np.abs(mean[full] - share[full])).sum() / len(value))
    rows = [
        {"low": i / bins, "high": (i + 1) / bins, "count": int(counts[i]), "score": mean[i], "label": share[i]}
        for i in full.tolist()
    ]
    return error, rows


def first_error(labels: Sequence[float]) -> int | None:
    """The first step from which no completion came right (label 0), None without one."""
    return next((place for place, label in enumerate(labels) if label <= 0), None)


def first_below(scores: Sequence[float], threshold: float) -> int | None:
    """The first step that scores below the threshold, None without one."""
    return next((place for place, score in enumerate(scores) if score < threshold), None)


def first_error_accuracy(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]], threshold: float
) -> dict[str, float | int | None]:
    """How often the first wrong step is found exactly, as ProcessBench counts it.

    Returns `erroneous` (share found among solutions with a wrong step), `clean` (share left alone among
    the others), `f1` (their harmonic mean) and `count`; None where there is no such solution.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for mine, gold in zip(scores, labels, strict=True):
        wrong = first_error(gold)
        hits[wrong is not None].append(first_below(mine, threshold) == wrong)
    erroneous, clean = (float(np.mean(hits[kind])) if hits[kind] else None for kind in (True, False))
    f1 = None
    if erroneous is not None and clean is not None:
        f1 = 2 * erroneous * clean / (erroneous + clean) if erroneous + clean > 0 else 0.0
    return {"erroneous": erroneous, "clean": clean, "f1": f1, "count": len(hits[True]) + len(hits[False])}


def best_threshold(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]], tried: Sequence[float]
) -> float:
    """The threshold with the highest `f1` of `first_error_accuracy`; the first of equals."""
    return max(tried, key=lambda threshold: first_error_accuracy(scores, labels, threshold)["f1"] or 0.0)
