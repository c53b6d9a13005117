"""Beam search whose steps are judged by where they lead (Snell et al., arXiv 2408.03314)."""

from __future__ import annotations

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.beam import NEEDS, best
from outthink.strategies.registry import strategy
from outthink.strategies.search import Search, climb


@strategy("lookahead", source="Snell et al. 2408.03314", needs=NEEDS, verifier=True, extends=True, zero=("k",))
async def lookahead(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    m: int = 4,
    k: int = 1,
    depth: int = 40,
    step_tokens: int = 2048,
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """Beam search that writes k more steps at temperature 0 before it scores a path; k=0 is beam."""
    search = Search.open(
        session,
        request,
        "lookahead",
        separator=separator,
        step_tokens=step_tokens,
        aggregation=aggregation,
        guarded=m > 1,
    )
    return await climb(search, best(m), n, depth, rollout=k)
