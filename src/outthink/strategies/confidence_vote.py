"""Confidence-weighted self-consistency (Taubenfeld et al., arXiv 2502.06233)."""

from __future__ import annotations

from math import exp, sqrt

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import scored
from outthink.strategies.votes import Ties


@strategy("confidence-vote", source="Taubenfeld et al. 2502.06233", needs="top-k log-probabilities")
async def confidence_vote(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    score: str = "confidence",
    temperature: float = 1.0,
    window: int | None = None,
    ties: Ties = "confidence",
) -> Verdict:
    """Vote of n samples weighted exp(z / temperature), z the score standardised over the samples."""
    readable, votes = await scored(session, request, n, score, window, ties)
    values = [value for value, _ in readable]
    mean = sum(values) / len(values) if values else 0.0
    spread = sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else 0.0
    for value, sample in readable:
        votes.add(sample, exp((value - mean) / spread / temperature) if spread > 0 else 1.0)
    return votes.winner()
