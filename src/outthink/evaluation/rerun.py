"""Runs strategies over recorded samples, problem by problem and seed by seed.

Knows: how one replayed request is graded and what it consumed. Does not know intervals, reports
or files; the loop is plain Python over the same strategies that run live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.core.receipt import Verdict
from outthink.core.request import Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.traces import ReplayEngine, Scoring
from outthink.session.member import Member
from outthink.session.session import Session
from outthink.session.virtual import VirtualRunner, drive
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
