"""Free text and JSON as answers: how two spellings of one become one string.

Knows case, quotes, emphasis and LaTeX's text around an answer; order of keys, white space and numbers such as `1.0`.
Does not know synonyms or schemas; JSON is not repaired.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from outthink.answers.number import canonical_number
from outthink.answers.reading import Reading, closing, first, offered, sentence

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
