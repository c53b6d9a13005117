"""Errors a user can act on.

Knows: which kinds of failure exist and the exit code each one maps to.
Does not know: who raises them or how they are shown.
"""

from __future__ import annotations


class OutthinkError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class BadInput(OutthinkError, ValueError):
    """Input that cannot be used. Names the field, the value and the remedy in one line."""

    exit_code = 2

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{field}: {shown} {problem}; {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class Unsupported(OutthinkError):
    """The engine lacks something that the strategy or the budget needs."""

    exit_code = 2


class EngineError(OutthinkError):
    """The engine failed.

    Args:
        message: one line, naming the engine and what to do.
        fatal: True where trying again cannot help (wrong key, unknown model, bad request).
        retry_after: seconds the server asked to wait, None if it did not say.
    """

    def __init__(self, message: str, *, fatal: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fatal, self.retry_after = fatal, retry_after
