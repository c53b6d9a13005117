"""Fits stopping rules to recorded samples of one model, each fold's without that fold.

All rules of one size (`competing`) stand in one matrix of losses, of which the guarded choice (`losses`) takes one.
Standardisation alone uses all problems; it sees no gold answer. Knows: folds, sizes, and how many random orders are
looked at. Does not know which rules compete, how held-out figures are measured, or what a policy says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from outthink.controller.cascade import StageRule
from outthink.controller.policy.judging import Judging
from outthink.controller.policy.promise import Promise
from outthink.controller.policy.rules import Fixed, Sway
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.competing import FEW, LEAST, CompetingRules, RuleOutcome, on_all_cores
from outthink.evaluation.calibration.losses import GuardedChoice, LossLimit, LossMatrix, Mask
from outthink.evaluation.calibration.scored_votes import scored_votes
from outthink.evaluation.calibration.votes import Table, after, deal_one
from outthink.strategies.defaults import BASELINE

MARGINS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05)
"""Losses that a policy tells the cost of, beside the one that was asked for."""


class Rung:
    """All candidates of one size on all problems; a choice among them on any part of the problems follows at once.

    Args:
        allowed: what may be lost against self-consistency of this size, and how often.
        folds: of the cross-fitting of predictions.
    """

    def __init__(
        self,
        table: Table,
        n: int,
        allowed: LossLimit,
        *,
        folds: int,
        seed: int,
        judged: Sequence[tuple[Sway, Judging]] = (),
    ) -> None:
        self.n, self.allowed, self._names = n, allowed, np.array(table.names)
        self._folds, self._seed = folds, seed
        self._competing = CompetingRules(table, n, judged)
        self._aim = self._competing.aim
        self._spent = {
            judging: table.models[0].spent(judged=judging) for judging in ((False, True) if judged else (False,))
        }

    @property
    def learns(self) -> bool:
        """Whether there are problems enough to learn from."""
        return self._competing.learns

    def choose(self, problems: Mask, *, judged: bool = False) -> tuple[StageRule, Promise]:
        """The rule that these problems alone choose, and what they promise of it.

        Args:
            judged: with those whose votes a verifier weighs.
        """
        matrix = self.matrix(problems, judged=judged)
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

    def matrix(self, problems: Mask, *, judged: bool = False) -> LossMatrix[StageRule]:
        """Every candidate on these problems; what is learned is judged by fits without each one's fold of them."""
        fold = np.random.default_rng(self._seed + 1).permutation(int(problems.sum())) % self._folds
        return self._matrix(self._competing.crossed(problems, fold, judged=judged), problems)

    def held_out(self, problems: Mask, others: Mask, *, judged: bool = False) -> LossMatrix[StageRule]:
        """The same candidates, fitted on some problems, on others; in the same order."""
        return self._matrix(self._competing.held_out(problems, others, judged=judged), others)

    def _matrix(self, candidates: Iterable[RuleOutcome], problems: Mask) -> LossMatrix[StageRule]:
        outcomes = []
        for candidate in candidates:
            spent = self._spent[candidate.rule.judges][problems]
            outcomes.append((candidate.rule, candidate.right.mean(axis=1), after(spent, candidate.stop).mean(axis=1)))
        return LossMatrix.of(self._names[problems].tolist(), self._aim[problems], outcomes)


def reference_of(matrix: LossMatrix[StageRule]) -> int:
    """Place of self-consistency, which every rule of its size is to match."""
    return next(place for place, rule in enumerate(matrix.arms) if isinstance(rule, Fixed))


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
        by: `flops`, or anything else for tokens: what candidates are compared in.
        judged: the size at which rules whose votes a verifier weighs compete too, None for none.
    """

    margin: float = 0.005
    risk: float = 0.1
    folds: int = 5
    seed: int = 0
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32)
    by: str = "tokens"
    judged: int | None = None

    def allowed(self, n: int) -> LossLimit:
        """Of the rules of one size."""
        return LossLimit(self.margin, self.risk, f"{BASELINE}@{n}", seed=self.seed)


@dataclass(frozen=True, slots=True)
class FittedRules:
    """Rules by size for new problems, with their promises; by fold, the problems held out and the rules fitted
    without them; the candidates that they were chosen from; and the one whose votes a verifier weighs, if it pays."""

    rules: Mapping[int, StageRule]
    folds: Sequence[tuple[tuple[str, ...], Mapping[int, StageRule]]]
    promises: Mapping[int, Promise] = field(default_factory=dict)
    rungs: Mapping[int, Rung] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    judged: FittedRules | None = None


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
    table = deal_one(traces, orders=orders_for(len(names)), depth=max(settings.sizes), by=settings.by)
    scored = [] if settings.judged is None else scored_votes(table, traces)
    rungs = {
        n: Rung(
            table,
            n,
            settings.allowed(n),
            folds=settings.folds,
            seed=settings.seed,
            judged=scored if n == settings.judged else (),
        )
        for n in settings.sizes
    }
    for n, rung in rungs.items():
        (rules[n], promises[n]), *rest = on_all_cores(rung.choose, [everyone, *(~mask for mask in held)])
        for fold, (rule, _) in zip(folds, rest, strict=True):
            fold[n] = rule
    parts = [tuple(np.array(names)[mask].tolist()) for mask in held]
    judged, notes = None, _notes(rungs[max(rungs)])
    if settings.judged is not None:
        judged, note = _judged(rungs[settings.judged], held, parts)
        notes = (*notes, note)
    return FittedRules(rules, list(zip(parts, folds, strict=True)), promises, rungs, notes, judged)


def _judged(rung: Rung, held: Sequence[Mask], parts: Sequence[tuple[str, ...]]) -> tuple[FittedRules | None, str]:
    """What is chosen where a verifier is at hand, None where that needs none; and how both compare, in words."""
    everyone = np.ones(len(held[0]), dtype=bool)
    matrix = rung.matrix(everyone, judged=True)
    reference, costs = reference_of(matrix), matrix.costs.mean(axis=1)
    place, promise = GuardedChoice(matrix, rung.allowed, reference).promise()
    alone = rung.matrix(everyone)
    own, _ = GuardedChoice(alone, rung.allowed, reference).promise()
    shares = f"{costs[place] / costs[reference]:.2f} of the cost of {rung.allowed.against}"
    without = f"{alone.costs[own].mean() / costs[reference]:.2f} without it"
    # Of more arms the luckiest is luckier, so the level may be stricter: then a verifier can cost more than it saves.
    if not matrix.arms[place].judges or costs[place] >= alone.costs[own].mean():
        return None, f"the verifier does not pay here and is left out ({without})"
    rules = on_all_cores(lambda mask: rung.choose(~mask, judged=True)[0], held)
    folds = [(names, {rung.n: rule}) for names, rule in zip(parts, rules, strict=True)]
    fitted = FittedRules({rung.n: matrix.arms[place]}, folds, {rung.n: promise})
    return fitted, f"with the verifier {shares}, judging included, {without}"


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
    return (f"fewer than {FEW} problems: nothing is learned from them, thresholds alone compete",)
