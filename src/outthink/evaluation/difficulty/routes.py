"""What a way of routing is worth on held-out questions: accuracy at its realised cost, beside mixes at equal cost.

Knows: any number of models, the router's own cost, the best random mix of single models. Does not know how
chances were predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from outthink.controller.routing_rules import Routing
from outthink.evaluation.bootstrap import COVERAGE
from outthink.evaluation.routing.data import Floats, Ints


@dataclass(frozen=True, slots=True)
class Routed:
    """By question: which model answered, how likely it was right, what it cost with the router."""

    model: Ints
    right: Floats
    cost: Floats


def routed(routing: Routing, chances: Floats, right: Floats, costs: Floats, *, router: float = 0.0) -> Routed:
    """Send every question to the model that a routing chooses.

    Args:
        chances, right, costs: (questions, models): predicted, true and realised.
        router: cost of predicting for one question; charged where the routing looks at it.
    """
    if routing.looks:
        names = {name: place for place, name in enumerate(routing.models)}
        model = np.array([names[routing.choose(row)] for row in chances.tolist()], dtype=np.int64)
    else:
        model = np.full(len(chances), routing.models.index(routing.choose(chances[0].tolist())), dtype=np.int64)
    every = np.arange(len(model))
    return Routed(model, right[every, model], costs[every, model] + (router if routing.looks else 0.0))


def route_row(found: Routed, right: Floats, costs: Floats, counts: Floats) -> dict[str, Any]:
    """Accuracy and cost, and what is gained over the best random mix of single models at the same mean cost.

    Args:
        counts: of each question in each bootstrap sample, (resamples, questions).

    Keys: `accuracy`, `cost`, `of_dearest` (share of the dearest model's cost), `shares` of the models,
    `mix` (accuracy of the mix), `gain`, `gain_low`, `gain_high`.
    """
    everyone = np.ones((1, len(right)))
    (gain, mix), (drawn, _) = (_gains(found, right, costs, weight) for weight in (everyone, counts))
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {
        "accuracy": float(found.right.mean()),
        "cost": float(found.cost.mean()),
        "of_dearest": float(found.cost.mean() / costs.mean(axis=0).max()),
        "shares": [float((found.model == place).mean()) for place in range(right.shape[1])],
        "mix": float(mix[0]),
        "gain": float(gain[0]),
        "gain_low": float(low),
        "gain_high": float(high),
    }


def _gains(found: Routed, right: Floats, costs: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Gain over the mix, and the mix, for each row of weights."""
    total = weight.sum(axis=1)
    accuracy, cost = weight @ found.right / total, weight @ found.cost / total
    single_right, single_cost = weight @ right / total[:, None], weight @ costs / total[:, None]
    mix = np.array([_mix(c, s, r) for c, s, r in zip(cost, single_cost, single_right, strict=True)])
    return accuracy - mix, mix


def _mix(cost: float, costs: Floats, right: Floats) -> float:
    """Highest accuracy of a random choice between two of the models (or one) with this mean cost at most."""
    best = max((float(r) for c, r in zip(costs, right, strict=True) if c <= cost), default=float(right[costs.argmin()]))
    for low in range(len(costs)):
        for high in range(len(costs)):
            if costs[low] <= cost < costs[high]:
                way = (cost - costs[low]) / (costs[high] - costs[low])
                best = max(best, float(right[low] + way * (right[high] - right[low])))
    return best
