"""What a predictor is trained on: prompts as sparse tables of counted terms, read once for all folds.

Knows: hand features, vocabularies and TF-IDF weights of many prompts at once, and how fitted coefficients become a text
model that `controller.router` computes one prompt at a time without any library. Does not know what is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.controller.router.artefact import DIGITS
from outthink.controller.router.model import CLIP, Coefficients, Term
from outthink.controller.router.text import KINDS, NAMES, Kind, hand_features, idf, read, terms
from outthink.core.plugins import need_extra
from outthink.evaluation.routing.data import Floats, Ints

Matrix = Any
"""A sparse matrix of scipy, which has no types."""
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
    from sklearn.feature_extraction import DictVectorizer

    vectoriser = DictVectorizer(sort=False)
    return vectoriser.fit_transform(terms(text, kind) for text in texts), vectoriser.feature_names_


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
    ) -> tuple[Coefficients, tuple[Term, ...]]:
        """The same columns as a model of `controller.router`, coefficients (heads, columns) rounded as stored."""
        coefficients = np.round(coefficients, DIGITS) + 0.0  # -0.0 becomes 0.0: equal models are equal bytes
        edges = np.cumsum([len(self._mean), *(len(vocabulary.names) for vocabulary in self._vocabularies)])
        hand, *blocks, subjects = np.split(coefficients, edges, axis=1)
        terms = [
            (vocabulary.kind, name, frequency, tuple(row))
            for vocabulary, block in zip(self._vocabularies, blocks, strict=True)
            for name, frequency, row in zip(
                vocabulary.names, vocabulary.frequencies.tolist(), block.T.tolist(), strict=True
            )
        ]
        own = Coefficients(
            heads=heads,
            platt=scalings,
            bias=tuple(biases),
            hand_mean=tuple(self._mean.tolist()),
            hand_scale=tuple(self._scale.tolist()),
            hand_weight=self._weight,
            hand=tuple(map(tuple, hand.tolist())),
            documents={vocabulary.kind: vocabulary.documents for vocabulary in self._vocabularies},
            subjects={
                name: tuple((_SUBJECT_WEIGHT * column).tolist())
                for name, column in zip(self._subjects, subjects.T, strict=True)
            },
        )
        return own, tuple(terms)
