"""short-m@k (Hassid et al., arXiv 2505.17813): of k running samples the m shortest vote."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes


@strategy("short-m-of-k", source="Hassid et al. 2505.17813", stops_early=True)
async def short_m_of_k(
    session: Session, request: Request, *, n: int = 8, m: int = 3, ties: Ties = "confidence"
) -> Verdict:
    """Launch n, let the first m readable finishers vote, cancel the rest."""
    votes = Votes(ties, session.random)
    async for sample in session.sample(request, n=n, ahead=n, order="finished"):
        votes.add(sample)
        if len(votes.samples) >= m:
            return votes.winner("first-m" if n > m else "finished")
    return votes.winner()
