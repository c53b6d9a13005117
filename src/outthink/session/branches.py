"""Several branches of one strategy side by side.

Knows: how to resume branches by hand, so that time moves only when every branch waits. Does not
know what the branches do.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from outthink.core.errors import OutthinkError

if TYPE_CHECKING:
    from outthink.session.session import Session

T = TypeVar("T")
FOREIGN = "a strategy awaits nothing but its session; this one awaited something else"


class Pause:
    """Suspends a hand-driven coroutine until its driver resumes it."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


PAUSE = Pause()


async def side_by_side(parent: Session, branches: list[tuple[Session, Coroutine[Any, Any, T]]]) -> list[T]:
    """Drive every branch to its end; results in order. One that raises closes the others."""
    results: dict[int, T] = {}
    running = dict(enumerate(branches))
    try:
        while True:
            before = len(running)
            for i, (session, coroutine) in list(running.items()):
                try:
                    if coroutine.send(None) is not None:
                        raise OutthinkError(FOREIGN)
                except StopIteration as end:
                    results[i] = end.value
                    session.close()
                    del running[i]
            if not running:
                return [results[i] for i in range(len(branches))]
            if len(running) == before:  # else what an ended branch gave back may admit another one's call
                await parent.pause()
    finally:
        for session, coroutine in running.values():
            coroutine.close()
            session.close()
