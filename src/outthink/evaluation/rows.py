"""What was replayed as rows of a report: keys, intervals, and the distance from self-consistency at equal cost.

Knows: at which sizes strategies are replayed and what a file of samples allows, the percentile bootstrap over
problems, and self-consistency as a curve over tokens or FLOPs. Does not know how a strategy is replayed or how rows
are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput
from outthink.engines.traces import Traces
from outthink.evaluation.replay import MEASURES, Array, Contender, Outcomes
from outthink.evaluation.sample_file import JsonObject
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE, GREEDY, ORACLE

# Percentile bootstrap over problems. Seeds are averaged per problem before, since only problems are independent.

RESAMPLES = 2000
COVERAGE = 0.95
_CHUNK = 500_000  # drawn problems at a time: about 12 MB with their weights


def _weights(problems: int, resamples: int, seed: int) -> Iterator[Array]:
    """Blocks (problems, k) whose columns say how often a resample drew each problem, over `problems`."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // problems)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(problems, size=(count, problems))
        drawn += np.arange(count)[:, None] * problems
        counts = np.bincount(drawn.ravel(), minlength=count * problems).reshape(count, problems)
        yield counts.T / problems


def resampled_means(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means of every row under the same resamples of the problems.

    Args:
        values: (rows, problems), finite.
        resamples: bootstrap samples.
        seed: of the resampling; equal seeds and numbers of problems give equal resamples.

    Returns:
        (rows, resamples). BadInput for no problems or a value that is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise BadInput("values", table.shape, "has no problems", "give an array (rows, problems)")
    if not np.isfinite(table).all():
        raise BadInput("values", "NaN or infinity", "cannot be resampled", "leave out rows with unknown values")
    means = np.empty((table.shape[0], resamples))
    done = 0
    for weights in _weights(table.shape[1], resamples, seed):
        np.matmul(table, weights, out=means[:, done : done + weights.shape[1]])
        done += weights.shape[1]
    return means


def intervals(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Array, Array]:
    """95 % percentile intervals of the means of many rows (rows, problems): low (rows,), high (rows,)."""
    means = resampled_means(values, resamples=resamples, seed=seed)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    # One problem, or a constant, has no spread; rounding in the product must not invent one.
    table = np.asarray(values, dtype=np.float64)
    constant = table.min(axis=1) == table.max(axis=1)
    return np.where(constant, table[:, 0], low), np.where(constant, table[:, 0], high)


def interval(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean over problems; values (problems,), or differences of both sides on each."""
    low, high = intervals(np.atleast_2d(np.asarray(values, dtype=np.float64)), resamples=resamples, seed=seed)
    return float(low[0]), float(high[0])


_NEAR = 1e-9  # relative: the same samples summed in another order are still the same tokens


class Difference(NamedTuple):
    """Accuracy of a row minus that of self-consistency at equal cost, with a 95 % interval."""

    value: float
    low: float
    high: float


def columns(name: str, difference: Difference | None) -> dict[str, float | None]:
    """The three columns of a row under a name, null where there is nothing to compare with."""
    value, low, high = difference or (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


class Frontier:
    """Self-consistency over its ladder: accuracy as a curve over a cost, linear between the rungs.

    Args:
        tokens: (rungs,) mean generated tokens (or whatever is to be equal) per problem, in any order.
        accuracy: (rungs, problems), each the mean over seeds; BadInput if the shapes disagree.
    """

    def __init__(self, tokens: npt.ArrayLike, accuracy: npt.ArrayLike) -> None:
        self.tokens: Array = np.asarray(tokens, dtype=np.float64)
        self.accuracy: Array = np.asarray(accuracy, dtype=np.float64)
        if self.accuracy.ndim != 2 or self.tokens.shape != self.accuracy.shape[:1] or not self.tokens.size:
            raise BadInput("rungs", self.accuracy.shape, "does not fit the tokens", "give one row a rung")
        order = np.argsort(self.tokens, kind="stable")
        self.tokens, self.accuracy = self.tokens[order], self.accuracy[order]

    def at(self, tokens: float) -> Array | None:
        """Accuracy per problem (problems,) at a number of tokens, linear between the two neighbouring
        rungs; None outside their range and for NaN, where there is nothing to compare with."""
        first, last = self.tokens[0], self.tokens[-1]
        if not first * (1 - _NEAR) <= tokens <= last * (1 + _NEAR):
            return None
        right = int(np.searchsorted(self.tokens, tokens))
        if right == 0 or right == len(self.tokens):
            edge: Array = self.accuracy[0 if right == 0 else -1]
            return edge
        left = right - 1
        share = (tokens - self.tokens[left]) / (self.tokens[right] - self.tokens[left])
        between: Array = (1 - share) * self.accuracy[left] + share * self.accuracy[right]
        return between

    def differences(self, tokens: Sequence[float], accuracy: npt.ArrayLike) -> list[Difference | None]:
        """Paired differences of many rows, under the same resamples of the problems.

        Args:
            tokens: (rows,) mean generated tokens per problem.
            accuracy: (rows, problems), the problems in the order of the rungs'.

        Returns:
            One Difference a row, None for a row outside the token range of the ladder.
        """
        rows = np.asarray(accuracy, dtype=np.float64)
        if rows.shape != (len(tokens), self.accuracy.shape[1]):
            raise BadInput("rows", rows.shape, "does not fit the ladder", "give the same problems in the same order")
        inside = [index for index, value in enumerate(tokens) if self.at(value) is not None]
        differences: list[Difference | None] = [None] * len(tokens)
        if not inside:
            return differences
        paired = rows[inside]
        for place, index in enumerate(inside):
            paired[place] -= self.at(tokens[index])
        low, high = intervals(paired)
        for place, index in enumerate(inside):
            differences[index] = Difference(float(paired[place].mean()), float(low[place]), float(high[place]))
        return differences


LADDER = (1, 2, 4, 8, 16, 32)


def rungs_of(traces: Traces, specs: Sequence[Spec], say: Callable[[str], None]) -> list[Spec]:
    """Every spec at its sizes; self-consistency is always there to compare with."""
    depth = traces.depth
    if not depth and not traces.greedy:
        what = "has neither a sampled nor a greedy completion of every problem"
        raise BadInput("traces", str(traces.path), what, "record one kind for each")
    baseline = Spec.parse(BASELINE)
    if all(spec.canonical != BASELINE for spec in specs):
        specs = [*specs, baseline]
    if not traces.answered and (voting := [spec.canonical for spec in specs if spec.strategy.votes != "none"]):
        names = ", ".join(dict.fromkeys(voting))
        say(f"{traces.path.name}: its samples have no answers to vote on, which leaves out {names}")
    if depth < LADDER[-1]:
        say(f"{traces.path.name}: {depth} samples a problem, so the ladder ends there")
    ladder: list[Spec] = []
    for spec in specs:
        if not traces.answered and spec.strategy.votes != "none":
            continue
        check_served(spec, traces)
        if spec.strategy.name == GREEDY:
            continue  # always a row of its own
        if not spec.strategy.sized:
            ladder += [spec] if depth else []
        elif "n" not in spec.parameters:
            ladder += [spec.sized(n) for n in LADDER if n <= depth]
        else:
            check_size(spec, traces)
            ladder.append(spec)
    named = {spec.n for spec in ladder if spec.canonical == BASELINE}
    ladder += [baseline.sized(n) for n in LADDER if n <= depth and n not in named]
    return ladder


def check_size(spec: Spec, traces: Traces) -> None:
    """BadInput for more samples than are recorded of every problem."""
    if spec.n > traces.depth:
        what = f"is more than the {traces.depth} samples recorded in {traces.path}"
        raise BadInput(f"strategy {spec}", spec.n, what, "ask for fewer")


def check_served(spec: Spec, traces: Traces) -> None:
    """BadInput for a strategy that recorded samples cannot serve, or whose scores they lack."""
    if spec.strategy.extends:
        raise BadInput(
            "strategy", str(spec), "continues unfinished texts, which recorded samples cannot", "run it with --live"
        )
    if spec.strategy.rewrites:
        raise BadInput(
            "strategy", str(spec), "changes the question, which recorded samples did not answer", "run it with --live"
        )
    if spec.strategy.needs_verifier and traces.scoring is None:
        raise BadInput(
            "strategy",
            str(spec),
            f"needs scores, and {traces.path} carries none",
            "give --verifier NAME|PATH|URL, or score it first: outthink verify",
        )


Row = JsonObject


def in_flight(contender: Contender, ahead: int) -> int:
    """Its calls in flight, `ahead` where it may stop early."""
    return min(ahead, contender.n) if contender.waits else contender.n


@dataclass(frozen=True, slots=True)
class Measured:
    """One strategy at one size on one file, and how it was run.

    Args:
        accuracy: over the problems.
        means: of each measure, NaN where unknown.
    """

    strategy: str
    n: int
    accuracy: Array
    means: Array
    ahead: int
    judged: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: Outcomes, ahead: int) -> Measured:
        """What was replayed, with `ahead` calls in flight where it may stop early."""
        spec = result.spec
        notes = tuple(sorted(result.notes))
        means = result.means
        return cls(spec.canonical, spec.n, result.values[0], means, in_flight(spec, ahead), result.judged, notes)

    def mean(self, measure: str) -> float:
        """Mean over the problems, NaN where unknown."""
        return float(self.means[MEASURES.index(measure)])


def rows_of(traces: Traces, measured: Sequence[Measured], seeds: int) -> list[Row]:
    """Rows of one file: what was measured, then the oracle at the sizes of self-consistency.

    Where the samples have no answers there is no vote to compare with: self-consistency then only says what so many
    samples cost.
    """
    rungs = [result for result in measured if result.strategy == BASELINE]
    if not traces.answered:
        measured = [result for result in measured if result.strategy != BASELINE]
    every = [*measured, *_oracles(traces, rungs)]
    accuracy = np.stack([result.accuracy for result in every])
    low, high = intervals(accuracy)
    differences: dict[str, list[Difference | None]] = {}
    for name, measure in (("difference", "tokens"), ("flops_difference", "flops")):
        if not rungs:  # greedy samples alone
            differences[name] = [None for _ in every]
            continue
        frontier = Frontier([rung.mean(measure) for rung in rungs], np.stack([rung.accuracy for rung in rungs]))
        of_measured = frontier.differences([result.mean(measure) for result in measured], accuracy[: len(measured)])
        of_measured = of_measured if traces.answered else [None] * len(measured)
        differences[name] = [*of_measured, *(None for _ in rungs)]
    rows = []
    for i, result in enumerate(every):
        row = _row(traces, result, float(low[i]), float(high[i]))
        row |= {"ahead": result.ahead, "seeds": seeds, "problems": len(traces.problems)}
        for name, by_row in differences.items():
            row |= columns(name, by_row[i])
        rows.append(row | {"notes": list(result.notes)})
    return rows


def _row(traces: Traces, result: Measured, low: float, high: float) -> Row:
    row: Row = {"traces": traces.name, "model": traces.model, "strategy": result.strategy, "n": result.n}
    row |= {"accuracy": result.mean("accuracy"), "accuracy_low": low, "accuracy_high": high}
    row |= {name: None if np.isnan(mean := result.mean(name)) else mean for name in MEASURES[1:]}
    return row | {"verifier": traces.verifier if result.judged else None}


def _oracles(traces: Traces, rungs: Sequence[Measured]) -> list[Measured]:
    """Unbiased pass@n, 1 - C(N - c, n) / C(N, n), at the cost of n samples."""
    # The estimator of Chen et al. (arXiv 2107.03374); one draw of n samples would add noise.
    passed = np.zeros((len(rungs), len(traces.problems)))
    for column, (total, right) in enumerate(traces.hits()):
        for row, rung in enumerate(rungs):
            passed[row, column] = 1 - comb(total - right, rung.n) / comb(total, rung.n)
    return [
        Measured(ORACLE, rung.n, accuracy, np.concatenate([[accuracy.mean()], rung.means[1:]]), rung.n)
        for rung, accuracy in zip(rungs, passed, strict=True)
    ]
