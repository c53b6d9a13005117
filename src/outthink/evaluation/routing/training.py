"""Training: for each model a logistic regression of its success and a ridge regression of its log tokens.

Knows: recipes, scikit-learn's solvers (the `calibrate` extra, imported only when used), inner folds that choose the
penalty and calibrate, cross-fitting, and the operating point that a predictor gets. Does not know files or figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from outthink.controller.router.predictor import Predictor, PromptLengths, heads
from outthink.controller.router.text import KINDS, NAMES
from outthink.core.errors import BadInput
from outthink.evaluation.routing.corpus import Corpus, Matrix, Space
from outthink.evaluation.routing.data import Floats, Ints, ModelOutcomes, fold_of
from outthink.evaluation.routing.figures import platt
from outthink.evaluation.routing.routes import best_price

Solve = Callable[[Ints, float], tuple[Floats, float]]
"""Coefficients and intercept fitted on some rows at a strength."""
Reads = Literal["length", "counts", "terms", "all"]
"""What of a prompt: its length alone, the hand features, TF-IDF terms, or both of these."""
_Judged = tuple[float, tuple[float, float], Floats]
"""Loss of held-out values, their scaling, and the scaled values."""
_SPREAD = (0.1, 0.9)
_HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorRecipe:
    """How a predictor is trained. The defaults of both recipes were chosen by grouped cross-validation.

    Args:
        reads: what of a prompt it sees.
        strengths: inverse L2 penalties (scikit-learn's C) to choose from on inner folds, for each head.
        hand_weight: of standardised hand features beside TF-IDF vectors of length 1.
        subject: whether the `subject` column is a feature, too.
        folds, seed: of the cross-fitting that chooses and calibrates.
        point: the operating point, as `Predictor.at` has it; None for half of the requests to the strong model, of
            more than two models for the price that gains most over random mixes of them.
    """

    reads: Reads = "all"
    strengths: tuple[float, ...] = (0.3,)
    hand_weight: float = 0.3
    subject: bool = False
    folds: int = 5
    seed: int = 0
    point: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadInput("--seed", self.seed, "is below 0", "give at least 0")


ONE_ANSWER = PredictorRecipe()
"""For outcomes of one answer a prompt: thousands of prompts, and labels that are right or wrong."""
SAMPLED = PredictorRecipe(strengths=(0.1, 0.3, 1.0))
"""For success rates of many samples on some hundreds of questions, where the best penalty varies."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was said of prompts that were not trained on, (prompts, models).

    Args:
        tokens: None where no counts were learnt.
        inside: whether the true mean tokens lay within the stated range, 1.0 or 0.0; None where unknown.
        model: place of the model that the operating point chose; None without one.
        milliseconds: processor time of one prediction.
    """

    right: Floats
    tokens: Floats | None = None
    inside: Floats | None = None
    model: Ints | None = None
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Head:
    """One fitted regression with its scaling and what it says of held-out rows."""

    coefficients: Floats
    bias: float
    scaling: tuple[float, float]
    held_out: Floats


def fit(data: ModelOutcomes, corpus: Corpus, rows: Ints, recipe: PredictorRecipe) -> tuple[Predictor, Predicted]:
    """Train on some rows, and what is held out of them was told; `corpus` is of all rows.

    Raises BadInput where one model is always right or always wrong, for too few prompts, or for rows
    without the subject that the recipe wants.
    """
    from threadpoolctl import threadpool_limits

    if recipe.subject:
        data.need_subjects()
    right = data.right[rows]
    _check_classes(data, right)
    # Numbered anew: `fold_of` takes the highest number for the count of groups, and these are some of them.
    fold = fold_of(np.unique(data.group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    for part in range(recipe.folds):
        _check_classes(data, right[fold != part])  # without a fold one class may be missing
    space = _space_of(corpus, rows, recipe, data.subjects)
    matrix, told = space.matrix(), data.tokens is not None
    fitted: list[_Head] = []  # of each model its success, then its tokens
    with threadpool_limits(1):  # the vectors are short: more threads only wait for each other
        for place in range(len(data.models)):
            fitted.append(_fit_right(matrix, right[:, place], fold, recipe.strengths))
            if data.tokens is not None:
                fitted.append(_fit_tokens(matrix, data.tokens[rows, place], fold, recipe.strengths))
    model, terms = space.model(
        heads(data.models, told),
        np.stack([head.coefficients for head in fitted]),
        [head.bias for head in fitted],
        tuple(head.scaling for head in fitted),
    )
    logits = np.stack([head.held_out for head in fitted[:: 2 if told else 1]], axis=1)
    chances = 1 / (1 + np.exp(-logits))
    expected, spread = None, None
    if data.tokens is not None:
        expected = np.exp(np.stack([head.held_out for head in fitted[1::2]], axis=1))
        ratio = np.quantile(data.tokens[rows] / expected, _SPREAD, axis=0).T
        spread = tuple((float(low), float(high)) for low, high in ratio)
    sizes = [len(data.prompts[row]) for row in rows]
    predictor = Predictor(
        models=data.models,
        columns=data.columns,
        costs=None if data.costs is None else tuple(data.costs[rows].mean(axis=0).tolist()),
        tokens_spread=spread,
        regime=PromptLengths(characters=(min(sizes), max(sizes))),
        model=model,
        terms=terms,
    )
    predictor = _operating(predictor, data, rows, chances, recipe.point)
    return predictor, Predicted(chances, expected)


def _operating(predictor: Predictor, data: ModelOutcomes, rows: Ints, chances: Floats, point: str | None) -> Predictor:
    """The predictor at its operating point, found on held-out chances of its own training prompts."""
    if len(data.models) == 2:
        gains = np.quantile(chances[:, 1] - chances[:, 0], np.linspace(0, 1, 101))
        predictor = replace(predictor, gains=tuple(gains.tolist()))
    if point is None:
        if data.is_pair:
            point = f"strong-share={_HALF}"
        elif data.costs is not None:
            point = f"penalised={best_price(chances, data.right[rows], data.costs[rows])}"
    return predictor if point is None else predictor.at(point)


def _space_of(corpus: Corpus, rows: Ints, recipe: PredictorRecipe, subjects: Sequence[str]) -> Space:
    """The columns that a recipe reads."""
    hand = {"length": ("log_characters",), "terms": ()}.get(recipe.reads, NAMES)
    kinds = KINDS if recipe.reads in ("terms", "all") else ()
    # Alone, the hand features need no weight below that of terms: the penalty is the same for either.
    weight = recipe.hand_weight if recipe.reads == "all" else 1.0
    return Space(corpus, rows, weight, kinds=kinds, hand=hand, subjects=subjects if recipe.subject else ())


def _check_classes(data: ModelOutcomes, right: Floats) -> None:
    for place, values in enumerate(right.T):
        if values.min() == values.max() and values[0] in (0.0, 1.0):
            name = f"{data.columns[place]}_correct" if data.columns else data.models[place]
            raise BadInput(
                f"data {data.name}",
                name,
                f"is {'true' if values[0] else 'false'} in every row that is learnt from",
                "give rows with right and wrong answers of each model",
            )


def _fit_right(matrix: Matrix, share: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Every prompt counts as right and as wrong, weighted by how often it was either."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        good, bad = rows[share[rows] > 0], rows[share[rows] < 1]
        labels = np.repeat([1.0, 0.0], [len(good), len(bad)])
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(
            vstack([matrix[good], matrix[bad]]), labels, sample_weight=np.concatenate([share[good], 1 - share[bad]])
        )
        return model.coef_[0], float(model.intercept_[0])

    def judge(logits: Floats) -> _Judged:
        slope, shift = platt(logits, share)
        scaled = slope * logits + shift
        return float((np.logaddexp(0.0, scaled) - share * scaled).sum()), (slope, shift), scaled

    return _least_loss(matrix, fold, solve, strengths, judge)


def _fit_tokens(matrix: Matrix, tokens: Floats, fold: Ints, strengths: Sequence[float]) -> _Head:
    """Of the logarithm; its shift is such that the expected tokens of held-out rows add up to the true ones."""
    from sklearn.linear_model import Ridge

    target = np.log(tokens)

    def solve(rows: Ints, strength: float) -> tuple[Floats, float]:
        model = Ridge(alpha=1 / strength, tol=1e-8).fit(matrix[rows], target[rows])
        return model.coef_, float(model.intercept_)

    def judge(values: Floats) -> _Judged:
        spread = float(values.var())
        slope = float(np.cov(values, target)[0, 1] / spread) if spread > 1e-12 else 0.0
        slope = max(slope, 0.0)  # as in `platt`: a negative one would turn the order round
        shift = float(np.log(tokens.sum() / np.exp(slope * values).sum()))
        return float(((values - target) ** 2).sum()), (slope, shift), slope * values + shift

    return _least_loss(matrix, fold, solve, strengths, judge)


def _least_loss(
    matrix: Matrix, fold: Ints, solve: Solve, strengths: Sequence[float], judge: Callable[[Floats], _Judged]
) -> _Head:
    """The regression of the strength that loses least on held-out rows, on all rows."""
    judged = {strength: judge(cross_predicted(matrix, fold, solve, strength)) for strength in strengths}
    best = min(judged, key=lambda strength: judged[strength][0])
    _, scaling, held_out = judged[best]
    return _Head(*solve(np.arange(len(fold)), best), scaling, held_out)


def cross_predicted(matrix: Matrix, fold: Ints, solve: Solve, strength: float) -> Floats:
    """What a regression says of each row when it was fitted without that row's fold."""
    held_out = np.empty(len(fold))
    for part in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        coefficients, bias = solve(inside, strength)
        held_out[outside] = matrix[outside] @ coefficients + bias
    return held_out


def cross_fitted(
    data: ModelOutcomes,
    recipe: PredictorRecipe,
    *,
    folds: int = 5,
    corpus: Corpus | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Every prompt by a predictor that was trained, chosen and calibrated without its fold."""
    corpus = corpus or Corpus(data.prompts)  # a missing library is said before anything about the data
    fold = fold_of(data.group, folds, recipe.seed)
    right, tokens, inside = (np.empty_like(data.right) for _ in range(3))
    chosen, seconds = np.full(len(data), -1), 0.0
    for part in range(folds):
        predictor, _ = fit(data, corpus, np.flatnonzero(fold != part), recipe)
        rows, began = np.flatnonzero(fold == part), time.process_time()
        # One by one, not in a batch: the time that is charged is what a single request pays.
        predictions = [predictor.predict(data.prompts[row], data.subject(row)) for row in rows.tolist()]
        seconds += time.process_time() - began
        for row, prediction in zip(rows, predictions, strict=True):
            right[row] = prediction.chances
            if predictor.operating_point is not None:
                chosen[row] = predictor.routing.place(prediction.chances)
            for place, expected in enumerate(prediction.models):
                if data.tokens is not None and expected.tokens is not None:
                    tokens[row, place] = expected.tokens
                    low, high = expected.tokens_low or 0.0, expected.tokens_high or 0.0
                    inside[row, place] = low <= data.tokens[row, place] <= high
        if progress is not None:
            progress(part + 1, folds)
    model = None if chosen.min() < 0 else chosen
    told = data.tokens is not None
    return Predicted(right, tokens if told else None, inside if told else None, model, 1000 * seconds / len(data))
