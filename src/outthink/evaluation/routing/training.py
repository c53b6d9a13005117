"""Training: a logistic regression for each model on one text representation, calibrated on held-out prompts.

Knows: scikit-learn's solver (the `calibrate` extra, imported here and only when used), its settings, and
the cross-fitted logits that Platt's scaling is fitted on. Does not know metrics or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.controller.router.model import TextModel
from outthink.core.errors import BadInput
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import LABELS, Floats, Ints, RoutingData, need_subjects
from outthink.evaluation.routing.folds import fold_of
from outthink.evaluation.routing.reliability import platt
from outthink.evaluation.routing.space import Space

HEADS = ("weak", "strong")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a router is trained. The defaults were chosen by grouped cross-validation on GSM8K and MMLU rows.

    Args:
        strength: inverse of the L2 penalty (scikit-learn's C).
        hand_weight: of standardised hand features beside TF-IDF vectors of length 1.
        subject: whether the `subject` column is a feature, too.
        folds: of the cross-fitting that calibrates the probabilities.
        seed: of these folds.
    """

    strength: float = 0.3
    hand_weight: float = 0.3
    subject: bool = False
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadInput("--seed", self.seed, "is below 0", "give at least 0")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model with its held-out probabilities on its own training rows, (rows, heads)."""

    model: TextModel
    held_out: Floats


def fit(data: RoutingData, corpus: Corpus, rows: Ints, group: Ints, recipe: Recipe) -> Fitted:
    """Train on some rows of a file; `corpus` and `group` are of the whole file.

    Raises BadInput where one model is always right or always wrong, for too few prompts, for rows
    without the subject that the recipe wants, or where scikit-learn is missing.
    """
    if recipe.subject:
        need_subjects(data)
    subjects = data.subjects if recipe.subject else ()
    labels = dict(zip(LABELS, (data.weak, data.strong), strict=True))
    return fit_heads(data.name, HEADS, labels, corpus, rows, group, recipe, subjects)


def fit_heads(
    name: str,
    heads: tuple[str, ...],
    labels: Mapping[str, Floats],
    corpus: Corpus,
    rows: Ints,
    group: Ints,
    recipe: Recipe,
    subjects: Sequence[str] = (),
) -> Fitted:
    """One regression a head, on the same features.

    Args:
        name: of the file, for refusals.
        labels: by column, in the order of the heads; 1.0 where that model was right.
        subjects: of all prompts of the file, empty to read the prompts alone.
    """
    logistic_regression()  # a missing library is said before any work
    right = np.stack(list(labels.values()), axis=1)
    columns = tuple(labels)
    _check_classes(name, columns, right[rows])
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = Space(corpus, rows, recipe.hand_weight, subjects=subjects)
    whole = space.matrix()
    logits = np.empty((len(rows), len(heads)))
    for part in range(recipe.folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        _check_classes(name, columns, right[rows[inside]])
        # Only terms and scales are those of all training rows: they know no labels.
        known, asked = whole[inside], whole[outside]
        for head in range(len(heads)):
            solved = _solve(known, right[rows[inside], head], recipe)
            logits[outside, head] = asked @ solved.coef_[0] + solved.intercept_[0]
    scalings = tuple(platt(logits[:, head], right[rows, head]) for head in range(len(heads)))
    held_out = np.stack(
        [1 / (1 + np.exp(-(slope * logits[:, head] + shift))) for head, (slope, shift) in enumerate(scalings)], axis=1
    )
    found = [_solve(whole, right[rows, head], recipe) for head in range(len(heads))]
    coefficients = np.stack([one.coef_[0] for one in found])
    biases = [float(one.intercept_[0]) for one in found]
    return Fitted(space.model(heads, coefficients, biases, scalings), held_out)


def _check_classes(name: str, columns: Sequence[str], labels: Floats) -> None:
    for column, values in zip(columns, labels.T, strict=True):
        if values.min() == values.max():
            state = "true" if values[0] else "false"
            raise BadInput(
                f"data {name}",
                column,
                f"is {state} in every row that is learnt from",
                "give rows with right and wrong answers of each model",
            )


def _solve(matrix: Any, right: Floats, recipe: Recipe) -> Any:
    """One fitted regression."""
    from threadpoolctl import threadpool_limits

    regression = logistic_regression()(C=recipe.strength, solver="lbfgs", max_iter=1000)
    with threadpool_limits(1):  # the vectors are short: more threads only wait for each other
        return regression.fit(matrix, right)


def logistic_regression() -> Callable[..., Any]:
    """scikit-learn's class; BadInput where it is not installed."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise BadInput("router", "train", "needs scikit-learn", "pip install 'outthink[calibrate]'") from None
    return LogisticRegression  # type: ignore[no-any-return]
