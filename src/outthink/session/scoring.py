"""Judging candidates within the budget.

Knows: that a verifier's tokens are reserved, settled and entered like any others, and what is no
score. Does not know how a verifier judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput, EngineError, OutthinkError
from outthink.core.receipt import Entry
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample, split_steps
from outthink.economics.tariff import Tariff
from outthink.verifiers.protocol import Score, Verifier

if TYPE_CHECKING:
    from outthink.session.session import Session


async def judge(
    session: Session, request: Request, given: Sequence[Candidate | Sample | str], verifier: Verifier
) -> list[Score | None]:
    """Scores in order, None for what has none (see `Session.score`)."""
    unscored: list[Score | None] = [None] * len(given)
    candidates = [_candidate(one, verifier) for one in given]
    places = [place for place, candidate in enumerate(candidates) if candidate.steps]
    if len(places) < len(candidates):
        session.note(f"{verifier.id}: an empty text has no score")
    if not places or session.stopped is not None:
        return unscored
    for place, score in zip(
        places, await _judge(session, request, [candidates[place] for place in places], verifier), strict=True
    ):
        unscored[place] = score
    return unscored


def _candidate(given: Candidate | Sample | str, verifier: Verifier) -> Candidate:
    """Cut into steps as the verifier wants them; the empty candidate for text without a step."""
    if isinstance(given, Candidate):
        return given
    text, sample = (given, None) if isinstance(given, str) else (given.text, given)
    if sample is not None and sample.scores:  # recorded: the text may not have been kept
        return Candidate((text,), sample)
    steps = split_steps(text, verifier.separator) if verifier.kind == "process" else (text,) if text.strip() else ()
    if not steps and verifier.kind == "confidence":
        steps = (text,)
    return Candidate(steps, sample)


async def _judge(
    session: Session, request: Request, candidates: list[Candidate], verifier: Verifier
) -> Sequence[Score | None]:
    unscored: list[Score | None] = [None] * len(candidates)
    judged, bound = _within_reach(session, request, candidates, verifier)
    if not judged:
        return unscored
    desk, tariff = session.desk, Tariff.of(verifier.model)
    tariff = replace(tariff, parameters=verifier.parameters)
    while bound and not desk.unlimited and desk.admit(1, bound, 0, 0, tariff)[0] == 0:
        session.out_of_budget()
        if session.stopped is not None:
            return unscored
        await session.pause()
    reservation = desk.reserve(bound, 0, tariff)
    began = session.runner.now()
    work = session.runner.perform(verifier.score(request, [candidates[place] for place in judged]))
    try:
        while not work.finished and session.stopped is None:
            await session.pause()
    finally:  # also where the strategy is closed meanwhile
        work.cancel()
        scores = work.result or []
        entry = _entry(tariff, scores, session.runner.now() - began, bound, whole=len(scores) == len(judged))
        if work.error is not None:
            entry.status, entry.error = "failed", str(work.error)
        session.ledger.entries.append(entry)
        desk.settle(reservation, entry)
    if work.error is not None:
        if isinstance(work.error, OutthinkError) and not isinstance(work.error, EngineError):
            raise work.error  # misused
        session.note(f"{verifier.id} failed, its scores are missing: {_said(work.error)}")
        return unscored
    if work.finished and len(scores) != len(judged):
        session.note(f"{verifier.id} gave {len(scores)} scores for {len(judged)} candidates; none is used")
    if len(scores) == len(judged):
        for place, score in zip(judged, scores, strict=True):
            unscored[place] = _usable(session, verifier, score)
    return unscored


def _within_reach(
    session: Session, request: Request, candidates: list[Candidate], verifier: Verifier
) -> tuple[list[int], int]:
    """Which candidates the verifier can take, and a bound on the tokens of all of them.

    One that is too long for it loses only its own score.
    """
    places, bound, refusal = [], 0, None
    for place, candidate in enumerate(candidates):
        try:
            bound += verifier.bound(request, candidate)
        except BadInput as error:
            refusal = error
        else:
            places.append(place)
    if refusal is not None and not places and all(entry.role != "verifier" for entry in session.ledger.entries):
        raise refusal  # the first it ever sees, and refuses: a wrong use rather than a path grown too long
    if refusal is not None:
        session.note(f"{verifier.id}: {len(candidates) - len(places)} candidates are unscored: {refusal}")
    return places, bound


def _usable(session: Session, verifier: Verifier, score: Score) -> Score | None:
    """The score, or None with a note where a step has none between 0 and 1 (NaN included)."""
    wrong = [step for step in score.steps if not (isinstance(step, Real) and 0 <= step <= 1)]
    if score.steps and not wrong:
        return score
    what = f"{wrong[0]!r}, which is not between 0 and 1" if wrong else "no step score"
    session.note(f"{verifier.id} gave {what}; that candidate counts as unscored")
    return None


def _said(error: BaseException) -> str:
    """One line; the kind of an error that is not ours says more than its text."""
    line = " ".join(str(error).split())[:200]
    return line if isinstance(error, OutthinkError) else f"{type(error).__name__}: {line}".rstrip(": ")


def _entry(tariff: Tariff, scores: Sequence[Score], seconds: float, bound: int, *, whole: bool) -> Entry:
    """One entry for all candidates judged together."""
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
    elif bound or whole:
        entry.prompt_tokens = entry.completion_tokens = None
        entry.estimated = True
        entry.reserved_tokens = bound or None
        if bound:
            entry.reserved_usd, entry.reserved_joules = tariff.usd_bound(bound, 0), tariff.joules_bound(bound, 0)
    else:
        entry.flops = entry.usd = entry.joules = 0.0
    return entry
