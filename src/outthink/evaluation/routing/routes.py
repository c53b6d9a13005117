"""A way of routing between any number of models: accuracy at its realised cost, beside mixes at equal cost.

Knows: chances, outcomes and costs by prompt, and the best random mix of single models. Does not know how chances were
predicted, or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.controller.routing_rules import Routing, Way
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import CORE_HOUR, Floats, Ints, ModelOutcomes
from outthink.evaluation.routing.figures import interval_columns
from outthink.evaluation.sample_file import JsonObject

PARAMETERS: dict[Way, tuple[float, ...]] = {
    "penalised": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0001),
    # Above 1 no chance is enough: the dearest model alone, whose row it has to reproduce, cost included.
    "smallest-likely": (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0001),
}
"""What the table shows of each way."""
PRICES = (*np.linspace(0.0, 1.0, 41).tolist(), 2.0)
"""Of `penalised`, for the area over cost."""


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
    model = np.array([routing.place(row) for row in chances.tolist()], dtype=np.int64)
    return taken(model, right, costs, router if routing.looks else 0.0)


def route_row(routed: Routed, right: Floats, costs: Floats, counts: Floats) -> JsonObject:
    """Accuracy and cost, and what is gained over the best random mix of single models at the same mean cost.

    Args:
        counts: of each question in each bootstrap sample, (resamples, questions).

    Keys: `accuracy`, `cost`, `of_dearest` (share of the dearest model's cost), `shares` of the models,
    `mix` (accuracy of the mix), `gain`, `gain_low`, `gain_high`.
    """
    everyone = np.ones((1, len(right)))
    (gain, mix), (drawn, _) = (_gains(routed, right, costs, weight) for weight in (everyone, counts))
    return {
        "accuracy": float(routed.right.mean()),
        "cost": float(routed.cost.mean()),
        "of_dearest": float(routed.cost.mean() / costs.mean(axis=0).max()),
        "shares": [float((routed.model == place).mean()) for place in range(right.shape[1])],
        "mix": float(mix[0]),
        "gain": float(gain[0]),
        **interval_columns("gain", drawn),
    }


def _gains(routed: Routed, right: Floats, costs: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Gain over the mix, and the mix, for each row of weights."""
    total = weight.sum(axis=1)
    accuracy, cost = weight @ routed.right / total, weight @ routed.cost / total
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


def taken(model: Ints, right: Floats, costs: Floats, router: float = 0.0) -> Routed:
    """What came of asking these models; `router` is the cost of choosing."""
    every = np.arange(len(model))
    return Routed(model, right[every, model], costs[every, model] + router)


def best_price(chances: Floats, right: Floats, costs: Floats) -> float:
    """Of `penalised`, the price that gains most over the best random mix at its cost; the lowest of equals."""
    names, mean = tuple(map(str, range(costs.shape[1]))), tuple(costs.mean(axis=0).tolist())
    everyone = np.ones((1, len(right)))

    def gain(price: float) -> float:
        found = routed(Routing("penalised", price, names, mean), chances, right, costs)
        return float(_gains(found, right, costs, everyone)[0][0])

    return float(max(PRICES, key=gain))


def cost_figures(
    data: ModelOutcomes, costs: Floats, chances: Floats, router_ms: float | None, counts: Floats
) -> JsonObject:
    """Accuracy over the span of costs, from the cheapest to the dearest model.

    Args:
        costs: (rows, models), those of `data`.
        router_ms: processor time a request, charged at `CORE_HOUR`: costs are dollars.
        counts: of each prompt in each bootstrap sample.

    Keys: `auc_cost` (mean accuracy by the cost-penalised choice) with `_low` and `_high`, `paired_low`, `paired_high`
    (minus that of the best random mixes), `controls` {`random`, `oracle`}, `routes` (a row for each way and parameter).
    """
    router = (router_ms or 0.0) / 3.6e6 * CORE_HOUR
    mean = tuple(costs.mean(axis=0).tolist())
    if mean[0] >= mean[-1]:
        raise BadInput(f"data {data.name}", mean[0], "is the cost of every model: there is no trade", "check the costs")
    everyone, right = np.ones((1, len(data))), data.right

    def by(way: Way, parameter: float, chances: Floats = chances, router: float = router) -> Routed:
        return routed(Routing(way, parameter, data.models, mean), chances, right, costs, router=router)

    def areas(outcomes: list[Routed]) -> tuple[Floats, Floats]:
        return _area(outcomes, right, costs, everyone), _area(outcomes, right, costs, counts)

    area, drawn_area = areas([by("penalised", price) for price in PRICES])
    mix, drawn_mix = (_mixes(right, costs, weight) for weight in (everyone, counts))
    oracle = [by("penalised", price, right, 0.0) for price in PRICES]
    return {
        "auc_cost": float(area[0]),
        **interval_columns("auc_cost", drawn_area),
        **interval_columns("paired", drawn_area - drawn_mix),
        "controls": {
            "random": {"auc_cost": float(mix[0])},
            "oracle": {
                "auc_cost": float(_area(oracle, right, costs, everyone)[0]),
                "accuracy": float(right.max(axis=1).mean()),
            },
        },
        "routes": [
            {"way": way, "parameter": parameter, **route_row(by(way, parameter), right, costs, counts)}
            for way, parameters in PARAMETERS.items()
            for parameter in parameters
        ],
    }


def _area(outcomes: list[Routed], single: Floats, single_costs: Floats, weight: Floats) -> Floats:
    """Area under accuracy over cost, from the cheapest model alone to the dearest alone, for each row of weights."""
    right = np.stack([single[:, 0], single[:, -1], *(outcome.right for outcome in outcomes)])
    costs = np.stack([single_costs[:, 0], single_costs[:, -1], *(outcome.cost for outcome in outcomes)])
    total = weight.sum(axis=1)
    accuracy, cost = weight @ right.T / total[:, None], weight @ costs.T / total[:, None]
    low, span = cost[:, :1], cost[:, 1:2] - cost[:, :1]
    share = (cost - low) / span
    # What costs more than the dearest model alone gives way to that.
    late = share > 1
    share, accuracy = np.where(late, 1.0, share), np.where(late, accuracy[:, 1:2], accuracy)
    order = np.argsort(share, axis=1, kind="stable")  # the ends come first, and cost falls as the price rises
    return np.asarray(np.trapezoid(np.take_along_axis(accuracy, order, 1), np.take_along_axis(share, order, 1), axis=1))


def _mixes(right: Floats, costs: Floats, weight: Floats) -> Floats:
    """The same area of the best random mixes of single models, for each row of weights."""
    total = weight.sum(axis=1)[:, None]
    accuracy, cost = weight @ right / total, weight @ costs / total
    return np.array([_hull_area(c, a) for c, a in zip(cost, accuracy, strict=True)])


def _hull_area(cost: Floats, accuracy: Floats) -> float:
    """Area under the upper hull of single models, costs scaled to 0 .. 1 from the first to the last."""
    share = (cost - cost[0]) / (cost[-1] - cost[0])
    grid = np.linspace(0.0, 1.0, 201)
    best = np.interp(grid, share[[0, -1]], accuracy[[0, -1]])
    for low in range(len(share)):
        for high in range(len(share)):
            if share[low] < share[high]:
                inside = (grid >= share[low]) & (grid <= share[high])
                line = np.interp(grid, share[[low, high]], accuracy[[low, high]])
                best = np.where(inside, np.maximum(best, line), best)
    return float(np.trapezoid(best, grid))
