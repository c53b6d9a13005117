"""What a cascade must be compared with: one model with a tuned stopping rule, routers that know nothing,
and an oracle.

Knows: how each is computed from dealt samples. Does not know how a cascade is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from outthink.evaluation.calibration.cascade import CascadeSettings, baseline
from outthink.evaluation.calibration.losses import Array, GuardedChoice, LossMatrix, Mask
from outthink.evaluation.calibration.votes import EQUAL, SWAY, Dealt, Table, after, reached, scale_of, walk

THRESHOLDS = tuple(float(value) for value in np.arange(0.5, 2.6, 0.1))
_SWAYS = (EQUAL, SWAY)
LADDER = (1, 2, 4, 8, 16)


def tuned_adaptive(table: Table, settings: CascadeSettings, train: Mask) -> tuple[Array, Array]:
    """The second model alone, stopped when its leader leads by a threshold: accuracy and FLOPs of the problems
    outside `train`.

    Threshold, size and vote weight are chosen on `train` under the same promise as the cascade's parameters. The lead
    in standard deviations, (a - b) / sqrt(a + b + 1), is what adaptive-consistency's probability depends on.
    """
    tried: list[tuple[tuple[float, int], Array, Array]] = []
    spent = table.models[1].spent()
    for sway in _SWAYS:
        found = walk(table, 1, sway, depth=settings.depth, scale=scale_of(table.models[1].take(train), sway))
        for threshold, cap in product(THRESHOLDS, settings.caps):
            stop = reached(found.lead[..., 1 : cap + 1], threshold)
            right, cost = after(found.right, stop), after(spent, stop)
            tried.append(((threshold, cap), right.mean(axis=1), cost.mean(axis=1)))
    candidates = LossMatrix.of(table.names, baseline(table, 1, settings.target)[0], tried)
    place, _ = GuardedChoice(candidates.on(train), settings.allowed, None).promise()
    _, accuracy, costs = tried[place]
    return accuracy[~train], costs[~train]


@dataclass(frozen=True, slots=True)
class Mixed:
    """A way to send some problems to the strong model: the least share that keeps the aim, chosen in sample."""

    share: float
    accuracy: float
    ratio: float


def least_share(order: Array, weak: tuple[Array, Array], strong: tuple[Array, Array], margin: float) -> Mixed:
    """Send problems to the strong model by falling `order` until accuracy is within the margin of strong alone.

    Args:
        weak, strong: accuracy and cost a problem.
    """
    rank = np.argsort(-order, kind="stable")
    aim = strong[0].mean() - margin
    gains = np.concatenate([[0.0], np.cumsum((strong[0] - weak[0])[rank])]) / len(rank) + weak[0].mean()
    costs = np.concatenate([[0.0], np.cumsum((strong[1] - weak[1])[rank])]) / len(rank) + weak[1].mean()
    k = int(np.argmax(gains >= aim - 1e-12))
    return Mixed(k / len(rank), float(gains[k]), float(costs[k] / strong[1].mean()))


def random_mix(weak: tuple[Array, Array], strong: tuple[Array, Array], margin: float) -> Mixed:
    """The same for problems sent at random, in expectation."""
    gap = float(strong[0].mean() - weak[0].mean())
    share = 0.0 if gap <= margin else 1 - margin / gap
    cost = share * strong[1].mean() + (1 - share) * weak[1].mean()
    return Mixed(share, float(strong[0].mean() - margin), float(cost / strong[1].mean()))


def oracle(table: Table) -> tuple[Array, Array]:
    """The cheapest vote of either model that is right, the cheapest of all where none is: accuracy and FLOPs."""
    rights, costs = [], []
    for place, dealt in enumerate(table.models):
        found, spent = _votes(table, place, max(LADDER)), dealt.spent()
        for n in LADDER:
            rights.append(found[..., n])
            costs.append(spent[..., n])
    right, cost = np.array(rights), np.array(costs)
    best = np.where(right > 0, cost, cost.max() * 10 + cost).argmin(axis=0)[None]
    accuracy, spent = (np.take_along_axis(values, best, 0)[0] for values in (right, cost))
    return accuracy.mean(axis=1), spent.mean(axis=1)


def _votes(table: Table, place: int, n: int) -> Array:
    return walk(table, place, EQUAL, depth=n).right


@dataclass(frozen=True, slots=True)
class Passing:
    """One difficulty bin: where the weak model's votes pass the strong model's single answer.

    Args:
        weak, perfect: accuracy of the weak model's majority and of a perfect choice among its samples, by size.
        votes, picks: the least size at which each reaches `single`, None where none does.
    """

    name: str
    problems: int
    single: float
    single_cost: float
    weak: dict[int, float]
    perfect: dict[int, float]
    cost: dict[int, float]
    votes: int | None
    picks: int | None


def first_order(model: Dealt, skip: int = 0) -> Dealt:
    """The first of a model's orders alone, without its first samples."""
    return replace(
        model,
        codes=model.codes[:, :1, skip:],
        tokens=model.tokens[:, :1, skip:],
        logprob=model.logprob[:, :1, skip:],
        confidence=model.confidence[:, :1, skip:],
        cut=model.cut[:, :1, skip:],
    )


def passing(table: Table, bins: Sequence[tuple[str, Mask]], skip: int) -> list[Passing]:
    """Weak votes against single strong answers, bin by bin, in the first order of the samples.

    Args:
        skip: samples of that order that bins may have been made from; they are not looked at here.
    """
    rest = Table(table.names, table.right, tuple(first_order(model, skip) for model in table.models))
    sizes = [n for n in LADDER if n <= rest.models[0].codes.shape[2]]
    depth = max(2, *sizes)
    weak, strong = _votes(rest, 0, depth), _votes(rest, 1, 2)
    rows = np.arange(len(rest.names))[:, None]
    codes = rest.models[0].codes
    hits = np.stack([rest.right[rows, np.maximum(code, 0)] & (code >= 0) for code in np.moveaxis(codes, 2, 0)], axis=2)
    any_right = np.maximum.accumulate(hits, axis=2)
    spent, single_spent = rest.models[0].spent(), rest.models[1].spent()[..., 1]
    found = []
    for name, mask in bins:
        single = float(strong[mask][..., 1].mean())
        votes = {n: float(weak[mask][..., n].mean()) for n in sizes}
        picks = {n: float(any_right[mask][..., n - 1].mean()) for n in sizes}
        cost = {n: float(spent[mask][..., n].mean()) for n in sizes}
        least = [next((n for n in sizes if values[n] >= single), None) for values in (votes, picks)]
        single_cost = float(single_spent[mask].mean())
        found.append(Passing(name, int(mask.sum()), single, single_cost, votes, picks, cost, least[0], least[1]))
    return found


def quintiles(table: Table, skip: int) -> list[tuple[str, Mask]]:
    """Five bins by the share of right answers among both models' first `skip` samples of the first order,
    easiest first."""
    rows = np.arange(len(table.names))
    share = np.zeros(len(table.names))
    for one in table.models:
        for k in range(skip):
            code = one.codes[:, 0, k]
            share += table.right[rows, np.maximum(code, 0)] & (code >= 0)
    rank = np.argsort(np.argsort(-share, kind="stable"), kind="stable")
    names = ("easiest fifth", "second", "third", "fourth", "hardest fifth")
    return [(name, rank * 5 // len(rank) == k) for k, name in enumerate(names)]


def risk(signals: Sequence[float], losses: Sequence[bool], threshold: float) -> float:
    """Share of all problems that are left at this threshold and lose by it."""
    return sum(loss for signal, loss in zip(signals, losses, strict=True) if signal >= threshold) / len(signals)
