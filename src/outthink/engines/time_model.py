"""How long generating takes, as the virtual clock asks for it: rates in tokens a second. Knows no engine, no device."""

from __future__ import annotations

from typing import Protocol


class TimeModel(Protocol):
    """Rates of a server in tokens a second. `protocol.Speed` is the one with constant rates."""

    @property
    def stream(self) -> float:
        """Decode rate of a lone stream."""

    @property
    def prefill(self) -> float:
        """Prompt tokens read a second."""

    @property
    def judge(self) -> float:
        """Tokens a second that a verifier reads."""

    @property
    def concurrency(self) -> int:
        """Calls that run at once; more of them queue."""

    def rate(self, active: int) -> float:
        """Decode rate of each of `active` streams."""
