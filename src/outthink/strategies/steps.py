"""Continues many prefixes by one step each, side by side.

Knows: where a step ends, when a path is finished, and which steps are worth no more. Does not know
verifiers, or which path deserves a step.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session
from outthink.strategies.path import Path

SHORTEST = 5
"""Tokens below which a step is no progress (short loops win verifiers, Snell et al. 2408.03314)."""
_BLANKS = 3
"""Times that a blank continuation is continued before its path counts as finished."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the paths of one request grow.

    Args:
        separator: text that ends a step. The server takes it off; here it is put back.
        tokens: the most tokens of one step. The request's own limit holds for the whole path.
    """

    request: Request
    separator: str
    tokens: int

    async def advance(
        self, session: Session, plans: Sequence[tuple[Path, int]], *, whole: bool = False
    ) -> list[list[Path]]:
        """For every (path, count) that many continuations, all in flight at once.

        Args:
            whole: continue to the end instead of by one step.

        Families are in order; what the budget does not reach is missing from them.
        """
        if session.stopped is not None or not plans:
            return [[] for _ in plans]
        separator = None if whole else self.separator
        if len(plans) == 1:
            return [await self._children(session, *plans[0], separator)]
        return await session.together(*(self._branch(path, count, separator) for path, count in plans))

    def _branch(
        self, path: Path, count: int, separator: str | None
    ) -> Callable[[Session], Coroutine[Any, Any, list[Path]]]:
        return lambda session: self._children(session, path, count, separator)

    async def _children(
        self, session: Session, path: Path, count: int, separator: str | None, blanks: int = _BLANKS
    ) -> list[Path]:
        """`separator` None: not one step, but all the rest."""
        children: list[Path] = []
        blank: list[Path] = []
        for child in await self._calls(session, path, count, separator):
            (blank if child.opening and not child.finished else children).append(child)
        if not blanks:
            return children + [replace(child, finished=True) for child in blank]
        for opening in distinct(blank):  # a blank line opens the next step; it is none itself
            if session.stopped is None:
                again = sum(child.text == opening.text for child in blank)
                children += await self._children(session, opening, again, separator, blanks - 1)
        return children

    async def _calls(self, session: Session, path: Path, count: int, separator: str | None) -> list[Path]:
        sampling = self.request.sampling
        room = max(1, sampling.max_tokens - path.tokens)
        if separator is not None:
            stop = tuple(dict.fromkeys((separator, *sampling.stop)))
            sampling = replace(sampling, stop=stop, max_tokens=min(room, self.tokens))
        else:
            sampling = replace(sampling, max_tokens=room)
        request = replace(self.request, sampling=sampling)
        prefix = path.text or None  # the first step is an ordinary sample
        stream = session.sample(request, n=count, ahead=count, prefix=prefix)
        return [self._grown(path, sample, separator) async for sample in stream]

    def _grown(self, path: Path, sample: Sample, separator: str | None) -> Path:
        text, blank = sample.text, not sample.text.strip()
        limit = self.request.sampling.max_tokens
        if sample.finish_reason == "length":
            cut = path.grown(sample, text, finished=False)
            return replace(cut, finished=separator is None or blank or cut.tokens >= limit)
        if separator is None or (sample.stop is not None and sample.stop != separator):
            return path.grown(sample, text, finished=True)
        if sample.stop is None and (blank or sample.rule == "boxed" or sample.finish_reason != "stop"):
            return path.grown(sample, text, finished=True)  # not told; this is how an end looks
        grown = path.grown(sample, text + separator, finished=False)
        return replace(grown, finished=True, finish_reason="length") if grown.tokens >= limit else grown


def worthwhile(parent: Path, child: Path) -> bool:
    """Whether a step is more than a few tokens and no repetition. A finished path always is."""
    if child.finished:
        return True
    if child.counted and child.tokens - parent.tokens < SHORTEST:
        return False
    earlier = {step.strip() for step in parent.steps}
    return all(step.strip() not in earlier for step in child.steps[len(parent.steps) :])


def distinct(paths: Sequence[Path]) -> list[Path]:
    """One path of every text, the first."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(path.text, path)
    return list(first.values())
