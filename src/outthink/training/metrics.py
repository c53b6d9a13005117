"""How good scores are: ranking, calibration, finding the first wrong step, and the votes that they improve.

Knows: arrays of scores and labels, and matrices of answers, grades and scores (problems x samples). Repeats the votes
of the strategies in closed loops over random subsets, so that thousands of problems take seconds. Does not know models
or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput, need_known
from outthink.evaluation.sample_file import JsonObject

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


def calibration(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 10) -> tuple[float, list[JsonObject]]:
    """Expected calibration error with equally wide bins, and the table behind it.

    Rows: `low`, `high`, `count`, mean `score`, mean `label`; empty bins are left out. BadInput for no scores.
    """
    value, right = _pair(scores, labels)
    if len(value) == 0:
        raise BadInput("scores", 0, "are none", "score something first")
    place = np.clip((value * bins).astype(int), 0, bins - 1)  # a score of 1 belongs to the last bin
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins, which are left out below
        mean = np.bincount(place, value, bins) / counts
        share = np.bincount(place, right, bins) / counts
    full = np.flatnonzero(counts)
    error = float((counts[full] * np.abs(mean[full] - share[full])).sum() / len(value))
    rows = [
        {"low": i / bins, "high": (i + 1) / bins, "count": int(counts[i]), "score": mean[i], "label": share[i]}
        for i in full.tolist()
    ]
    return error, rows


def _first(steps: Sequence[float], wrong: Callable[[float], bool]) -> int | None:
    """The first wrong step, None without one."""
    return next((place for place, step in enumerate(steps) if wrong(step)), None)


def first_error_accuracy(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]], threshold: float
) -> dict[str, float | int | None]:
    """How often the first wrong step is found exactly, as ProcessBench counts it.

    Returns `erroneous` (share found among solutions with a wrong step), `clean` (share left alone among
    the others), `f1` (their harmonic mean) and `count`; None where there is no such solution.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for step_scores, step_labels in zip(scores, labels, strict=True):
        wrong = _first(step_labels, lambda label: label <= 0)  # no completion came right from there
        hits[wrong is not None].append(_first(step_scores, lambda score: score < threshold) == wrong)
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


# Best-of-N and weighted votes against majority and oracle, problem by problem.

_SUBSETS = 200


@dataclass(frozen=True, slots=True)
class ScoredProblem:
    """Samples of one data set, the same number for each problem.

    Args:
        answers: (problems, samples), equal numbers for equal answers, -1 for none (never a vote).
        correct: (problems, samples).
        scores: (problems, samples), 0 to 1.
        tokens, prompt_tokens: generated by, and read by, the policy (problems, samples).
        read: tokens that the verifier read (problems, samples).
    """

    answers: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    scores: Array
    tokens: Array
    prompt_tokens: Array
    read: Array


def number_answers(answers: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Equal non-empty answers of a problem get equal numbers, empty ones -1."""
    table = np.full((len(answers), max(map(len, answers), default=0)), -1, np.int64)
    for row, texts in enumerate(answers):
        known: dict[str, int] = {}
        for column, text in enumerate(texts):
            if text:
                table[row, column] = known.setdefault(text, len(known))
    return table


def subsets(samples: int, n: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Random subsets of n samples without replacement (count, n); the whole set once where n is all."""
    if not 1 <= n <= samples:
        raise BadInput("n", n, f"is not between 1 and {samples}", "use the recorded number of samples at most")
    if n == samples:
        return np.arange(samples)[None, :]
    rng = np.random.default_rng([seed, n])
    return rng.permuted(np.tile(np.arange(samples), (count, 1)), axis=1)[:, :n].copy()


def _voted(answers: npt.NDArray[np.int64], correct: npt.NDArray[np.bool_], weights: Array) -> float:
    """Mean over subsets (rows) of the share of right ones among the tied winners."""
    rows, width = answers.shape[0], int(answers.max(initial=-1)) + 1
    if width == 0:
        return 0.0
    valid = answers >= 0
    cell = (np.arange(rows)[:, None] * width + answers)[valid]
    total = np.bincount(cell, weights[valid], rows * width).reshape(rows, width)
    present = np.bincount(cell, minlength=rows * width).reshape(rows, width) > 0
    right = np.bincount(cell, correct[valid], rows * width).reshape(rows, width) > 0
    best = np.where(present, total, -1.0).max(axis=1, keepdims=True)
    winners = present & (total >= best * (1 - 1e-9))  # rounding of sums must not decide
    return float(np.where(winners.any(axis=1), (winners & right).sum(axis=1) / winners.sum(axis=1).clip(1), 0).mean())


def _best(answers: npt.NDArray[np.int64], correct: npt.NDArray[np.bool_], scores: Array) -> float:
    """Mean over subsets of the share of right ones among the samples with the highest score."""
    value = np.where(answers >= 0, scores, -1.0)
    # Where no answer can be read all are at the top with -1; the mask below keeps them from winning.
    top = value >= value.max(axis=1, keepdims=True)
    return float(((top & correct & (answers >= 0)).sum(axis=1) / top.sum(axis=1)).mean())


_METHODS: dict[str, Callable[[npt.NDArray[np.int64], npt.NDArray[np.bool_], Array], float]] = {
    "majority": lambda answers, correct, scores: _voted(answers, correct, np.ones_like(scores)),
    "best_of_n": _best,
    "weighted": _voted,
    "oracle": lambda answers, correct, scores: float(correct.any(axis=1).mean()),
}
METHODS = tuple(_METHODS)


def accuracies(
    data: ScoredProblem, n: int, *, methods: Sequence[str] = METHODS, count: int = _SUBSETS, seed: int = 0
) -> dict[str, Array]:
    """Expected accuracy of each method with n samples, problem by problem (problems,).

    All methods see the same random subsets. Ties are split evenly; empty answers never win.
    """
    for method in methods:
        need_known("method", method, METHODS)
    chosen = subsets(data.answers.shape[1], n, count, seed)
    by_method = {method: np.zeros(len(data.answers)) for method in methods}
    for row in range(len(data.answers)):
        votes = data.answers[row][chosen], data.correct[row][chosen], data.scores[row][chosen]
        for method in methods:
            by_method[method][row] = _METHODS[method](*votes)
    return by_method
