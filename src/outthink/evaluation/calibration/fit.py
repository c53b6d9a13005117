"""Fits stopping rules to recorded samples of one model, each fold's without that fold.

Knows: folds, sizes, and how many random orders are looked at. Does not know which rules compete
(rung.py), how held-out figures are measured, or what a policy says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from outthink.controller.gain import LinearGain
from outthink.controller.policy.rules import SURE, Adaptive
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.dealt import deal_one
from outthink.evaluation.calibration.rung import LEAST, Rung

_PATHS = 8000
"""Orders times problems that rules are judged on: few problems are dealt in more orders, which steadies the
regression."""
_ORDERS = 4, 16
"""Orders of each problem's samples, at least and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to fit.

    Args:
        target: samples of the self-consistency whose accuracy the rule of this size keeps; a smaller
            rule keeps that of its own size.
        margin: accuracy that may be lost.
        features: hand features of the questions, by problem.
    """

    target: int = 32
    margin: float = 0.005
    by: str = "tokens"
    folds: int = 5
    seed: int = 0
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32)
    features: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Rules by size for new problems; by fold, the problems held out and the rules fitted without them."""

    rules: Mapping[int, Any]
    folds: Sequence[tuple[tuple[str, ...], Mapping[int, Any]]]
    notes: tuple[str, ...] = ()


def fit(traces: Traces, settings: Settings) -> Fitted:
    """The cheapest rule of each size that keeps the accuracy, on all problems and without each fold."""
    with _one_thread():
        return _fit(traces, settings)


def _one_thread() -> AbstractContextManager[Any]:
    """Dozens of small systems are solved ten times slower by threads that wait for each other."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return cast(AbstractContextManager[Any], threadpool_limits(1))


def _fit(traces: Traces, settings: Settings) -> Fitted:
    names = tuple(traces.problems)
    order = np.random.default_rng(settings.seed).permutation(len(names))
    held = [np.isin(np.arange(len(names)), part) for part in np.array_split(order, settings.folds)]
    everyone = np.ones(len(names), dtype=bool)
    rules: dict[int, Any] = {}
    folds: list[dict[int, Any]] = [{} for _ in held]
    learns = True
    table = deal_one(traces, orders=orders_for(len(names)), depth=max(settings.sizes))
    for n in settings.sizes:
        rung = Rung(table, n, margin=settings.margin, folds=settings.folds, seed=settings.seed)
        found = [rung.rule(~mask) for mask in held]
        while rung.step_back(found, held):
            found = [rung.rule(~mask) for mask in held]
        rules[n] = rung.rule(everyone)
        learns = rung.learns
        for fold, rule in zip(folds, found, strict=True):
            fold[n] = rule
    parts = [(tuple(np.array(names)[mask].tolist()), found) for mask, found in zip(held, folds, strict=True)]
    return Fitted(rules, parts, _notes(rules, learns))


def orders_for(problems: int) -> int:
    """Random orders of each problem's samples that rules are fitted and judged on."""
    least, most = _ORDERS
    return max(least, min(most, _PATHS // problems))


def _notes(rules: Mapping[int, Any], learns: bool) -> tuple[str, ...]:
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
