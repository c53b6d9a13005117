"""The columns of a design matrix: hand features, terms by kind, subjects.

Knows: how rows of a corpus become numbers, and how fitted coefficients become a model that needs no
library. Does not know labels or solvers. Needs scikit-learn's scipy.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from outthink.controller.router.folder import DIGITS
from outthink.controller.router.model import Block, TextModel
from outthink.controller.router.text import KINDS, NAMES, Kind
from outthink.evaluation.routing.corpus import Corpus, Vocabulary
from outthink.evaluation.routing.data import Floats, Ints

SUBJECT_WEIGHT = 1.0


class Space:
    """What the prompts of one training set are described by.

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

    def matrix(self, rows: Ints | None = None) -> Any:
        """The training rows, or others of the corpus, as a sparse matrix."""
        from scipy.sparse import csr_matrix, hstack

        rows = self._rows if rows is None else rows
        hand = self._corpus.standardised(rows, self._mean, self._scale, self._weight)
        parts = [csr_matrix(hand), *(self._corpus.weights(one, rows) for one in self._vocabularies)]
        if self._subjects:
            places = {name: place for place, name in enumerate(self._subjects)}
            table = np.zeros((len(rows), len(places)))
            for line, row in enumerate(rows):
                if (place := places.get(self._subject_of[row])) is not None:
                    table[line, place] = SUBJECT_WEIGHT
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
        coefficients = np.round(coefficients, DIGITS) + 0.0
        edges = np.cumsum([len(self._mean), *(len(one.names) for one in self._vocabularies)])
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
