"""Readers of one request's answers by kind, and what counts as right.

Knows which reader a kind has, a function as a reader, and how canonical answers compare with gold keys. Does not know
how an answer is found in a text. An expression is compared by the worker process, started on first use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from outthink.answers.choice import read_choice
from outthink.answers.literal import value_of
from outthink.answers.math.formulas import light
from outthink.answers.number import read_number
from outthink.answers.reading import IN_PLACE, UNREADABLE, Reading, hashed, last_boxed, told
from outthink.answers.text import read_json, read_text
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, answer_named
from outthink.core.text import visible

if TYPE_CHECKING:
    from concurrent.futures import Future

_KINDS: dict[str, Callable[[str], Reading]] = {
    "number": read_number,
    "choice": read_choice,
    "json": read_json,
    "text": read_text,
}
_QUICK = {"number": 2 * IN_PLACE, "text": 2 * IN_PLACE}
"""Kinds that read more in the same time: a worker is asked for none of their usual texts."""
_LAST = 64 * 1024  # characters from the end that are read


class LocalReader(Protocol):
    """Extracts and canonicalises the answers of one request; equal answers become equal strings."""

    async def read(self, text: str) -> Reading:
        """Read one completion. Never raises for odd text: unreadable is a Reading too."""
        ...

    def read_now(self, text: str) -> Reading:
        """The same without an event loop; blocks, for `math` and long texts until a worker has answered."""
        ...


class SpokenReader:
    """Hands a reader what a completion says, without its thinking, and of a long one the end.

    Thinking that is cut, or that nothing follows, is unreadable: nothing earlier is guessed instead.
    """

    def __init__(self, reader: LocalReader) -> None:
        self._reader = reader

    async def read(self, text: str) -> Reading:
        """Read one completion."""
        if len(text) <= IN_PLACE:
            said = visible(text)
        else:
            import asyncio  # on first use: it takes 20 ms to import

            said = await asyncio.to_thread(visible, text)
        return UNREADABLE if said is None else await self._reader.read(said[-_LAST:])

    def read_now(self, text: str) -> Reading:
        """Read one completion."""
        said = visible(text)
        return UNREADABLE if said is None else self._reader.read_now(said[-_LAST:])


class KindReader:
    """Reads with the pure function of a kind; equal answers are equal strings already."""

    def __init__(self, kind: str) -> None:
        self._kind, self._function = kind, _KINDS[kind]
        self._in_place = _QUICK.get(kind, IN_PLACE)

    async def read(self, text: str) -> Reading:
        """Read one completion, a long one in a worker."""
        if len(text) <= self._in_place:
            return self._function(text)
        import asyncio  # on first use: it takes 20 ms to import

        return _reading(await asyncio.wrap_future(self._asked(text)))

    def read_now(self, text: str) -> Reading:
        """Read one completion."""
        return self._function(text) if len(text) <= self._in_place else _reading(self._asked(text).result())

    def _asked(self, text: str) -> Future[list[str | None] | None]:
        from outthink.workers.pool import shared

        return shared().submit("outthink.answers.reader:read_plain", self._kind, text, turn=id(self))


def read_plain(kind: str, text: str) -> list[str | None]:
    """What a worker is asked for: answer and rule of one text."""
    reading = _KINDS[kind](text)
    return [reading.answer, reading.rule]


def _reading(value: list[str | None] | None) -> Reading:
    return UNREADABLE if value is None else Reading(value[0], value[1] or "none")


class AwaitedFunction(ABC):
    """A function as a reader that may have to wait for a worker. It is given all of a completion, thinking included."""

    @abstractmethod
    def __call__(self, text: str) -> str | None:
        """The answer in a completion, None where there is none or where it would have to be waited for."""

    @abstractmethod
    async def later(self, text: str) -> str | None:
        """The answer in a completion."""


class FunctionReader:
    """Reads with a function of the user's, which decides alone what is equal."""

    def __init__(self, function: AnswerReader) -> None:
        self._function = function

    async def read(self, text: str) -> Reading:
        """Read one completion."""
        if not isinstance(self._function, AwaitedFunction):
            return self.read_now(text)
        return told(await self._function.later(text), "function")

    def read_now(self, text: str) -> Reading:
        """Read one completion."""
        try:
            answer = self._function(text)
        except Exception:  # noqa: BLE001 - the user's code: its failure is an unreadable answer, never ours
            return Reading(None, "function-error")
        if answer is None or answer == "":
            return UNREADABLE
        return Reading(answer, "function") if isinstance(answer, str) else Reading(None, "function-error")


def reader_for(answer: AnswerKind | AnswerReader) -> LocalReader:
    """A new reader for one request. Rules: see each kind; a function's are `function`, `function-error`, `none`."""
    answer = answer_named(answer)
    if callable(answer):
        reader = FunctionReader(answer)
        return reader if isinstance(answer, AwaitedFunction) else SpokenReader(reader)
    if answer == "math":
        from outthink.answers.math.reader import MathReader  # on first use: asyncio and subprocess take 20 ms to import

        return SpokenReader(MathReader())
    return SpokenReader(KindReader(answer))


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
    """`grade` for many (answer, key) pairs, with fewer trips to a worker."""
    results: list[bool] = []
    places: list[int] = []
    asked: list[tuple[str, str]] = []
    for place, (answer, key) in enumerate(pairs):
        gold = canonical_key(kind, key)
        canonical = light(answer) if kind == "math" and answer is not None else answer
        results.append(canonical is not None and canonical == gold)
        if kind == "math" and canonical is not None and not results[-1] and not _differ(canonical, gold):
            places.append(place)
            asked.append((gold, canonical))
    compared = (right for start in range(0, len(asked), _BATCH) for right in _compare(asked[start : start + _BATCH]))
    for place, right in zip(places, compared, strict=True):
        results[place] = right
    return results


def _differ(left: str, right: str) -> bool:
    """True where both are canonical numbers, which differ as strings, and neither may be the other rounded."""
    a, b = value_of(left), value_of(right)
    return a is not None and b is not None and ("/" in left) == ("/" in right)


def _compare(pairs: list[tuple[str, str]]) -> list[bool]:
    """One worker call; if it hangs, each pair alone, so that only the guilty one is wrong for it."""
    from outthink.workers.pool import shared  # on first use: subprocess takes its time to import

    value = shared().submit("outthink.answers.math.grading:grade_all", pairs).result()
    if isinstance(value, list) and len(value) == len(pairs):
        return [bool(item) for item in value]
    return [False] if len(pairs) == 1 else [right for pair in pairs for right in _compare([pair])]
