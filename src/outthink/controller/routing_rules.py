"""Which of several models answers a request, decided before any token is decoded.

Knows: predicted chances of success, costs, and the three ways to weigh them. Does not know how the
chances are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from outthink.core.errors import BadInput

Way = Literal["smallest-likely", "penalised", "strong-weak"]


def smallest_likely(chances: Sequence[float], costs: Sequence[float], tau: float) -> int:
    """The cheapest model whose chance is at least tau, else the most expensive one (arXiv 2511.03808).

    tau = 0 is always the cheapest, tau > 1 always the most expensive; equal costs go by order.
    """
    _check(chances, costs)
    likely = [i for i, chance in enumerate(chances) if chance >= tau]
    return min(likely, key=lambda i: costs[i]) if likely else max(range(len(costs)), key=lambda i: costs[i])


def penalised(chances: Sequence[float], costs: Sequence[float], price: float) -> int:
    """argmax of chance - price x cost, the costs scaled to 0 .. 1 over the models (arXiv 2602.09924).

    Of equal values the cheaper model is taken.
    """
    _check(chances, costs)
    low, high = min(costs), max(costs)
    span = high - low or 1.0  # where all cost the same, the price decides nothing
    return max(range(len(costs)), key=lambda i: (chances[i] - price * (costs[i] - low) / span, -costs[i]))


def strong_weak(score: float, tau: float) -> int:
    """1, the strong model, where the score that it is needed is at least tau, else 0 (RouteLLM)."""
    return int(score >= tau)


@dataclass(frozen=True, slots=True)
class Routing:
    """One of the ways with its parameter, for models in a fixed order.

    Args:
        way: `smallest-likely` (parameter: least chance), `penalised` (price of the whole span of
            costs), or `strong-weak` (threshold on the gain, the strong model's chance minus the weak one's).
        costs: of one answer of each model, in any one currency.
    """

    way: Way
    parameter: float
    models: tuple[str, ...]
    costs: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise BadInput("routing", self.way, "is no way to route", f"use one of {', '.join(get_args(Way))}")
        if len(self.models) != len(self.costs) or len(self.models) < 2:
            raise BadInput("routing", self.models, f"do not fit {len(self.costs)} costs", "give two or more of each")
        if self.way == "strong-weak" and len(self.models) != 2:
            raise BadInput("routing", self.models, "are not a weak and a strong model", "give two, the weak one first")

    @property
    def looks(self) -> bool:
        """Whether the chances matter: at its ends a threshold always takes the same model, and no router has to run."""
        if self.way == "smallest-likely":
            return 0 < self.parameter <= 1
        return self.way == "penalised" or -1 < self.parameter <= 1  # a gain is a difference of two chances

    def place(self, chances: Sequence[float], among: Sequence[int] | None = None) -> int:
        """The place of the model for a request whose chances of success are these, in the order of the models.

        Args:
            among: places of those that can be asked, None for all; of a weak and a strong model both.
        """
        _check(chances, self.costs)
        if self.way == "strong-weak":
            return strong_weak(chances[1] - chances[0], self.parameter)
        places = range(len(chances)) if among is None else among
        if self.way == "smallest-likely":
            costs = [self.costs[place] for place in places]
            return places[smallest_likely([chances[place] for place in places], costs, self.parameter)]
        # All costs stay: the price is one of the span between the cheapest and the dearest of the training.
        at_hand = [chance if place in places else -inf for place, chance in enumerate(chances)]
        return penalised(at_hand, self.costs, self.parameter)


def _check(chances: Sequence[float], costs: Sequence[float]) -> None:
    if len(chances) != len(costs) or not chances:
        raise BadInput("chances", len(chances), f"do not fit {len(costs)} models", "give one for each")
