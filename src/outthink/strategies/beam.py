"""Beam search over steps, guided by a verifier (Snell et al., arXiv 2408.03314)."""

from __future__ import annotations

from math import ceil

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.path import Path
from outthink.strategies.registry import strategy
from outthink.strategies.search import Plan, Search, climb
from outthink.strategies.steps import distinct

NEEDS = "continuation of a prefix, and a verifier"


@strategy("beam", source="Snell et al. 2408.03314", needs=NEEDS, verifier=True, extends=True)
async def beam(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    m: int = 4,
    depth: int = 40,
    step_tokens: int = 2048,
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """Keep the best n/m of n paths after every step and expand each m times; finished ones vote by score."""
    search = Search.open(
        session,
        request,
        "beam",
        separator=separator,
        step_tokens=step_tokens,
        aggregation=aggregation,
        guarded=m > 1,
    )
    return await climb(search, best(m), n, depth)


def best(m: int) -> Plan:
    """The best ceil(active / m) paths, m children each, `active` children in all.

    Unfinished paths of one text count once where something has to go (as in search-and-learn).
    """

    def plan(live: list[Path], active: int) -> list[tuple[Path, int]]:
        keep = ceil(active / m)
        kept = sorted(live, key=lambda path: path.rank, reverse=True)
        if len(kept) > keep:
            kept = distinct(kept)[:keep]
        shares = {id(path): min(m, active - m * place) for place, path in enumerate(kept) if active > m * place}
        return [(path, shares[id(path)]) for path in live if id(path) in shares]  # in launch order

    return plan
