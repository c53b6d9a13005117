"""What is expected of each model on one prompt: its success rate and its tokens.

Knows: which head means what, and how a logit becomes a probability or a number of tokens. Does not know
how heads were fitted, nor where they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from outthink.controller.router.model import TextModel, sigmoid
from outthink.core.errors import BadInput

_MOST = log(1e7)
"""Of the logarithm of tokens: a strange prompt may be far off, but not infinitely."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What one model is believed to do.

    Args:
        right: share of its samples that are right, 0 to 1.
        tokens: mean length of a sample.
        tokens_low, tokens_high: that mean lay between these for eight in ten held-out prompts.
    """

    model: str
    right: float
    tokens: float
    tokens_low: float
    tokens_high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """All models on one prompt; `flags` say why it should not be trusted here, if anything does."""

    models: tuple[Expected, ...]
    flags: tuple[str, ...] = ()

    def of(self, model: str) -> Expected:
        """One model's; BadInput for a model that nothing was learned of."""
        for one in self.models:
            if one.model == model:
                return one
        known = ", ".join(one.model for one in self.models)
        raise BadInput("difficulty", model, f"is not among the models it knows ({known})", "train it with that model")

    def gain(self, weak: str, strong: str) -> float:
        """How much likelier the strong model is to be right."""
        return self.of(strong).right - self.of(weak).right

    @property
    def chances(self) -> list[float]:
        """Of success, in the order of the models: what `controller.routing_rules` choose by."""
        return [one.right for one in self.models]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Reads a prompt and says what to expect of each model.

    Args:
        id: hash of the artefact's content.
        models: by name.
        text: two heads a model, in their order: the logit of its success rate, the logarithm of its tokens.
            Of the latter the text's scaling is that of a line: slope times head plus shift.
        spread: of each model, the factors on the expected tokens between which eight in ten prompts fell.
        shortest, longest: characters of the prompts that it was trained on.
    """

    id: str
    models: tuple[str, ...]
    text: TextModel
    spread: tuple[tuple[float, float], ...]
    shortest: int
    longest: int

    def __post_init__(self) -> None:
        if self.text.heads != heads(self.models) or len(self.spread) != len(self.models):
            raise BadInput("difficulty", self.text.heads, "are not two heads for each model", "train it again")

    def forecast(self, prompt: str) -> Forecast:
        """What to expect of each model on a prompt."""
        values = [
            slope * logit + shift
            for logit, (slope, shift) in zip(self.text.logits(prompt), self.text.platt, strict=True)
        ]
        found = []
        for place, (model, (low, high)) in enumerate(zip(self.models, self.spread, strict=True)):
            tokens = exp(min(values[2 * place + 1], _MOST))
            found.append(Expected(model, sigmoid(values[2 * place]), tokens, low * tokens, high * tokens))
        size = len(prompt)
        if self.shortest <= size <= self.longest:
            return Forecast(tuple(found))
        return Forecast(tuple(found), (f"{size} characters, trained on {self.shortest} to {self.longest}",))


def heads(models: Sequence[str]) -> tuple[str, ...]:
    """Names of the heads of some models, in the order of `Difficulty.text`."""
    return tuple(f"{model}:{what}" for model in models for what in ("right", "tokens"))
