"""Training: a logistic regression for each model on one text representation, calibrated on held-out prompts.

Knows: prompts as sparse tables of counted terms, read once for all folds; how fitted coefficients become a model that
`controller.router` computes one prompt at a time without any library; scikit-learn's solver (the `calibrate` extra,
imported only when used); and the cross-fitted logits that Platt's scaling is fitted on. Does not know metrics or files.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from outthink.controller.router.folder import DIGITS
from outthink.controller.router.model import CLIP, Block, TextModel
from outthink.controller.router.text import KINDS, NAMES, Kind, hand_features, idf, read, terms
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.evaluation.routing.data import Floats, Ints, ModelRows, fold_of, need_subjects
from outthink.evaluation.routing.figures import platt

Matrix = Any
"""A sparse matrix of scipy, which has no types."""
Solve = Callable[[Ints], tuple[Floats, float]]
"""Coefficients and intercept fitted on some rows."""
LEAST: dict[Kind, int] = {"word": 2, "char": 3}
"""Training prompts that must hold a term before it gets a coefficient."""
MOST = 20_000
"""Terms of one kind at most, the most frequent ones: 50,000 gave the same APGR with twice the artefact."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms of one kind: their columns in the corpus, names, and how many of `documents` prompts hold each."""

    kind: Kind
    columns: Ints
    names: tuple[str, ...]
    frequencies: Ints
    documents: int


class Corpus:
    """All prompts of a file: hand features (rows, features) and counts of terms by kind.

    Raises BadInput without the `calibrate` extra.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        need_extra("calibrate", "router", "train")
        self.hand: Floats = np.array([hand_features(prompt) for prompt in prompts], dtype=np.float64)
        self._names: dict[Kind, list[str]] = {}
        self._counts: dict[Kind, Matrix] = {}
        texts = [read(prompt) for prompt in prompts]
        for kind in KINDS:
            self._counts[kind], self._names[kind] = _counted(texts, kind)

    def vocabulary(self, kind: Kind, rows: Ints) -> Vocabulary:
        """The terms that the training rows know, in alphabetical order."""
        frequency = np.asarray((self._counts[kind][rows] > 0).sum(axis=0)).ravel()
        columns = np.flatnonzero(frequency >= LEAST[kind])
        if len(columns) > MOST:
            columns = columns[np.argsort(-frequency[columns], kind="stable")[:MOST]]
        names = self._names[kind]
        columns = np.array(sorted(columns.tolist(), key=names.__getitem__), dtype=np.int64)
        return Vocabulary(kind, columns, tuple(names[i] for i in columns), frequency[columns], len(rows))

    def weights(self, vocabulary: Vocabulary, rows: Ints) -> Matrix:
        """TF-IDF weights (rows, terms) of some prompts, sparse."""
        table = self._counts[vocabulary.kind][rows][:, vocabulary.columns].tocsr()
        inverse = np.array([idf(vocabulary.documents, int(count)) for count in vocabulary.frequencies])
        # As `controller.router.text.weights` has it for a single prompt: what is applied is what was trained.
        table.data = (1 + np.log(table.data)) * inverse[table.indices]
        lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
        table.data = table.data / np.repeat(lengths, np.diff(table.indptr))
        return table

    def standardised(self, rows: Ints, mean: Floats, scale: Floats, weight: float) -> Floats:
        """Hand features as the heads see them; one that never varies is zero."""
        safe = np.where(scale > 0, scale, 1.0)
        return np.asarray(
            weight * np.clip(np.where(scale > 0, (self.hand[rows] - mean) / safe, 0.0), -CLIP, CLIP), dtype=np.float64
        )


def _counted(texts: Sequence[str], kind: Kind) -> tuple[Matrix, list[str]]:
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}
    starts: list[int] = [0]
    columns: list[int] = []
    counts: list[int] = []
    for text in texts:
        term_counts = terms(text, kind)
        columns += [numbers.setdefault(term, len(numbers)) for term in term_counts]
        counts += term_counts.values()
        starts.append(len(columns))
    shape = len(texts), len(numbers)
    table = csr_matrix((np.array(counts, dtype=np.float64), np.array(columns), np.array(starts)), shape=shape)
    return table, list(numbers)


_SUBJECT_WEIGHT = 1.0


class Space:
    """The columns of a design matrix: hand features, terms by kind, subjects.

    Args:
        corpus: all prompts of a file.
        rows: those of the training set.
        hand_weight: of standardised hand features beside TF-IDF vectors of length 1.
        kinds: of terms; without any the hand features stand alone.
        hand: names of the hand features that count; the others have no coefficient.
        subjects: of all prompts of the corpus; empty to read the prompts alone.
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: Ints,
        hand_weight: float,
        *,
        kinds: Sequence[Kind] = KINDS,
        hand: Sequence[str] = NAMES,
        subjects: Sequence[str] = (),
    ) -> None:
        self._corpus, self._rows, self._weight = corpus, rows, hand_weight
        self._mean = corpus.hand[rows].mean(axis=0)
        self._scale = corpus.hand[rows].std(axis=0)
        # Rounding alone gives a constant column a tiny spread; a column of no spread is zero for every prompt.
        self._scale[(self._scale < 1e-9) | ~np.isin(NAMES, hand)] = 0.0
        self._vocabularies: list[Vocabulary] = [corpus.vocabulary(kind, rows) for kind in kinds]
        self._subject_of = subjects
        self._subjects = sorted({subjects[row] for row in rows}) if subjects else []

    def matrix(self) -> Matrix:
        """The training rows as a sparse matrix."""
        from scipy.sparse import csr_matrix, hstack

        rows = self._rows
        hand = self._corpus.standardised(rows, self._mean, self._scale, self._weight)
        parts = [csr_matrix(hand), *(self._corpus.weights(vocabulary, rows) for vocabulary in self._vocabularies)]
        if self._subjects:
            places = {name: place for place, name in enumerate(self._subjects)}
            table = np.zeros((len(rows), len(places)))
            table[np.arange(len(rows)), [places[self._subject_of[row]] for row in rows]] = _SUBJECT_WEIGHT
            parts.append(csr_matrix(table))
        return hstack(parts).tocsr()

    def model(
        self,
        heads: tuple[str, ...],
        coefficients: Floats,
        biases: Sequence[float],
        scalings: tuple[tuple[float, float], ...],
    ) -> TextModel:
        """The same columns as a model of `controller.router`, coefficients (heads, columns) rounded as stored."""
        coefficients = np.round(coefficients, DIGITS) + 0.0  # -0.0 becomes 0.0: equal models are equal bytes
        edges = np.cumsum([len(self._mean), *(len(vocabulary.names) for vocabulary in self._vocabularies)])
        hand, *blocks, subjects = np.split(coefficients, edges, axis=1)
        return TextModel(
            heads=heads,
            bias=tuple(biases),
            mean=tuple(self._mean.tolist()),
            scale=tuple(self._scale.tolist()),
            hand_weight=self._weight,
            hand=tuple(map(tuple, hand.tolist())),
            blocks=tuple(
                Block(
                    vocabulary.kind,
                    vocabulary.documents,
                    vocabulary.names,
                    tuple(vocabulary.frequencies.tolist()),
                    tuple(array("d", row.tolist()) for row in block),
                )
                for vocabulary, block in zip(self._vocabularies, blocks, strict=True)
            ),
            subjects={
                name: tuple((_SUBJECT_WEIGHT * column).tolist())
                for name, column in zip(self._subjects, subjects.T, strict=True)
            },
            platt=scalings,
        )


@dataclass(frozen=True, slots=True)
class RouterRecipe:
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
class FittedRouter:
    """A trained model with its held-out probabilities on its own training rows, (rows, heads)."""

    model: TextModel
    held_out: Floats


def fit(data: ModelRows, corpus: Corpus, rows: Ints, group: Ints, recipe: RouterRecipe) -> FittedRouter:
    """Train on some rows of a file, one regression a model, on the same features.

    Args:
        corpus, group: of the whole file.

    Raises BadInput where one model is always right or always wrong, for too few prompts, for rows
    without the subject that the recipe wants, or where scikit-learn is missing.
    """
    logistic_regression()  # a missing library is said before any work
    if recipe.subject:
        need_subjects(data)
    right = data.right[rows]
    _check_classes(data, right)
    fold = fold_of(np.unique(group[rows], return_inverse=True)[1], recipe.folds, recipe.seed)
    space = Space(corpus, rows, recipe.hand_weight, subjects=data.subjects if recipe.subject else ())
    matrix = space.matrix()
    for part in range(recipe.folds):
        _check_classes(data, right[fold != part])  # without a fold one class may be missing
    solvers = [partial(_solve, matrix, labels, recipe) for labels in right.T]
    # Only terms and scales are those of all training rows: they know no labels.
    logits = np.stack([cross_predicted(matrix, fold, solve) for solve in solvers], axis=1)
    scalings = tuple(platt(logits[:, head], labels) for head, labels in enumerate(right.T))
    held_out = np.stack(
        [1 / (1 + np.exp(-(slope * logits[:, head] + shift))) for head, (slope, shift) in enumerate(scalings)], axis=1
    )
    solutions = [solve(np.arange(len(rows))) for solve in solvers]
    coefficients, biases = np.stack([slopes for slopes, _ in solutions]), [bias for _, bias in solutions]
    return FittedRouter(space.model(data.models, coefficients, biases, scalings), held_out)


def cross_predicted(matrix: Matrix, fold: Ints, solve: Solve) -> Floats:
    """What a regression says of each row when it was fitted without that row's fold."""
    held_out = np.empty(len(fold))
    for part in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        coefficients, bias = solve(inside)
        held_out[outside] = matrix[outside] @ coefficients + bias
    return held_out


def _check_classes(data: ModelRows, labels: Floats) -> None:
    for column, values in zip(data.columns, labels.T, strict=True):
        if values.min() == values.max():
            state = "true" if values[0] else "false"
            raise BadInput(
                f"data {data.name}",
                column,
                f"is {state} in every row that is learnt from",
                "give rows with right and wrong answers of each model",
            )


def _solve(matrix: Matrix, right: Floats, recipe: RouterRecipe, rows: Ints) -> tuple[Floats, float]:
    from threadpoolctl import threadpool_limits

    regression = logistic_regression()(C=recipe.strength, solver="lbfgs", max_iter=1000)
    with threadpool_limits(1):  # the vectors are short: more threads only wait for each other
        regression.fit(matrix[rows], right[rows])
    return regression.coef_[0], float(regression.intercept_[0])


def logistic_regression() -> Callable[..., Any]:
    """scikit-learn's class; BadInput where it is not installed."""
    need_extra("calibrate", "router", "train")
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression  # type: ignore[no-any-return]
