"""Difficulty before any token is decoded: how likely each model is right, and how much it will write.

Knows: which head of a text model means what, their folder of JSON, and a probe on a hidden state. Does not know
how heads are fitted (`outthink.evaluation.routing.difficulty`) or what a policy does with them. Applying them
needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from outthink.controller.router.folder import Folder, card_of, model_of, reads_alike
from outthink.controller.router.model import TextModel, sigmoid, unlike
from outthink.controller.stored import JsonObject, plain_values, reading, typed
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
        for expected in self.models:
            if expected.model == model:
                return expected
        known = ", ".join(expected.model for expected in self.models)
        raise BadInput("difficulty", model, f"is not among the models it knows ({known})", "train it with that model")

    def gain(self, weak: str, strong: str) -> float:
        """How much likelier the strong model is to be right."""
        return self.of(strong).right - self.of(weak).right

    @property
    def chances(self) -> list[float]:
        """Of success, in the order of the models: what `controller.routing_rules` choose by."""
        return [expected.right for expected in self.models]


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
        values = self.text.scaled(prompt)
        models = []
        for place, (model, (low, high)) in enumerate(zip(self.models, self.spread, strict=True)):
            tokens = exp(min(values[2 * place + 1], _MOST))
            models.append(Expected(model, sigmoid(values[2 * place]), tokens, low * tokens, high * tokens))
        return Forecast(tuple(models), unlike(prompt, self.shortest, self.longest))


def heads(models: Sequence[str]) -> tuple[str, ...]:
    """Names of the heads of some models, in the order of `Difficulty.text`."""
    return tuple(f"{model}:{what}" for model in models for what in ("right", "tokens"))


# Difficulty heads as a folder of JSON, or as a few plain values inside another artefact.

_AGAIN = "train it again with outthink.evaluation.routing.difficulty"
_FOLDER = Folder("difficulty", "outthink.evaluation.routing.difficulty", _AGAIN)


def save(folder: Path, difficulty: Difficulty, about: JsonObject, prompts: Iterable[str]) -> str:
    """Write `difficulty.json`, `terms.json` and `prompts.json`; returns the id.

    Args:
        about: what else the card says: `created`, `data`, `held_out`, ...
        prompts: `prompt_hash` of each training prompt.

    Raises BadInput where the folder cannot be written.
    """
    return _FOLDER.save(folder, difficulty.text, {**about, **_about(difficulty)}, prompts)


def load(folder: Path) -> Difficulty:
    """The heads in a folder; BadInput for a missing file, another schema version or a changed character."""
    card = _FOLDER.read_card(folder)
    return _difficulty(card["id"], card, _FOLDER.model(folder, card))


def plain(difficulty: Difficulty) -> JsonObject:
    """Plain values for a policy. BadInput where it reads terms: their coefficients would be most of the policy."""
    if difficulty.text.blocks:
        raise BadInput("difficulty", difficulty.id, "reads terms of the prompt", "fit it on the counts alone")
    return {"id": difficulty.id, **_about(difficulty), "model": card_of(difficulty.text)}


def of(values: JsonObject) -> Difficulty:
    """From plain values; BadInput for what is malformed, or was made with other hand features."""
    with reading("difficulty", _AGAIN):
        if not reads_alike(values["model"]):
            raise BadInput("difficulty", values["id"], "reads other hand features than this version has", _AGAIN)
        return _difficulty(values["id"], values, model_of(values["model"], []))


def _about(difficulty: Difficulty) -> JsonObject:
    return {
        "models": list(difficulty.models),
        "tokens_spread": [list(pair) for pair in difficulty.spread],
        "regime": {"characters": [difficulty.shortest, difficulty.longest]},
    }


def _difficulty(mark: str, values: JsonObject, text: TextModel) -> Difficulty:
    shortest, longest = values["regime"]["characters"]
    return Difficulty(
        id=str(mark),
        models=tuple(values["models"]),
        text=text,
        spread=tuple((float(low), float(high)) for low, high in values["tokens_spread"]),
        shortest=int(shortest),
        longest=int(longest),
    )


# A linear probe: what a hidden state at the end of a prompt says about the answer to come. Plain Python, since
# one dot product is too little work to pay for numpy's import.


@dataclass(frozen=True, slots=True)
class Probe:
    """Probability that a sample of `model` is right, read off the state of `reader`.

    Args:
        reader: whose states it reads.
        layer: of the reader, 0 the embedding.
        direction, bias: the logit is their dot product with the state plus the bias; calibrated already.
        flops: of reading a prompt of the training up to this layer, on average.
    """

    model: str
    reader: str
    layer: int
    direction: tuple[float, ...]
    bias: float
    flops: float

    def right(self, state: Sequence[float]) -> float:
        """Expected share of right samples, 0 to 1; BadInput for a state of another width."""
        if len(state) != len(self.direction):
            raise BadInput(
                "state", len(state), f"does not fit the probe's {len(self.direction)}", f"read {self.reader}'s states"
            )
        return sigmoid(sum([a * b for a, b in zip(self.direction, state, strict=True)]) + self.bias)

    def json(self) -> JsonObject:
        """Plain values."""
        return plain_values(self)

    @classmethod
    def of(cls, values: JsonObject) -> Probe:
        """From plain values; BadInput for what is malformed."""
        with reading("probe", "fit it again"):
            return typed(cls, values)
