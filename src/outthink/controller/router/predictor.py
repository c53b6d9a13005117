"""What to expect of each of several models on a prompt, before any of them has written a token, and which one to ask.

Knows: which head of a text model means what, and the operating point by which a model is chosen. Does not know how
heads are fitted (`outthink.evaluation.routing`) or stored (`artefact`). Applying it needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import exp, inf, isfinite, log
from typing import Any, get_args

from outthink.controller.router.model import Coefficients, Term, TextModel, sigmoid
from outthink.controller.routing_rules import Routing, Way
from outthink.core.errors import BadInput

_MOST = log(1e7)
"""Of the logarithm of tokens: a strange prompt may be far off, but not infinitely."""
STRONG_SHARE = "strong-share"


@dataclass(frozen=True, slots=True)
class Expected:
    """What one model is believed to do.

    Args:
        chance: that a sample of it is right, 0 to 1.
        tokens: mean length of a sample, None where the training knew no token counts.
        tokens_low, tokens_high: that mean lay between these for eight in ten held-out prompts.
    """

    model: str
    chance: float
    tokens: float | None = None
    tokens_low: float | None = None
    tokens_high: float | None = None

    def line(self) -> str:
        """The same in words."""
        text = f"{self.model}: {self.chance:.0%} of samples right"
        if self.tokens is not None:
            text += f", {self.tokens:,.0f} tokens each ({self.tokens_low:,.0f} to {self.tokens_high:,.0f})"
        return text + ", from the question alone"


@dataclass(frozen=True, slots=True)
class Prediction:
    """All models on one prompt; `flags` say why it should not be trusted here, if anything does."""

    models: tuple[Expected, ...]
    flags: tuple[str, ...] = ()

    def of(self, model: str) -> Expected:
        """One model's; BadInput for a model that nothing was learned of."""
        for expected in self.models:
            if expected.model == model:
                return expected
        known = ", ".join(expected.model for expected in self.models)
        raise BadInput("predictor", model, f"is not among the models it knows ({known})", "train it with that model")

    def gain(self, weak: str, strong: str) -> float:
        """How much likelier the strong model is to be right."""
        return self.of(strong).chance - self.of(weak).chance

    @property
    def chances(self) -> list[float]:
        """Of success, in the order of the models: what `controller.routing_rules` choose by."""
        return [expected.chance for expected in self.models]

    def lines(self) -> list[str]:
        """The same in words, a line each."""
        return [expected.line() for expected in self.models] + [f"less sure of it: {flag}" for flag in self.flags]


@dataclass(frozen=True, slots=True)
class RoutedModel:
    """The model for one prompt, and what made it so."""

    model: str
    prediction: Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """One of `controller.routing_rules` with its parameter."""

    way: Way
    parameter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLengths:
    """Characters of the shortest and the longest prompt of the training."""

    characters: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Reads a prompt and says what to expect of each model, and which of them to ask.

    The fields are those of the artefact.

    Args:
        id: hash of the content; receipts name it.
        models: by name, from the cheapest to the dearest.
        columns: what they are called in the columns of the training data.
        parameters: weights read for a token of each model, None where unknown.
        costs: mean of each model's answers in training, all in one unit; None where the data had none.
        tokens_spread: of each model, the factors on the expected tokens between which eight in ten prompts fell; None
            without token counts.
        operating_point: by which a model is chosen; None where it only predicts.
        gains: of two models, percentiles 0 to 100 of the gain on held-out training prompts.
        outthink, recipe, data, held_out: where it comes from, and how good it was on prompts that were held out.
        model, terms: for each model a head for the logit of its chance and, with token counts, one for the logarithm
            of its tokens.
        prompts: `prompt_hash` of each training prompt.
    """

    id: str = "unsaved"
    models: tuple[str, ...]
    columns: tuple[str, ...] = ()
    parameters: tuple[int | None, ...] = ()
    costs: tuple[float, ...] | None = None
    tokens_spread: tuple[tuple[float, float], ...] | None = None
    operating_point: OperatingPoint | None = None
    regime: PromptLengths
    outthink: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    held_out: Any = None
    gains: tuple[float, ...] | None = None
    model: Coefficients
    terms: tuple[Term, ...] = ()
    prompts: tuple[str, ...] = ()
    text: TextModel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        optional = (self.tokens_spread, self.columns, self.parameters, self.costs)
        fits = all(len(each) in (0, len(self.models)) for each in optional if each is not None)
        if not fits or self.model.heads != heads(self.models, self.tokens_spread is not None):
            raise BadInput("models", ", ".join(self.models), "do not fit the heads", "train it again")
        if self.operating_point is not None:
            _ = self.routing  # one that does not fit the models is refused here
        object.__setattr__(self, "text", TextModel(self.model, self.terms))  # derived once: every prompt needs it

    def predict(self, prompt: str, subject: str = "") -> Prediction:
        """What to expect of each model on a prompt."""
        values = iter(self.text.scaled(prompt, subject))
        models = []
        for place, model in enumerate(self.models):
            expected = Expected(model, sigmoid(next(values)))
            if self.tokens_spread is not None:
                tokens, (low, high) = exp(min(next(values), _MOST)), self.tokens_spread[place]
                expected = Expected(model, expected.chance, tokens, low * tokens, high * tokens)
            models.append(expected)
        return Prediction(tuple(models), tuple(self._flags(prompt, subject)))

    def _flags(self, prompt: str, subject: str) -> list[str]:
        size, subjects, (shortest, longest) = len(prompt), self.model.subjects, self.regime.characters
        flags = []
        if not shortest <= size <= longest:
            flags.append(f"{size} characters, trained on {shortest} to {longest}")
        if subjects and subject not in subjects:
            flags.append(f"subject {subject!r} is new")
        return flags

    @property
    def routing(self) -> Routing:
        """The operating point over all models; BadInput where there is none."""
        if (point := self.operating_point) is None:
            problem = "has no operating point: it predicts and does not choose"
            raise BadInput("predictor", self.id[:12], problem, "train a router")
        # Without costs the order of the models is all that is known of them.
        costs = self.costs or tuple(map(float, range(len(self.models))))
        return Routing(point.way, point.parameter, self.models, costs)

    def choose(self, prompt: str, subject: str = "", among: Collection[str] | None = None) -> RoutedModel:
        """The model for a prompt.

        Args:
            among: models that can be asked, None for all; BadInput where it knows fewer than two of them.
        """
        known = [place for place, model in enumerate(self.models) if among is None or model in among]
        if len(known) < 2:
            at_hand = ", ".join(among or ())
            problem = (
                f"knows {', '.join(self.models)}, and at hand {'is' if len(among or ()) == 1 else 'are'} {at_hand}"
            )
            raise BadInput("router", self.id[:12], problem, "give two of its models, or map their names (--router-map)")
        prediction = self.predict(prompt, subject)
        return RoutedModel(self.models[self.routing.place(prediction.chances, known)], prediction)

    def at(self, point: str) -> Predictor:
        """The same predictor at another operating point.

        Args:
            point: WAY=X, with `strong-weak` (X: least gain), `strong-share` (share of requests like the training's
                that go to the strong model), `smallest-likely` (least chance) or `penalised` (price of the whole
                span of costs).

        Raises BadInput.
        """
        name, value = read_point(point)
        if name == STRONG_SHARE:
            name, value = "strong-weak", self.threshold(value)
        way = next(way for way in get_args(Way) if way == name)
        return replace(self, operating_point=OperatingPoint(way=way, parameter=value))

    def threshold(self, share: float) -> float:
        """The gain from which requests go to the strong model, so that about `share` (0 to 1) of them do.

        The share is that of requests like the training's. Raises BadInput where there are not two models.
        """
        if not self.gains:
            raise BadInput(STRONG_SHARE, share, "is for a weak and a strong model", "use penalised=X")
        if not 0 < share < 1:
            return 2.0 if share <= 0 else -2.0  # beyond every gain, which is a difference of two chances
        place = (1 - share) * (len(self.gains) - 1)
        low = int(place)
        high = min(low + 1, len(self.gains) - 1)
        return self.gains[low] + (place - low) * (self.gains[high] - self.gains[low])


def read_point(point: str) -> tuple[str, float]:
    """Way and parameter of WAY=X; BadInput for what is neither."""
    name, _, text = point.partition("=")
    known = (*get_args(Way), STRONG_SHARE)
    if name not in known:
        raise BadInput("operating point", point, "is no way to route", f"use WAY=X with {', '.join(known)}")
    try:
        value = float(text)
    except ValueError:
        value = inf
    if not isfinite(value) or (name == STRONG_SHARE and not 0 <= value <= 1):
        wanted = "a share between 0 and 1" if name == STRONG_SHARE else "a number"
        raise BadInput("operating point", point, f"has not {wanted} behind =", f"write {name}=0.5")
    return name, value


def heads(models: Sequence[str], tokens: bool = True) -> tuple[str, ...]:
    """Names of the heads of some models, in the order of `Predictor.model`."""
    return tuple(f"{model}:{what}" for model in models for what in (("right", "tokens") if tokens else ("right",)))
