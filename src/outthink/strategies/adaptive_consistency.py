"""Adaptive-Consistency (Aggarwal et al., arXiv 2305.11860): stop when the majority is sure."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes


@strategy("adaptive-consistency", source="Aggarwal et al. 2305.11860", stops_early=True)
async def adaptive_consistency(
    session: Session, request: Request, *, n: int = 16, confidence: float = 0.95, ties: Ties = "confidence"
) -> Verdict:
    """Majority vote that stops once the leader beats the second with probability `confidence`."""
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n):
        votes.add(sample)
        if votes.leader_probability() >= confidence:
            return votes.winner("consensus")
    return votes.winner()
