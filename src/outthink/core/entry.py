"""One line of the ledger: what one call to an engine or verifier consumed.

Knows: quantities, of which any may be unknown (None). Does not know the budget or the reason to call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["policy", "verifier", "probe", "router"]
Status = Literal["finished", "stopped", "cancelled", "failed", "cached"]


@dataclass(slots=True)
class Entry:
    """One call. Token counts are exact where given; None means that the server did not tell.

    Args:
        completion_tokens: generated tokens of a call that ran to its end (or was stopped by watch).
        cancelled_tokens: generated tokens of a call that was cancelled or failed on the way.
        cached_tokens: the part of prompt_tokens that the server read from its prefix cache.
        reserved_tokens: upper bound on all tokens of the call, used where counts are unknown.
        seen_tokens: lower bound on generated tokens, used where counts are unknown.
        seconds: from sending the request to its end.
        flops: 2 x active parameters x tokens processed, None for an unknown model.
        estimated: True where the budget was settled at the reservation for want of counts.
        cached: True for an answer from the response cache, which costs nothing.
    """

    role: Role
    model: str
    status: Status
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cancelled_tokens: int | None = 0
    cached_tokens: int | None = 0
    seconds: float | None = None
    flops: float | None = None
    usd: float | None = None
    joules: float | None = None
    estimated: bool = False
    cached: bool = False
    reserved_tokens: int | None = None
    reserved_usd: float | None = None
    reserved_joules: float | None = None
    seen_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None

    @property
    def tokens(self) -> int | None:
        """Prompt + completion + cancelled, None if any of them is unknown."""
        prompt, completion, cancelled = self.prompt_tokens, self.completion_tokens, self.cancelled_tokens
        if prompt is None or completion is None or cancelled is None:
            return None
        return prompt + completion + cancelled

    @property
    def known_tokens(self) -> int:
        """A lower bound on the tokens: what is known, or what was seen to arrive."""
        generated = (self.completion_tokens or 0) + (self.cancelled_tokens or 0)
        return (self.prompt_tokens or 0) + max(generated, self.seen_tokens)

    def json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}  # all are plain: `asdict` takes 50 times as long
