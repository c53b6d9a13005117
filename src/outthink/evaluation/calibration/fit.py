"""Fits stopping rules to recorded samples of one model, each fold's without that fold.

Knows: the two kinds of rules that compete, and which is the cheapest that keeps the accuracy. Does not
know how held-out figures are measured or what a policy says.

A tuned threshold of adaptive-consistency is the control. The linear gain (outthink.controller.gain)
takes its place only where it needs fewer tokens beyond the paired interval, and keeps the accuracy, on
problems that it was not fitted on. Standardisation alone uses all problems; it sees no gold answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from outthink.controller.gain import LinearGain, Scale
from outthink.controller.policy.guard import SURE
from outthink.controller.policy.rules import Adaptive, Fixed
from outthink.engines.traces import Recorded, Traces
from outthink.evaluation.bootstrap import paired_interval
from outthink.evaluation.calibration.dealt import Array, Dealt, Table
from outthink.evaluation.calibration.gain import SWAY, Mask, Ridge, scale_of, walk
from outthink.strategies import leader_probability

THRESHOLDS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 2.0)
"""Of adaptive-consistency; at the last one it never stops early."""
PRICES = tuple(float(price) for price in np.geomspace(1e-3, 0.15, 40))
_ORDERS = 4
"""Random orders of a problem's samples that rules are judged on."""
_PARTITIONS = 4
"""Random partitions into folds that the choice of the operating point is checked on."""
_LEAST = 4
"""Sizes below this are settled before anything can be learned."""
_FEW = 100
"""Problems below which no regression is fitted."""


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
    table = dealt(traces, max(settings.sizes))
    for n in settings.sizes:
        rung = Rung(table, n, settings)
        found = [rung.rule(~mask) for mask in held]
        while rung.step_back(found, held):
            found = [rung.rule(~mask) for mask in held]
        rules[n] = rung.rule(everyone)
        for fold, rule in zip(folds, found, strict=True):
            fold[n] = rule
    parts = [(tuple(np.array(names)[mask].tolist()), found) for mask, found in zip(held, folds, strict=True)]
    return Fitted(rules, parts, _notes(rules))


def _notes(rules: Mapping[int, Any]) -> tuple[str, ...]:
    widest = max(rules)
    rule = rules[widest]
    if rule.kind == LinearGain.kind or widest < _LEAST:
        return ()
    if isinstance(rule, Adaptive) and rule.threshold == SURE:
        return (f"at {widest} samples no fitted rule kept the accuracy: adaptive-consistency at its usual threshold",)
    return (f"at {widest} samples the learned rule did not clear the tuned threshold, which is kept",)


class Rung:
    """All candidates of one size on all problems; a rule for any part of them follows at once."""

    def __init__(self, table: Table, n: int, settings: Settings) -> None:
        self.table, self.n, self.settings = table, n, settings
        self.everyone = np.ones(len(table.names), dtype=bool)
        plain = walk(table, 0, scale_of(table.models[0], self.everyone, (0.0, 0.0)), (1e-6, 0.0), depth=max(n, 2))
        self._right = plain.right[..., : n + 1]
        self.aim = self._right[..., n].mean(axis=1)
        self._tokens = _spent(table.models[0], n)
        self._stops = np.stack([_sure(table.models[0].codes[..., :n], limit) for limit in THRESHOLDS])
        self._usual = False
        self._learned: tuple[Scale, Any, Ridge] | None = None
        if n >= _LEAST and len(table.names) >= _FEW:
            scale = scale_of(table.models[0], self.everyone, SWAY)
            found = walk(table, 0, scale, SWAY, depth=n)
            self._learned = scale, found, Ridge(found)

    def rule(self, problems: Mask) -> Any:
        """The rule fitted on these problems alone."""
        if self.n == 1:
            return Fixed()
        if self._usual:
            return Adaptive(SURE)
        tuned, tokens = self._tuned(problems)
        if self._learned is None:
            return tuned
        learned, better = self._regressed(problems, tokens)
        return learned if better else tuned

    def step_back(self, found: Sequence[Any], held: Sequence[Mask]) -> bool:
        """Leave the regression out, then the tuning, where the rules do not keep on new problems what they seemed to.

        Args:
            found: rules fitted without the problems of each fold.
            held: those problems.

        Returns whether the rules have to be made again.
        """
        lost = np.concatenate([self._lost(rule, mask) for rule, mask in zip(found, held, strict=True)])
        if lost.mean() <= self.settings.margin or self._usual:
            return False
        if self._learned is not None:
            self._learned = None
        else:
            self._usual = True
        return True

    def _lost(self, rule: Any, problems: Mask) -> Array:
        """Accuracy that a rule loses on each of these problems, which it was not fitted on."""
        if isinstance(rule, LinearGain) and self._learned is not None:
            _, walked, ridge = self._learned
            gains = ridge.gains(ridge.fit(~problems), problems)
            accuracy, _ = self._outcome(problems, walked.right, _stops(gains, rule.price))
        else:
            limit = rule.threshold if isinstance(rule, Adaptive) else THRESHOLDS[-1]
            stop = self._stops[THRESHOLDS.index(limit)]
            accuracy, _ = self._outcome(problems, self._right, stop[problems])
        return np.asarray(self.aim[problems] - accuracy)

    def _tuned(self, problems: Mask) -> tuple[Any, Array]:
        """The tuned threshold, with its tokens on each of the problems."""
        found = [self._outcome(problems, self._right, stop[problems]) for stop in self._stops]
        best, tokens = self._best(problems, found)
        limit = THRESHOLDS[best]
        return Fixed() if limit > 1 else Adaptive(limit), tokens

    def _regressed(self, problems: Mask, tokens: Array) -> tuple[LinearGain, bool]:
        """The linear gain at its best price, and whether it needs fewer tokens than the tuned threshold."""
        assert self._learned is not None
        scale, walked, ridge = self._learned
        gains = _crossed(ridge, problems, self.settings)
        found = [self._outcome(problems, walked.right, _stops(gains, price)) for price in PRICES]
        best, mine = self._best(problems, found)
        rule = LinearGain(scale, ridge.plain(ridge.fit(problems)), self.n, SWAY, PRICES[best])
        _, high = paired_interval(mine - tokens, resamples=500, seed=self.settings.seed)
        keeps = found[best][0].mean() >= self.aim[problems].mean() - self.settings.margin
        return rule, bool(high < 0 and keeps)

    def _outcome(self, problems: Mask, right: Array, at: NDArray[np.intp]) -> tuple[Array, Array]:
        """Accuracy and tokens on each of these problems of stopping after `at` samples."""
        place = at[..., None]
        shown = (np.take_along_axis(values[problems], place, 2)[..., 0] for values in (right, self._tokens))
        accuracy, tokens = (values.mean(axis=1) for values in shown)
        return accuracy, tokens

    def _best(self, problems: Mask, found: Sequence[tuple[Array, Array]]) -> tuple[int, Array]:
        """The cheapest within the margin, with its tokens on each of the problems.

        Choosing the cheapest of many that seem to keep the accuracy favours lucky ones. So the aim is
        raised until what was chosen on some of the problems is within the margin on the others, on average.
        """
        accuracy, tokens = (np.array(values) for values in zip(*found, strict=True))
        aim, margin = self.aim[problems], self.settings.margin
        rng = np.random.default_rng(self.settings.seed)
        parts = [rng.permutation(len(aim)) % self.settings.folds for _ in range(_PARTITIONS)]
        masks = [part == k for part in parts for k in range(self.settings.folds)]
        lost = accuracy - aim
        sums, costs = lost @ np.array(masks).T, tokens @ np.array(masks).T
        sizes = np.array([mask.sum() for mask in masks])
        kept = (lost.sum(axis=1)[:, None] - sums) / (len(aim) - sizes)
        rest = tokens.sum(axis=1)[:, None] - costs
        slack = margin
        for slack in np.arange(margin, -2 * margin - 1e-9, -max(margin, 1e-4) / 5):
            chosen = _cheapest(kept, rest, float(slack))
            if sums[chosen, np.arange(len(masks))].sum() / sizes.sum() >= -margin:
                break
        best = int(_cheapest(lost.mean(axis=1)[:, None], tokens.mean(axis=1)[:, None], float(slack))[0])
        return best, tokens[best]


def _cheapest(lost: Array, cost: Array, slack: float) -> NDArray[np.intp]:
    """Of the candidates (rows), for each column: the cheapest that loses at most `slack`, else the most accurate."""
    enough = lost >= -slack
    cheapest = np.where(enough, cost, np.inf).argmin(axis=0)
    return np.asarray(np.where(enough.any(axis=0), cheapest, lost.argmax(axis=0)))


def _stops(gains: Array, price: float) -> NDArray[np.intp]:
    """Samples after which what is left to gain is not worth the price, over (problem, order)."""
    enough = np.concatenate([gains <= price, np.ones((*gains.shape[:2], 1), dtype=bool)], axis=2)
    return np.asarray(enough.argmax(axis=2) + 1)


def _crossed(ridge: Ridge, problems: Mask, settings: Settings) -> Array:
    """Gains of these problems, each as predicted from the other folds of them."""
    members = np.flatnonzero(problems)
    fold = np.random.default_rng(settings.seed + 1).permutation(len(members)) % settings.folds
    found: Array | None = None
    for k in range(settings.folds):
        inside, rest = np.zeros_like(problems), np.zeros_like(problems)
        inside[members[fold == k]], rest[members[fold != k]] = True, True
        part = ridge.gains(ridge.fit(rest), inside)
        found = np.zeros((len(members), *part.shape[1:])) if found is None else found
        found[fold == k] = part
    assert found is not None
    return found


def _spent(model: Dealt, n: int) -> Array:
    """Tokens of the first 0, 1, ... n samples, prompts included."""
    total = np.cumsum(model.tokens[..., :n] + model.prompt[:, None, None], axis=2)
    return np.concatenate([np.zeros((*total.shape[:2], 1)), total], axis=2)


def _sure(codes: NDArray[np.int64], limit: float) -> NDArray[np.int64]:
    """Samples after which the leader is sure enough, over (problem, order)."""
    problems, orders, n = codes.shape
    found = np.full((problems, orders), n)
    if limit > 1:
        return found
    for row in range(problems):
        for column in range(orders):
            counts: dict[int, int] = {}
            for k, code in enumerate(codes[row, column].tolist(), start=1):
                if code >= 0:
                    counts[code] = counts.get(code, 0) + 1
                top = [*sorted(counts.values(), reverse=True)[:2], 0, 0]
                if top[0] and leader_probability(top[0], top[1]) >= limit:
                    found[row, column] = k
                    break
    return found


def dealt(traces: Traces, depth: int) -> Table:
    """The samples of one model as arrays, whatever its size."""
    names = tuple(traces.problems)
    depth = min(depth, traces.depth)
    shape = len(names), _ORDERS, depth
    codes = np.full(shape, -1, dtype=np.int64)
    tokens, logprob, confidence = np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    prompt = np.zeros(len(names))
    known: list[dict[str, int]] = [{} for _ in names]
    for row, name in enumerate(names):
        problem = traces.problems[name]
        prompt[row] = problem.sampled[0].prompt_tokens or 0
        for order, samples in enumerate(_orders(problem)):
            for k, sample in enumerate(samples[:depth]):
                at = row, order, k
                if sample.answer is not None:
                    codes[at] = known[row].setdefault(sample.answer, len(known[row]))
                tokens[at] = sample.tokens or 0
                if sample.mean_logprob is not None:
                    logprob[at] = sample.mean_logprob
                if sample.confidence is not None:
                    confidence[at] = sample.confidence.mean()
    right = np.zeros((len(names), max(1, *(len(answers) for answers in known))), dtype=bool)
    for row, name in enumerate(names):
        for answer, code in known[row].items():
            right[row, code] = answer in traces.problems[name].right
    return Table(names, right, (Dealt(traces.model, codes, tokens, prompt, logprob, confidence, 1.0),))


def _orders(problem: Recorded) -> list[list[Any]]:
    """The problem's samples in the orders of replay."""
    found = []
    for seed in range(_ORDERS):
        samples = list(problem.sampled)
        random.Random(f"{seed}:{problem.problem}").shuffle(samples)
        found.append(samples)
    return found
