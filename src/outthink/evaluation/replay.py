"""Runs strategies over recorded samples, problem by problem and seed by seed.

Knows: how one replayed request is graded and what it consumed. Does not know intervals, reports
or files; the loop is plain Python over the same strategies that run live.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.controller.cascade import StageRule
from outthink.controller.verifier import open_verifier
from outthink.core.paths import cache_dir
from outthink.core.receipt import Verdict
from outthink.core.request import AnswerKind, Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Engine
from outthink.engines.simulated import Speed
from outthink.engines.traces import ReplayEngine, Scoring, Traces, load
from outthink.evaluation.calibration.dealt import Array
from outthink.evaluation.dataset import Problems, problem_file
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import VerifyReport, close, fingerprint, remove_journal, verify
from outthink.session.runner import Member
from outthink.session.session import Session
from outthink.session.virtual import VirtualRunner, drive
from outthink.strategies.voting import allocate
from outthink.verifiers.checks import RecordedVerifier
from outthink.verifiers.protocol import Verifier

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


@dataclass(slots=True)
class Outcomes:
    """Means over seeds of one contender on one file: `values[measure, problem]`, NaN where unknown.

    `notes` counts the runs that said something, `judged` says whether it has asked the verifier.
    """

    spec: Contender
    values: NDArray[np.float64]
    notes: Counter[str] = field(default_factory=Counter)
    judged: bool = False


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
    stage = _Stage(engine, Tariff.of(engine.model), recorded(engine.traces.scoring), ahead, pool)
    sampling = Sampling(max_tokens=1 << 20)
    for column, problem in enumerate(problems):
        right = set().union(*(one.traces.problems[problem].right for one in (engine, *pool)))
        request = Request(messages=(Message("user", problem),), problem=problem, sampling=sampling)
        for seed in range(seeds):
            for one in (engine, *pool):
                one.reseed(seed)
            for result in results:
                result.values[:, column] += _once(stage, result, request, right, seed)
    for result in results:
        result.values /= seeds
    return results


@dataclass(frozen=True, slots=True)
class _Stage:
    """What all replayed requests of a file share."""

    engine: ReplayEngine
    tariff: Tariff
    verifier: Verifier | None
    ahead: int
    pool: Sequence[ReplayEngine]

    def session(self, runner: VirtualRunner, seed: int) -> Session:
        """A fresh session of one request."""
        pool = [Member(VirtualRunner(one, beside=runner), Tariff.of(one.model)) for one in self.pool]
        return Session(
            runner,
            self.tariff,
            ahead=self.ahead,
            seed=seed,
            confidence_window=WINDOW,
            verifier=self.verifier,
            pool=pool,
        )


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


def _once(stage: _Stage, result: Outcomes, request: Request, right: set[str], seed: int) -> tuple[float, ...]:
    runner = VirtualRunner(stage.engine)
    session = stage.session(runner, seed)
    verdict = drive(result.spec(session, request), session, runner)
    generated = cancelled = samples = 0
    prompt = judged = others = elsewhere = 0.0
    own = stage.tariff.model
    for entry in session.ledger.entries:
        if entry.role == "verifier":  # another model, at its own price
            result.judged = True
            judged += _UNKNOWN if entry.tokens is None else entry.tokens
            others += _UNKNOWN if entry.flops is None else entry.flops
            continue
        samples += 1
        made, lost = entry.completion_tokens or 0, entry.cancelled_tokens or 0
        read = _UNKNOWN if entry.prompt_tokens is None else entry.prompt_tokens
        generated += made
        cancelled += lost
        prompt += read
        if entry.model != own:
            others += _UNKNOWN if entry.flops is None else entry.flops
            elsewhere += read + made + lost
    if session.ledger.notes:
        result.notes.update(session.ledger.notes)
    total = generated + cancelled
    weights = stage.tariff.parameters
    return (
        float(verdict.answer in right),
        total,
        prompt,
        cancelled,
        _UNKNOWN if weights is None else 2.0 * weights * (prompt + total - elsewhere) + others,
        runner.now(),
        samples,
        judged,
    )


# Scores samples before they are replayed, once for each file and verifier.
#
# Knows: where scored files are kept and what makes one usable again. Does not know replay or strategies.

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prescoring:
    """How samples without scores get them.

    Args:
        verifier: NAME, PATH or URL.
        problems: file of the problems, None for the one beside the traces.
        answer: kind of answer, None to tell from the gold answers.
        engine: where a judge gets its tokens from.
        progress: called with (samples scored, samples in all).
        say: receives one line about samples without a score.
    """

    verifier: str
    problems: Path | None = None
    answer: AnswerKind | None = None
    engine: Engine | None = None
    progress: Progress = lambda done, total: None
    say: Callable[[str], None] = lambda line: None


def prescored(traces: Traces, scoring: Prescoring) -> Traces:
    """The same samples with the scores of this verifier: recorded, kept from an earlier run, or new.

    Raises BadInput and EngineError like `verify`; what is scored before a failure is kept.
    """
    problems = Problems.read(scoring.problems or problem_file(traces, "--verifier"))
    kind = scoring.answer or problems.kind
    verifier = open_verifier(
        scoring.verifier, answer=kind, keys=problems.keys, code=problems.code, engine=scoring.engine
    )
    if traces.verifier == verifier.id:
        return traces
    samples = SampleFile(traces.path, rescore=True)
    run = fingerprint(samples, problems, verifier, kind)
    out = cache_dir() / "scored" / run[:32] / traces.path.name
    if out.exists():
        remove_journal(out)  # of a run that was killed after it had written the file
    else:
        report = asyncio.run(_closing(verifier, samples, problems, out, kind, scoring.progress))
        for reason, count in report.unscored.items():
            scoring.say(f"{traces.path.name}: {count} samples have no score: {reason}")
    kept_text = any(sample.text for problem in traces.problems.values() for sample in problem.sampled[:1])
    return replace(load(out, text=kept_text), path=traces.path)


async def _closing(
    verifier: Verifier, samples: SampleFile, problems: Problems, out: Path, kind: AnswerKind, progress: Progress
) -> VerifyReport:
    try:
        return await verify(samples, problems, verifier, out, kind=kind, progress=progress)
    finally:
        await close(verifier)


# Replays rules that draw from several models, on recorded samples of all of them.
#
# Knows: one request on several replayed engines behind one session, and what each model spent. Does not
# know how rules are fitted.

POOLED = ("accuracy", "flops", "seconds", "tokens", "samples", "first_samples")
"""What is measured: `tokens` are generated ones over all models, `first_samples` those of the first model."""
_MOST = 1 << 20


def replay_pool(
    traces: Sequence[Traces],
    rule_of: Callable[[str], StageRule],
    problems: Sequence[str],
    *,
    orders: int,
    ahead: int = 1,
    speed: Speed | None = None,
) -> Array:
    """values[measure, problem], means over orders, everything charged.

    Args:
        traces: the session's own model first.
        rule_of: the rule of each problem, so that each can have that of its own fold.
    """
    engines = [ReplayEngine(one, speed=speed) for one in traces]
    tariffs = [Tariff.of(engine.model) for engine in engines]
    values = np.zeros((len(POOLED), len(problems)))
    sampling = Sampling(max_tokens=_MOST)
    for column, problem in enumerate(problems):
        rule = rule_of(problem)
        right = set().union(*(one.problems[problem].right for one in traces))
        request = Request(messages=(Message("user", problem),), problem=problem, sampling=sampling)
        for seed in range(orders):
            for engine in engines:
                engine.reseed(seed)
            values[:, column] += _replay_once(engines, tariffs, rule, request, right, seed, ahead)
    return values / orders


def _replay_once(
    engines: Sequence[ReplayEngine],
    tariffs: Sequence[Tariff],
    rule: StageRule,
    request: Request,
    right: set[str],
    seed: int,
    ahead: int,
) -> tuple[float, ...]:
    first = VirtualRunner(engines[0])
    others = [
        Member(VirtualRunner(engine, beside=first), tariff)
        for engine, tariff in zip(engines[1:], tariffs[1:], strict=True)
    ]
    session = Session(first, tariffs[0], ahead=ahead, seed=seed, pool=others)
    verdict = drive(allocate(session, request, rule=rule.start(_MOST, None)), session, first)
    entries = session.ledger.entries
    generated = sum((one.completion_tokens or 0) + (one.cancelled_tokens or 0) for one in entries)
    flops = sum(float("nan") if one.flops is None else one.flops for one in entries)
    mine = sum(one.model == tariffs[0].model for one in entries)
    return float(verdict.answer in right), flops, first.now(), generated, len(entries), mine
