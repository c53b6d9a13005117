"""The seam between a session and time.

Knows: what a session asks of whoever carries out its calls. Two runners exist: `live` (asyncio,
real engines) and `virtual` (an event heap over engines whose outcomes are known).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from outthink.answers import LocalReader, Reading
from outthink.core.request import AnswerKind, AnswerReader
from outthink.engines.protocol import Call, Features
from outthink.session.running import Running
from outthink.session.work import Work

T = TypeVar("T")


class Runner(Protocol):
    """Carries out calls and keeps the clock. Every launched call ends in exactly one settlement."""

    hand_driven: bool
    """True where a strategy is resumed by hand from an event heap instead of by asyncio."""

    @property
    def features(self) -> Features:
        """What the engine behind it can do."""
        ...

    def now(self) -> float:
        """Seconds on this runner's clock."""
        ...

    def launch(self, running: Running, delay: float = 0.0) -> None:
        """Start a call, after `delay` seconds."""
        ...

    def cancel(self, running: Running) -> None:
        """End a call at once and settle what it has consumed."""
        ...

    def perform(self, job: Coroutine[Any, Any, T]) -> Work[T]:
        """Start something that is no call to the engine, such as a verifier."""
        ...

    def read(self, kind: AnswerKind | AnswerReader, text: str) -> Work[Reading]:
        """Read the answer in a text."""
        ...

    def alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call `ring` after so many seconds; returns a function that takes the alarm back."""
        ...

    def prompt_bound(self, call: Call) -> int | None:
        """Upper bound on a prompt's tokens, None while it is being found out."""
        ...

    def reader(self, kind: AnswerKind | AnswerReader) -> LocalReader:
        """The answer reader of this request, one for all its samples."""
        ...

    def wake(self) -> None:
        """Make `wait` return: something has happened outside the runner."""
        ...

    async def wait(self) -> None:
        """Return when something has happened."""
        ...
