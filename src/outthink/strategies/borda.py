"""Borda voting on self-certainty (Kang et al., arXiv 2502.18581): rank by certainty, vote by rank."""

from __future__ import annotations

from outthink.core.request import Request
from outthink.core.result import Verdict
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import alternatives, scorer
from outthink.strategies.votes import Ties, Votes


@strategy("borda", source="Kang et al. 2502.18581", needs="top-k log-probabilities")
async def borda(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    power: float = 0.5,
    score: str = "self-certainty",
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted (N - rank + 1)^power, rank 1 the most certain of the N readable ones."""
    value = scorer(session, score, session.confidence_window)
    samples = [sample async for sample in session.sample(request, n=n, ahead=n, top_logprobs=alternatives(score))]
    votes = Votes(ties, session.random)
    readable = sorted((sample for sample in samples if sample.answer is not None), key=value, reverse=True)
    for rank, sample in enumerate(readable):
        votes.add(sample, (len(readable) - rank) ** power)
    if not readable and samples:
        votes.add(samples[0])
    return votes.winner()
