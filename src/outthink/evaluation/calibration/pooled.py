"""Replays rules that draw from several models, on recorded samples of all of them.

Knows: one request on several replayed engines behind one session, and what each model spent. Does not
know how rules are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from outthink.controller.cascade import StageRule
from outthink.core.request import Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.simulated import Speed
from outthink.engines.traces import ReplayEngine, Traces
from outthink.evaluation.calibration.dealt import Array
from outthink.session.member import Member
from outthink.session.session import Session
from outthink.session.virtual import VirtualRunner, drive
from outthink.strategies.voting import allocate

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
            values[:, column] += _once(engines, tariffs, rule, request, right, seed, ahead)
    return values / orders


def _once(
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
