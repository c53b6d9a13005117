"""Something awaited outside the engine, such as a verifier. Knows whether it has ended and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Work(Generic[T]):
    """Finished with a result, or with an error that its owner raises where the strategy waits."""

    finished: bool = False
    result: T | None = None
    error: Exception | None = None
    stop: Callable[[], object] | None = None

    def cancel(self) -> None:
        """End it now if it still runs."""
        if not self.finished and self.stop is not None:
            self.stop()
