"""Fits a cascade of two models to recorded samples: the size of the first stage, the threshold it is left by,
whether its votes are kept, and when the second stage stops.

Knows: the candidates, and which files belong together. A first stage of no samples is a candidate too: where the
cheap model does not pay, it is left out. Does not know how a stage decides, how one candidate is chosen, or what a
policy says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import NEVER, Cascade, Signal, Stage, StageRule, beyond_reach, trusted
from outthink.controller.policy.rules import LinearGain, rule_from_json
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.contenders import AutoContender, lineup
from outthink.evaluation.calibration.fit import FittedRules, orders_for
from outthink.evaluation.calibration.losses import Array, LossMatrix, Mask, operating_point
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.calibration.votes import (
    SWAY,
    TIES,
    Ridge,
    Table,
    Walk,
    after,
    below,
    count,
    deal,
    reached,
    scale_of,
    walk,
)
from outthink.evaluation.dataset import SampleSet, weights_of


@dataclass(frozen=True, slots=True)
class StageExit:
    """A first stage at one threshold, over (problem, order): who leaves, whether rightly, and what it spent."""

    tau: float
    left: Mask
    right: Array
    spent: Array


def first_exits(table: Table, first: int, keep: float) -> list[StageExit]:
    """The first stage's thresholds: every agreement it can have, or quantiles of one sample's confidence.

    Without a first stage nobody leaves, and nothing is spent.
    """
    dealt = table.models[0]
    nobody = np.zeros(dealt.codes.shape[:2], dtype=bool)
    if not first:
        return [StageExit(NEVER, nobody, nobody.astype(float), nobody.astype(float))]
    counts = leaders(table, 0, first)
    right, spent = walk(table, 0, TIES, depth=max(2, first)).right[..., first], dealt.spent()
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
    # With kept votes it is also worth drawing where nobody leaves: its votes go along.
    if keep:
        exits.append(StageExit(NEVER, nobody, right, spent[..., first]))
    return exits


def leaders(table: Table, place: int, n: int) -> NDArray[np.intp]:
    """Votes of the leading answer after 1 ... n samples, over (problem, order)."""
    codes = table.models[place].codes[..., :n]
    same = (codes[..., :, None] == codes[..., None, :]) & (codes >= 0)[..., :, None]
    return np.stack([same[..., : k + 1, : k + 1].sum(axis=-1).max(axis=-1) for k in range(n)], axis=-1)


def carried_votes(table: Table, first: int, keep: float) -> Array | None:
    """Weight that the first stage's answers take along, over (problem, order, answer); None for none."""
    if not first or not keep:
        return None
    codes = table.models[0].codes
    votes = np.zeros((*codes.shape[:2], table.right.shape[1]))
    for k in range(first):
        count(votes, codes[..., k], keep)
    return votes


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeSettings:
    """What is tried, and what is aimed at.

    Args:
        target: size of the second model's self-consistency whose accuracy is to be matched.
        margin: accuracy that may be lost against it.
        firsts: samples of the first stage; 0 leaves it out.
        keeps: weights at which its votes may go along.
        depth: samples of the second model at which votes end.
        caps: samples of the second stage at most.
        folds: of the inner cross-fitting.
        partitions: random partitions for the choice of the operating point.
    """

    target: int = 16
    margin: float = 0.005
    firsts: Sequence[int] = (0, 1, 2, 4)
    keeps: Sequence[float] = (0.0, 0.5)
    depth: int = 28
    caps: Sequence[int] = (12, 14, 16, 20)
    prices: Sequence[float] = tuple(float(price) for price in np.geomspace(2e-3, 0.15, 36))
    folds: int = 10
    partitions: int = 8
    seed: int = 0

    def chosen(self, candidates: LossMatrix[CascadeChoice]) -> int:
        """Place of the candidate that is taken."""
        return operating_point(candidates, self.margin, self.seed, folds=self.folds, partitions=self.partitions)


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
    votes = walk(table, place, TIES, depth=n)
    return votes.right[..., n].mean(axis=1), table.models[place].spent()[..., n].mean(axis=1)


class Fitter:
    """All candidates on a table whose first model is the cheap one; `fit` chooses among them."""

    def __init__(self, table: Table, settings: CascadeSettings) -> None:
        self.table, self.settings = table, settings
        tried: list[tuple[CascadeChoice, Array, Array]] = []
        everyone = np.ones(len(table.names), dtype=bool)
        fold = np.random.default_rng(settings.seed).permutation(len(table.names)) % settings.folds
        self._coefficients: dict[tuple[int, float], tuple[float, ...]] = {}
        for first, keep in _walks(settings):
            votes = walk(table, 1, SWAY, depth=settings.depth, carried=carried_votes(table, first, keep))
            ridge = Ridge(votes)
            self._coefficients[first, keep] = ridge.plain(ridge.fit(everyone))
            gains = ridge.crossed(np.arange(len(table.names)), fold)
            for n in [first] if keep else settings.firsts:
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

    def fit(self, *, forced: bool = False) -> tuple[Cascade, CascadeChoice]:
        """The cheapest cascade whose cross-fitted accuracy is within the margin of the target, and its parameters.

        Args:
            forced: only those that draw from the cheap model.
        """
        candidates = self.candidates
        if forced:
            candidates = candidates.only([place for place, choice in enumerate(candidates.arms) if choice.first])
        choice = candidates.arms[self.settings.chosen(candidates)]
        coefficients = self._coefficients[choice.first if choice.keep else 0, choice.keep]
        gain = LinearGain(scale_of(self.table.models[1], SWAY), self.settings.depth, SWAY, coefficients, choice.price)
        return assemble(self.table, choice, gain), choice


def assemble(table: Table, choice: CascadeChoice, second: StageRule) -> Cascade:
    """The cascade of these parameters; the cheap model is the session's own."""
    last = Stage(table.models[1].model, choice.cap, second)
    if not choice.first:
        return Cascade((last,))
    fixed = rule_from_json({"kind": "fixed"})
    return Cascade((Stage(None, choice.first, fixed, choice.tau, choice.signal, choice.keep), last))


def _walks(settings: CascadeSettings) -> list[tuple[int, float]]:
    """First sizes and kept weights that need votes of their own; without kept votes all sizes share one."""
    return [(0, 0.0), *((first, keep) for first in settings.firsts if first for keep in settings.keeps if keep)]


# Cascades for a policy, where samples of a smaller model on the same problems are at hand, too.

_FEW = 100
"""Problems below which no cascade is fitted, as no regression is."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A cascade before one source's own model, which is the last stage.

    Args:
        auto: replays it on held-out problems, each by the cascade of the other folds.
        pool: samples of the smaller model.
    """

    cascade: Cascade
    auto: AutoContender
    pool: Traces


def offers(
    sources: Sequence[SampleSet],
    target: Target,
    folds: int,
    seed: int,
    taken: Sequence[int],
    say: Callable[[str], None],
) -> list[Offer | None]:
    """For each source the cascade from the nearest smaller model on the same problems, None where there is none.

    Only a target that matches self-consistency, at the least FLOPs, compares models: a token of one is not
    a token of the other.

    Args:
        taken: sizes that arms have already.
    """
    offered: list[Offer | None] = []
    for source in sources:
        weak = _smaller(source, sources)
        if weak is None:
            offered.append(None)
        elif target.kind != "match" or target.by != "flops":
            say(f"{source.traces.name}: a cascade from {weak.traces.model} is fitted with --by flops only")
            offered.append(None)
        else:
            offered.append(_offer(source, weak.traces, target, folds, seed, taken))
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


def _offer(source: SampleSet, weak: Traces, target: Target, folds: int, seed: int, taken: Sequence[int]) -> Offer:
    names = np.array(list(weak.problems))
    depth = min(weak.depth, source.traces.depth, int(target.value))
    table = deal([weak, source.traces], orders=orders_for(len(names)), depth=depth)
    settings = CascadeSettings(
        target=depth,
        margin=target.margin,
        depth=depth,
        caps=tuple(sorted({max(1, depth * part // 4) for part in (2, 3, 4)})),
        firsts=tuple(n for n in (0, 1, 2, 4) if n <= depth),
        seed=seed,
    )
    fold = np.random.default_rng(seed).permutation(len(names)) % folds
    cascade = _cascade(table, settings)
    crossed = [(tuple(names[fold == k].tolist()), _cascade(table.take(fold != k), settings)) for k in range(folds)]
    n = max(sum(stage.n for stage in fitted.stages) for fitted in (cascade, *(fitted for _, fitted in crossed)))
    while n in taken:  # an arm is found by its size alone
        n += 1
    (auto,) = lineup(source, FittedRules({n: cascade}, [(held, {n: fitted}) for held, fitted in crossed]))
    return Offer(cascade, auto, weak)


def _cascade(table: Table, settings: CascadeSettings) -> Cascade:
    """Fitted, with the strong model as the session's own."""
    # Forced, because the policy's other arms are the model alone already, and are compared with it.
    stages = Fitter(table, settings).fit(forced=True)[0].stages
    weak = table.models[0].model
    return Cascade((*(replace(stage, model=weak) for stage in stages[:-1]), replace(stages[-1], model=None)))
