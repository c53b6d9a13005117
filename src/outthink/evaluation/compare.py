"""Replays strategies on recorded samples and says what accuracy costs.

Knows: the ladder of sizes, how problems are shared out over processes, and the rows of the
report. Does not know how a strategy works or how rows are drawn.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from outthink.core.errors import BadInput
from outthink.engines.replay import ReplayEngine
from outthink.engines.speed import Speed
from outthink.engines.traces import Traces, load, missing
from outthink.evaluation.bootstrap import Array, intervals
from outthink.evaluation.frontier import UNKNOWN, Frontier
from outthink.evaluation.regrade import regrade
from outthink.evaluation.rerun import MEASURES, Outcomes, rerun
from outthink.strategies import Spec

LADDER = (1, 2, 4, 8, 16, 32)
DEFAULT = (
    "single",
    "self-consistency",
    "adaptive-consistency",
    "esc",
    "short-m-of-k",
    "best-of-n",
    "borda",
    "deepconf",
)
_BASELINE = "self-consistency"
_PARTS = 8
"""Pieces a file is cut into: enough to keep processes busy and the progress moving."""
_SMALL = 100_000
"""Samples to deal out below which starting processes costs more than it saves."""

Row = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to replay. `regrade` is the kind of answer to extract anew, None to take what is recorded."""

    seeds: int = 5
    ahead: int = 1
    speed: Speed = field(default_factory=Speed)
    regrade: str | None = None
    workers: int | None = None

    def about(self) -> dict[str, str]:
        """What a report must say about the run: time model, orders and calls in flight."""
        speed = self.speed
        return {
            "time model": f"{speed.stream:g} tokens/s a stream, {speed.total:g} in all, prefill {speed.prefill:g}, "
            f"concurrency {speed.concurrency}",
            "orders a problem": str(self.seeds),
            "ahead of stopping strategies": str(self.ahead),
        }


def compare(
    paths: Sequence[Path],
    specs: Sequence[Spec],
    settings: Settings,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Replay every spec at every size on every file; one row each (keys: docs/contracts.md).

    Args:
        progress: called with (parts done, parts in all).
        say: receives one line for each file that is skipped or ladder that is cut.

    Raises BadInput if no file can be replayed, or a given n exceeds what is recorded.
    """
    usable = []
    for path in paths:
        absent = missing(path)
        if absent:
            say(f"skipped {path}: it lacks {', '.join(absent)}")
        else:
            usable.append(Path(path))
    if not usable:
        raise BadInput("traces", [str(p) for p in paths], "hold no replayable samples", "give files made by record")
    plans = []
    for path in usable:
        traces = load(path) if settings.regrade is None else regrade(load(path, text=True), settings.regrade)
        plans.append((traces, _ladder(traces, specs, say)))
    results = _replay(plans, settings, progress)
    return [row for (traces, _), found in zip(plans, results, strict=True) for row in _rows(traces, found, settings)]


def _ladder(traces: Traces, specs: Sequence[Spec], say: Callable[[str], None]) -> list[Spec]:
    """Every spec at its sizes; self-consistency is always there to compare with."""
    depth = traces.depth
    baseline = Spec.parse(_BASELINE)
    if all(spec.canonical != _BASELINE for spec in specs):
        specs = [*specs, baseline]
    if depth < LADDER[-1]:
        say(f"{traces.path.name}: {depth} samples a problem, so the ladder ends there")
    ladder: list[Spec] = []
    for spec in specs:
        if spec.strategy.name == "greedy":
            continue  # always a row of its own
        if not spec.strategy.sized:
            ladder.append(spec)
        elif "n" not in spec.parameters:
            ladder += [spec.sized(n) for n in LADDER if n <= depth]
        elif spec.n > depth:
            raise BadInput(
                f"strategy {spec}",
                spec.n,
                f"is more than the {depth} samples recorded in {traces.path}",
                "ask for fewer",
            )
        else:
            ladder.append(spec)
    named = {spec.n for spec in ladder if spec.canonical == _BASELINE}
    ladder += [baseline.sized(n) for n in LADDER if n <= depth and n not in named]
    return ladder


def _replay(
    plans: Sequence[tuple[Traces, list[Spec]]], settings: Settings, progress: Progress | None
) -> list[list[Outcomes]]:
    """Share the problems of every file out over processes; small jobs are done here."""
    jobs = []
    for place, (traces, ladder) in enumerate(plans):
        problems = list(traces.problems.items())
        size = -(-len(problems) // _PARTS)
        names = [str(spec) for spec in ladder]
        jobs += [
            (place, replace(traces, problems=dict(problems[i : i + size])), names)
            for i in range(0, len(problems), size)
        ]
    draws = sum(len(traces.problems) * spec.n for traces, ladder in plans for spec in ladder) * settings.seeds
    workers = min(settings.workers or os.cpu_count() or 1, len(jobs))
    parts: list[dict[int, list[Outcomes]]] = [{} for _ in plans]
    tell = progress or (lambda done, total: None)
    tell(0, len(jobs))
    if workers == 1 or draws < _SMALL:
        for number, (place, part, names) in enumerate(jobs):
            parts[place][number] = _work(part, names, settings)
            tell(number + 1, len(jobs))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {
                pool.submit(_work, part, names, settings): (place, number)
                for number, (place, part, names) in enumerate(jobs)
            }
            for done, future in enumerate(as_completed(futures), start=1):
                place, number = futures[future]
                parts[place][number] = future.result()
                tell(done, len(jobs))
    return [_join([found[number] for number in sorted(found)]) for found in parts]


def _work(traces: Traces, names: list[str], settings: Settings) -> list[Outcomes]:
    engine = ReplayEngine(traces, speed=settings.speed)
    specs = [Spec.parse(name) for name in names]
    return rerun(engine, specs, list(traces.problems), settings.seeds, settings.ahead)


def _join(parts: list[list[Outcomes]]) -> list[Outcomes]:
    return [
        replace(
            same[0],
            values=np.concatenate([part.values for part in same], axis=1),
            notes=set().union(*(part.notes for part in same)),
        )
        for same in zip(*parts, strict=True)
    ]


def _rows(traces: Traces, results: list[Outcomes], settings: Settings) -> list[Row]:
    """Rows of one file: every spec, then greedy and the oracle."""
    greedy = _greedy(traces, settings)
    if greedy is not None:
        results = [*results, greedy]
    oracle = [_oracle(traces, result) for result in results if result.spec.canonical == _BASELINE]
    accuracy = np.stack([result.values[0] for result in results] + [values[0] for _, values in oracle])
    low, high = intervals(accuracy)
    rungs = [result for result in results if result.spec.canonical == _BASELINE]
    frontier = Frontier([r.values[1].mean() for r in rungs], np.stack([r.values[0] for r in rungs]))
    differences = frontier.differences([float(r.values[1].mean()) for r in results], accuracy[: len(results)])
    rows = []
    for i, result in enumerate(results):
        spec = result.spec
        ahead = settings.ahead if spec.strategy.stops_early and spec.strategy.name != "short-m-of-k" else spec.n
        row = _row(traces, spec.canonical, spec.n, result.values, low[i], high[i])
        found = differences[i]
        row |= {"ahead": min(ahead, spec.n), "seeds": settings.seeds, "problems": len(traces.problems)}
        row |= UNKNOWN if found is None else found.columns()
        rows.append(row | {"notes": sorted(result.notes)})
    for i, (n, values) in enumerate(oracle, start=len(results)):
        row = _row(traces, "oracle", n, values, low[i], high[i])
        row |= {"ahead": n, "seeds": settings.seeds, "problems": len(traces.problems)}
        rows.append(row | UNKNOWN | {"notes": []})
    return rows


def _row(traces: Traces, strategy: str, n: int, values: Array, low: float, high: float) -> Row:
    means = {name: float(value) for name, value in zip(MEASURES, values.mean(axis=1), strict=True)}
    row: Row = {"traces": traces.name, "model": traces.model, "strategy": strategy, "n": n}
    row |= {"accuracy": means["accuracy"], "accuracy_low": float(low), "accuracy_high": float(high)}
    row |= {name: None if np.isnan(means[name]) else means[name] for name in MEASURES[1:]}
    return row


def _greedy(traces: Traces, settings: Settings) -> Outcomes | None:
    if any(problem.greedy is None for problem in traces.problems.values()):
        return None
    engine = ReplayEngine(traces, speed=settings.speed)
    return rerun(engine, [Spec.parse("greedy")], list(traces.problems), 1, 1)[0]


def _oracle(traces: Traces, baseline: Outcomes) -> tuple[int, Array]:
    """Unbiased pass@n, 1 - C(N - c, n) / C(N, n), at the cost of n samples."""
    n = baseline.spec.n
    values = baseline.values.copy()
    for column, problem in enumerate(traces.problems.values()):
        total = len(problem.sampled)
        right = sum(1 for sample in problem.sampled if sample.answer in problem.right)
        values[0, column] = 1 - comb(total - right, n) / comb(total, n)
    return n, values
