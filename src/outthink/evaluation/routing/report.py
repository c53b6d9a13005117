"""What a router is worth on held-out prompts: one object with figures, intervals and controls.

Knows: the keys of `outthink router eval --json`. Does not know how the router was trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from outthink.core.errors import BadInput
from outthink.evaluation.bootstrap import RESAMPLES
from outthink.evaluation.routing.curve import Curves, curves, defined, interval
from outthink.evaluation.routing.data import Floats, Ints, RoutingData
from outthink.evaluation.routing.reliability import auc, ece, reliability

_DRAWS = 100
Report = dict[str, Any]


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
    labels = np.stack([data.weak, data.strong], axis=1)
    gain = beliefs[:, 1] - beliefs[:, 0]
    length = np.array([float(len(prompt)) for prompt in data.prompts])
    mine = curves(gain, data)
    drawn = curves(gain, data, group, resamples=resamples, seed=seed)
    drawn_length = curves(length, data, group, resamples=resamples, seed=seed)
    constant = bool(gain.min() == gain.max())
    charge = data.share_of_cost(router_ms or 0.0)
    paired = (None, None) if constant else interval(drawn.apgr() - drawn_length.apgr())
    return {
        "n": len(data),
        "weak": float(data.weak.mean()),
        "strong": float(data.strong.mean()),
        **figures(mine, drawn, constant, charge),
        "ece": float(np.mean([ece(beliefs[:, head], labels[:, head]) for head in (0, 1)])),
        "router_ms": router_ms,
        "router_cost_share": None if router_ms is None else charge,
        "paired_low": paired[0],
        "paired_high": paired[1],
        "controls": _controls(data, group, length, drawn_length, seed),
        "dropped_contaminated": data.dropped,
        "prompts": int(group.max()) + 1,
        "cost": data.cost_source,
        "curve": _points(mine, charge),
        "targets": {
            name: {
                "auc": auc(beliefs[:, head], labels[:, head]),
                "ece": ece(beliefs[:, head], labels[:, head]),
                "reliability": reliability(beliefs[:, head], labels[:, head]),
            }
            for head, name in enumerate(("weak", "strong"))
        },
    }


def figures(curve: Curves, drawn: Curves | None, constant: bool = False, charge: float = 0.0) -> Report:
    """`apgr`, `cpt50`, `cpt80` with intervals where resamples are given, and `auc_cost` with the router's
    charge (share of the mean extra cost); a constant score ranks nothing, so nothing of it is defined."""
    found: Report = {}
    for name, read in (("apgr", Curves.apgr), ("cpt50", lambda c: c.cpt(0.5)), ("cpt80", lambda c: c.cpt(0.8))):
        found[name] = None if constant else defined(read(curve)[0])
        if drawn is not None:
            low, high = (None, None) if constant else interval(read(drawn))
            found |= {f"{name}_low": low, f"{name}_high": high}
    found["auc_cost"] = None if constant else defined(curve.auc_cost(charge)[0])
    return found


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
        "length": figures(curves(length, data), drawn_length, same_length),
        "weak": {"apgr": 0.0 if gap else None, "cpt50": None, "cpt80": None, "auc_cost": weak, "accuracy": weak},
        "strong": {
            "apgr": 1.0 if gap else None,
            "cpt50": 100.0 if gap else None,
            "cpt80": 100.0 if gap else None,
            "auc_cost": strong,
            "accuracy": strong,
        },
        "oracle": {
            **figures(curves(data.gain, data), None, bool(data.gain.min() == data.gain.max())),
            "accuracy": float(np.maximum(data.weak, data.strong).mean()),
        },
    }


def _points(curve: Curves, charge: float) -> list[Report]:
    columns = zip(curve.share[:, 0], curve.charged(charge)[:, 0], curve.accuracy[:, 0], strict=True)
    return [{"strong_share": float(x), "cost_share": float(c), "accuracy": float(y)} for x, c, y in columns]
