"""Prompts as numbers, read once for all folds.

Knows: counted terms of every prompt as sparse tables, and how rows of them become the weights that
`controller.router` computes one prompt at a time. Does not know labels. Needs scikit-learn's scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.controller.router.model import CLIP
from outthink.controller.router.text import KINDS, Kind, hand_features, idf, read, terms
from outthink.evaluation.routing.data import Floats, Ints

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
    """All prompts of a file: hand features (rows, features) and counts of terms by kind."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.hand: Floats = np.array([hand_features(prompt) for prompt in prompts], dtype=np.float64)
        self._names: dict[Kind, list[str]] = {}
        self._counts: dict[Kind, Any] = {}
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

    def weights(self, vocabulary: Vocabulary, rows: Ints) -> Any:
        """TF-IDF weights (rows, terms) of some prompts, sparse."""
        table = self._counts[vocabulary.kind][rows][:, vocabulary.columns].tocsr()
        inverse = np.array([idf(vocabulary.documents, int(count)) for count in vocabulary.frequencies])
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


def _counted(texts: Sequence[str], kind: Kind) -> tuple[Any, list[str]]:
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}
    starts: list[int] = [0]
    columns: list[int] = []
    counts: list[int] = []
    for text in texts:
        found = terms(text, kind)
        columns += [numbers.setdefault(term, len(numbers)) for term in found]
        counts += found.values()
        starts.append(len(columns))
    shape = len(texts), len(numbers)
    table = csr_matrix((np.array(counts, dtype=np.float64), np.array(columns), np.array(starts)), shape=shape)
    return table, list(numbers)
