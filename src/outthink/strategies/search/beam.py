"""Searches that grow level by level: beams, beams that look ahead, subtrees side by side, and REBASE.

Knows: how many children each unfinished path gets, from the verifier's values alone. Does not know how paths are
continued and judged, or how the finished ones vote. Sources: Snell et al. (arXiv 2408.03314), Beeching et al.
(search-and-learn), Wu et al. (arXiv 2408.00724).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil, exp, fsum

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.registry import strategy
from outthink.strategies.search.search import ROOT, SILENT, LevelPlan, Path, Search, climb, distinct

guided = partial(
    strategy,
    needs="continuation of a prefix, and a verifier",
    votes="scores",
    judges="always",
    extends=True,
    shares_call=True,
)
"""Registers a search over steps: what all of them share."""


@guided("beam", source="Snell et al. 2408.03314")
async def beam(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    m: int = 4,  # as Snell et al.; depth and step_tokens as in search-and-learn
    depth: int = 40,
    step_tokens: int = 2048,
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """Keep the best n/m of n paths after every step and expand each m times; finished ones vote by score.

    Args:
        m: children of a path that goes on
    """
    search = Search.open(session, request, "beam", separator, step_tokens, aggregation, guarded=m > 1)
    return await climb(search, best(m), n, depth)


def best(m: int) -> LevelPlan:
    """The best ceil(active / m) paths, m children each, `active` children in all.

    Unfinished paths of one text count once where something has to go (as in search-and-learn).
    """

    def plan(live: list[Path], active: int) -> list[tuple[Path, int]]:
        keep = ceil(active / m)
        kept = sorted(live, key=lambda path: path.rank, reverse=True)
        if len(kept) > keep:
            kept = distinct(kept)[:keep]
        # By identity: two children of one text are equal, and both have a share where nothing has to go.
        shares = {id(path): min(m, active - m * place) for place, path in enumerate(kept) if active > m * place}
        return [(path, shares[id(path)]) for path in live if id(path) in shares]  # in launch order

    return plan


# Beam search whose steps are judged by where they lead (Snell et al., arXiv 2408.03314).


@guided("lookahead", source="Snell et al. 2408.03314", zero=("k",))
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
    """Beam search that writes k more steps at temperature 0 before it scores a path; k=0 is beam.

    Args:
        m: children of a path that goes on
        k: steps ahead, at temperature 0; 0 is beam
    """
    search = Search.open(session, request, "lookahead", separator, step_tokens, aggregation, guarded=m > 1)
    return await climb(search, best(m), n, depth, rollout=k)


# Diverse verifier tree search (Beeching et al., search-and-learn): greedy subtrees that share nothing.

Leaves = tuple[list[Path], list[Path]]
"""Finished paths, and the one where an unfinished subtree stands."""


@guided("dvts", source="Beeching et al., search-and-learn")
async def dvts(
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
    """n/m subtrees side by side, each following the best of m children; the last children vote by score.

    Args:
        m: children of a step, of which the best is followed
    """
    search = Search.open(session, request, "dvts", separator, step_tokens, aggregation, guarded=m > 1)
    sizes = [min(m, n - start) for start in range(0, n, m)]
    subtrees = await session.together(*(partial(_subtree, search=search, size=size, depth=depth) for size in sizes))
    done = [path for finished, _ in subtrees for path in finished]
    return await search.verdict(done, [path for _, left in subtrees for path in left])


async def _subtree(branch: Session, search: Search, size: int, depth: int) -> Leaves:
    """Down along the best child until that is finished; then its finished siblings are output too."""
    search = search.on(branch)
    path, spare = ROOT, list[Path]()
    for _ in range(depth):
        (children,), fallback = await search.families([(path, size)])
        if fallback is not None:
            return spare, [] if spare else [fallback]
        finished = [child for child in children if child.finished]
        spare += finished  # counts only if the subtree never gets to its end
        if not children:
            break
        best = max(children, key=lambda child: child.rank)
        if best.finished:
            return finished, []
        path = best
        if search.ended:
            break
        if all(child.value is None for child in children):
            search.session.note(SILENT)
            return finished, [child for child in children if not child.finished]
    return spare, [] if path is ROOT or (search.ended and spare) else [path]


# REBASE (Wu et al., arXiv 2408.00724): children in proportion to the reward, no path cut by rank.


@guided("rebase", source="Wu et al. 2408.00724")
async def rebase(
    session: Session,
    request: Request,
    *,
    n: int = 16,
    temperature: float = 0.2,  # with depth and step_tokens, as in the authors' code
    depth: int = 50,
    step_tokens: int = 256,
    separator: str = "auto",
    aggregation: str = "auto",
) -> Verdict:
    """Share n - finished children among all paths by softmax(score / temperature); finished ones vote by score.

    Args:
        temperature: how much the score decides; the larger, the more even the shares
    """
    search = Search.open(session, request, "rebase", separator, step_tokens, aggregation, guarded=n > 1)

    def plan(live: list[Path], active: int) -> list[tuple[Path, int]]:
        known = [path.value for path in live if path.value is not None]
        mean = fsum(known) / len(known) if known else 0.0
        # Without a score a path counts as the others do on average, as in every vote.
        rewards = [mean if path.value is None else path.value for path in live]
        return list(zip(live, widths(rewards, active, temperature), strict=True))

    return await climb(search, plan, n, depth)


def widths(rewards: Sequence[float], budget: int, temperature: float) -> list[int]:
    """How many children each path gets; their sum is the budget.

    In descending reward, W_j = ceil(B_left * w_j / w_left) with w = softmax(rewards / temperature).
    """
    most = max(rewards)
    shares = [exp((reward - most) / temperature) for reward in rewards]  # less the largest, which could overflow
    given = [0] * len(rewards)
    order = sorted(range(len(rewards)), key=lambda place: rewards[place], reverse=True)
    for at, place in enumerate(order):
        rest = fsum(shares[other] for other in order[at:])
        # rounding must not add a child; what is left is shared by the last one alone
        share = budget * shares[place] / rest if rest > 0 else budget / (len(order) - at)
        given[place] = min(budget, ceil(share - 1e-9))
        budget -= given[place]
    return given
