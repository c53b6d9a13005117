"""A router over any number of models: their chances on one prompt, and the model that a way of routing takes.

Knows: chances and mean costs. Does not know how the ways weigh them (`controller.routing_rules`).
"""

from __future__ import annotations

from dataclasses import dataclass

from outthink.controller.router.model import TextModel
from outthink.controller.routing_rules import Routing, Way


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model for one prompt; `flags` say why the chances should not be trusted here, if anything does."""

    model: str
    chances: tuple[float, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
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

    def choose(self, prompt: str, way: Way, parameter: float) -> Chosen:
        """The model for a prompt; BadInput for an unknown way."""
        chances = self.text.probabilities(prompt)
        model, size = self.routing(way, parameter).choose(chances), len(prompt)
        if self.shortest <= size <= self.longest:
            return Chosen(model, tuple(chances))
        return Chosen(model, tuple(chances), (f"{size} characters, trained on {self.shortest} to {self.longest}",))
