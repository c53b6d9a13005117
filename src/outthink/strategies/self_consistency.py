"""Self-consistency (Wang et al., arXiv 2203.11171): sample n, the most frequent answer wins."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes


@strategy("self-consistency", source="Wang et al. 2203.11171")
async def self_consistency(session: Session, request: Request, *, n: int = 16, ties: Ties = "confidence") -> Verdict:
    """Majority vote over n samples, all in flight at once."""
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n, ahead=n):
        votes.add(sample)
    return votes.winner()
