"""Replays strategies on recorded samples and says what accuracy costs.

Knows: how problems are shared out over processes. Does not know how a strategy works, what its
numbers mean or how rows are drawn.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outthink.controller.policy.artefact import Policy
from outthink.core.errors import BadInput
from outthink.engines.simulated import Speed
from outthink.engines.traces import ReplayEngine, Traces, load, missing
from outthink.evaluation.auto import AutoContender, add_columns, contenders, pool_of
from outthink.evaluation.calibration.crossed import crossed
from outthink.evaluation.calibration.source import open_source
from outthink.evaluation.dataset import regrade
from outthink.evaluation.replay import Contender, Outcomes, Prescoring, prescored, rerun
from outthink.evaluation.rows import Measured, Row, rows_of, rungs_of
from outthink.strategies import Spec

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
_PARTS = 8
"""Pieces a file is cut into: enough to keep processes busy and the progress moving."""
_SMALL = 100_000
"""Samples to deal out below which starting processes costs more than it saves."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """How to replay.

    Args:
        regrade: the kind of answer to extract anew, None to take what is recorded.
        scoring: how to score samples for strategies that need it, None to take what is recorded.
        policy: a calibrated policy to replay beside the strategies.
        cross_fit: fit its rules anew on the samples without each fold in turn, and replay them there.
    """

    seeds: int = 5
    ahead: int = 1
    speed: Speed = field(default_factory=Speed)
    regrade: str | None = None
    scoring: Prescoring | None = None
    policy: Policy | None = None
    cross_fit: bool = False
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
    settings: CompareSettings,
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
    files = [_load(path, settings) for path in usable]
    plans = []
    for traces in files:
        autos = _autos(traces, settings, say)
        plans.append(Lineup(traces, rungs_of(traces, specs, say), autos, pool_of(traces, autos, files)))
    results = replay(plans, settings, progress)
    rows: list[Row] = []
    for plan, found in zip(plans, results, strict=True):
        measured = [Measured.of(result, settings.ahead) for result in [*found, *_greedy(plan.traces, settings)]]
        mine = rows_of(plan.traces, measured, settings.seeds)
        add_columns(mine, plan.autos, {one.spec.n: one.notes for one in found if isinstance(one.spec, AutoContender)})
        rows += mine
    return rows


class Lineup(NamedTuple):
    """What is replayed on one file."""

    traces: Traces
    specs: list[Spec]
    autos: list[AutoContender]
    pool: tuple[Traces, ...] = ()

    @property
    def runs(self) -> list[Contender]:
        """Strategies, then the policy's rungs."""
        return [*self.specs, *self.autos]


def _autos(traces: Traces, settings: CompareSettings, say: Callable[[str], None]) -> list[AutoContender]:
    """The policy's rungs on a file, none without a policy."""
    if settings.policy is None:
        return []
    source = open_source(traces.path, traces)
    if settings.cross_fit:
        return crossed(settings.policy, source, say)
    return contenders(settings.policy, source, say)


def _load(path: Path, settings: CompareSettings) -> Traces:
    """A file's samples, graded and scored as the settings want them."""
    traces = load(path, text=settings.regrade is not None)
    if settings.scoring is not None:
        traces = prescored(traces, settings.scoring)
    return traces if settings.regrade is None else regrade(traces, settings.regrade)


def _greedy(traces: Traces, settings: CompareSettings) -> list[Outcomes]:
    """The greedy samples, where every problem has one."""
    if any(problem.greedy is None for problem in traces.problems.values()):
        return []
    engine = ReplayEngine(traces, speed=settings.speed)
    return rerun(engine, [Spec.parse("greedy")], list(traces.problems), 1, 1)


class _Job(NamedTuple):
    """A part of a file's problems, with what is replayed on them."""

    traces: Traces
    names: list[str]
    autos: list[AutoContender]
    pool: tuple[Traces, ...]


def replay(plans: Sequence[Lineup], settings: CompareSettings, progress: Progress | None) -> list[list[Outcomes]]:
    """Share the problems of every file out over processes; small jobs are done here."""
    jobs = [(place, job) for place, plan in enumerate(plans) for job in _cut(plan)]
    draws = sum(len(plan.traces.problems) * one.n for plan in plans for one in plan.runs)
    workers = min(settings.workers or os.cpu_count() or 1, len(jobs))
    parts: list[dict[int, list[Outcomes]]] = [{} for _ in plans]
    tell = progress or (lambda done, total: None)
    tell(0, len(jobs))
    settings = replace(settings, scoring=None, policy=None)
    if workers == 1 or draws * settings.seeds < _SMALL:
        for number, (place, job) in enumerate(jobs):
            parts[place][number] = _work(job, settings)
            tell(number + 1, len(jobs))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(_work, job, settings): (place, number) for number, (place, job) in enumerate(jobs)}
            for done, future in enumerate(as_completed(futures), start=1):
                place, number = futures[future]
                parts[place][number] = future.result()
                tell(done, len(jobs))
    return [_join([found[number] for number in sorted(found)]) for found in parts]


def _cut(plan: Lineup) -> list[_Job]:
    problems = list(plan.traces.problems.items())
    size = -(-len(problems) // _PARTS)
    names = [str(spec) for spec in plan.specs]
    parts = [dict(problems[start : start + size]) for start in range(0, len(problems), size)]
    return [
        _Job(
            replace(plan.traces, problems=part),
            names,
            [auto.take(list(part)) for auto in plan.autos],
            tuple(replace(other, problems={name: other.problems[name] for name in part}) for other in plan.pool),
        )
        for part in parts
    ]


def _work(job: _Job, settings: CompareSettings) -> list[Outcomes]:
    engine = ReplayEngine(job.traces, speed=settings.speed)
    runs: list[Contender] = [*map(Spec.parse, job.names), *job.autos]
    pool = [ReplayEngine(traces, speed=settings.speed) for traces in job.pool]
    return rerun(engine, runs, list(job.traces.problems), settings.seeds, settings.ahead, pool)


def _join(parts: list[list[Outcomes]]) -> list[Outcomes]:
    return [
        replace(
            same[0],
            values=np.concatenate([part.values for part in same], axis=1),
            notes=sum((part.notes for part in same), Counter[str]()),
            judged=any(part.judged for part in same),
        )
        for same in zip(*parts, strict=True)
    ]
