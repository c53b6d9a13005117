"""Borda voting on self-certainty (Kang et al., arXiv 2502.18581): rank by certainty, vote by rank."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import scored
from outthink.strategies.votes import Ties


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
    readable, votes = await scored(session, request, n, score, None, ties)
    readable.sort(key=lambda pair: pair[0], reverse=True)
    for rank, (_, sample) in enumerate(readable):
        votes.add(sample, (len(readable) - rank) ** power)
    return votes.winner()
