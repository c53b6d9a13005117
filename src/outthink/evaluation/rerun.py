"""Runs strategies over recorded samples, problem by problem and seed by seed.

Knows: how one replayed request is graded and what it consumed. Does not know intervals, reports
or files; the loop is plain Python over the same strategies that run live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outthink.core.message import Message
from outthink.core.request import Request
from outthink.core.sampling import Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.replay import ReplayEngine
from outthink.engines.traces import Scoring
from outthink.session.session import Session
from outthink.session.virtual import VirtualRunner, drive
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier
from outthink.verifiers.recorded import RecordedVerifier

MEASURES = ("accuracy", "tokens", "prompt_tokens", "cancelled_tokens", "flops", "seconds", "samples", "verifier_tokens")
_UNKNOWN = float("nan")
WINDOW = 128
"""DeepConf's window on recorded files (docs/contracts.md): its 2,048 tokens exceed every sample."""


@dataclass(slots=True)
class Outcomes:
    """Means over seeds of one spec on one file: `values[measure, problem]`, NaN where unknown.

    `judged` says whether it has asked the verifier.
    """

    spec: Spec
    values: NDArray[np.float64]
    notes: set[str] = field(default_factory=set)
    judged: bool = False


def rerun(
    engine: ReplayEngine, specs: Sequence[Spec], problems: Sequence[str], seeds: int, ahead: int
) -> list[Outcomes]:
    """Replay every spec on every problem under every seed."""
    results = [Outcomes(spec, np.zeros((len(MEASURES), len(problems)))) for spec in specs]
    tariff = Tariff.of(engine.model)
    verifier = recorded(engine.traces.scoring)
    sampling = Sampling(max_tokens=1 << 20)
    for column, problem in enumerate(problems):
        right = engine.traces.problems[problem].right
        request = Request(messages=(Message("user", problem),), problem=problem, sampling=sampling)
        for seed in range(seeds):
            engine.reseed(seed)
            for result in results:
                result.values[:, column] += _once(engine, tariff, verifier, result, request, right, seed, ahead)
    for result in results:
        result.values /= seeds
    return results


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
    engine: ReplayEngine,
    tariff: Tariff,
    verifier: Verifier | None,
    result: Outcomes,
    request: Request,
    right: set[str],
    seed: int,
    ahead: int,
) -> tuple[float, ...]:
    runner = VirtualRunner(engine)
    session = Session(runner, tariff, ahead=ahead, seed=seed, confidence_window=WINDOW, verifier=verifier)
    verdict = drive(result.spec(session, request), session, runner)
    generated = cancelled = samples = 0
    prompt = judged = judging = 0.0
    for entry in session.ledger.entries:
        if entry.role == "verifier":  # another model, at its own price
            result.judged = True
            judged += _UNKNOWN if entry.tokens is None else entry.tokens
            judging += _UNKNOWN if entry.flops is None else entry.flops
            continue
        samples += 1
        generated += entry.completion_tokens or 0
        cancelled += entry.cancelled_tokens or 0
        prompt += _UNKNOWN if entry.prompt_tokens is None else entry.prompt_tokens
    if session.ledger.notes:
        result.notes.update(session.ledger.notes)
    total = generated + cancelled
    weights = tariff.parameters
    return (
        float(verdict.answer in right),
        total,
        prompt,
        cancelled,
        _UNKNOWN if weights is None else 2.0 * weights * (prompt + total) + judging,
        runner.now(),
        samples,
        judged,
    )
