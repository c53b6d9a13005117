"""Best-of-N: the candidate that the verifier, or the model's own confidence, puts first. No vote."""

from __future__ import annotations

from collections.abc import Sequence

from outthink.core.errors import need_known
from outthink.core.receipt import Verdict
from outthink.core.request import Budget, Request
from outthink.core.sample import MEASURES, Sample, alternatives
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Votes, aggregation_of, judged, ranked, scorer, values, verifier_of

PASS = 1.0
"""Score of an exact verifier for a right solution."""


@strategy(
    "best-of-n",
    source="Cobbe et al. 2110.14168, Kang et al. 2502.18581",
    needs="log-probabilities, or a verifier",
    judges="parameter",
    stops_early=True,
)
async def best_of_n(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    score: str = "auto",
    window: int | None = None,
    aggregation: str = "auto",
) -> Verdict:
    """The sample of n that the verifier scores highest, without one the surest; an exact verifier's first pass.

    Args:
        score: `verifier`, or a confidence score; auto is the verifier where there is one, else logprob
    """
    if score == "auto":
        score = "logprob" if session.verifier is None else "verifier"
    need_known("score", score, ("verifier", *MEASURES), f"use auto, verifier, {', '.join(MEASURES)}")
    if score != "verifier":
        return await _surest(session, request, n, score, window)
    verifier = verifier_of(session, "best-of-n:score=verifier")
    how = aggregation_of(verifier, aggregation)
    if verifier.kind == "exact":
        return await _first_pass(session, request, n, how)
    samples = [sample async for sample in session.sample(request, n=n, ahead=n)]
    # Unreadable candidates are not paid for at the verifier, unless there is nothing else.
    readable = [sample for sample in samples if sample.answer is not None] or samples
    scores = await judged(session, request, readable, how) if readable else []
    return _highest(session, request, readable, scores)


async def _surest(session: Session, request: Request, n: int, score: str, window: int | None) -> Verdict:
    value = scorer(session, score, window or session.confidence_window)
    best, unread = None, None
    async for sample in session.sample(request, n=n, ahead=n, top_logprobs=alternatives(score)):
        if sample.answer is None:
            unread = unread or sample
        elif best is None or value(sample) > value(best):
            best = sample
    chosen = best or unread
    return Verdict(chosen.answer, chosen.text) if chosen else Verdict(None, "")


async def _first_pass(session: Session, request: Request, n: int, how: str) -> Verdict:
    """Check samples in launch order as they come; the first pass ends everything that still runs."""
    samples: list[Sample] = []
    scores: list[float | None] = []
    with session.within(Budget()) as drawing:  # its stream goes on while this session checks
        # A few in flight, not all n: what runs at the first pass is paid for.
        async for sample in drawing.sample(request, n=n):
            samples.append(sample)
            scores += values(await session.score(request, [sample]), how)
            # The check reads the text itself: a pass needs no readable answer.
            if scores[-1] is not None and scores[-1] >= PASS:
                return Verdict(sample.answer, sample.text)
    unchecked = [place for place, score in enumerate(scores) if score is None]  # better than a known failure
    places = unchecked or list(range(len(samples)))
    places = [place for place in places if samples[place].answer is not None] or places
    return _highest(session, request, [samples[place] for place in places], [scores[place] for place in places])


def _highest(session: Session, request: Request, samples: Sequence[Sample], scores: Sequence[float | None]) -> Verdict:
    """The highest score, ties to the surer, then to the shorter; the majority where nothing has a score."""
    scored = [(score, sample) for sample, score in zip(samples, scores, strict=True) if score is not None]
    if scored:
        _, chosen = max(scored, key=lambda pair: ranked(pair[0], pair[1].certainty, pair[1].tokens))
        return Verdict(chosen.answer, chosen.text)
    if not samples:
        return Verdict(None, "")
    if request.answer == "text":
        session.note("no candidate has a score; the first sample is taken")
        return Verdict(samples[0].answer, samples[0].text)
    session.note("no candidate has a score; the majority decides")
    votes = Votes("confidence", session.random)
    for sample in samples:
        votes.add(sample)
    return votes.winner()
