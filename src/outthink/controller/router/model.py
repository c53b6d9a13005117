"""A linear model of text with several calibrated heads.

Knows: how hand features, TF-IDF terms and a subject become one number a head. Does not know what the heads mean
(`predictor`), how coefficients were found (`outthink.evaluation.routing`) or where they are stored (`artefact`). Uses
neither numpy nor scikit-learn: one prompt is too little work to pay for their import.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from operator import mul

from outthink.controller.router.text import KINDS, NAMES, READ, Finder, Kind, hand_features, idf, read, weights
from outthink.core.errors import BadInput

CLIP = 4.0
"""Standard deviations beyond which a hand feature counts no further: a strange prompt stays a plain guess."""
Term = tuple[Kind, str, int, tuple[float, ...]]
"""Kind, term, how many of the training prompts hold it, and its coefficient in each head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """All coefficients but those of terms.

    Args:
        heads: their names.
        platt: (slope, intercept) of each head: its value is slope * logit + intercept.
        bias: one a head.
        hand_features, characters_read: how a prompt was read.
        hand_mean, hand_scale: of each hand feature; the standardised, clipped value is multiplied by `hand_weight`.
        hand: one list a head, in the order of `hand_features`.
        documents: training prompts, by each kind of terms that is read.
        subjects: of each subject, one a head; empty where the model reads the prompt alone.
    """

    heads: tuple[str, ...]
    platt: tuple[tuple[float, float], ...]
    bias: tuple[float, ...]
    hand_features: tuple[str, ...] = NAMES
    characters_read: int = READ
    hand_mean: tuple[float, ...]
    hand_scale: tuple[float, ...]
    hand_weight: float
    hand: tuple[tuple[float, ...], ...]
    documents: dict[Kind, int]
    subjects: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if self.hand_features != NAMES or self.characters_read != READ:
            raise BadInput(
                "hand_features", len(self.hand_features), "are other hand features than this version has", ""
            )
        wide = {len(self.platt), len(self.bias), len(self.hand), *map(len, self.subjects.values())}
        if wide != {len(self.heads)} or {*map(len, (self.hand_mean, self.hand_scale, *self.hand))} != {len(NAMES)}:
            raise BadInput("heads", len(self.heads), "do not fit the coefficients", "")


class _Block:
    """Terms of one kind with their coefficients, ready to be found.

    Numbers lie in arrays: the objects of ten thousands of floats would be spread over memory, and
    fetching them took most of a request's time.
    """

    __slots__ = ("_coefficients", "_find", "_inverse")

    def __init__(self, kind: Kind, documents: int, rows: Sequence[Term], heads: int) -> None:
        inverse = {count: idf(documents, count) for count in {row[2] for row in rows}}
        self._find = Finder(kind, {row[1]: place for place, row in enumerate(rows)})
        self._inverse = array("d", [inverse[row[2]] for row in rows])
        self._coefficients = [array("d", [row[3][head] for row in rows]) for head in range(heads)]

    def add_to(self, sums: list[float], text: str) -> None:
        """Add what the terms of a text say to the logit of each head."""
        counts = self._find(text)
        shares, length = weights(counts, self._inverse)
        for head, row in enumerate(self._coefficients):
            sums[head] += sum(map(mul, shares, map(row.__getitem__, counts))) / length


class TextModel:
    """One calibrated value of every head for a prompt.

    Raises BadInput for terms that do not fit the heads.
    """

    __slots__ = ("_blocks", "_own")

    def __init__(self, coefficients: Coefficients, terms: Sequence[Term]) -> None:
        self._own, count = coefficients, len(coefficients.heads)
        if any(len(row[3]) != count or row[0] not in coefficients.documents for row in terms):
            raise BadInput("terms", len(terms), "do not fit the heads", "train it again")
        self._blocks = [
            _Block(kind, coefficients.documents[kind], [row for row in terms if row[0] == kind], count)
            for kind in KINDS
            if kind in coefficients.documents
        ]

    def standardised(self, prompt: str) -> list[float]:
        """Hand features as the heads see them."""
        own = self._own
        # A feature that never varied in training has scale 0, and says nothing here either.
        return [
            own.hand_weight * max(-CLIP, min(CLIP, (value - mean) / scale if scale else 0.0))
            for value, mean, scale in zip(hand_features(prompt), own.hand_mean, own.hand_scale, strict=True)
        ]

    def logits(self, prompt: str, subject: str = "") -> list[float]:
        """One uncalibrated logit a head."""
        own, hand = self._own, self.standardised(prompt)
        sums = [
            bias + sum(a * b for a, b in zip(hand, row, strict=True))
            for bias, row in zip(own.bias, own.hand, strict=True)
        ]
        text = read(prompt)
        for block in self._blocks:
            block.add_to(sums, text)
        for head, coefficient in enumerate(own.subjects.get(subject, ())):
            sums[head] += coefficient
        return sums

    def scaled(self, prompt: str, subject: str = "") -> list[float]:
        """One calibrated value a head: of a probability its logit."""
        logits = zip(self.logits(prompt, subject), self._own.platt, strict=True)
        return [slope * logit + shift for logit, (slope, shift) in logits]


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1 / (1 + exp(-value))
    small = exp(value)
    return small / (1 + small)
