"""Fits a cascade of two models to recorded samples: the size of the first stage, the threshold it is left by,
whether its votes are kept, and when the second stage stops.

Knows: the candidates, which files belong together, and that cascades compete with the larger model's own rules: where
the cheap model does not pay, it is left out. Does not know how a stage decides, or what a policy says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import NEVER, Cascade, Signal, Stage, StageRule, beyond_reach, trusted
from outthink.controller.policy.promise import Promise
from outthink.controller.policy.rules import LinearGain, rule_from_json
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.contenders import AutoContender, lineup
from outthink.evaluation.calibration.counts import VoteCounts
from outthink.evaluation.calibration.fit import FittedRules, Rung, held_masks, orders_for, reference_of
from outthink.evaluation.calibration.losses import Array, GuardedChoice, LossLimit, LossMatrix, Mask
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.calibration.votes import (
    EQUAL,
    SWAY,
    Ridge,
    Table,
    Walk,
    after,
    below,
    deal,
    reached,
    scale_of,
    walk,
)
from outthink.evaluation.dataset import SampleSet, weights_of
from outthink.strategies.defaults import BASELINE


@dataclass(frozen=True, slots=True)
class StageExit:
    """A first stage at one threshold, over (problem, order): who leaves, whether rightly, and what it spent."""

    tau: float
    left: Mask
    right: Array
    spent: Array


def first_exits(table: Table, first: int, keep: float) -> list[StageExit]:
    """The first stage's thresholds: every agreement it can have, or quantiles of one sample's confidence.

    With kept votes it is also worth drawing where nobody leaves: its votes go along.
    """
    dealt = table.models[0]
    counts = leaders(table, 0, first)
    right, spent = walk(table, 0, EQUAL, depth=max(2, first)).right[..., first], dealt.spent()
    exits = []
    if first == 1:
        # Without a readable answer or a log-probability the confidence is 0, as `Stage.measure` has it at a request.
        sure = np.where(dealt.codes[..., 0] >= 0, np.exp(np.nan_to_num(dealt.logprob[..., 0], nan=-np.inf)), 0.0)
        for tau in (float(np.quantile(sure, share)) for share in (0.5, 0.7, 0.8, 0.9, 0.95)):
            exits.append(StageExit(tau, trusted(sure, tau), right, spent[..., 1]))
    else:
        for votes in range(first // 2 + 1, first + 1):  # with half of the votes another answer could lead as well
            tau, stop = votes / first, np.full(right.shape, first)
            if not keep:  # what cannot agree any more is left at once, as Stage.lost says
                stop = reached(beyond_reach(counts, np.arange(1, first + 1), first, tau), True)
            exits.append(StageExit(tau, trusted(counts[..., -1] / first, tau), right, after(spent, stop)))
    if keep:
        exits.append(StageExit(NEVER, np.zeros(right.shape, dtype=bool), right, spent[..., first]))
    return exits


def leaders(table: Table, place: int, n: int) -> NDArray[np.intp]:
    """Votes of the leading answer after 1 ... n samples, over (problem, order)."""
    codes = table.models[place].codes[..., :n]
    same = (codes[..., :, None] == codes[..., None, :]) & (codes >= 0)[..., :, None]
    return np.stack([same[..., : k + 1, : k + 1].sum(axis=-1).max(axis=-1) for k in range(n)], axis=-1)


def carried_votes(table: Table, first: int, keep: float) -> VoteCounts | None:
    """Votes that the first stage takes along; None for none."""
    if not keep:
        return None
    dealt = table.models[0]
    votes = VoteCounts((dealt.codes.shape[0], dealt.codes.shape[1]), table.right.shape[1])
    for k in range(first):
        dealt.counted(votes, k, keep)
    return votes


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeSettings:
    """What is tried, and what is aimed at.

    Args:
        target: size of the second model's self-consistency whose accuracy is to be matched.
        margin: accuracy that may be lost against it.
        risk: share of calibrations that may lose more.
        firsts: samples of the first stage.
        keeps: weights at which its votes may go along.
        depth: samples of the second model at which votes end.
        caps: samples of the second stage at most.
        folds: of the inner cross-fitting.
    """

    target: int = 16
    margin: float = 0.005
    risk: float = 0.1
    firsts: Sequence[int] = (1, 2, 4)
    keeps: Sequence[float] = (0.0, 0.5)
    depth: int = 16
    caps: Sequence[int] = (8, 12, 16)
    prices: Sequence[float] = tuple(float(price) for price in np.geomspace(2e-3, 0.15, 36))
    folds: int = 10
    seed: int = 0

    @classmethod
    def beside(cls, rung: Rung, seed: int = 0) -> CascadeSettings:
        """Of the cascades that compete with the larger model's own rules of one size."""
        n, allowed = rung.n, rung.allowed
        caps = tuple(sorted({max(1, n * part // 4) for part in (2, 3, 4)}))
        firsts = tuple(first for first in (1, 2, 4) if first <= n)
        return cls(target=n, margin=allowed.margin, risk=allowed.risk, depth=n, caps=caps, firsts=firsts, seed=seed)

    @property
    def allowed(self) -> LossLimit:
        """What may be lost, and how often."""
        return LossLimit(self.margin, self.risk, f"{BASELINE}@{self.target}", seed=self.seed)


@dataclass(frozen=True, slots=True)
class CascadeChoice:
    """One candidate: parameters of both stages."""

    first: int
    tau: float
    keep: float
    price: float
    cap: int

    @property
    def signal(self) -> Signal:
        """One sample cannot agree with itself: its confidence decides."""
        return "confidence" if self.first == 1 else "agreement"


def baseline(table: Table, place: int, n: int) -> tuple[Array, Array]:
    """Accuracy and FLOPs a problem of plain self-consistency with n samples."""
    votes = walk(table, place, EQUAL, depth=n)
    return votes.right[..., n].mean(axis=1), table.models[place].spent()[..., n].mean(axis=1)


class Fitter:
    """All cascades on a table whose first model is the cheap one, with losses and FLOPs of every problem."""

    def __init__(self, table: Table, settings: CascadeSettings) -> None:
        self.table, self.settings = table, settings
        tried: list[tuple[CascadeChoice, Array, Array]] = []
        everyone = np.ones(len(table.names), dtype=bool)
        fold = np.random.default_rng(settings.seed).permutation(len(table.names)) % settings.folds
        self._coefficients: dict[tuple[int, float], tuple[float, ...]] = {}
        for first, keep in _walks(settings):
            votes = walk(table, 1, SWAY, depth=settings.depth, carried=carried_votes(table, first, keep))
            known, gains = Ridge(votes).crossed(everyone, fold)
            self._coefficients[first, keep] = tuple(known.tolist())
            for n in [first] if first else settings.firsts:
                tried += self._outcomes(votes, gains, n, keep)
        self.candidates = LossMatrix.of(table.names, baseline(table, 1, settings.target)[0], tried)

    def _outcomes(
        self, votes: Walk, gains: Array, first: int, keep: float
    ) -> Iterator[tuple[CascadeChoice, Array, Array]]:
        """All second stages behind one first stage, with accuracy and FLOPs on each problem."""
        settings, spent = self.settings, self.table.models[1].spent()
        exits = first_exits(self.table, first, keep)
        for price, cap in product(settings.prices, settings.caps):
            stop = below(gains[..., : cap - 1], price)  # after `cap` samples the stage ends in any case
            right, cost = after(votes.right, stop), after(spent, stop)
            for stage in exits:
                choice = CascadeChoice(first, stage.tau, keep, price, cap)
                total = stage.spent + np.where(stage.left, 0, cost)
                yield choice, np.where(stage.left, stage.right, right).mean(axis=1), total.mean(axis=1)

    def cascade(self, choice: CascadeChoice) -> Cascade:
        """The cascade of these parameters, for a session of the larger model."""
        coefficients = self._coefficients[choice.first if choice.keep else 0, choice.keep]
        gain = LinearGain(scale_of(self.table.models[1], SWAY), self.settings.depth, SWAY, coefficients, choice.price)
        return assemble(self.table, choice, gain)


def assemble(table: Table, choice: CascadeChoice, second: StageRule) -> Cascade:
    """The cascade of these parameters; the larger model is the session's own."""
    fixed, weak = rule_from_json({"kind": "fixed"}), table.models[0].model
    first = Stage(weak, choice.first, fixed, choice.tau, choice.signal, choice.keep)
    return Cascade((first, Stage(None, choice.cap, second)))


def _walks(settings: CascadeSettings) -> list[tuple[int, float]]:
    """First sizes and kept weights that need votes of their own; without kept votes all sizes share one, of size 0."""
    return [(0, 0.0), *((first, keep) for first in settings.firsts for keep in settings.keeps if keep)]


# Cascades for a policy, where samples of a smaller model on the same problems are at hand, too.

_FEW = 100
"""Problems below which no cascade is fitted, as no regression is."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What two models together are worth to the task of the larger one.

    Args:
        note: what was found, in words.
        rule: the cascade that takes the place of the larger model's own rule, None where that is the better one.
        promise: of the cascade.
        auto: replays it on held-out problems, each by what the other folds choose.
        pool: samples of the smaller model.
    """

    note: str
    rule: Cascade | None = None
    promise: Promise | None = None
    auto: AutoContender | None = None
    pool: Traces | None = None


def offers(
    sources: Sequence[SampleSet],
    fits: Sequence[FittedRules],
    target: Target,
    folds: int,
    seed: int,
    say: Callable[[str], None],
) -> list[Offer | None]:
    """For each source what the nearest smaller model on the same problems adds, None where there is none.

    Only a target that matches self-consistency, at the least FLOPs, compares models: a token of one is not
    a token of the other.

    Args:
        fits: rules of each source's own model, which cascades compete with.
    """
    offered: list[Offer | None] = []
    for source, fitted in zip(sources, fits, strict=True):
        weak = _smaller(source, sources)
        if weak is None:
            offered.append(None)
        elif target.kind != "match" or target.by != "flops":
            say(f"{source.traces.name}: a cascade from {weak.traces.model} is fitted with --by flops only")
            offered.append(None)
        elif (rung := fitted.rungs.get(int(target.value))) is None or weak.traces.depth < rung.n:
            say(f"{source.traces.name}: {weak.traces.model} has too few samples for a cascade ({weak.traces.depth})")
            offered.append(None)
        else:
            offered.append(_offer(source, weak.traces, rung, folds, seed, tuple(fitted.rules)))
    return offered


def _smaller(source: SampleSet, sources: Sequence[SampleSet]) -> SampleSet | None:
    """The largest of the smaller models with samples of the same problems."""
    parameters = weights_of(source.traces)
    if parameters is None or len(source.traces.problems) < _FEW:
        return None
    problems = set(source.traces.problems)
    sizes = [(weights_of(other.traces), other) for other in sources]
    fitting = [
        (size, other)
        for size, other in sizes
        if size is not None and size < parameters and set(other.traces.problems) == problems
    ]
    return max(fitting, key=lambda item: item[0])[1] if fitting else None


def _offer(source: SampleSet, weak: Traces, rung: Rung, folds: int, seed: int, taken: Sequence[int]) -> Offer:
    names = list(source.traces.problems)
    weak = weak.take(names)  # in the order of the larger model's, whose rules stand in the same matrix
    table = deal([weak, source.traces], orders=orders_for(len(names)), depth=rung.n)
    settings = CascadeSettings.beside(rung, seed)
    everyone = np.ones(len(names), dtype=bool)
    rule, promise, note = cheapest(table, settings, rung, everyone)
    if not isinstance(rule, Cascade):
        return Offer(f"a cascade from {weak.model} did not pay: {note}")
    crossed = []
    for mask in held_masks(len(names), folds, seed):
        crossed.append((tuple(np.array(names)[mask].tolist()), cheapest(table.take(~mask), settings, rung, ~mask)[0]))
    fitted = [rule, *(each for _, each in crossed)]
    n = max(sum(stage.n for stage in each.stages) if isinstance(each, Cascade) else rung.n for each in fitted)
    while n in taken:  # an arm is found by its size alone
        n += 1
    (auto,) = lineup(source, FittedRules({n: rule}, [(held, {n: each}) for held, each in crossed]))
    return Offer(f"a cascade from {weak.model} is chosen: {note}", rule, promise, auto, weak)


def cheapest(table: Table, settings: CascadeSettings, rung: Rung, problems: Mask) -> tuple[StageRule, Promise, str]:
    """Of the larger model's own rules and the cascades before it, all in one matrix of FLOPs, the cheapest that keeps
    the margin; what is promised of it; and how the best of the cascades compares.

    Args:
        table: both models on the `problems` alone.
        rung: the larger model's own rules on all problems, by FLOPs.
    """
    fitter = Fitter(table, settings)
    alone, cascades = rung.matrix(problems), fitter.candidates
    both: LossMatrix[StageRule | CascadeChoice] = LossMatrix.joined([alone, cascades])
    choice = GuardedChoice(both, settings.allowed, reference_of(alone))
    place, promise = choice.promise()
    costs, bounds = both.costs.mean(axis=1), choice.bounds(promise.level or settings.risk)
    enough = bounds[len(alone.arms) :] <= settings.margin
    base = costs[reference_of(alone)]
    note = "none of them keeps the margin"
    if enough.any():
        best = float(np.where(enough, costs[len(alone.arms) :], np.inf).min())
        note = f"the cheapest that keeps the margin needs {best / base:.2f} of the FLOPs of {settings.allowed.against}"
        own = float(np.where(bounds[: len(alone.arms)] <= settings.margin, costs[: len(alone.arms)], np.inf).min())
        note += f", the model alone {own / base:.2f}"
    chosen = both.arms[place]
    return fitter.cascade(chosen) if isinstance(chosen, CascadeChoice) else chosen, promise, note
