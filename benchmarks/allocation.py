"""What marginal allocation over a batch gains at equal total tokens, on recorded samples.

Measures: for every recorded file, accuracy of one batch of all its problems under one budget of
tokens (prompt and completion), against uniform self-consistency (n = 2 to 16) and per-problem
adaptive-consistency (0.95 at n = 4 to 32, 0.8 and 0.9 at 32) that have spent exactly that budget.
Allocations: `calibrated` (gains by votes and log-probability, measured on the other four of five
folds), `votes` (the same without log-probability), `assumed` (no recorded samples: what the model
prefers is taken to be right) and `transferred` (gains of the same model on the other data set).
With an exact check: the first sample that passes wins, against round robin over the unsolved; the
Beta prior is fitted to the other folds. Differences are paired by problem, means over the orders,
95 % bootstrap intervals over problems. All problems share one budget, so the intervals speak of
problems within a batch like this one, not of batches of another mix.
Checks that `outthink.ask_batch` deals out the same samples as the simulation.
Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; about four minutes on two cores.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common import NO_TRACES, Table, interval, load_average, parser, save, show, skip, target, traces
from outthink.client import ask_batch
from outthink.controller.allocation import Allocation, Belief, Checked, GainTable, Planned, Voted, split
from outthink.core.sample import Sample
from outthink.engines.protocol import Speed
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.gains import Courses, courses, measure_gains, table_of
from outthink.evaluation.rows import interval as bootstrapped
from outthink.strategies.votes import leader_probability

MOST, FOLDS = 32, 5
UNIFORM = (2, 4, 8, 16)
ADAPTIVE = ((0.95, 4), (0.95, 8), (0.95, 16), (0.95, 32), (0.9, 32), (0.8, 32))
Array = np.ndarray


@dataclass
class Bench:
    """One file in memory: samples in dealt order, their cost, and the votes as they went."""

    traces: Traces
    names: list[str]
    samples: list[list[list[Sample]]]
    cost: Array
    courses: Courses
    folds: Array

    @classmethod
    def open(cls, path: Path, orders: int) -> Bench:
        """Read a file and count its votes."""
        recorded = load(path)
        names = list(recorded.problems)
        samples = [[recorded.problems[name].dealt(seed)[:MOST] for seed in range(orders)] for name in names]
        cost = np.array([[[price(one) for one in order] for order in problem] for problem in samples])
        folds = np.random.default_rng(0).permutation(len(names)) % FOLDS
        return cls(recorded, names, samples, cost, courses(recorded, names, orders=orders, at_most=MOST), folds)

    def cross_fitted(self, confidence: bool) -> list[GainTable]:
        """For each problem the gains measured without its fold."""
        tables = [
            table_of(self.courses, np.flatnonzero(self.folds != fold).tolist(), confidence=confidence)
            for fold in range(FOLDS)
        ]
        return [tables[fold] for fold in self.folds]

    def right(self, problem: int, sample: Sample) -> bool:
        """Whether a sample's answer is right."""
        return sample.answer in self.traces.problems[self.names[problem]].right


def price(sample: Sample) -> float:
    """Tokens of a sample, the prompt's included."""
    return float((sample.tokens or 0) + (sample.prompt_tokens or 0))


def spend(bench: Bench, order: int, beliefs: Sequence[Belief], budget: float, exact: bool = False) -> float:
    """Deal out one budget; the beliefs hold the outcome. Returns what was spent."""
    allocation, spent = Allocation(beliefs, lambda i, sample: price(sample)), 0.0
    while (i := allocation.next()) is not None:
        sample = bench.samples[i][order][allocation.drawn[i]]
        if spent + price(sample) > budget:
            break
        spent += price(sample)
        allocation.add(i, sample, bench.right(i, sample) if exact else None)
    return spent


def allocated(bench: Bench, tables: Sequence[GainTable | None], budgets: Array) -> tuple[Array, float]:
    """Accuracy of each problem (mean over orders) and tokens a problem, given a budget for each order."""
    accuracy, spent = np.zeros(len(bench.names)), 0.0
    for order, budget in enumerate(budgets):
        beliefs = [Voted(table, MOST) for table in tables]
        spent += spend(bench, order, beliefs, float(budget))
        for i, belief in enumerate(beliefs):
            accuracy[i] += belief.verdict("budget:tokens").answer in bench.traces.problems[bench.names[i]].right
    return accuracy / len(budgets), spent / len(budgets) / len(bench.names)


def baselines(bench: Bench) -> dict[str, Array]:
    """Samples that each baseline draws, (problem, order)."""
    states = bench.courses.states
    shape = len(states), len(states[0])
    found = {f"self-consistency@{n}": np.full(shape, n) for n in UNIFORM}
    sure = np.array(
        [[[leader_probability(s.leader, s.second) * (s.n > 0) for s in course] for course in row] for row in states]
    )
    for threshold, n in ADAPTIVE:
        enough = sure[:, :, : n + 1] >= threshold
        enough[:, :, -1] = True
        found[f"adaptive-consistency:{threshold:g}@{n}"] = enough.argmax(axis=2)
    return found


def measure(job: tuple[str, Path, Path | None, int]) -> tuple[Table, Table, dict[str, Any]]:
    """All comparisons on one file."""
    name, path, other, orders = job
    bench = Bench.open(path, orders)
    ways: dict[str, Sequence[GainTable | None]] = {
        "calibrated": bench.cross_fitted(confidence=True),
        "votes": bench.cross_fitted(confidence=False),
        "assumed": [None] * len(bench.names),
    }
    if other is not None:
        ways["transferred"] = [measure_gains([load(other)], orders=orders, at_most=MOST)] * len(bench.names)
    total = np.concatenate([np.zeros((*bench.cost.shape[:2], 1)), bench.cost.cumsum(axis=2)], axis=2)
    rows = []
    for baseline, drawn in baselines(bench).items():
        tokens = np.take_along_axis(total, drawn[:, :, None], 2)[:, :, 0]
        base = np.take_along_axis(bench.courses.right, drawn[:, :, None], 2)[:, :, 0].mean(axis=1)
        for way, tables in ways.items():
            accuracy, spent = allocated(bench, tables, tokens.sum(axis=0))
            rows.append(
                _row(name, baseline, way, base, accuracy) | {"tokens": tokens.mean(), "tokens_allocated": spent}
            )
    return rows, exact_check(name, bench, total), same(bench)


def _row(name: str, baseline: str, way: str, base: Array, accuracy: Array) -> dict[str, Any]:
    low, high = bootstrapped(accuracy - base)
    return {
        "traces": name,
        "baseline": baseline,
        "allocation": way,
        "accuracy": base.mean(),
        "allocated": accuracy.mean(),
        "difference": (accuracy - base).mean(),
        "low": low,
        "high": high,
    }


def exact_check(name: str, bench: Bench, total: Array) -> Table:
    """Share solved with an exact check at equal tokens: allocation against round robin over the unsolved."""
    rates = np.array([[bench.right(i, one) for one in order[0]] for i, order in enumerate(bench.samples)]).mean(axis=1)
    priors = [_beta(rates[bench.folds != fold]) for fold in range(FOLDS)]
    rows = []
    for n in (2, 4, 8):
        budgets = total[:, :, n].sum(axis=0) / 2
        solved = {"round robin": np.zeros(len(bench.names)), "allocation": np.zeros(len(bench.names))}
        for order, budget in enumerate(budgets):
            beliefs = [Checked(priors[fold], MOST) for fold in bench.folds]
            spend(bench, order, beliefs, budget, exact=True)
            solved["allocation"] += [belief.solved is not None for belief in beliefs]
            solved["round robin"] += round_robin(bench, order, budget)
        base, accuracy = (values / len(budgets) for values in solved.values())
        rows.append(_row(name, "round robin", "exact check", base, accuracy) | {"tokens": budgets.mean() / len(base)})
    return rows


def round_robin(bench: Bench, order: int, budget: float) -> Array:
    """One sample for every unsolved problem in turn, until the budget ends."""
    solved, left = np.zeros(len(bench.names)), budget
    for drawn in range(MOST):
        for i in np.flatnonzero(solved == 0):
            sample = bench.samples[i][order][drawn]
            left -= price(sample)
            if left < 0:
                return solved
            solved[i] = bench.right(int(i), sample)
    return solved


def _beta(rates: Array) -> tuple[float, float]:
    """Pseudo-counts with the mean and the spread of the success rates (method of moments)."""
    mean, spread = float(rates.mean()), float(rates.var())
    strength = max(0.5, mean * (1 - mean) / spread - 1)
    return mean * strength, (1 - mean) * strength


def same(bench: Bench) -> dict[str, Any]:
    """The public function on the virtual clock against the simulation: answers, at four samples a problem."""
    table = table_of(bench.courses, range(len(bench.names)))
    budget = float(bench.cost[:, 0, :4].sum())
    beliefs = [Voted(table, MOST) for _ in bench.names]
    spent = spend(bench, 0, beliefs, budget)
    engine = ReplayEngine(bench.traces, seed=0, speed=Speed(concurrency=1))
    options = {"ids": bench.names, "gains": table, "at_most": MOST, "max_tokens": 1 << 20}
    batch = asyncio.run(ask_batch(bench.names, model=engine, budget=f"tokens={budget:.0f}", **options))
    equal = [
        result.answer == belief.verdict(None).answer for result, belief in zip(batch.results, beliefs, strict=True)
    ]
    return {"budget": budget, "simulated": spent, "ask_batch": batch.receipt.tokens, "equal": float(np.mean(equal))}


def targets_of(rows: Table, checks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What was promised, and what was found."""
    dealt_out = [split([Planned(0.5), Planned(0.1)], budget) for budget in (6, 4)]
    within = all(check["ask_batch"] <= check["budget"] for check in checks.values())
    found = [target("p = (0.5, 0.1): budgets 6 and 4", "[3, 3] and [3, 1]", dealt_out, dealt_out == [[3, 3], [3, 1]])]
    found.append(target("the batch's budget is never exceeded", "0 of 4 files", 0 if within else "exceeded", within))
    equal = min(check["equal"] for check in checks.values())
    found.append(target("ask_batch answers as the simulation does", ">= 0.99", equal, equal >= 0.99))
    for way in ("assumed", "calibrated"):
        for kind, test in (("self-consistency", _uniform), ("adaptive-consistency", _adaptive)):
            mine = [row for row in rows if row["allocation"] == way and test(row)]
            better, worse = sum(row["low"] > 0 for row in mine), sum(row["high"] < 0 for row in mine)
            text = f"{better} of {len(mine)} above, {worse} below"
            found.append(target(f"{way}: at equal tokens not below {kind}", "no interval below 0", text, worse == 0))
    return found


def _uniform(row: dict[str, Any]) -> bool:
    return str(row["baseline"]).startswith("self")


def _adaptive(row: dict[str, Any]) -> bool:
    return str(row["baseline"]).startswith("adaptive")


def brief(rows: Table, test: Callable[[dict[str, Any]], bool]) -> Table:
    """Rows for people."""
    return [
        {
            "traces": row["traces"],
            "against": row["baseline"],
            "allocation": row["allocation"],
            "tokens": row["tokens"],
            "accuracy": f"{row['accuracy']:.1%}",
            "difference": interval(row["difference"], row["low"], row["high"]),
        }
        for row in rows
        if test(row)
    ]


def main() -> int:
    """Measure and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--orders", type=int, default=4, help="orders of each problem's samples (default 4)")
    orders = arguments.parse_args().orders
    paths = traces()
    if not paths:
        return skip(NO_TRACES)
    before = load_average()
    twins = {name: f"{'MATH' if 'GSM8K' in name else 'GSM8K'} {name.split()[1]}" for name in paths}
    jobs = [(name, path, paths.get(twins[name]), orders) for name, path in paths.items()]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = dict(zip(paths, pool.map(measure, jobs), strict=True))
    rows = [row for part, _, _ in found.values() for row in part]
    exact = [row for _, part, _ in found.values() for row in part]
    checks = {name: check for name, (_, _, check) in found.items()}
    show("against uniform self-consistency and adaptive-consistency", brief(rows, lambda row: True))
    show("with an exact check", brief(exact, lambda row: True))
    save(
        "allocation",
        settings={"orders": orders, "folds": FOLDS, "at most": MOST},
        targets=targets_of(rows, checks),
        load_before=before,
        rows=rows,
        exact=exact,
        ask_batch=checks,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
