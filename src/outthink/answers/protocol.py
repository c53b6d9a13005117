"""What it means to read an answer. Knows the shape of a reading; does not know any kind of answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """A canonical answer and the rule that found it; `answer` None (rule `none`) is no vote."""

    answer: str | None
    rule: str


class Reader(Protocol):
    """Extracts and canonicalises the answers of one request; equal answers become equal strings."""

    async def read(self, text: str) -> Reading:
        """Read one completion. Never raises for odd text: unreadable is a Reading too."""
        ...
