"""Readers of one request's answers by kind, the kinds that are read from text alone, and what counts as right.

Knows how free text, a choice and JSON are written and how two spellings of one answer become one string: case, quotes
and emphasis; `(b)`, `**B**` and `\\text{(B)}`; order of keys, white space and numbers such as `1.0`; and how canonical
answers compare with gold keys. Does not know synonyms, what the options say, or schemas; several letters (`A and C`)
are unreadable, and JSON is not repaired. An expression is compared by the worker process, started on first use.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

from outthink.answers.latex import light
from outthink.answers.number import canonical_number, far_apart, read_number
from outthink.answers.reading import Reading, closing, first, hashed, last_boxed, offered, sentence
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, answer_named

_WRAP = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf)|mbox)\s*\{")
_PAIRS = (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("$", "$"))
_MATH = (("\\(", "\\)"), ("\\[", "\\]"))
_TRAILING = ".,;:!?。！？…"


def _peeled(text: str) -> str:
    """`text` in small letters, without one layer of marks around it and punctuation behind it."""
    text = " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())
    text = text.rstrip(_TRAILING).rstrip()
    for left, right in _PAIRS + _MATH:
        inner = text[len(left) : len(text) - len(right)]
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            if left in inner or right in inner:  # `"a" or "b"` is not one quotation
                continue
            return inner
    wrapped = _WRAP.match(text)
    if wrapped is not None and closing(text, wrapped.end(), len(text)) == len(text) - 1:
        return text[wrapped.end() : -1]
    return text


def canonical_text(text: str) -> str | None:
    """Casefolded, white space collapsed, trailing punctuation and surrounding marks removed; None if empty."""
    while (peeled := _peeled(text)) != text:
        text = peeled
    return text or None


def read_text(text: str) -> Reading:
    """Read text: boxed, stated (up to the end of the sentence), or the whole of it."""
    return first(
        offered(text, canonical_text, lambda piece: canonical_text(sentence(piece)), canonical_text, "whole-text")
    )


# Choices: letters A to J.

_SHORT = 40  # characters of a text that may be an answer and nothing else
_LATEX = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|sf)|mbox)\s*\{|\\[()\[\]!,;]|\\ |[{}$*`_]")
_LEAD = r"\s*(?i:(?:the|correct|answer|option|choice|letter|is)\s+|answer\s*[:：]\s*)*"
# A bare A or I must not open a sentence ("A dog", "I think"); a bare small letter must stand alone.
_AT_START = re.compile(
    rf"""{_LEAD}(?:
        [(\[]\s*([A-Ja-j])\s*[)\]]
      | (?<=option\ |choice\ |letter\ |Option\ |Choice\ |Letter\ )([A-Ja-j])(?![\w'’])
      | ([B-HJ])(?![\w'’])
      | ([AI])(?![\w'’])(?!\s+(?!(?:because|since|is|and|or)\b)[a-z])
      | ([a-j])(?=\s*(?:[).:,]|\Z))
    )""",
    re.VERBOSE,
)
_MORE = re.compile(r"\s*[).:,\]]?\s*(?:,|&|/|and|or)\s*[(\[]?\s*[A-Ja-j](?![\w'’])")
_NAMED = re.compile(r"\b(?:option|choice)\s+[(\[]?([A-J])(?![\w'])", re.IGNORECASE)
_MARKED = re.compile(r"\(([A-Ja-j])\)|\*\*\(?([A-J])\)?[.:]?\*\*|^[ \t]*([A-J])[).:]?[ \t]*$", re.MULTILINE)
_BARE = re.compile(r"(?<![\w'’(.-])([B-HJ])(?![\w'’-])")


def letter(text: str) -> str | None:
    """The letter that `text` starts with, as a capital; None without one, empty with several."""
    plain = _LATEX.sub(" ", text)
    match = _AT_START.match(plain)
    if match is None:
        return None
    return "" if _MORE.match(plain, match.end()) else next(part for part in match.groups() if part).upper()


def last_letter(text: str) -> str | None:
    """The last letter that a text names: `option C`, else `(C)`, `**C**` or a line `C`, else a bare capital.

    Bare `A` and `I` do not count here: they are words.
    """
    for pattern in (_NAMED, _MARKED, _BARE):
        last = None
        for match in pattern.finditer(text):
            last = match
        if last is not None:
            return next(part for part in last.groups() if part).upper()
    return None


def _letter_of(text: str) -> str | None:
    """The letter that a short text starts with, else the last one named."""
    short = letter(text) if len(text) < _SHORT else None
    return last_letter(text) if short is None else short


def read_choice(text: str) -> Reading:
    """Read a choice: boxed, stated, the whole of a short text, or the last letter that the text names."""
    return first(offered(text, letter, letter, _letter_of, "letter"))


# JSON.

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)
# What cannot start JSON, such as LaTeX's braces, is passed over without asking the decoder.
_START = re.compile(r"\{(?=\s{0,200}[\"}])|\[(?=\s{0,200}[\[{\"\]0-9tfn-])")
_WORK = 500_000_000  # characters passed in vain (an error counts lines from the start): half a second at most


@dataclass(frozen=True, slots=True)
class _Number:
    literal: str


_Value: TypeAlias = "dict[str, _Value] | list[_Value] | _Number | str | bool | None"


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse)


def _dump(value: _Value) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(key)}:{_dump(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    if isinstance(value, _Number):
        exact = canonical_number(value.literal)
        return value.literal.lower() if exact is None else exact
    text = json.dumps(value, ensure_ascii=False)
    # A lone surrogate is legal in JSON but in no file or pipe that the answer travels through.
    return text if text.isascii() or not re.search(r"[\ud800-\udfff]", text) else json.dumps(value)


def canonical_json(text: str) -> str | None:
    """The canonical form of a text that is one JSON value and nothing else, None if it is not."""
    try:
        value, end = _DECODER.raw_decode(text.strip())
        return _dump(value) if end == len(text.strip()) else None
    except (ValueError, RecursionError):
        return None


def last_json(text: str) -> str | None:
    """The canonical form of the last object or array that stands complete in the text, else None."""
    answer, position, work = None, 0, 0
    while work < _WORK and (match := _START.search(text, position)):
        position = match.start()
        try:
            value, end = _DECODER.raw_decode(text, position)
            answer, position = _dump(value), end
        except json.JSONDecodeError as error:
            work += error.pos + 2000
            position += 1
        except (ValueError, RecursionError):
            work += 5_000_000
            position += 1
    return answer


def read_json(text: str) -> Reading:
    """Read JSON: the last code fence that holds it, the whole text, or its last object or array."""
    for match in reversed(list(_FENCE.finditer(text))):
        if (answer := canonical_json(match.group(1))) is not None:
            return Reading(answer, "json-block")
    answer = canonical_json(text) or last_json(text)
    return Reading(answer, "none" if answer is None else "json")


# From a kind to the reader of a request.

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
