"""A linear model of text with several calibrated heads, and the router made of it.

Knows: how hand features, TF-IDF terms and a subject become one probability per head. Does not know how
coefficients were found (`outthink.evaluation.routing`) nor where they are stored (`folder`). Uses neither
numpy nor scikit-learn: one prompt is too little work to pay for their import.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from operator import mul

from outthink.controller.router.text import Finder, Kind, hand_features, idf, read, weights
from outthink.controller.routing_rules import Routing, Way

CLIP = 4.0
"""Standard deviations beyond which a hand feature counts no further: a strange prompt stays a plain guess."""


@dataclass(frozen=True, slots=True)
class Block:
    """Terms of one kind with their coefficients.

    Numbers lie in arrays: the objects of ten thousands of floats would be spread over memory, and
    fetching them took most of a request's time.

    Args:
        documents: training prompts.
        terms: in alphabetical order.
        frequencies: how many of the documents hold each term.
        coefficients: one array a head, in the order of the terms.
    """

    kind: Kind
    documents: int
    terms: tuple[str, ...]
    frequencies: tuple[int, ...]
    coefficients: tuple[array[float], ...]
    _find: Finder = field(init=False, repr=False, compare=False)
    _inverse: array[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Derived once, since every prompt needs them; the class is frozen, hence `__setattr__`.
        inverse = {count: idf(self.documents, count) for count in set(self.frequencies)}
        object.__setattr__(self, "_find", Finder(self.kind, {term: place for place, term in enumerate(self.terms)}))
        object.__setattr__(self, "_inverse", array("d", map(inverse.__getitem__, self.frequencies)))

    def add_to(self, sums: list[float], text: str) -> None:
        """Add what the terms of a text say to the logit of each head."""
        counts = self._find(text)
        shares, length = weights(counts, self._inverse)
        for head, row in enumerate(self.coefficients):
            sums[head] += sum(map(mul, shares, map(row.__getitem__, counts))) / length


@dataclass(frozen=True, slots=True)
class TextModel:
    """Logits and calibrated probabilities of every head for one prompt.

    Args:
        heads: their names, for a router `weak` and `strong`.
        bias: one a head.
        mean, scale: of each hand feature; the standardised, clipped value is multiplied by `hand_weight`.
        hand: coefficients, one list a head, in the order of `features.NAMES`.
        blocks: terms with their coefficients.
        subjects: coefficients of each subject, one a head; empty where the model reads the prompt alone.
        platt: (slope, intercept) of each head: the probability is sigmoid(slope * logit + intercept).
    """

    heads: tuple[str, ...]
    bias: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    hand_weight: float
    hand: tuple[tuple[float, ...], ...]
    blocks: tuple[Block, ...]
    subjects: Mapping[str, Sequence[float]]
    platt: tuple[tuple[float, float], ...]

    def standardised(self, prompt: str) -> list[float]:
        """Hand features as the heads see them."""
        values = zip(hand_features(prompt), self.mean, self.scale, strict=True)
        # A feature that never varied in training has scale 0, and says nothing here either.
        return [
            self.hand_weight * max(-CLIP, min(CLIP, (value - mean) / scale if scale else 0.0))
            for value, mean, scale in values
        ]

    def logits(self, prompt: str, subject: str = "") -> list[float]:
        """One uncalibrated logit a head."""
        hand = self.standardised(prompt)
        sums = [
            bias + sum(a * b for a, b in zip(hand, row, strict=True))
            for bias, row in zip(self.bias, self.hand, strict=True)
        ]
        text = read(prompt)
        for block in self.blocks:
            block.add_to(sums, text)
        for head, coefficient in enumerate(self.subjects.get(subject, ())):
            sums[head] += coefficient
        return sums

    def scaled(self, prompt: str, subject: str = "") -> list[float]:
        """One calibrated logit a head."""
        logits = zip(self.logits(prompt, subject), self.platt, strict=True)
        return [slope * logit + shift for logit, (slope, shift) in logits]

    def probabilities(self, prompt: str, subject: str = "") -> list[float]:
        """One calibrated probability a head."""
        return [sigmoid(logit) for logit in self.scaled(prompt, subject)]


def unlike(prompt: str, shortest: int, longest: int) -> tuple[str, ...]:
    """A flag where a prompt is shorter or longer than those of the training."""
    size = len(prompt)
    return () if shortest <= size <= longest else (f"{size} characters, trained on {shortest} to {longest}",)


@dataclass(frozen=True, slots=True)
class RouterPrediction:
    """What a router thinks of one prompt; `flags` say why it should not be trusted here, if anything does."""

    weak: float
    strong: float
    flags: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """How much likelier the strong model is to be right: requests are ranked by it."""
        return self.strong - self.weak

    @property
    def chances(self) -> list[float]:
        """Of success, the weak model's first: what `controller.routing_rules` choose by."""
        return [self.weak, self.strong]


@dataclass(frozen=True, slots=True)
class Router:
    """Ranks requests by how much the strong model would gain over the weak one.

    Args:
        id: hash of the artefact's content; receipts name it.
        model: with the heads `weak` and `strong`.
        shortest, longest: characters of the prompts that it was trained on.
        gains: percentiles 0 to 100 of the gain on held-out training prompts.
    """

    id: str
    model: TextModel
    shortest: int
    longest: int
    gains: tuple[float, ...]

    @property
    def reads_subject(self) -> bool:
        """Whether requests should come with their subject."""
        return bool(self.model.subjects)

    def believe(self, prompt: str, subject: str = "") -> RouterPrediction:
        """P(weak right), P(strong right), and whether the prompt is like those of the training."""
        weak, strong = self.model.probabilities(prompt, subject)
        flags = unlike(prompt, self.shortest, self.longest)
        if self.reads_subject and subject not in self.model.subjects:
            flags = (*flags, f"subject {subject!r} is new")
        return RouterPrediction(weak, strong, flags)

    def threshold(self, share: float) -> float:
        """The gain from which requests go to the strong model, so that about `share` (0 to 1) of them do.

        The share is that of requests like the training's; at 1 every request goes, at 0 none.
        """
        if share <= 0:
            return float("inf")
        if share >= 1:
            return float("-inf")
        place = (1 - share) * (len(self.gains) - 1)
        low = int(place)
        high = min(low + 1, len(self.gains) - 1)
        return self.gains[low] + (place - low) * (self.gains[high] - self.gains[low])


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    if value >= 0:
        return 1 / (1 + exp(-value))
    small = exp(value)
    return small / (1 + small)


# A router over any number of models: their chances on one prompt, and the model that a way of routing takes.


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """A model for one prompt; `flags` say why the chances should not be trusted here, if anything does."""

    model: str
    chances: tuple[float, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRouter:
    """Chooses among the models that it was trained on.

    Args:
        id: hash of the artefact's content; receipts name it.
        text: one head a model, named as it is.
        costs: mean of each model's answers in training, all in one unit.
        shortest, longest: characters of the prompts that it was trained on.
    """

    id: str
    text: TextModel
    costs: tuple[float, ...]
    shortest: int
    longest: int

    @property
    def models(self) -> tuple[str, ...]:
        """By name, the cheapest first."""
        return self.text.heads

    def routing(self, way: Way, parameter: float) -> Routing:
        """A way of routing over these models; BadInput for an unknown way."""
        return Routing(way, parameter, self.models, self.costs)

    def choose(self, prompt: str, way: Way, parameter: float) -> RoutedModel:
        """The model for a prompt; BadInput for an unknown way."""
        chances = self.text.probabilities(prompt)
        model = self.routing(way, parameter).choose(chances)
        return RoutedModel(model, tuple(chances), unlike(prompt, self.shortest, self.longest))
