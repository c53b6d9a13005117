"""The seam between a session and whatever judges a completion.

Knows: a score and what it consumed. Does not know budgets, strategies or how a score is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from outthink.core.request import Request


@dataclass(frozen=True, slots=True)
class Score:
    """A judgement between 0 (wrong) and 1 (right), and the tokens that it took; None if unknown."""

    value: float
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cached_tokens: int | None = 0


class Verifier(Protocol):
    """Judges completions of one request."""

    @property
    def model(self) -> str:
        """Its name in receipts, by which its prices are looked up."""
        ...

    @property
    def parameters(self) -> int | None:
        """Weights read per token, None if unknown."""
        ...

    def bound(self, request: Request, text: str) -> int:
        """The most tokens that judging one completion can take."""
        ...

    async def score(self, request: Request, texts: Sequence[str]) -> list[Score]:
        """One score a completion, in order. Raises EngineError if it cannot judge."""
        ...
