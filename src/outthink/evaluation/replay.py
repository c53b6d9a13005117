"""Runs strategies over recorded samples, problem by problem and seed by seed, shared out over processes.

Knows: how one replayed request is graded and what it consumed, and what contenders and their samples are cut into. Does
not know intervals, reports or files; the loop is plain Python over the same strategies that run live.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from outthink.core.receipt import Verdict
from outthink.core.request import Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Speed
from outthink.engines.time_model import TimeModel
from outthink.engines.traces import ReplayEngine, Scoring, Traces
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.session import Session
from outthink.strategies import Spec
from outthink.strategies.defaults import GREEDY
from outthink.verifiers.checks import RecordedVerifier
from outthink.verifiers.protocol import Verifier

Array = NDArray[np.float64]
MEASURES = ("accuracy", "tokens", "prompt_tokens", "cancelled_tokens", "flops", "seconds", "samples", "verifier_tokens")
_UNKNOWN = float("nan")
WINDOW = 128
"""DeepConf's window on recorded files (docs/contracts.md): its 2,048 tokens exceed every sample."""


class Contender(Protocol):
    """What can be replayed: a strategy with its parameters, or a policy."""

    @property
    def canonical(self) -> str:
        """Its name in rows, size left out."""
        ...

    @property
    def n(self) -> int:
        """Samples at most."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it may stop early, so that the calls in flight matter."""
        ...

    def __call__(self, session: Session, request: Request) -> Coroutine[Any, Any, Verdict]:
        """Start it on one request."""
        ...


class PlannedContender(Contender, Protocol):
    """A contender that carries a plan for every problem, so that parts of it can be sent to other processes."""

    def take(self, problems: Sequence[str]) -> Self:
        """The same for some of the problems."""
        ...


@dataclass(slots=True)
class Outcomes:
    """Means over seeds of one contender on one file: `values[measure, problem]`, NaN where unknown.

    `notes` counts the runs that said something, `judged` says whether it has asked the verifier. Where `sums` holds
    the sums of all measures over the problems, `values` holds the accuracies alone.
    """

    spec: Contender
    values: Array
    notes: Counter[str] = field(default_factory=Counter)
    judged: bool = False
    sums: Array | None = None

    @property
    def means(self) -> Array:
        """Every measure's mean over the problems, NaN where unknown."""
        sums = self.values.sum(axis=1) if self.sums is None else self.sums
        return np.asarray(sums / self.values.shape[1])

    def summed(self) -> Outcomes:
        """The same with no more than the accuracies a problem."""
        return replace(self, values=self.values[:1].copy(), sums=self.values.sum(axis=1))


def rerun(
    engine: ReplayEngine,
    specs: Sequence[Contender],
    problems: Sequence[str],
    seeds: int,
    ahead: int,
    pool: Sequence[ReplayEngine] = (),
) -> list[Outcomes]:
    """Replay every contender on every problem under every seed.

    Args:
        pool: recorded samples of further models on the same problems, for contenders that use them.
    """
    results = [Outcomes(spec, np.zeros((len(MEASURES), len(problems)))) for spec in specs]
    engines = (engine, *pool)
    sources, options = sources_of(engines), options_of(engine, ahead)
    for column, problem in enumerate(problems):
        request, right = asked(engines, problem)
        for seed in range(seeds):
            for replayed in engines:
                # One permutation a problem and seed for all contenders, so that their differences are paired.
                replayed.reseed(seed)
            for result in results:
                result.values[:, column] += _once(sources, options, result, request, right, seed)
    for result in results:
        result.values /= seeds
    return results


def sources_of(engines: Sequence[ReplayEngine]) -> list[Source]:
    """Recorded models as a session takes them."""
    return [Source(replayed, Tariff.of_engine(replayed)) for replayed in engines]


def options_of(engine: ReplayEngine, ahead: int) -> SessionOptions:
    """What a session over these samples is told, with `ahead` calls in flight where a strategy may stop early."""
    return SessionOptions(ahead=ahead, confidence_window=WINDOW, verifier=recorded(engine.traces.scoring))


def asked(engines: Sequence[ReplayEngine], problem: str) -> tuple[Request, set[str]]:
    """The request for a recorded problem, and the answers that are right."""
    sampling = Sampling(max_tokens=1 << 20)  # recorded samples have their lengths; no cap may cut them again
    # A file tells which of its own answers are right; those of the pool may be written otherwise.
    right = set[str]().union(*(replayed.traces.problems[problem].right for replayed in engines))
    return Request(messages=(Message("user", problem),), problem=problem, sampling=sampling), right


def recorded(scoring: Scoring | None) -> Verifier | None:
    """The verifier whose scores a file carries, None where it carries none.

    Without a description in the file it counts as one of whole solutions, of unknown size.
    """
    if scoring is None:
        return None
    return RecordedVerifier(
        scoring.id,
        kind=scoring.kind or "outcome",  # type: ignore[arg-type]
        model=scoring.model,
        parameters=scoring.parameters,
        aggregation=scoring.aggregation or "last",  # type: ignore[arg-type]
    )


def _once(
    sources: Sequence[Source],
    options: SessionOptions,
    result: Outcomes,
    request: Request,
    right: set[str],
    seed: int,
) -> tuple[float, ...]:
    """One replayed request: a value for each of MEASURES."""
    opened = open_session(sources, seed=seed, options=options)
    session = opened.session
    verdict = opened.run_now(result.spec(session, request))
    samples = 0
    generated: float = 0
    cancelled: float = 0
    prompt = judged = others = elsewhere = 0.0
    tariff = session.tariff
    model = tariff.model
    for entry in session.ledger.entries:
        if entry.role == "verifier":  # another model, at its own price
            result.judged = True
            judged += _UNKNOWN if entry.tokens is None else entry.tokens
            others += _UNKNOWN if entry.flops is None else entry.flops
            continue
        samples += 1
        made: float | None = entry.completion_tokens
        lost: float | None = entry.cancelled_tokens
        read: float | None = entry.prompt_tokens
        # Each is asked for once: there are millions of entries.
        if made is None:
            made = _UNKNOWN
        if lost is None:
            lost = _UNKNOWN
        if read is None:
            read = _UNKNOWN
        generated += made
        cancelled += lost
        prompt += read
        if entry.model != model:
            others += _UNKNOWN if entry.flops is None else entry.flops
            elsewhere += read + made + lost
    if session.ledger.notes:
        result.notes.update(session.ledger.notes)
    total = generated + cancelled
    every = total + prompt + judged
    timed = every == every  # reading and writing so many tokens takes nobody knows how long
    weights = tariff.parameters
    return (
        float(verdict.answer in right),
        total,
        prompt,
        cancelled,
        _UNKNOWN if weights is None else 2.0 * weights * (prompt + total - elsewhere) + others,
        session.runner.now() if timed else _UNKNOWN,
        samples,
        judged,
    )


# Problems are shared out over processes; what a job needs is sent along, since strategies are plain functions by name.

Progress = Callable[[int, int], None]
_PARTS, _LARGEST = 8, 512
"""Pieces a file is cut into, enough to keep processes busy and the progress moving; problems of a piece at most, so
that what is sent to a process does not grow with the file."""
_TOGETHER = 32
"""Problems of which everything is replayed before the next ones are built from a file's columns."""
_SMALL = 100_000
"""Samples to deal out below which starting processes costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """How to replay.

    Args:
        seeds: orders of each problem's samples that values are means over.
        ahead: calls in flight of strategies that may stop early.
        workers: processes at most, None for one a core.
        by_problem: whether all measures are kept for each problem, or but the accuracy: of a large file the others
            take more memory than its samples.
    """

    seeds: int = 5
    ahead: int = 1
    speed: TimeModel = field(default_factory=Speed)
    workers: int | None = None
    by_problem: bool = True


class Lineup(NamedTuple):
    """What is replayed on one file; with `greedy` the greedy samples as well, whose outcomes come last."""

    traces: Traces
    specs: list[Spec]
    autos: Sequence[PlannedContender]
    pool: tuple[Traces, ...] = ()
    greedy: bool = False

    @property
    def runs(self) -> list[Contender]:
        """Strategies, then the policy's rungs."""
        return [*self.specs, *self.autos]

    def take(self, problems: Sequence[str]) -> Lineup:
        """The same for some of the problems."""
        return self._replace(
            traces=self.traces.take(problems),
            autos=[auto.take(problems) for auto in self.autos],
            pool=tuple(other.take(problems) for other in self.pool),
        )


def replay(lineups: Sequence[Lineup], settings: ReplaySettings, progress: Progress | None) -> list[list[Outcomes]]:
    """Share the problems of every file out over processes; small jobs are done here."""
    jobs = [(place, job) for place, lineup in enumerate(lineups) for job in _cut(lineup)]
    draws = sum(len(lineup.traces.problems) * contender.n for lineup in lineups for contender in lineup.runs)
    workers = min(settings.workers or os.cpu_count() or 1, len(jobs))
    parts: list[dict[int, list[Outcomes]]] = [{} for _ in lineups]
    notify = progress or (lambda done, total: None)
    notify(0, len(jobs))
    # Without what a subclass adds: a policy and functions, which cannot go to another process.
    shared = ReplaySettings(
        seeds=settings.seeds, ahead=settings.ahead, speed=settings.speed, by_problem=settings.by_problem
    )
    if workers == 1 or draws * settings.seeds < _SMALL:
        for number, (place, job) in enumerate(jobs):
            parts[place][number] = _work(job, shared)
            notify(number + 1, len(jobs))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_end_at_ctrl_c) as pool:
            with _holding_ctrl_c():
                futures = {pool.submit(_work, job, shared): (place, number) for number, (place, job) in enumerate(jobs)}
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    place, number = futures[future]
                    parts[place][number] = future.result()
                    notify(done, len(jobs))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # or all that is left would be replayed first
                raise
    return [_join([by_number[number] for number in sorted(by_number)]) for by_number in parts]


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C wait while processes are started: they inherit that, and would say at length where it met them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_ctrl_c() -> None:
    """Make a process end at Ctrl-C without a word, also at one that came while it started."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _cut(lineup: Lineup) -> list[Lineup]:
    problems = list(lineup.traces.problems)
    size = min(-(-len(problems) // _PARTS), _LARGEST)
    return [lineup.take(problems[start : start + size]) for start in range(0, len(problems), size)]


def _work(job: Lineup, settings: ReplaySettings) -> list[Outcomes]:
    engine = ReplayEngine(job.traces, speed=settings.speed)
    pool = [ReplayEngine(traces, speed=settings.speed) for traces in job.pool]
    names = list(job.traces.problems)
    parts = []
    for start in range(0, len(names), _TOGETHER):
        some = names[start : start + _TOGETHER]
        outcomes = rerun(engine, job.runs, some, settings.seeds, settings.ahead, pool)
        if job.greedy:
            # While the problems are built; under one seed, since there is one sample.
            outcomes += rerun(engine, [Spec.parse(GREEDY)], some, 1, 1)
        parts.append(outcomes if settings.by_problem else [outcome.summed() for outcome in outcomes])
    return _join(parts)


def _join(parts: list[list[Outcomes]]) -> list[Outcomes]:
    return [
        replace(
            same[0],
            values=np.concatenate([part.values for part in same], axis=1),
            notes=sum((part.notes for part in same), Counter[str]()),
            judged=any(part.judged for part in same),
            sums=None if same[0].sums is None else np.sum([part.sums for part in same], axis=0),
        )
        for same in zip(*parts, strict=True)
    ]
