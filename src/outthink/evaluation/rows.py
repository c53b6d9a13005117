"""What was replayed as rows of a report.

Knows: the keys of a row, its intervals, and its distance from self-consistency at equal tokens and at
equal FLOPs. Does not know how a strategy is replayed or how rows are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from outthink.engines.traces import Traces
from outthink.evaluation.bootstrap import Array, intervals
from outthink.evaluation.frontier import Frontier, columns
from outthink.evaluation.ladder import BASELINE
from outthink.evaluation.rerun import MEASURES, Outcomes

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One strategy at one size on one file: `values[measure, problem]` and how it was run."""

    strategy: str
    n: int
    values: Array
    ahead: int
    judged: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: Outcomes, ahead: int) -> Measured:
        """What was replayed, with `ahead` calls in flight where it may stop early."""
        spec = result.spec
        in_flight = min(ahead, spec.n) if spec.waits else spec.n
        return cls(
            spec.canonical,
            spec.n,
            result.values,
            in_flight,
            result.judged,
            tuple(sorted(result.notes)),
        )

    def mean(self, measure: str) -> float:
        """Mean over the problems, NaN where unknown."""
        return float(self.values[MEASURES.index(measure)].mean())


def rows_of(traces: Traces, measured: Sequence[Measured], seeds: int) -> list[Row]:
    """Rows of one file: what was measured, then the oracle at the sizes of self-consistency."""
    rungs = [one for one in measured if one.strategy == BASELINE]
    every = [*measured, *(_oracle(traces, rung) for rung in rungs)]
    accuracy = np.stack([one.values[0] for one in every])
    low, high = intervals(accuracy)
    differences = {}
    for name, measure in (("difference", "tokens"), ("flops_difference", "flops")):
        frontier = Frontier([rung.mean(measure) for rung in rungs], np.stack([rung.values[0] for rung in rungs]))
        found = frontier.differences([one.mean(measure) for one in measured], accuracy[: len(measured)])
        differences[name] = [*found, *(None for _ in rungs)]
    rows = []
    for i, one in enumerate(every):
        row = _row(traces, one, float(low[i]), float(high[i]))
        row |= {"ahead": one.ahead, "seeds": seeds, "problems": len(traces.problems)}
        for name, found in differences.items():
            row |= columns(name, found[i])
        rows.append(row | {"notes": list(one.notes)})
    return rows


def _row(traces: Traces, one: Measured, low: float, high: float) -> Row:
    row: Row = {"traces": traces.name, "model": traces.model, "strategy": one.strategy, "n": one.n}
    row |= {"accuracy": one.mean("accuracy"), "accuracy_low": low, "accuracy_high": high}
    row |= {name: None if np.isnan(mean := one.mean(name)) else mean for name in MEASURES[1:]}
    return row | {"verifier": traces.verifier if one.judged else None}


def _oracle(traces: Traces, baseline: Measured) -> Measured:
    """Unbiased pass@n, 1 - C(N - c, n) / C(N, n), at the cost of n samples."""
    n = baseline.n
    values = baseline.values.copy()
    for column, problem in enumerate(traces.problems.values()):
        total = len(problem.sampled)
        right = sum(1 for sample in problem.sampled if sample.answer in problem.right)
        values[0, column] = 1 - comb(total - right, n) / comb(total, n)
    return Measured("oracle", n, values, n)
