"""One sample, taken as it is."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy


@strategy("single", source="baseline")
async def single(session: Session, request: Request) -> Verdict:
    """One sample at the request's temperature."""
    async for sample in session.sample(request, n=1):
        return Verdict(sample.answer, sample.text)
    return Verdict(None, "")


@strategy("greedy", source="baseline")
async def greedy(session: Session, request: Request) -> Verdict:
    """One sample at temperature 0."""
    return await single(session, request.greedy)
