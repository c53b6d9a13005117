"""When a failed call is tried again, and after how long. Knows nothing of what failed."""

from __future__ import annotations

from dataclasses import dataclass

from outthink.core.errors import EngineError


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential backoff: `first`, twice that, ... seconds, or what the server asks for."""

    attempts: int = 3
    first: float = 0.25
    longest: float = 30.0

    def delay(self, attempt: int, error: EngineError) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up."""
        if error.fatal or not error.again or attempt >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.longest else None
        return float(min(self.longest, self.first * 2.0 ** (attempt - 1)))
