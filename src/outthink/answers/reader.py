"""Readers of one request's answers by kind, and what counts as right.

Knows which reader a kind has, a function as a reader, and how canonical answers compare with gold keys. Does not know
how an answer is found in a text. An expression is compared by the worker process, started on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from outthink.answers.choice import read_choice
from outthink.answers.latex import light
from outthink.answers.number import far_apart, read_number
from outthink.answers.reading import Reading, hashed, last_boxed
from outthink.answers.text import read_json, read_text
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, answer_named

_KINDS: dict[str, Callable[[str], Reading]] = {
    "number": read_number,
    "choice": read_choice,
    "json": read_json,
    "text": read_text,
}


class LocalReader(Protocol):
    """Extracts and canonicalises the answers of one request; equal answers become equal strings."""

    async def read(self, text: str) -> Reading:
        """Read one completion. Never raises for odd text: unreadable is a Reading too."""
        ...

    def read_now(self, text: str) -> Reading:
        """The same without an event loop; blocks, for `math` until the worker has answered."""
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


# Keys come as data sets write them: `18`, `#### 18`, `\frac12`, `\boxed{x}`, `B`, JSON.

_BATCH = 16  # pairs of one worker call: together they must fit its time limit


def canonical_key(kind: AnswerKind | AnswerReader, key: str) -> str:
    """The canonical form of a gold key; BadInput if it cannot be read as `kind`."""
    kind = answer_named(kind)
    if callable(kind):  # it reads completions; a key is more often the bare answer
        return read_sync(kind, key).answer or key
    answer = light(last_boxed(key) or hashed(key) or key) if kind == "math" else read_sync(kind, key).answer
    if answer is None:
        raise BadInput("key", key, f"cannot be read as {kind}", "give the gold answer alone")
    return answer


def grade(kind: AnswerKind | AnswerReader, answer: str | None, key: str) -> bool:
    """Whether a canonical answer (`Sample.answer`) equals the gold key; None is wrong.

    Blocks for `math` while the worker compares (about 10 ms); safe in any thread. BadInput for an unreadable key.
    """
    return grade_many(kind, [(answer, key)])[0]


def grade_many(kind: AnswerKind | AnswerReader, pairs: Iterable[tuple[str | None, str]]) -> list[bool]:
    """`grade` for many (answer, key) pairs, with fewer trips to the math worker."""
    results: list[bool] = []
    asked: list[tuple[int, str, str]] = []
    for place, (answer, key) in enumerate(pairs):
        gold = canonical_key(kind, key)
        canonical = light(answer) if kind == "math" and answer is not None else answer
        results.append(canonical is not None and canonical == gold)
        if kind == "math" and canonical is not None and not results[-1] and not far_apart(canonical, gold):
            asked.append((place, gold, canonical))
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        for (place, _, _), right in zip(
            batch, _compare([(gold, canonical) for _, gold, canonical in batch]), strict=True
        ):
            results[place] = right
    return results


def _compare(pairs: list[tuple[str, str]]) -> list[bool]:
    """One worker call; if it hangs, each pair alone, so that only the guilty one is wrong for it."""
    from outthink.answers.math_process import shared  # on first use: asyncio and subprocess take 20 ms to import

    value = shared().submit("grade", pairs=pairs).result()
    if isinstance(value, list) and len(value) == len(pairs):
        return [bool(item) for item in value]
    return [False] if len(pairs) == 1 else [right for pair in pairs for right in _compare([pair])]
