"""Fits stopping rules to recorded samples of one model, each fold's without that fold.

Adaptive-consistency with its threshold and vote weight tuned is the control. The linear gain
(`controller.policy.rules`) takes its place only where it needs fewer tokens beyond the paired interval, and keeps the
accuracy, on problems that it was not fitted on. Standardisation alone uses all problems; it sees no gold answer.
Knows: folds, sizes, the rules that compete, and how many random orders are looked at. Does not know how held-out
figures are measured, or what a policy says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import StageRule
from outthink.controller.policy.rules import SURE, Adaptive, Fixed, Lead, LinearGain
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.losses import Array, LossMatrix, Mask, operating_point, takes_place
from outthink.evaluation.calibration.votes import (
    SWAY,
    TIES,
    Ridge,
    Table,
    Walk,
    after,
    below,
    count,
    deal_one,
    reached,
    walk,
)
from outthink.strategies import leader_probability

LEADS = tuple(float(value) for value in np.arange(0.3, 3.05, 0.1))
"""Leads of the leader in standard deviations; at the last ones a vote of 32 hardly ever stops early."""


THRESHOLDS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 2.0)
"""Of adaptive-consistency; at the last one it never stops early."""
SWAYS = ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), SWAY)
"""Vote weights that the control is tuned over, beside equal ones."""
PRICES = tuple(float(price) for price in np.geomspace(2e-4, 0.15, 48))
LEAST = 4
"""Sizes below this are settled before anything can be learned."""
_PARTITIONS = 4
"""Random partitions into folds that the choice of the operating point is checked on."""
_FEW = 100
"""Problems below which nothing is learned, and votes are equal."""
_FEW_RIGHT = 60
"""Problems answered rightly below which the regression is left out. Only these can be lost, so only they teach what
stopping loses. On random halves of the MATH problems, where the 0.5B model answers 25 of 150, it lost 0.6 points on
the other half where the tuned threshold lost 0.3; the 1.5B model answers 77, and there both lost 0.3."""


class _Rung:
    """All candidates of one size on all problems; a rule for any part of them follows at once."""

    def __init__(self, table: Table, n: int, *, margin: float, folds: int, seed: int) -> None:
        self._n, self._margin, self._folds, self._seed = n, margin, folds, seed
        self._aims = _aims(margin)
        self._gains: dict[bytes, Array] = {}  # by problems: every step back asks for the same folds again
        dealt = table.models[0]
        self._spent = dealt.spent()[..., : n + 1]
        plain = walk(table, 0, TIES, depth=max(n, 2))
        self._aim = plain.right[..., n].mean(axis=1)
        certain = certainty(dealt.codes[..., :n])
        tuned: list[tuple[StageRule, Array, Array]] = [
            (Fixed() if limit > 1 else Adaptive(limit), *self._outcome(plain.right, reached(certain, limit)))
            for limit in THRESHOLDS
        ]
        self._usual = False
        enough = len(table.names) >= _FEW
        self.learns = enough and self._aim.sum() >= _FEW_RIGHT
        self._learned: tuple[Walk, Ridge] | None = None
        for sway in SWAYS if enough and n >= LEAST else ():
            votes = walk(table, 0, sway, depth=n)
            for limit in LEADS:
                outcome = self._outcome(votes.right, reached(votes.lead[..., 1:], limit))
                tuned.append((Lead(votes.scale, n, sway, limit), *outcome))
            if sway == SWAY and self.learns:
                self._learned = votes, Ridge(votes)
        self._tuned = LossMatrix.of(table.names, self._aim, tuned)

    def rule(self, problems: Mask) -> StageRule:
        """The rule fitted on these problems alone."""
        if self._n == 1:
            return Fixed()
        if self._usual:
            return Adaptive(SURE)
        tuned = self._tuned.on(problems)
        best = self._best(tuned)
        if self._learned is None:
            return tuned.arms[best]
        learned = self._regressed(problems, self._learned)
        both = tuned.only([best]).beside(learned.only([self._best(learned)]))
        saving = both.saving(1, 0, resamples=500, seed=self._seed)
        return both.arms[int(takes_place(both, 1, self._aims[0], saving))]

    def step_back(self, rules: Sequence[StageRule], held: Sequence[Mask]) -> bool:
        """Aim higher where the rules do not keep on new problems what they seemed to; where that does not help,
        leave the regression out, then the tuning.

        Args:
            rules: fitted without the problems of each fold.
            held: those problems.

        Returns whether the rules have to be made again.
        """
        lost = np.concatenate([self._lost(rule, mask) for rule, mask in zip(rules, held, strict=True)])
        if lost.mean() <= self._margin or self._usual:
            return False
        if len(self._aims) > 1:
            self._aims.pop(0)
        elif self._learned is not None:
            self._learned, self._aims = None, _aims(self._margin)
        else:
            self._usual = True
        return True

    def _lost(self, rule: StageRule, problems: Mask) -> Array:
        """Accuracy that a rule loses on each of these problems, which it was not fitted on."""
        if not isinstance(rule, LinearGain) or self._learned is None:
            return np.asarray(self._tuned.losses[self._tuned.arms.index(rule), problems])
        walked, ridge = self._learned
        stop = below(ridge.gains_without(~problems, problems), rule.price)
        return np.asarray(self._aim[problems] - after(walked.right[problems], stop).mean(axis=1))

    def _regressed(self, problems: Mask, learned: tuple[Walk, Ridge]) -> LossMatrix[StageRule]:
        """The linear gain at every price, each problem judged by a fit without it."""
        walked, ridge = learned
        gains, right = self._crossed(ridge, problems), walked.right[problems]
        rule = LinearGain(walked.scale, self._n, SWAY, ridge.plain(ridge.fit(problems)), PRICES[0])
        outcomes = [
            (replace(rule, price=price), *self._outcome(right, below(gains, price), problems)) for price in PRICES
        ]
        return LossMatrix.of(self._tuned.on(problems).problems, self._aim[problems], outcomes)

    def _crossed(self, ridge: Ridge, problems: Mask) -> Array:
        """Gains of these problems, each as predicted from the other folds of them."""
        if (known := self._gains.get(problems.tobytes())) is not None:
            return known
        members = np.flatnonzero(problems)
        fold = np.random.default_rng(self._seed + 1).permutation(len(members)) % self._folds
        gains = ridge.crossed(members, fold)
        self._gains[problems.tobytes()] = gains
        return gains

    def _outcome(self, right: Array, stop: NDArray[np.intp], problems: Mask | None = None) -> tuple[Array, Array]:
        """Accuracy and tokens a problem of stopping after `stop` samples; of these problems, or all of them."""
        spent = self._spent if problems is None else self._spent[problems]
        return after(right, stop).mean(axis=1), after(spent, stop).mean(axis=1)

    def _best(self, matrix: LossMatrix[StageRule]) -> int:
        """Place of the cheapest within what may seem to be lost."""
        return operating_point(matrix, self._aims[0], self._seed, folds=self._folds, partitions=_PARTITIONS)


def _aims(margin: float) -> list[float]:
    """Accuracy that the choice may seem to lose, loosest first."""
    return [margin * share for share in (1, 0.75, 0.5, 0.25, 0)]


def certainty(codes: NDArray[np.int64]) -> Array:
    """Adaptive-consistency's probability of the leader of equal votes after 1, 2, ... samples."""
    problems, orders, n = codes.shape
    # A second answer always has a place, if only with no votes: the leader is compared with it.
    votes = np.zeros((problems, orders, max(2, int(codes.max()) + 1)), dtype=np.int64)
    known = np.array([[leader_probability(a, b) if a else 0.0 for b in range(n + 1)] for a in range(n + 1)])
    certain = np.zeros(codes.shape)
    for k in range(n):
        count(votes, codes[..., k], 1)
        top = np.partition(votes, -2, axis=2)
        certain[..., k] = known[top[..., -1], top[..., -2]]
    return certain


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
    """

    margin: float = 0.005
    folds: int = 5
    seed: int = 0
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class FittedRules:
    """Rules by size for new problems; by fold, the problems held out and the rules fitted without them."""

    rules: Mapping[int, StageRule]
    folds: Sequence[tuple[tuple[str, ...], Mapping[int, StageRule]]]
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
    order = np.random.default_rng(settings.seed).permutation(len(names))
    held = [np.isin(np.arange(len(names)), part) for part in np.array_split(order, settings.folds)]
    everyone = np.ones(len(names), dtype=bool)
    rules: dict[int, StageRule] = {}
    folds: list[dict[int, StageRule]] = [{} for _ in held]
    learns = True
    table = deal_one(traces, orders=orders_for(len(names)), depth=max(settings.sizes))
    for n in settings.sizes:
        rung = _Rung(table, n, margin=settings.margin, folds=settings.folds, seed=settings.seed)
        fitted = [rung.rule(~mask) for mask in held]
        while rung.step_back(fitted, held):
            fitted = [rung.rule(~mask) for mask in held]
        rules[n] = rung.rule(everyone)  # after the folds: by the aim that has held up on them
        learns = rung.learns
        for fold, rule in zip(folds, fitted, strict=True):
            fold[n] = rule
    parts = [(tuple(np.array(names)[mask].tolist()), fold) for mask, fold in zip(held, folds, strict=True)]
    return FittedRules(rules, parts, _notes(rules, learns))


def orders_for(problems: int) -> int:
    """Random orders of each problem's samples that rules are fitted and judged on."""
    least, most = _ORDERS
    return max(least, min(most, _PATHS // problems))


def _notes(rules: Mapping[int, StageRule], learns: bool) -> tuple[str, ...]:
    """What is worth knowing of the rule of the widest size, and whether there was enough to learn from there."""
    widest = max(rules)
    rule = rules[widest]
    if rule.kind == LinearGain.kind or widest < LEAST:
        return ()
    if isinstance(rule, Adaptive) and rule.threshold == SURE:
        return (f"at {widest} samples no fitted rule kept the accuracy: adaptive-consistency at its usual threshold",)
    if not learns:
        return (
            f"at {widest} samples too few problems are answered rightly to learn from: the tuned threshold is kept",
        )
    return (f"at {widest} samples the learned rule did not clear the tuned threshold, which is kept",)
