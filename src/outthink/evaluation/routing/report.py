"""Figures of a predictor on prompts that it was not trained on, with intervals and controls.

Knows: the keys of `outthink router eval --json`, and controls that every router must be seen beside. Does not know how
chances were predicted, or files.
"""

from __future__ import annotations

import numpy as np

from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import CORE_HOUR, Floats, Ints, ModelOutcomes
from outthink.evaluation.routing.figures import (
    Curves,
    auc,
    curves,
    defined,
    drawn,
    ece,
    interval_columns,
    ordering,
    reliability,
    success_figures,
    token_figures,
)
from outthink.evaluation.routing.routes import cost_figures, route_row, taken
from outthink.evaluation.routing.training import Predicted
from outthink.evaluation.rows import RESAMPLES
from outthink.evaluation.sample_file import JsonObject

_DRAWS = 100
_MANY = 1000
"""Resamples where each of them routes every prompt at dozens of prices."""
Report = JsonObject


def evaluate(
    data: ModelOutcomes,
    chances: Floats,
    *,
    router_ms: float | None,
    point: tuple[str, float | None, Ints] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Report:
    """Figures of chances on rows that they were not fitted on; undefined values are None.

    Args:
        chances: (rows, models), of a weak and a strong model P(weak right) and P(strong right).
        router_ms: processor time a request, in milliseconds; charged by `data.CORE_HOUR`.
        point: way, parameter and the place of the model that was chosen for each row.
        resamples: of the bootstrap.

    Returns:
        `n`, `models`, `accuracy` and `cost` of each, `ece` (mean over models), `router_ms`, `targets`, `prompts`,
        `dropped_contaminated`, `operating_point`; of a pair what `_ranking` says, of others `routes.cost_figures`.
    """
    if not np.isfinite(chances).all():
        raise BadInput("beliefs", "NaN or infinity", "is no probability", "train the router again")
    targets = target_figures(data, chances)
    report: Report = {
        "n": len(data),
        "models": list(data.models),
        "accuracy": dict(zip(data.models, data.right.mean(axis=0).tolist(), strict=True)),
        "cost": None if data.costs is None else dict(zip(data.models, data.costs.mean(axis=0).tolist(), strict=True)),
        "ece": float(np.mean([target["ece"] for target in targets.values()])),
        "router_ms": router_ms,
        "dropped_contaminated": data.dropped,
        "prompts": int(data.group.max()) + 1,
        "targets": targets,
    }
    counts = None if data.costs is None else drawn(data.group, resamples=resamples or _MANY, seed=seed)
    if data.is_pair:
        report |= _ranking(data, chances, router_ms, resamples or RESAMPLES, seed)
    elif data.costs is not None and counts is not None:
        report |= cost_figures(data, data.costs, chances, router_ms, counts)
    return report | {"operating_point": None if point is None else _point(data, *point, router_ms, counts)}


def _point(
    data: ModelOutcomes, way: str, parameter: float | None, model: Ints, router_ms: float | None, counts: Floats | None
) -> Report:
    """What the operating point does: shares of the models, accuracy, and cost where it is known."""
    shares = {name: float((model == place).mean()) for place, name in enumerate(data.models)}
    row: Report = {"way": way, "parameter": parameter, "shares": shares}
    if data.costs is None or counts is None:
        right = taken(model, data.right, np.zeros_like(data.right)).right
        row |= {"accuracy": float(right.mean()), "cost": None}
    else:
        router = (router_ms or 0.0) / 3.6e6 * CORE_HOUR
        found = route_row(taken(model, data.right, data.costs, router), data.right, data.costs, counts)
        row |= {key: value for key, value in found.items() if key != "shares"}
    if data.is_pair:
        row["cost_share"] = float(data.extra[model == 1].sum() / data.extra.sum())
    return row


def _ranking(data: ModelOutcomes, beliefs: Floats, router_ms: float | None, resamples: int, seed: int) -> Report:
    """Of a weak and a strong model: `weak`, `strong` (accuracies, 0 to 1), `apgr`, `cpt50`, `cpt80` (per cent of
    strong calls), each with `_low` and `_high`; `auc_cost` (mean accuracy over the share of the extra cost, the
    router's own included), `router_cost_share` (of the mean extra cost), `paired_low`, `paired_high` (APGR minus
    that of the length control), `controls`, `curve`.
    """
    # By what the strong model adds: where only the weak one is doubted, the hopeless prompts go to the strong one, too.
    gain = beliefs[:, 1] - beliefs[:, 0]
    length = np.array([float(len(prompt)) for prompt in data.prompts])
    curve = curves(gain, data)
    drawn_curve = curves(gain, data, resamples=resamples, seed=seed)
    drawn_length = curves(length, data, resamples=resamples, seed=seed)
    constant = bool(gain.min() == gain.max())
    charge = data.share_of_cost(router_ms or 0.0)
    paired = drawn_curve.apgr() - drawn_length.apgr()
    weak, strong = data.right.mean(axis=0).tolist()
    return {
        "weak": weak,
        "strong": strong,
        **_figures(curve, drawn_curve, constant, charge),
        "router_cost_share": None if router_ms is None else charge,
        **interval_columns("paired", np.full_like(paired, np.nan) if constant else paired),
        "controls": _controls(data, length, drawn_length, seed),
        "cost_source": data.cost_source,
        "curve": _points(curve, charge),
    }


def target_figures(data: ModelOutcomes, chances: Floats) -> JsonObject:
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


def _controls(data: ModelOutcomes, length: Floats, drawn_length: Curves, seed: int) -> Report:
    """What every router must be seen beside; `weak` and `strong` are one point, their area is constant."""
    rng = np.random.default_rng(seed)
    mixes = [curves(rng.random(len(data)), data) for _ in range(_DRAWS)]
    areas = [float(mix.apgr()[0]) for mix in mixes]
    weak, strong = data.right.mean(axis=0).tolist()
    gap = bool(strong > weak)
    same_length = bool(length.min() == length.max())
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
            "accuracy": float(data.right.max(axis=1).mean()),
        },
    }


def _points(curve: Curves, charge: float) -> list[Report]:
    columns = zip(curve.share[:, 0], curve.charged(charge)[:, 0], curve.accuracy[:, 0], strict=True)
    return [{"strong_share": float(x), "cost_share": float(c), "accuracy": float(y)} for x, c, y in columns]


def model_figures(data: ModelOutcomes, predicted: Predicted, counts: Floats) -> list[JsonObject]:
    """Figures of each model on prompts that it was not trained on."""
    rows, inside = [], predicted.inside
    for place, model in enumerate(data.models):
        right, truth = predicted.right[:, place], data.right[:, place]
        tokens = None
        if predicted.tokens is not None and data.tokens is not None:
            tokens = token_figures(predicted.tokens[:, place], data.tokens[:, place], counts)
            tokens |= {} if inside is None else {"inside": float(inside[:, place].mean())}
        order = ordering(right, truth, counts, truth)
        rows.append(
            {
                "model": model,
                "n": len(data),
                "right": success_figures(right, truth, order),
                "tokens": tokens,
            }
        )
    return rows
