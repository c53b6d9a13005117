"""Replays strategies on recorded samples and says what accuracy costs.

Knows: how problems are shared out over processes. Does not know how a strategy works, what its
numbers mean or how rows are drawn.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from outthink.core.errors import BadInput
from outthink.engines.replay import ReplayEngine
from outthink.engines.speed import Speed
from outthink.engines.traces import Traces, load, missing
from outthink.evaluation.ladder import rungs_of
from outthink.evaluation.prescore import Prescoring, prescored
from outthink.evaluation.regrade import regrade
from outthink.evaluation.rerun import Outcomes, rerun
from outthink.evaluation.rows import Measured, Row, rows_of
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
class Settings:
    """How to replay.

    Args:
        regrade: the kind of answer to extract anew, None to take what is recorded.
        scoring: how to score samples for strategies that need it, None to take what is recorded.
    """

    seeds: int = 5
    ahead: int = 1
    speed: Speed = field(default_factory=Speed)
    regrade: str | None = None
    scoring: Prescoring | None = None
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
        traces = _load(path, settings)
        plans.append((traces, rungs_of(traces, specs, say)))
    results = _replay(plans, settings, progress)
    rows: list[Row] = []
    for (traces, _), found in zip(plans, results, strict=True):
        measured = [Measured.of(result, settings.ahead) for result in [*found, *_greedy(traces, settings)]]
        rows += rows_of(traces, measured, settings.seeds)
    return rows


def _load(path: Path, settings: Settings) -> Traces:
    """A file's samples, graded and scored as the settings want them."""
    traces = load(path, text=settings.regrade is not None)
    if settings.scoring is not None:
        traces = prescored(traces, settings.scoring)
    return traces if settings.regrade is None else regrade(traces, settings.regrade)


def _greedy(traces: Traces, settings: Settings) -> list[Outcomes]:
    """The greedy samples, where every problem has one."""
    if any(problem.greedy is None for problem in traces.problems.values()):
        return []
    engine = ReplayEngine(traces, speed=settings.speed)
    return rerun(engine, [Spec.parse("greedy")], list(traces.problems), 1, 1)


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
                pool.submit(_work, part, names, replace(settings, scoring=None)): (place, number)
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
            judged=any(part.judged for part in same),
        )
        for same in zip(*parts, strict=True)
    ]
