"""Best-of-N weighted, also PRM-Vote: every sample votes with the verifier's score."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes
from outthink.strategies.weights import aggregation_of, judged, verifier_of, weights


@strategy("weighted-vote", source="Snell et al. 2408.03314", needs="any engine, and a verifier", verifier=True)
async def weighted_vote(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    aggregation: str = "auto",
    top: float = 1.0,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted by the verifier's scores, or plain vote of the best `top` of them."""
    verifier = verifier_of(session, "weighted-vote")
    how = aggregation_of(verifier, aggregation)
    if not 0 < top <= 1:
        raise BadInput("weighted-vote:top", top, "is no fraction", "give more than 0 and at most 1")
    samples = [sample async for sample in session.sample(request, n=n, ahead=n)]
    readable = [sample for sample in samples if sample.answer is not None]
    scores = await judged(session, request, readable, how) if readable else []
    votes = Votes(ties, session.random)
    for sample in samples:
        if sample.answer is None:
            votes.add(sample)
    if top < 1:
        readable, scores = _best(readable, scores, top), []
    for sample, weight in zip(readable, weights(session, scores or [1.0] * len(readable)), strict=True):
        votes.add(sample, weight)
    return votes.winner()


def _best(samples: Sequence[Sample], scores: Sequence[float | None], top: float) -> list[Sample]:
    """The best share of the samples, and those as good as the last of them, so that order does not matter."""
    known = sorted((score for score in scores if score is not None), reverse=True)
    if not known:
        return list(samples)
    bar = known[min(len(known), ceil(len(samples) * top)) - 1]
    return [sample for sample, score in zip(samples, scores, strict=True) if score is not None and score >= bar]
