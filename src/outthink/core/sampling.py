"""How tokens are drawn. Knows the knobs and their ranges; does not know which servers have them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters of one call; top_k 0 and min_p 0 switch those filters off.

    max_tokens caps one completion (reasoning included), the budget may lower it further.
    thinking_tokens caps the reasoning alone and reasoning_effort (low, medium, high, or what a server
    calls it) asks for more or less of it, on servers that have them; None leaves both to the server.
    """

    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    thinking_tokens: int | None = None
    reasoning_effort: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadInput("temperature", self.temperature, "is no temperature", "use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise BadInput("top_p", self.top_p, "is outside (0, 1]", "use 1 to switch it off")
        if self.top_k < 0 or not 0 <= self.min_p <= 1:
            raise BadInput("top_k/min_p", (self.top_k, self.min_p), "is out of range", "use 0 to switch them off")
        if self.max_tokens < 1:
            raise BadInput("max_tokens", self.max_tokens, "is below 1", "give at least 1")
        if self.thinking_tokens is not None and self.thinking_tokens < 0:
            raise BadInput("thinking_tokens", self.thinking_tokens, "is below 0", "give 0 for no thinking")
        if self.reasoning_effort is not None and not self.reasoning_effort.strip():
            raise BadInput("reasoning_effort", self.reasoning_effort, "is empty", "use low, medium or high")

    @property
    def greedy(self) -> Sampling:
        """The same limits at temperature 0."""
        return replace(self, temperature=0.0)
