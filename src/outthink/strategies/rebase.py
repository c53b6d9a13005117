"""REBASE (Wu et al., arXiv 2408.00724): children in proportion to the reward, no path cut by rank."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, fsum

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.beam import NEEDS
from outthink.strategies.path import Path
from outthink.strategies.registry import strategy
from outthink.strategies.search import Search, climb


@strategy("rebase", source="Wu et al. 2408.00724", needs=NEEDS, verifier=True, extends=True)
async def rebase(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    temperature: float = 0.2,
    depth: int = 50,
    step_tokens: int = 256,
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """Share n - finished children among all paths by softmax(score / temperature); finished ones vote by score."""
    search = Search.open(
        session, request, "rebase", separator=separator, step_tokens=step_tokens, aggregation=aggregation, guarded=n > 1
    )

    def plan(live: list[Path], active: int) -> list[tuple[Path, int]]:
        known = [path.value for path in live if path.value is not None]
        mean = fsum(known) / len(known) if known else 0.0
        rewards = [mean if path.value is None else path.value for path in live]
        return list(zip(live, widths(rewards, active, temperature), strict=True))

    return await climb(search, plan, n, depth)


def widths(rewards: Sequence[float], budget: int, temperature: float) -> list[int]:
    """How many children each path gets; their sum is the budget.

    In descending reward, W_j = ceil(B_left * w_j / w_left) with w = softmax(rewards / temperature).
    """
    most = max(rewards)
    shares = [exp((reward - most) / temperature) for reward in rewards]
    given = [0] * len(rewards)
    order = sorted(range(len(rewards)), key=lambda place: rewards[place], reverse=True)
    for at, place in enumerate(order):
        rest = fsum(shares[other] for other in order[at:])
        # rounding must not add a child; what is left is shared by the last one alone
        share = budget * shares[place] / rest if rest > 0 else budget / (len(order) - at)
        given[place] = min(budget, ceil(share - 1e-9))
        budget -= given[place]
    return given
