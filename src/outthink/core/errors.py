"""Errors a user can act on.

Knows: which kinds of failure exist and the exit code each one maps to.
Does not know: who raises them or how they are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any


class OutthinkError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class BadInput(OutthinkError, ValueError):
    """Input that cannot be used. Names the field, the value and the remedy in one line."""

    exit_code = 2

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        shown = repr(_ends_of(value, iter(range(_MOST))))
        if len(shown) > 200:
            shown = shown[:120] + "..." + shown[-60:]
        line = f"{field}: {shown} {problem}; {remedy}"
        # Control characters of an input may neither break the line nor reach a terminal.
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))
        self.field, self.value, self.problem, self.remedy = field, value, problem, remedy

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, object, str, str]]:
        """Errors travel between processes."""
        return type(self), (self.field, self.value, self.problem, self.remedy)


_ENDS = 120  # letters of a text, and elements of a list, at either end: more are not shown
_MOST = 400  # values within each other


def _ends_of(value: Any, left: Iterator[int]) -> Any:
    """What of a value a message may show: clients may send megabytes."""
    if next(left, None) is None:
        return "..."
    shown = value
    if isinstance(value, str | bytes | list) and len(value) > 2 * _ENDS:
        shown = shown[:_ENDS] + shown[-_ENDS:]
    if not isinstance(value, list | dict):
        return shown
    if isinstance(value, list):
        return [_ends_of(each, left) for each in shown]
    return {_ends_of(name, left): _ends_of(each, left) for name, each in islice(value.items(), _ENDS)}


def need_known(field: str, value: str, known: Collection[str], remedy: str = "") -> None:
    """Raise BadInput for a name that is none of the known ones, which are the remedy unless another is given."""
    if value not in known:
        raise BadInput(field, value, "is not known", remedy or f"use one of {', '.join(known)}")


def release_frames(error: BaseException) -> None:
    """Let go of the frames that an error and its causes have passed through, once nobody will show them.

    Frames refer to the errors that they hold, so all that was at hand would stay until garbage is collected.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        waiting += (other for other in (each.__cause__, each.__context__) if other is not None)


class Unsupported(OutthinkError):
    """The engine lacks something that the strategy or the budget needs."""

    exit_code = 2


class EngineError(OutthinkError):
    """The engine failed.

    Args:
        message: one line, naming the engine and what to do.
        fatal: True where no call can succeed (wrong key, unknown model, bad request).
        again: False where this call must not be sent again, because it may have been begun.
        retry_after: seconds the server asked to wait, None if it did not say.
        begun: nobody knows what the call has cost: it was sent, and nothing came back.
    """

    def __init__(
        self,
        message: str,
        *,
        fatal: bool = False,
        again: bool = True,
        retry_after: float | None = None,
        begun: bool = False,
    ) -> None:
        super().__init__(message)
        self.fatal, self.again, self.retry_after, self.begun = fatal, again and not begun, retry_after, begun
