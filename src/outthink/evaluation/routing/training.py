"""Training: two logistic regressions on one text representation, calibrated on held-out prompts.

Knows: scikit-learn's solver (the `calibrate` extra, imported here and only when used), its settings, and
the cross-fitted logits that Platt's scaling is fitted on. Does not know metrics or files.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.controller.router.artefact import DIGITS
from outthink.controller.router.model import Block, TextModel
from outthink.controller.router.tfidf import KINDS
from outthink.core.errors import BadInput
from outthink.evaluation.routing.corpus import Corpus, Vocabulary
from outthink.evaluation.routing.data import LABELS, Floats, Ints, RoutingData, need_subjects
from outthink.evaluation.routing.folds import fold_of
from outthink.evaluation.routing.reliability import platt

HEADS = ("weak", "strong")
SUBJECT_WEIGHT = 1.0


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
    logistic_regression()  # a missing library is said before any work
    labels = np.stack([data.weak, data.strong], axis=1)
    _check_classes(data.name, labels[rows])
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = _Space(data, corpus, rows, recipe)
    whole = space.matrix()
    logits = np.empty((len(rows), len(HEADS)))
    for part in range(recipe.folds):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        _check_classes(data.name, labels[rows[inside]])
        # Only terms and scales are those of all training rows: they know no labels.
        known, asked = whole[inside], whole[outside]
        for head in range(len(HEADS)):
            solved = _solve(known, labels[rows[inside], head], recipe)
            logits[outside, head] = asked @ solved.coef_[0] + solved.intercept_[0]
    scalings = tuple(platt(logits[:, head], labels[rows, head]) for head in range(len(HEADS)))
    held_out = np.stack(
        [1 / (1 + np.exp(-(slope * logits[:, head] + shift))) for head, (slope, shift) in enumerate(scalings)], axis=1
    )
    solved_heads = [_solve(whole, labels[rows, head], recipe) for head in range(len(HEADS))]
    return Fitted(space.model(solved_heads, scalings), held_out)


def _check_classes(name: str, labels: Floats) -> None:
    for column, values in zip(LABELS, labels.T, strict=True):
        if values.min() == values.max():
            state = "true" if values[0] else "false"
            raise BadInput(
                f"data {name}",
                column,
                f"is {state} in every row that is learnt from",
                "give rows with right and wrong answers of both models",
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


class _Space:
    """The columns of the design matrix of one training set: hand features, terms by kind, subjects."""

    def __init__(self, data: RoutingData, corpus: Corpus, rows: Ints, recipe: Recipe) -> None:
        self._data, self._corpus, self._rows, self._recipe = data, corpus, rows, recipe
        self._mean = corpus.hand[rows].mean(axis=0)
        self._scale = corpus.hand[rows].std(axis=0)
        # Rounding alone gives a constant column a tiny spread.
        self._scale[self._scale < 1e-9] = 0.0
        self._vocabularies: list[Vocabulary] = [corpus.vocabulary(kind, rows) for kind in KINDS]
        self._subjects = sorted({data.subjects[row] for row in rows}) if recipe.subject else []

    def matrix(self) -> Any:
        from scipy.sparse import csr_matrix, hstack

        rows = self._rows
        hand = self._corpus.standardised(rows, self._mean, self._scale, self._recipe.hand_weight)
        parts = [csr_matrix(hand), *(self._corpus.weights(one, rows) for one in self._vocabularies)]
        if self._subjects:
            places = {name: place for place, name in enumerate(self._subjects)}
            table = np.zeros((len(rows), len(places)))
            for line, row in enumerate(rows):
                table[line, places[self._data.subjects[row]]] = SUBJECT_WEIGHT
            parts.append(csr_matrix(table))
        return hstack(parts).tocsr()

    def model(self, solved: list[Any], scalings: tuple[tuple[float, float], ...]) -> TextModel:
        """The same columns as a model of `controller.router`, coefficients rounded as they are stored."""
        coefficients = np.round(np.stack([one.coef_[0] for one in solved]), DIGITS) + 0.0
        edges = np.cumsum([len(self._mean), *(len(one.names) for one in self._vocabularies)])
        hand, *blocks, subjects = np.split(coefficients, edges, axis=1)
        return TextModel(
            heads=HEADS,
            bias=tuple(float(one.intercept_[0]) for one in solved),
            mean=tuple(self._mean.tolist()),
            scale=tuple(self._scale.tolist()),
            hand_weight=self._recipe.hand_weight,
            hand=tuple(map(tuple, hand.tolist())),
            blocks=tuple(
                Block(
                    one.kind,
                    one.documents,
                    one.names,
                    tuple(one.frequencies.tolist()),
                    tuple(array("d", row.tolist()) for row in block),
                )
                for one, block in zip(self._vocabularies, blocks, strict=True)
            ),
            subjects={
                name: tuple((SUBJECT_WEIGHT * column).tolist())
                for name, column in zip(self._subjects, subjects.T, strict=True)
            },
            platt=scalings,
        )
