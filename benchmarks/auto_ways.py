"""The ways to stop that auto.py compares, on the recorded samples of one set and one random partition.

Knows: which ways there are and how each is judged on the problems held out from it. Does not know
intervals, tables or files of results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boosted import Boosted
from outthink.controller.policy.rules import Sway
from outthink.engines.traces import Recorded, Traces, load
from outthink.evaluation.calibration.fit import StoppingSettings, fit
from outthink.evaluation.calibration.losses import Array
from outthink.evaluation.calibration.votes import EQUAL, SWAYS, Ridge, Walk, certainty, deal_one, reached, walk
from outthink.evaluation.calibration.votes import Table as Samples
from stopping import (
    HeldOutRule,
    RuleLearner,
    Spent,
    Sweep,
    at_random,
    held_out,
    in_orders,
    nested_gains,
    oracle,
    outcome,
    per_cost,
    priced,
    thresholds,
)

DEPTH = 32
MARGIN = 0.005
HALF, BOTH = Sway(logprob=0.5), Sway(logprob=0.25, confidence=0.25)
TUNED = (EQUAL, Sway(logprob=0.25), HALF, Sway(logprob=0.75), Sway(logprob=1.0), BOTH, *SWAYS)
"""Vote weights that the tuned control chooses among."""
SCORED = tuple(Sway(logprob=w) for w in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0))
SCORED_LEARNED = tuple(Sway(logprob=w) for w in (0.5, 1.0, 1.5))
PRICES = tuple(float(price) for price in np.geomspace(2e-4, 0.3, 64))
ESC_WINDOW = 5
CONTROL, SHIPPED = "tuned adaptive-consistency", "what calibrate ships"
LINEAR, BOOSTED = "linear gain", "boosted gain"
PAID = "with verifier"

Fold = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Held-out values of every way over problems, and curves: accuracy and tokens over (point, problem)."""

    ways: dict[str, HeldOutRule] = field(default_factory=dict)
    curves: dict[str, tuple[Array, Array]] = field(default_factory=dict)


class Set:
    """Recorded samples in random orders.

    Args:
        read: share of FLOPs that a verifier adds to those of the model; 0 without one.
    """

    def __init__(self, traces: Traces, orders: int, read: float = 0.0) -> None:
        self.traces, self.orders = traces, orders
        self.samples: Samples = deal_one(traces, orders=orders, depth=DEPTH)
        self.model = self.samples.models[0]
        generated = _running(self.model.tokens)
        self.free = Spent(_running(self.model.tokens + self.model.prompt[:, None, None]), generated)
        self.spent = Spent(self.free.cost * (1 + read), generated)

    def walk(self, sway: Sway) -> Walk:
        """Votes under these weights."""
        return walk(self.samples, 0, sway, depth=DEPTH)

    @cached_property
    def plain(self) -> Walk:
        """Votes of equal weight."""
        return self.walk(EQUAL)

    @property
    def aim(self) -> Array:
        """Accuracy of self-consistency over problems."""
        return np.asarray(self.plain.right[..., DEPTH].mean(axis=1))

    def fixed(self, stop: NDArray[np.intp], votes: Walk | None = None, *, free: bool = True) -> HeldOutRule:
        """Stopping after so many samples, by a rule that learns nothing."""
        spent = self.free if free else self.spent
        right = (votes or self.plain).right
        accuracy, cost, tokens = (one.mean(axis=1) for one in outcome(right, spent, stop))
        return HeldOutRule(accuracy, cost, tokens, ())

    def size(self, n: int) -> HeldOutRule:
        """Self-consistency with n samples."""
        return self.fixed(np.full(self.model.codes.shape[:2], n))


def _running(values: Array) -> Array:
    return np.concatenate([np.zeros((*values.shape[:2], 1)), np.cumsum(values, axis=2)], axis=2)


def esc_after(codes: NDArray[np.int64]) -> NDArray[np.intp]:
    """Samples after which a whole window of ESC agrees."""
    problems, orders, n = codes.shape
    stop = np.full((problems, orders), n)
    for end in range(ESC_WINDOW * (n // ESC_WINDOW), 0, -ESC_WINDOW):
        window = codes[..., end - ESC_WINDOW : end]
        agreed = (window == window[..., :1]).all(axis=2) & (window[..., 0] >= 0)
        stop[agreed] = end
    return stop


def folds_of(problems: int, partition: int, folds: int) -> Fold:
    """The outer fold of each problem."""
    return np.random.default_rng(1000 + partition).permutation(problems) % folds


def compare(path: Path, orders: int, folds: int, partition: int, *, trees: bool, shipped: bool) -> Comparison:
    """All ways that need no verifier."""
    data = Set(load(path), orders)
    fold = folds_of(len(data.samples.names), partition, folds)
    comparison = Comparison()
    ways, codes = comparison.ways, data.model.codes[..., :DEPTH]
    ways["self-consistency@32"] = data.size(DEPTH)
    ways["adaptive-consistency"] = data.fixed(reached(certainty(data.plain), 0.95))
    ways["esc"] = data.fixed(esc_after(codes))
    walks = {sway: data.walk(sway) for sway in TUNED}
    tuned = Sweep.joined([thresholds(one, data.spent, weight(sway)) for sway, one in walks.items()])
    ways[CONTROL] = held_out([tuned] * folds, fold, data.aim, MARGIN)
    half = thresholds(walks[HALF], data.spent, weight(HALF))
    comparison.curves[f"{CONTROL}, votes exp(0.5 z)"] = half.accuracy, half.tokens
    for sway in (EQUAL, HALF, BOTH, *SWAYS):
        learned(data, comparison, f"{LINEAR}, {weight(sway)}", Ridge(walks[sway]), walks[sway], fold)
    if trees:
        for sway in (HALF, BOTH):
            learned(data, comparison, f"{BOOSTED}, {weight(sway)}", Boosted(walks[sway]), walks[sway], fold)
    if shipped:
        ways[SHIPPED] = as_shipped(data, fold)
    best = oracle(data.plain.right, data.spent)
    ways["oracle stopper"] = HeldOutRule(best.accuracy[-1], best.cost[-1], best.tokens[-1], ())
    ways["oracle, no more accurate"] = held_out([best] * folds, fold, data.aim, MARGIN)
    comparison.curves["oracle"] = best.accuracy, best.tokens
    same = ways[f"{LINEAR}, {weight(BOTH)}"]
    chance = at_random(data.plain.right, data.spent, float(same.cost.mean()))
    ways["random stopping, same cost"] = HeldOutRule(*(one.mean(axis=1) for one in chance), ())
    return comparison


def weight(sway: Sway) -> str:
    """A vote weight in words: z is the standardised mean log-probability, c the confidence, cut 1 for a cut sample."""
    parts = (sway.logprob, "z"), (sway.confidence, "c"), (sway.cut, "cut")
    words = " + ".join(f"{share:g} {name}" for share, name in parts if share)
    return f"votes exp({words})" if words else "equal votes"


def learned(data: Set, comparison: Comparison, name: str, learner: RuleLearner, votes: Walk, fold: Fold) -> None:
    """A regression: fit, cross-fitted prices, and the held-out curve; trees per expected token."""
    gains = nested_gains(learner, fold)
    if isinstance(learner, Boosted):
        gains = [per_cost(one, data.spent) for one in gains]
    sweeps = [priced(votes, one, data.spent, PRICES, name) for one in gains]
    comparison.ways[name] = held_out(sweeps, fold, data.aim, MARGIN)
    comparison.curves[name] = stitched(sweeps, fold)


def stitched(sweeps: Sequence[Sweep], fold: Fold) -> tuple[Array, Array]:
    """Accuracy and tokens over (point, problem), each problem by the fit that never saw it."""
    accuracy, tokens = np.zeros_like(sweeps[0].accuracy), np.zeros_like(sweeps[0].tokens)
    for outer, sweep in enumerate(sweeps):
        mask = fold == outer
        accuracy[:, mask], tokens[:, mask] = sweep.accuracy[:, mask], sweep.tokens[:, mask]
    return accuracy, tokens


def as_shipped(data: Set, fold: Fold) -> HeldOutRule:
    """`calibrate` on the other folds, its own choice of a rule included; the rule it gives is fed the samples."""
    traces = data.traces
    values, chosen = np.zeros((3, len(fold))), []
    names = list(traces.problems)
    for outer in range(int(fold.max()) + 1):
        train = {name: traces.problems[name] for name, k in zip(names, fold, strict=True) if k != outer}
        rule = fit(replace(traces, problems=train), StoppingSettings(sizes=(DEPTH,))).rules[DEPTH]
        chosen.append(str(rule.kind))
        for place in np.flatnonzero(fold == outer):
            values[:, place] = followed(rule, traces.problems[names[place]], data.orders)
    return HeldOutRule(values[0], values[1], values[2], tuple(chosen))


def followed(rule: object, problem: Recorded, orders: int) -> tuple[float, float, float]:
    """Accuracy, cost and tokens of a rule on one problem, mean over orders."""
    right = cost = tokens = 0.0
    for samples in in_orders(problem, orders):
        running = rule.start(DEPTH, None)  # type: ignore[attr-defined]
        for sample in samples[:DEPTH]:
            tokens += sample.tokens or 0
            cost += (sample.tokens or 0) + (sample.prompt_tokens or 0)
            if running.add(sample, None):
                break
        right += running.verdict().answer in problem.right
    return right / orders, cost / orders, tokens / orders


def compare_scored(path: Path, scores: Path, read: float, orders: int, folds: int, partition: int) -> Comparison:
    """The ways whose votes a verifier's scores weigh, its reading charged.

    Args:
        scores: log-odds of the samples, as an .npz of problem, index and value.
        read: FLOPs of the verifier over those of the model, for the same text.
    """
    whole = load(path)
    data = Set(with_scores(whole, scores), orders, read)
    fold = folds_of(len(data.samples.names), partition, folds)
    plain = Set(data.traces, orders)
    comparison = Comparison()
    comparison.ways["self-consistency@32"] = plain.size(DEPTH)
    walks = {sway: data.walk(sway) for sway in SCORED}
    full = np.full(data.model.codes.shape[:2], DEPTH)
    comparison.ways[f"weighted vote@32, {PAID}"] = data.fixed(full, walks[Sway(logprob=1.0)], free=False)
    tuned = Sweep.joined([thresholds(one, data.spent, f"exp({sway.logprob:.2g} s)") for sway, one in walks.items()])
    comparison.ways[f"{CONTROL}, {PAID}"] = held_out([tuned] * folds, fold, data.aim, MARGIN)
    gains = [nested_gains(Ridge(walks[sway]), fold) for sway in SCORED_LEARNED]
    sweeps = [
        Sweep.joined(
            [
                priced(walks[sway], part[outer], data.spent, PRICES, f"exp({sway.logprob:g} s)")
                for sway, part in zip(SCORED_LEARNED, gains, strict=True)
            ]
        )
        for outer in range(folds)
    ]
    name = f"{LINEAR}, {PAID}"
    comparison.ways[name] = held_out(sweeps, fold, data.aim, MARGIN)
    return comparison


def with_scores(traces: Traces, scores: Path) -> Traces:
    """The same samples with the verifier's log-odds in the place of their mean log-probability; those without
    a score are left out."""
    with np.load(scores) as kept:
        rows = zip(kept["problem"].tolist(), kept["index"].tolist(), kept["value"].tolist(), strict=True)
        known = {(problem, int(index)): float(value) for problem, index, value in rows}
    problems = {}
    for name, one in traces.problems.items():
        sampled = [
            replace(sample, mean_logprob=known[name, sample.index])
            for sample in one.sampled
            if (name, sample.index) in known
        ]
        problems[name] = replace(one, sampled=sampled)
    return replace(traces, problems=problems)
