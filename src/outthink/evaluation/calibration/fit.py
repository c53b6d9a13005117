"""Fits stopping rules to recorded samples of one model, each fold's without that fold.

All rules of one size stand in one matrix of losses: the fixed vote, adaptive-consistency at every threshold, weighted
votes at every lead, and the linear gain (`controller.policy.rules`) at every price, whose predictions are cross-fitted.
The guarded choice (`guarded`) takes one of them. Standardisation alone uses all problems; it sees no gold answer.
Knows: folds, sizes, the rules that compete, and how many random orders are looked at. Does not know how held-out
figures are measured, or what a policy says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import StageRule
from outthink.controller.policy.promise import Promise
from outthink.controller.policy.rules import Adaptive, Fixed, Lead, LinearGain
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.guarded import GuardedChoice, LossLimit
from outthink.evaluation.calibration.losses import Array, LossMatrix, Mask
from outthink.evaluation.calibration.votes import (
    EQUAL,
    SWAY,
    Ridge,
    Table,
    Walk,
    after,
    below,
    deal_one,
    reached,
    walk,
)
from outthink.strategies import leader_probability
from outthink.strategies.defaults import BASELINE

LEADS = tuple(float(value) for value in np.arange(0.3, 3.05, 0.1))
"""Leads of the leader in standard deviations; at the last ones a vote of 32 hardly ever stops early."""


THRESHOLDS = (
    *(0.6, 0.7, 0.75, 0.8, 0.83),
    *(round(0.85 + 0.01 * step, 2) for step in range(15)),
    *(0.995, 0.999, 2.0),
)
"""Of adaptive-consistency; at the last one it never stops early. Fine where votes of 32 stop at half the cost."""
SWAYS = ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), SWAY)
"""Vote weights of the leads, beside equal ones."""
MARGINS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05)
"""Losses that a policy tells the cost of, beside the one that was asked for."""
PRICES = tuple(float(price) for price in np.geomspace(2e-4, 0.15, 48))
LEAST = 4
"""Sizes below this are settled before anything can be learned."""
_FEW = 100
"""Problems below which nothing is learned, and votes are equal."""
_FEW_RIGHT = 60
"""Problems answered rightly below which the regression is left out. Only these can be lost, so only they teach what
stopping loses. On random halves of the MATH problems, where the 0.5B model answers 25 of 150, it lost 0.6 points on
the other half where the tuned threshold lost 0.3; the 1.5B model answers 77, and there both lost 0.3."""


class Rung:
    """All candidates of one size on all problems; a choice among them on any part of the problems follows at once.

    Args:
        allowed: what may be lost against self-consistency of this size, and how often.
        folds: of the cross-fitting of predictions.
    """

    def __init__(self, table: Table, n: int, allowed: LossLimit, *, folds: int, seed: int) -> None:
        self.n, self.allowed = n, allowed
        self._folds, self._seed = folds, seed
        dealt = table.models[0]
        self._spent = dealt.spent()[..., : n + 1]
        plain = walk(table, 0, EQUAL, depth=max(n, 2))
        self._aim = plain.right[..., n].mean(axis=1)
        certain = certainty(plain)[..., :n]
        tuned: list[tuple[StageRule, Array, Array]] = [
            (Fixed() if limit > 1 else Adaptive(limit), *self._outcome(plain.right, reached(certain, limit)))
            for limit in THRESHOLDS
        ]
        enough = len(table.names) >= _FEW and n >= LEAST
        self.learns = len(table.names) >= _FEW and self._aim.sum() >= _FEW_RIGHT
        self._learned: tuple[Walk, Ridge] | None = None
        for sway in SWAYS if enough else ():
            votes = walk(table, 0, sway, depth=n)
            for limit in LEADS:
                outcome = self._outcome(votes.right, reached(votes.lead[..., 1:], limit))
                tuned.append((Lead(votes.scale, n, sway, limit), *outcome))
            if sway == SWAY and self.learns:
                self._learned = votes, Ridge(votes)
        self._tuned = LossMatrix.of(table.names, self._aim, tuned)

    def choose(self, problems: Mask) -> tuple[StageRule, Promise]:
        """The rule that these problems alone choose, and what they promise of it."""
        matrix = self.matrix(problems)
        place, promise = GuardedChoice(matrix, self.allowed, reference_of(matrix)).promise()
        return matrix.arms[place], promise

    def frontier(self) -> list[dict[str, float | None]]:
        """What other margins would buy: of each `margin` the `share` of self-consistency's cost that is needed, and the
        `level` of the bound (None: nothing cheaper qualifies)."""
        matrix = self.matrix(np.ones(len(self._aim), dtype=bool))
        reference, costs = reference_of(matrix), matrix.costs.mean(axis=1)
        found: list[dict[str, float | None]] = []
        for margin in MARGINS:
            place, promise = GuardedChoice(matrix, replace(self.allowed, margin=margin), reference).promise()
            share = float(f"{costs[place] / costs[reference]:.6g}")
            found.append({"margin": margin, "share": share, "level": promise.level})
        return found

    def matrix(self, problems: Mask) -> LossMatrix[StageRule]:
        """Every candidate on these problems; what is learned is judged by fits without each one's fold of them."""
        if self.n == 1:
            return self._tuned.on(problems).only([len(THRESHOLDS) - 1])
        tuned = self._tuned.on(problems)
        return tuned if self._learned is None else LossMatrix.joined([tuned, self._regressed(problems, self._learned)])

    def _regressed(self, problems: Mask, learned: tuple[Walk, Ridge]) -> LossMatrix[StageRule]:
        """The linear gain at every price, each problem judged by a fit without it."""
        walked, ridge = learned
        members = np.flatnonzero(problems)
        fold = np.random.default_rng(self._seed + 1).permutation(len(members)) % self._folds
        gains, right = ridge.crossed(members, fold), walked.right[problems]
        rule = LinearGain(walked.scale, self.n, SWAY, ridge.plain(ridge.fit(problems)), PRICES[0])
        outcomes = [
            (replace(rule, price=price), *self._outcome(right, below(gains, price), problems)) for price in PRICES
        ]
        return LossMatrix.of(self._tuned.on(problems).problems, self._aim[problems], outcomes)

    def _outcome(self, right: Array, stop: NDArray[np.intp], problems: Mask | None = None) -> tuple[Array, Array]:
        """Accuracy and tokens a problem of stopping after `stop` samples; of these problems, or all of them."""
        spent = self._spent if problems is None else self._spent[problems]
        return after(right, stop).mean(axis=1), after(spent, stop).mean(axis=1)


def reference_of(matrix: LossMatrix[StageRule]) -> int:
    """Place of self-consistency, which every rule of its size is to match."""
    return next(place for place, rule in enumerate(matrix.arms) if isinstance(rule, Fixed))


def certainty(votes: Walk) -> Array:
    """Adaptive-consistency's probability of the leader of equal votes after 1, 2, ... samples."""
    n = votes.leader.shape[2]
    known = np.array([[leader_probability(a, b) if a else 0.0 for b in range(n)] for a in range(n)])
    return np.asarray(known[votes.leader[..., 1:].astype(int), votes.second[..., 1:].astype(int)])


_PATHS = 8000
"""Orders times problems that rules are judged on: few problems are dealt in more orders, which steadies the
regression."""
_ORDERS = 4, 16
"""Orders of each problem's samples, at least and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingSettings:
    """How to fit.

    Args:
        margin: accuracy that may be lost, against self-consistency of a rule's own size.
        risk: share of calibrations that may lose more.
    """

    margin: float = 0.005
    risk: float = 0.1
    folds: int = 5
    seed: int = 0
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32)

    def allowed(self, n: int) -> LossLimit:
        """Of the rules of one size."""
        return LossLimit(self.margin, self.risk, f"{BASELINE}@{n}", seed=self.seed)


@dataclass(frozen=True, slots=True)
class FittedRules:
    """Rules by size for new problems, with their promises; by fold, the problems held out and the rules fitted
    without them; and the candidates that they were chosen from."""

    rules: Mapping[int, StageRule]
    folds: Sequence[tuple[tuple[str, ...], Mapping[int, StageRule]]]
    promises: Mapping[int, Promise] = field(default_factory=dict)
    rungs: Mapping[int, Rung] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def fit(traces: Traces, settings: StoppingSettings) -> FittedRules:
    """The cheapest rule of each size that keeps the accuracy, on all problems and without each fold."""
    with _one_thread():
        return _fit(traces, settings)


def _one_thread() -> AbstractContextManager[object]:
    """Dozens of small systems are solved ten times slower by threads that wait for each other."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def _fit(traces: Traces, settings: StoppingSettings) -> FittedRules:
    names = tuple(traces.problems)
    held = held_masks(len(names), settings.folds, settings.seed)
    everyone = np.ones(len(names), dtype=bool)
    rules: dict[int, StageRule] = {}
    promises: dict[int, Promise] = {}
    folds: list[dict[int, StageRule]] = [{} for _ in held]
    table = deal_one(traces, orders=orders_for(len(names)), depth=max(settings.sizes))
    rungs = {n: Rung(table, n, settings.allowed(n), folds=settings.folds, seed=settings.seed) for n in settings.sizes}
    for n, rung in rungs.items():
        rules[n], promises[n] = rung.choose(everyone)
        for fold, mask in zip(folds, held, strict=True):
            fold[n] = rung.choose(~mask)[0]
    parts = [(tuple(np.array(names)[mask].tolist()), fold) for mask, fold in zip(held, folds, strict=True)]
    return FittedRules(rules, parts, promises, rungs, _notes(rungs[max(rungs)]))


def held_masks(problems: int, folds: int, seed: int) -> list[Mask]:
    """The problems of each fold."""
    order = np.random.default_rng(seed).permutation(problems)
    return [np.isin(np.arange(problems), part) for part in np.array_split(order, folds)]


def orders_for(problems: int) -> int:
    """Random orders of each problem's samples that rules are fitted and judged on."""
    least, most = _ORDERS
    return max(least, min(most, _PATHS // problems))


def _notes(widest: Rung) -> tuple[str, ...]:
    """Whether there was enough to learn from at the widest size."""
    if widest.learns or widest.n < LEAST:
        return ()
    return (f"at {widest.n} samples too few problems are answered rightly to learn from: thresholds alone compete",)
