"""From an answer kind to the reader of one request. Knows the kinds; does not know their rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outthink.answers.kinds import read_choice, read_json, read_text
from outthink.answers.number import read_number
from outthink.answers.reading import Reader, Reading
from outthink.core.request import AnswerKind, AnswerReader, answer_named

_KINDS: dict[str, Callable[[str], Reading]] = {
    "number": read_number,
    "choice": read_choice,
    "json": read_json,
    "text": read_text,
}


class LocalReader(Reader, Protocol):
    """A reader that also works without an event loop."""

    def read_now(self, text: str) -> Reading:
        """Read one completion; blocks, for `math` until the worker has answered."""
        ...


class PlainReader:
    """Reads with one pure function; equal answers are equal strings already."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[str], Reading]) -> None:
        self._function = function

    async def read(self, text: str) -> Reading:
        """Read one completion."""
        return self._function(text)

    def read_now(self, text: str) -> Reading:
        """Read one completion."""
        return self._function(text)


def _with(function: AnswerReader) -> Callable[[str], Reading]:
    def read(text: str) -> Reading:
        try:
            answer = function(text)
        except Exception:  # noqa: BLE001 - the user's code: its failure is an unreadable answer, never ours
            return Reading(None, "function-error")
        if answer is None or answer == "":
            return Reading(None, "none")
        return Reading(answer, "function") if isinstance(answer, str) else Reading(None, "function-error")

    return read


def reader_for(answer: AnswerKind | AnswerReader) -> LocalReader:
    """A new reader for one request. Rules: see each kind; a function's are `function`, `function-error`, `none`."""
    answer = answer_named(answer)
    if callable(answer):
        return PlainReader(_with(answer))
    if answer == "math":
        from outthink.answers.math import MathReader  # on first use: asyncio and subprocess take 20 ms to import

        return MathReader()
    return PlainReader(_KINDS[answer])


def read_sync(kind: AnswerKind | AnswerReader, text: str) -> Reading:
    """Read one completion on its own, blocking; for many of one request keep a reader and call `read_now`."""
    return reader_for(kind).read_now(text)
