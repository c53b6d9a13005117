"""Early-stopping self-consistency (Li et al., arXiv 2401.10480): stop when a whole window agrees."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.votes import Ties, Votes


@strategy("esc", source="Li et al. 2401.10480", stops_early=True)
async def esc(
    session: Session, request: Request, *, n: int = 16, window: int = 5, ties: Ties = "confidence"
) -> Verdict:
    """Majority vote that stops once all `window` answers of the newest window agree."""
    votes = Votes(ties, session.random)
    answers: list[str | None] = []
    async for sample in session.sample(request, n=n):
        votes.add(sample)
        answers.append(sample.answer)
        newest = answers[-window:]
        if len(answers) % window == 0 and newest[0] is not None and len(set(newest)) == 1:
            return votes.winner("consensus")
    return votes.winner()
