"""Replays rules that draw from several models, on recorded samples of all of them.

Knows: one request on several replayed engines behind one session, and what each model spent. Does not know how rules
are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from outthink.controller.cascade import StageRule
from outthink.core.request import Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.traces import ReplayEngine, Traces
from outthink.evaluation.replay import Array
from outthink.session.open import SessionOptions, Source, open_session
from outthink.strategies.voting import Rule, allocate

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
    n: int = _MOST,
) -> Array:
    """values[measure, problem], means over orders, everything charged.

    Args:
        traces: the session's own model first.
        rule_of: the rule of each problem, so that each can have that of its own fold.
        n: samples at most, where the rule does not say.
    """
    engines = [ReplayEngine(recorded) for recorded in traces]
    sources = [Source(engine, Tariff.of(engine.model)) for engine in engines]
    options = SessionOptions(ahead=ahead)
    values = np.zeros((len(POOLED), len(problems)))
    sampling = Sampling(max_tokens=_MOST)
    for column, problem in enumerate(problems):
        rule = rule_of(problem)
        right = set().union(*(recorded.problems[problem].right for recorded in traces))
        request = Request(messages=(Message("user", problem),), problem=problem, sampling=sampling)
        for seed in range(orders):
            for engine in engines:
                engine.reseed(seed)
            values[:, column] += _replay_once(sources, options, rule.start(n, None), request, right, seed)
    return values / orders


def _replay_once(
    sources: Sequence[Source],
    options: SessionOptions,
    rule: Rule,
    request: Request,
    right: set[str],
    seed: int,
) -> tuple[float, ...]:
    """One replayed request: a value for each of POOLED."""
    opened = open_session(sources, seed=seed, options=options)
    session = opened.session
    verdict = opened.run_now(allocate(session, request, rule=rule))
    entries = session.ledger.entries
    generated = sum((entry.completion_tokens or 0) + (entry.cancelled_tokens or 0) for entry in entries)
    flops = sum(float("nan") if entry.flops is None else entry.flops for entry in entries)
    first = sum(entry.model == session.tariff.model for entry in entries)
    return float(verdict.answer in right), flops, session.runner.now(), generated, len(entries), first
