"""Judging completions within the budget.

Knows: that a verifier's tokens are reserved, settled and entered like any others. Does not know
how it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from outthink.core.entry import Entry
from outthink.core.request import Request
from outthink.economics.tariff import Tariff
from outthink.verifiers.protocol import Score, Verifier

if TYPE_CHECKING:
    from outthink.session.session import Session


async def judge(session: Session, request: Request, texts: Sequence[str], verifier: Verifier) -> list[float | None]:
    """Scores in order; None for all where the budget admits no judging or ends meanwhile."""
    unscored: list[float | None] = [None] * len(texts)
    if not texts or session.stopped is not None:
        return unscored
    bound = sum(verifier.bound(request, text) for text in texts)
    desk, tariff = session.desk, Tariff.of(verifier.model)
    tariff = replace(tariff, parameters=verifier.parameters)
    while bound and not desk.unlimited and desk.admit(1, bound, 0, 0, tariff)[0] == 0:
        session.out_of_budget()
        if session.stopped is not None:
            return unscored
        await session.pause()
    reservation = desk.reserve(bound, 0, tariff)
    began = session.runner.now()
    work = session.runner.perform(verifier.score(request, texts))
    try:
        while not work.finished and session.stopped is None:
            await session.pause()
    finally:  # also where the strategy is closed meanwhile
        work.cancel()
        scores = work.result or []
        entry = _entry(tariff, scores, session.runner.now() - began, bound, whole=len(scores) == len(texts))
        if work.error is not None:
            entry.status, entry.error = "failed", str(work.error)
        session.ledger.entries.append(entry)
        desk.settle(reservation, entry)
    if work.error is not None:
        raise work.error
    return [score.value for score in scores] if scores else unscored


def _entry(tariff: Tariff, scores: Sequence[Score], seconds: float, bound: int, *, whole: bool) -> Entry:
    """One entry for all completions judged together."""
    entry = Entry("verifier", tariff.model, "finished" if whole else "cancelled", seconds=seconds)
    prompts = [score.prompt_tokens for score in scores]
    generated = [score.completion_tokens for score in scores]
    if whole and None not in prompts and None not in generated:
        entry.prompt_tokens = sum(count or 0 for count in prompts)
        entry.completion_tokens = sum(count or 0 for count in generated)
        entry.cached_tokens = sum(score.cached_tokens or 0 for score in scores)
        if entry.tokens:
            amounts = tariff.charge(entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens)
            entry.flops, entry.usd, entry.joules = amounts
        else:  # no model has run
            entry.flops = entry.usd = entry.joules = 0.0
    elif bound:
        entry.prompt_tokens = entry.completion_tokens = None
        entry.estimated = True
        entry.reserved_tokens = bound
        entry.reserved_usd, entry.reserved_joules = tariff.usd_bound(bound, 0), tariff.joules_bound(bound, 0)
    else:
        entry.flops = entry.usd = entry.joules = 0.0
    return entry
