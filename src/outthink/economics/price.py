"""What a provider charges for tokens, as the user states it.

Knows: dollars per million tokens and the arithmetic on them. Does not know any model or provider;
published prices are the business of `catalogue`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

from outthink.core.errors import BadInput

_REMEDY = "give dollars per million tokens as IN,OUT, for example 0.15,0.60"


class Pricing(Protocol):
    """Anything that can put a price on a call."""

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call whose prompt (cached part included) and completion are known."""
        ...

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars that no call within these token counts can exceed."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; without `cached_input`, prompt tokens read from a cache cost the full price."""

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if value is None and name == "cached_input":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise BadInput(f"price {name}", value, "is not a price", _REMEDY)

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read `IN,OUT` or `IN,OUT,CACHED`; BadInput on anything else."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) not in (2, 3):
            raise BadInput("price", text, "does not hold two numbers", _REMEDY)
        try:
            return cls(*(float(part) for part in parts))
        except ValueError as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("price", text, "is not numeric", _REMEDY) from None

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call; `cached` is the part of `prompt` that was read from the prefix cache."""
        cached = min(cached, prompt)
        cached_input = self.input if self.cached_input is None else self.cached_input
        return ((prompt - cached) * self.input + cached * cached_input + completion * self.output) / 1e6

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars at most: nothing, or everything, of the prompt may come from the cache."""
        return max(self.cost(prompt, cached, completion) for cached in (0, prompt))
