"""Cascades for a policy: where samples of a smaller model on the same problems are at hand, too.

Knows: which files belong together, how a cascade is fitted without each fold, and when it is worth its place
in the policy. Does not know how its parameters are chosen (cascade.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from outthink.controller.cascade import Cascade
from outthink.economics.tariff import active_parameters
from outthink.engines.traces import Traces
from outthink.evaluation.auto import Auto
from outthink.evaluation.bootstrap import paired_interval
from outthink.evaluation.calibration.cascade import Fitter, Settings
from outthink.evaluation.calibration.crossed import lineup
from outthink.evaluation.calibration.dealt import Array, Table, deal
from outthink.evaluation.calibration.fit import Fitted, orders_for
from outthink.evaluation.calibration.source import Source
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.rerun import MEASURES

_FEW = 100
"""Problems below which no cascade is fitted, as no regression is."""
_ACCURACY, _FLOPS = MEASURES.index("accuracy"), MEASURES.index("flops")


@dataclass(frozen=True, slots=True)
class Offer:
    """A cascade before one source's own model, which is the last stage.

    Args:
        auto: replays it on held-out problems, each by the cascade of the other folds.
        pool: samples of the smaller model.
    """

    cascade: Cascade
    auto: Auto
    pool: Traces


def offers(
    sources: Sequence[Source], target: Target, folds: int, seed: int, taken: Sequence[int], say: Callable[[str], None]
) -> list[Offer | None]:
    """For each source the cascade from the nearest smaller model on the same problems, None where there is none.

    Only a target that matches self-consistency, at the least FLOPs, compares models: a token of one is not
    a token of the other.

    Args:
        taken: sizes that arms have already.
    """
    found: list[Offer | None] = []
    for source in sources:
        weak = _smaller(source, sources)
        if weak is None:
            found.append(None)
        elif target.kind != "match" or target.by != "flops":
            say(f"{source.traces.name}: a cascade from {weak.traces.model} is fitted with --by flops only")
            found.append(None)
        else:
            found.append(_offer(source, weak.traces, target, folds, seed, taken))
    return found


def _smaller(source: Source, sources: Sequence[Source]) -> Source | None:
    """The largest of the smaller models with samples of the same problems."""
    mine = active_parameters(source.traces.model)
    known = [(active_parameters(one.traces.model), one) for one in sources]
    fitting = [
        (size, one)
        for size, one in known
        if mine is not None
        and size is not None
        and size < mine
        and set(one.traces.problems) == set(source.traces.problems)
        and len(one.traces.problems) >= _FEW
    ]
    return max(fitting, key=lambda item: item[0])[1] if fitting else None


def _offer(source: Source, weak: Traces, target: Target, folds: int, seed: int, taken: Sequence[int]) -> Offer:
    names = np.array(list(weak.problems))
    depth = min(weak.depth, source.traces.depth, int(target.value))
    table = deal([weak, source.traces], orders=orders_for(len(names)), depth=depth)
    settings = Settings(
        target=depth,
        margin=target.margin,
        depth=depth,
        caps=tuple(sorted({max(1, depth * part // 4) for part in (2, 3, 4)})),
        firsts=tuple(n for n in (0, 1, 2, 4) if n <= depth),
        seed=seed,
    )
    part = np.random.default_rng(seed).permutation(len(names)) % folds
    whole = _cascade(table, settings)
    parts = [(tuple(names[part == k].tolist()), _cascade(table.take(part != k), settings)) for k in range(folds)]
    n = max(sum(stage.n for stage in one.stages) for one in (whole, *(one for _, one in parts)))
    while n in taken:
        n += 1
    (auto,) = lineup(source, Fitted({n: whole}, [(held, {n: one}) for held, one in parts]))
    return Offer(whole, auto, weak)


def _cascade(table: Table, settings: Settings) -> Cascade:
    """Fitted, with the strong model as the session's own."""
    stages = Fitter(table, settings).fit(forced=True).cascade.stages
    weak = table.models[0].model
    return Cascade((*(replace(stage, model=weak) for stage in stages[:-1]), replace(stages[-1], model=None)))


def worth(offer: Array, arm: Array, goal: float, margin: float) -> tuple[bool, str]:
    """Whether a cascade meets the goal and needs fewer FLOPs than the chosen arm beyond the paired interval,
    and that in words.

    Args:
        offer, arm: held-out values over (measure, problem).
        goal: accuracy to be matched.
    """
    accuracy, scale = float(offer[_ACCURACY].mean()), float(arm[_FLOPS].mean())
    difference = (offer[_FLOPS] - arm[_FLOPS]) / scale
    low, high = paired_interval(difference)
    better = accuracy >= goal - margin and high < 0
    figures = (
        f"{difference.mean():+.1%} [{low:+.1%}, {high:+.1%}] of the FLOPs of the model alone, "
        f"{100 * (accuracy - goal):+.1f} points to the target"
    )
    return better, f"a cascade from the smaller model {'takes its place' if better else 'did not pay'}: {figures}"
