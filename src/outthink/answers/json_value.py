"""JSON in text and its canonical form.

Knows code fences, where an object or array starts and ends, and how equal values become equal strings:
keys sorted, no white space, numbers exact (`1.0` is `1`). Does not know schemas, and repairs nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from outthink.answers.number import canonical_number
from outthink.answers.protocol import Reading

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)
# What cannot start JSON, such as LaTeX's braces, is passed over without asking the decoder.
_START = re.compile(r"\{(?=\s{0,200}[\"}])|\[(?=\s{0,200}[\[{\"\]0-9tfn-])")
_WORK = 500_000_000  # characters passed in vain (an error counts lines from the start): half a second at most


@dataclass(frozen=True, slots=True)
class _Number:
    literal: str


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse)


def _dump(value: Any) -> str:
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
    found, position, work = None, 0, 0
    while work < _WORK and (match := _START.search(text, position)):
        position = match.start()
        try:
            value, end = _DECODER.raw_decode(text, position)
            found, position = _dump(value), end
        except json.JSONDecodeError as error:
            work += error.pos + 2000
            position += 1
        except (ValueError, RecursionError):
            work += 5_000_000
            position += 1
    return found


def read(text: str) -> Reading:
    """Read JSON: the last code fence that holds it, the whole text, or its last object or array."""
    for match in reversed(list(_FENCE.finditer(text))):
        if (answer := canonical_json(match.group(1))) is not None:
            return Reading(answer, "json-block")
    answer = canonical_json(text)
    if answer is None:
        answer = last_json(text)
    return Reading(answer, "none" if answer is None else "json")
