"""Fits difficulty heads: a logistic regression of the success rate and a ridge regression of log tokens.

Knows: scikit-learn's solvers (the `calibrate` extra, imported here and only when used), the inner folds
that choose the penalty and calibrate. Does not know metrics or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from outthink.controller.difficulty import Difficulty, heads
from outthink.controller.router.text import KINDS, NAMES
from outthink.evaluation.difficulty.data import Outcomes
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import Floats, Ints
from outthink.evaluation.routing.folds import fold_of
from outthink.evaluation.routing.reliability import platt
from outthink.evaluation.routing.space import Space
from outthink.evaluation.routing.training import logistic_regression

Reads = Literal["length", "counts", "terms", "all"]
"""What of a prompt: its length alone, the hand features, TF-IDF terms, or both of these."""
_SPREAD = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How heads are trained.

    Args:
        reads: what of a prompt they see.
        strengths: inverse penalties to choose from on inner folds, for each head.
        hand_weight: of standardised hand features beside TF-IDF vectors of length 1.
        folds, seed: of the cross-fitting that chooses and calibrates.
    """

    reads: Reads = "all"
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    hand_weight: float = 0.3
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """Heads, with their held-out values on their own training rows: (rows, models) of right and of tokens."""

    difficulty: Difficulty
    right: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class _Head:
    """One fitted regression with its scaling and what it says of held-out rows."""

    coefficients: Floats
    bias: float
    scaling: tuple[float, float]
    held_out: Floats


def fit(data: Outcomes, corpus: Corpus, rows: Ints, group: Ints, recipe: Recipe) -> Fitted:
    """Train on some rows; `corpus` and `group` are of all of them.

    Raises BadInput for too few questions, or where scikit-learn is missing.
    """
    from threadpoolctl import threadpool_limits

    logistic_regression()
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = space_of(corpus, rows, recipe)
    matrix = space.matrix()
    found: list[_Head] = []
    with threadpool_limits(1):
        for place in range(len(data.models)):
            found.append(_right(matrix, data.right[rows, place], fold, recipe.strengths))
            found.append(_tokens(matrix, data.tokens[rows, place], fold, recipe.strengths))
    text = space.model(
        heads(data.models),
        np.stack([one.coefficients for one in found]),
        [one.bias for one in found],
        tuple(one.scaling for one in found),
    )
    expected = np.stack([np.exp(one.held_out) for one in found[1::2]], axis=1)
    ratio = np.quantile(data.tokens[rows] / expected, _SPREAD, axis=0).T
    sizes = [len(data.questions[row]) for row in rows]
    difficulty = Difficulty(
        id="unsaved",
        models=data.models,
        text=text,
        spread=tuple((float(low), float(high)) for low, high in ratio),
        shortest=min(sizes),
        longest=max(sizes),
    )
    right = 1 / (1 + np.exp(-np.stack([one.held_out for one in found[::2]], axis=1)))
    return Fitted(difficulty, right, expected)


def space_of(corpus: Corpus, rows: Ints, recipe: Recipe) -> Space:
    """The columns that a recipe reads."""
    hand = {"length": ("log_characters",), "terms": ()}.get(recipe.reads, NAMES)
    kinds = KINDS if recipe.reads in ("terms", "all") else ()
    # Alone, the hand features need no weight below that of terms: the penalty is the same for either.
    weight = recipe.hand_weight if recipe.reads == "all" else 1.0
    return Space(corpus, rows, weight, kinds=kinds, hand=hand)


def _right(matrix: Any, share: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Every question counts once as right and once as wrong, weighted by how often it was either."""
    from scipy.sparse import vstack

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        one, both = np.ones(len(rows)), vstack([matrix[rows], matrix[rows]])
        weight = np.concatenate([share[rows], 1 - share[rows]])
        model = logistic_regression()(C=strength, max_iter=1000)
        model.fit(both, np.concatenate([one, 0 * one]), sample_weight=weight)
        return model.coef_[0], float(model.intercept_[0])

    best: tuple[float, float, tuple[float, float], Floats] | None = None
    for strength in strengths:
        logits = _crossed(matrix, fold, strength, solve)
        slope, shift = platt(logits, share)
        scaled = slope * logits + shift
        loss = float((np.logaddexp(0.0, scaled) - share * scaled).sum())
        if best is None or loss < best[0]:
            best = loss, strength, (slope, shift), scaled
    assert best is not None
    return _Head(*solve(np.arange(len(share)), best[1]), best[2], best[3])


def _tokens(matrix: Any, tokens: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Of the logarithm; its shift is such that the expected tokens of held-out rows add up to the true ones."""
    from sklearn.linear_model import Ridge

    target = np.log(tokens)

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        model = Ridge(alpha=1 / strength, tol=1e-8).fit(matrix[rows], target[rows])
        return model.coef_, float(model.intercept_)

    best: tuple[float, float, Floats] | None = None
    for strength in strengths:
        values = _crossed(matrix, fold, strength, solve)
        loss = float(((values - target) ** 2).sum())
        if best is None or loss < best[0]:
            best = loss, strength, values
    assert best is not None
    values = best[2]
    spread = float(values.var())
    slope = float(np.cov(values, target)[0, 1] / spread) if spread > 1e-12 else 0.0
    slope = max(slope, 0.0)
    shift = float(np.log(tokens.sum() / np.exp(slope * values).sum()))
    return _Head(*solve(np.arange(len(tokens)), best[1]), (slope, shift), slope * values + shift)


def _crossed(matrix: Any, fold: Ints, strength: float, solve: Any) -> Floats:
    """What a regression says of each row when it was fitted without that row's fold."""
    found = np.empty(len(fold))
    for part in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        coefficients, bias = solve(inside, strength)
        found[outside] = matrix[outside] @ coefficients + bias
    return found
