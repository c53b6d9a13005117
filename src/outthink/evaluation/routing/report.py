"""Figures of a router on held-out prompts, with intervals and controls, and of a way of routing at its realised cost.

Knows: the keys of `outthink router eval --json`, controls that every router must be seen beside, and, for any number
of models, the best random mix of single ones at equal cost. Does not know how chances were predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outthink.controller.routing_rules import Routing
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Floats, Ints, ModelRows, RoutingData
from outthink.evaluation.routing.figures import Curves, auc, curves, defined, ece, interval_columns, reliability
from outthink.evaluation.rows import RESAMPLES
from outthink.evaluation.sample_file import JsonObject

_DRAWS = 100
Report = JsonObject


def evaluate(
    data: RoutingData,
    beliefs: Floats,
    group: Ints,
    *,
    router_ms: float | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Report:
    """Figures of a router on rows that it has not seen.

    Args:
        beliefs: (rows, 2), P(weak right) and P(strong right).
        group: of equal prompts; they are resampled together.
        router_ms: processor time a request, in milliseconds; charged by `data.CORE_HOUR`.
        resamples: of the bootstrap.

    Returns:
        `n`, `weak`, `strong` (accuracies, 0 to 1), `apgr`, `cpt50`, `cpt80` (per cent of strong calls), each
        with `_low` and `_high`; `auc_cost` (mean accuracy over the share of the extra cost, the router's own
        included), `ece` (mean of both targets), `router_ms`, `router_cost_share` (of the mean extra
        cost), `paired_low`, `paired_high` (APGR minus that of the length control), `controls`, and
        what explains them. Undefined values are None.
    """
    if not np.isfinite(beliefs).all():
        raise BadInput("beliefs", "NaN or infinity", "is no probability", "train the router again")
    targets = target_figures(data, beliefs)
    # By what the strong model adds: where only the weak one is doubted, the hopeless prompts go to the strong one, too.
    gain = beliefs[:, 1] - beliefs[:, 0]
    length = np.array([float(len(prompt)) for prompt in data.prompts])
    curve = curves(gain, data)
    drawn = curves(gain, data, group, resamples=resamples, seed=seed)
    drawn_length = curves(length, data, group, resamples=resamples, seed=seed)
    constant = bool(gain.min() == gain.max())
    charge = data.share_of_cost(router_ms or 0.0)
    paired = drawn.apgr() - drawn_length.apgr()
    return {
        "n": len(data),
        "weak": float(data.weak.mean()),
        "strong": float(data.strong.mean()),
        **_figures(curve, drawn, constant, charge),
        "ece": float(np.mean([target["ece"] for target in targets.values()])),
        "router_ms": router_ms,
        "router_cost_share": None if router_ms is None else charge,
        **interval_columns("paired", np.full_like(paired, np.nan) if constant else paired),
        "controls": _controls(data, group, length, drawn_length, seed),
        "dropped_contaminated": data.dropped,
        "prompts": int(group.max()) + 1,
        "cost": data.cost_source,
        "curve": _points(curve, charge),
        "targets": targets,
    }


def target_figures(data: ModelRows, chances: Floats) -> JsonObject:
    """For each model how well its chances, (rows, models), order the rows and mean what they say."""
    return {
        model: {"auc": auc(chance, right), "ece": ece(chance, right), "reliability": reliability(chance, right)}
        for model, chance, right in zip(data.models, chances.T, data.right.T, strict=True)
    }


def _figures(curve: Curves, drawn: Curves | None, constant: bool = False, charge: float = 0.0) -> Report:
    """`apgr`, `cpt50`, `cpt80` with intervals where resamples are given, and `auc_cost` with the router's
    charge (share of the mean extra cost); a constant score ranks nothing, so nothing of it is defined."""
    report: Report = {}
    for name, read in (("apgr", Curves.apgr), ("cpt50", lambda c: c.cpt(0.5)), ("cpt80", lambda c: c.cpt(0.8))):
        report[name] = None if constant else defined(read(curve)[0])
        if drawn is not None:
            values = read(drawn)
            report |= interval_columns(name, np.full_like(values, np.nan) if constant else values)
    report["auc_cost"] = None if constant else defined(curve.auc_cost(charge)[0])
    return report


def _controls(data: RoutingData, group: Ints, length: Floats, drawn_length: Curves, seed: int) -> Report:
    """What every router must be seen beside; `weak` and `strong` are one point, their area is constant."""
    rng = np.random.default_rng(seed)
    mixes = [curves(rng.random(len(data)), data) for _ in range(_DRAWS)]
    areas = [float(mix.apgr()[0]) for mix in mixes]
    gap = bool(data.strong.mean() > data.weak.mean())
    same_length = bool(length.min() == length.max())
    weak, strong = float(data.weak.mean()), float(data.strong.mean())
    return {
        "random": {
            "apgr": defined(float(np.mean(areas))),
            "apgr_sd": defined(float(np.std(areas))),
            "cpt50": defined(float(np.mean([mix.cpt(0.5)[0] for mix in mixes]))),
            "cpt80": defined(float(np.mean([mix.cpt(0.8)[0] for mix in mixes]))),
            "auc_cost": float(np.mean([mix.auc_cost()[0] for mix in mixes])),
        },
        # Untrained, the longest prompts first beat RouteLLM's matrix factorisation and BERT on GSM8K.
        "length": _figures(curves(length, data), drawn_length, same_length),
        "weak": {"apgr": 0.0 if gap else None, "cpt50": None, "cpt80": None, "auc_cost": weak, "accuracy": weak},
        "strong": {
            "apgr": 1.0 if gap else None,
            "cpt50": 100.0 if gap else None,
            "cpt80": 100.0 if gap else None,
            "auc_cost": strong,
            "accuracy": strong,
        },
        "oracle": {
            **_figures(curves(data.gain, data), None, bool(data.gain.min() == data.gain.max())),
            "accuracy": float(np.maximum(data.weak, data.strong).mean()),
        },
    }


def _points(curve: Curves, charge: float) -> list[Report]:
    columns = zip(curve.share[:, 0], curve.charged(charge)[:, 0], curve.accuracy[:, 0], strict=True)
    return [{"strong_share": float(x), "cost_share": float(c), "accuracy": float(y)} for x, c, y in columns]


# A way of routing between any number of models: accuracy at its realised cost, beside mixes at equal cost.


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
    every = np.arange(len(model))
    return Routed(model, right[every, model], costs[every, model] + (router if routing.looks else 0.0))


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
