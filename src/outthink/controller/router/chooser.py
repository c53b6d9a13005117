"""Which of the models at hand answers a request, by a predictor at its operating point.

Knows: how the router's names are matched with those at hand, what makes a router useless here, and how its choice
stands in a receipt. Does not know engines, or how chances are predicted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outthink.controller.router.artefact import load
from outthink.controller.router.predictor import Prediction, Predictor
from outthink.controller.routing_rules import Routing
from outthink.core.errors import BadInput
from outthink.core.receipt import Entry


@dataclass(frozen=True, slots=True)
class RoutedChoice:
    """The model that a router chose for one request.

    Args:
        place: of the model among those at hand.
        model: its name in the router.
        router: id of the router.
        seconds: that choosing took.
        unknown: models at hand that the router does not know.
    """

    place: int
    model: str
    router: str
    routing: Routing
    prediction: Prediction
    seconds: float
    unknown: tuple[str, ...] = ()

    def entry(self, model: str) -> Entry:
        """The receipt's, of a model as it is called at hand: no tokens, and what was believed of each."""
        chances = {expected.model: expected.chance for expected in self.prediction.models}
        return Entry(
            "router",
            model,
            "finished",
            seconds=self.seconds,
            flops=0.0,
            usd=0.0,
            joules=0.0,
            router=self.router,
            chances=chances,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the receipt says beside it."""
        name = f"router {self.router[:12]}"
        flags = [f"{name}: less sure of this prompt: {flag}" for flag in self.prediction.flags]
        if self.unknown:
            flags.append(f"{name}: does not know {', '.join(self.unknown)}, which it never chooses")
        return tuple(flags)

    def lines(self) -> list[str]:
        """What it believed and why it chose, a line each."""
        lines = [f"router {self.router[:12]}"]
        lines += [f"believed: {line}" for line in self.prediction.lines()]
        if self.unknown:
            lines.append(f"not considered: {', '.join(self.unknown)}, which it does not know")
        return [*lines, f"chose: {self.model}, because {self._why}"]

    @property
    def _why(self) -> str:
        routing = self.routing
        if routing.way == "strong-weak":
            gain = self.prediction.gain(*routing.models)
            reached = "reaches" if gain >= routing.parameter else "is below"
            return f"the gain of {routing.models[1]}, {gain:+.3f}, {reached} the threshold of {routing.parameter:+.3f}"
        if routing.way == "penalised":
            return f"its chance is the highest after {routing.parameter:g} times its scaled cost"
        if self.prediction.of(self.model).chance >= routing.parameter:
            return f"it is the cheapest whose chance reaches {routing.parameter:g}"
        return f"no chance reaches {routing.parameter:g}, and it is the dearest"


class ModelChooser:
    """A predictor that chooses among models at hand.

    Args:
        router: a predictor, or its file or folder.
        names: what the router's models are called at hand, where that differs (`--router-map`).
        point: an operating point in place of its own, as `Predictor.at` has it.

    Raises BadInput for an unusable predictor, one that does not choose, and a name that it does not know.
    """

    def __init__(
        self, router: Predictor | Path | str, names: Mapping[str, str] | None = None, point: str | None = None
    ) -> None:
        predictor = router if isinstance(router, Predictor) else load(router)
        self.predictor = predictor if point is None else predictor.at(point)
        self.routing = self.predictor.routing
        for name in names or {}:
            if name not in predictor.models:
                known = ", ".join(predictor.models)
                raise BadInput("router map", name, "is no model of the router", f"use {known}")
        self.names = {model: (names or {}).get(model, model) for model in predictor.models}

    def places(self, at_hand: Sequence[Sequence[str]]) -> dict[str, int]:
        """Where the router's models are among those at hand, by its names of them."""
        found = {}
        for model, wanted in self.names.items():
            place = next((place for place, names in enumerate(at_hand) if wanted in names), None)
            if place is not None:
                found[model] = place
        return found

    def check(self, at_hand: Sequence[Sequence[str]]) -> dict[str, int]:
        """`places`; BadInput where it knows fewer than two of the models at hand."""
        found = self.places(at_hand)
        if len(found) < 2:
            here = ", ".join(names[0] for names in at_hand)
            problem = f"chooses among {', '.join(self.predictor.models)}, and at hand are {here}"
            remedy = "give two of its models, or map their names (--router-map NAME=ALIAS)"
            raise BadInput("router", self.predictor.id[:12], problem, remedy)
        return found

    def choose(self, question: str, at_hand: Sequence[Sequence[str]]) -> RoutedChoice:
        """The model for a question.

        Args:
            at_hand: names of each model at hand, what it is called first.

        Raises BadInput as `check` does.
        """
        began = time.perf_counter()
        found = self.check(at_hand)
        chosen = self.predictor.choose(question, among=found)
        unknown = tuple(names[0] for place, names in enumerate(at_hand) if place not in found.values())
        return RoutedChoice(
            place=found[chosen.model],
            model=chosen.model,
            router=self.predictor.id,
            routing=self.routing,
            prediction=chosen.prediction,
            seconds=time.perf_counter() - began,
            unknown=unknown,
        )


def pairs_of(field: str, texts: Sequence[str]) -> dict[str, str]:
    """What stands on both sides of each NAME=VALUE. Raises BadInput."""
    pairs = [text.partition("=")[::2] for text in texts]
    for text, (key, value) in zip(texts, pairs, strict=True):
        if not key or not value:
            raise BadInput(field, text, "has no = between two names", "write NAME=VALUE")
    return dict(pairs)
