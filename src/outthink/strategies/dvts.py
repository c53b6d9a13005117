"""Diverse verifier tree search (Beeching et al., search-and-learn): greedy subtrees that share nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.beam import NEEDS
from outthink.strategies.path import ROOT, Path
from outthink.strategies.registry import strategy
from outthink.strategies.search import SILENT, Search

Leaves = tuple[list[Path], list[Path]]
"""Finished paths, and the one where an unfinished subtree stands."""


@strategy("dvts", source="Beeching et al., search-and-learn", needs=NEEDS, verifier=True, extends=True)
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
    """n/m subtrees side by side, each following the best of m children; the last children vote by score."""
    search = Search.open(
        session, request, "dvts", separator=separator, step_tokens=step_tokens, aggregation=aggregation, guarded=m > 1
    )
    sizes = [min(m, n - start) for start in range(0, n, m)]

    def grow(size: int) -> Callable[[Session], Coroutine[Any, Any, Leaves]]:
        return lambda branch: _subtree(search.on(branch), size, depth)

    subtrees = await session.together(*(grow(size) for size in sizes))
    done = [path for finished, _ in subtrees for path in finished]
    return await search.verdict(done, [path for _, left in subtrees for path in left])


async def _subtree(search: Search, size: int, depth: int) -> Leaves:
    """Down along the best child until that is finished; then its finished siblings are output too."""
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
