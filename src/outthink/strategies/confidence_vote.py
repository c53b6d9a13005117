"""Confidence-weighted self-consistency (Taubenfeld et al., arXiv 2502.06233)."""

from __future__ import annotations

from math import exp, sqrt

from outthink.core.request import Request
from outthink.core.result import Verdict
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import alternatives, scorer
from outthink.strategies.votes import Ties, Votes


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
    value = scorer(session, score, window or session.confidence_window)
    votes = Votes(ties, session.random)
    readable = []
    async for sample in session.sample(request, n=n, ahead=n, top_logprobs=alternatives(score)):
        if sample.answer is None:
            votes.add(sample)
        else:
            readable.append(sample)
    values = [value(sample) for sample in readable]
    mean = sum(values) / len(values) if values else 0.0
    spread = sqrt(sum((v - mean) ** 2 for v in values) / len(values)) if values else 0.0
    for sample, v in zip(readable, values, strict=True):
        votes.add(sample, exp((v - mean) / spread / temperature) if spread > 0 else 1.0)
    return votes.winner()
