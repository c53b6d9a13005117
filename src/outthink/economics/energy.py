"""What a token costs in joules, as the user states it.

Knows: joules per token and the arithmetic on them. Does not know any meter or device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per token processed (`prompt`) and generated (`completion`), bounds from above."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise BadInput(f"energy {name}", value, "is not an energy", "give joules per token")

    @classmethod
    def parse(cls, text: str) -> Energy:
        """Read `PROMPT,COMPLETION` joules a token; BadInput on anything else."""
        try:
            prompt, completion = (float(part) for part in text.split(","))
        except ValueError:
            raise BadInput("energy", text, "is not two numbers", "give joules a token, for example 0.01,0.3") from None
        return cls(prompt, completion)

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Joules of a call; prompt tokens read from the prefix cache are not processed again."""
        return max(prompt - cached, 0) * self.prompt + completion * self.completion

    def bound(self, prompt: int, completion: int) -> float:
        """Joules at most: nothing of the prompt comes from the cache."""
        return self.cost(prompt, 0, completion)
