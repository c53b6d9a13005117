"""Best-of-N by the model's own confidence: no vote, no verifier."""

from __future__ import annotations

from outthink.core.request import Request
from outthink.core.result import Verdict
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.scores import alternatives, scorer


@strategy("best-of-n", source="Kang et al. 2502.18581", needs="log-probabilities")
async def best_of_n(
    session: Session, request: Request, *, n: int = 16, score: str = "logprob", window: int | None = None
) -> Verdict:
    """The readable sample with the highest confidence score of n."""
    value = scorer(session, score, window or session.confidence_window)
    best, unread = None, None
    stream = session.sample(request, n=n, ahead=n, top_logprobs=alternatives(score))
    async for sample in stream:
        if sample.answer is None:
            unread = unread or sample
        elif best is None or value(sample) > value(best):
            best = sample
    chosen = best or unread
    return Verdict(chosen.answer, chosen.text) if chosen else Verdict(None, "")
