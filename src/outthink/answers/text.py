"""Free text and JSON as answers: how two spellings of one become one string.

Knows case, quotes, emphasis and LaTeX's text around an answer; order of keys, white space and numbers such as `1.0`.
Knows code fences as models write them. Does not know synonyms or schemas; JSON is not repaired.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from outthink.answers.reading import Reading, closing, placed, sentence, told

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_WRAP = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf)|mbox)\s*\{")
_PAIRS = (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("$", "$"))
_MATH = (("\\(", "\\)"), ("\\[", "\\]"))
_TRAILING = ".,;:!?。！？… "
_LAYERS = 16  # of marks around a text: each costs a pass over it
_PILE = re.compile(r"[^\w\s!-~]{31,}")  # with more accents than this on a letter, normalising takes quadratic time


def _peeled(text: str) -> str:
    """`text` in small letters, without one layer of marks around it and punctuation behind it."""
    text = " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())
    text = text.rstrip(_TRAILING)
    if text.endswith("**") and text.count("**") == 1:  # the first one stands in front of the statement
        return text[:-2]
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
    """Casefolded, white space collapsed, trailing punctuation and surrounding marks removed.

    None if nothing is left, or where more marks stand around each other, or more accents on a letter, than anybody
    writes. The form of a form is itself, so equality is an equivalence.
    """
    if any(sum(map(bool, map(unicodedata.combining, pile[0]))) > 30 for pile in _PILE.finditer(text)):
        return None
    for _ in range(_LAYERS):
        peeled = _peeled(text)
        if peeled == text:
            return text or None
        text = peeled
    return None


def _tagged(text: str) -> str:
    """What stands behind the last `<answer>`, up to its end tag if it has one; all of a text without."""
    start, end = 0, len(text)
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start, end = tag.end(), len(text)
        elif start:
            end = min(end, tag.start())
    return text[start:end]


def read_text(text: str) -> Reading:
    """Read text, or what `<answer>` tags hold: boxed, stated (up to the end of the sentence), or the whole of it."""
    text = _tagged(text)
    found = placed(text, canonical_text, lambda piece: canonical_text(sentence(piece)))
    return told(*(found or (canonical_text(text), "whole-text")))


# JSON.

_FENCE = re.compile(r"`{3,}|~{3,}")
_TAG = re.compile(r"[ \t]{0,100}([^\s{\[\"`]{0,200})[^\n{\[\"`]{0,1000}")
_QUOTED = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
_REST = re.compile(r"[ \t\r]*(?:\n|\Z)")
_LONGEST_FENCE = 16
# What cannot start JSON, such as LaTeX's braces, is passed over without asking the decoder.
_START = re.compile(r"\{(?=\s{0,200}[\"}])|\[(?=\s{0,200}[\[{\"\]0-9tfn-])")
_DEPTH = 200  # levels of nesting: beyond, JSON is unreadable
_PLAIN = 300  # powers of ten that are written out
_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]{1,1000}))?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Number:
    literal: str


_Value: TypeAlias = "dict[str, _Value] | list[_Value] | _Number | str | bool | None"


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse)


def _exact(literal: str) -> str:
    """The one form of a number: its digits, with a power of ten where that is large; nothing is rounded."""
    match = _NUMBER.fullmatch(literal)
    if match is None:
        raise ValueError("its exponent is beyond reading")
    sign, whole, part, power = match[1], match[2], match[3] or "", int(match[4] or 0)
    digits = (whole + part).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return "0"
    power += len(digits) - len(significant) - len(part)
    if abs(power) > _PLAIN:
        return f"{sign}{significant}e{power}"
    if power >= 0:
        return sign + significant + "0" * power
    padded = significant.zfill(1 - power)
    return f"{sign}{padded[:power]}.{padded[power:]}"


def _dump(value: _Value, depth: int = _DEPTH) -> str:
    if not depth:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(key)}:{_dump(value[key], depth - 1)}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item, depth - 1) for item in value) + "]"
    if isinstance(value, _Number):
        return _exact(value.literal)
    text = json.dumps(value, ensure_ascii=False)
    # A lone surrogate is legal in JSON but in no file or pipe that the answer travels through.
    return text if text.isascii() or not _SURROGATE.search(text) else json.dumps(value)


def _canonical(value: _Value) -> str | None:
    try:
        return _dump(value)
    except ValueError:
        return None


def canonical_json(text: str) -> str | None:
    """The canonical form of a text that is one JSON value and nothing else, None if it is not.

    Of a key that stands twice in an object the last value counts, as in most parsers.
    """
    text = text.strip().lstrip("\ufeff").lstrip()
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return _canonical(value) if end == len(text) else None


def last_json(text: str) -> str | None:
    """The canonical form of the last object or array that stands complete in the text, else None.

    None, too, where so much of the text begins like JSON and is none that looking on would not be linear.
    """
    answer, position, work = None, 0, 100_000 + 100 * len(text)
    while match := _START.search(text, position):
        position = match.start()
        try:
            value, position = _DECODER.raw_decode(text, position)
            answer = _canonical(value)
        except json.JSONDecodeError as error:  # it counts lines from the start of the text
            work -= error.pos - position + error.pos // 16 + 500
            position += 1
        except (ValueError, RecursionError):
            work -= 100_000
            position += 1
        if work < 0:
            return None
    return answer


def _own_line(text: str, fence: re.Match[str]) -> bool:
    """Whether a fence stands alone in its line, but for indentation and quotation marks before it."""
    before = text[max(text.rfind("\n", 0, fence.start()) + 1, fence.start() - 100) : fence.start()]
    return not before.strip(" \t>") and _REST.match(text, fence.end()) is not None


def _closers(text: str, fences: list[re.Match[str]]) -> list[tuple[int | None, int | None]]:
    """For each fence the next one that could close it, and the next that does so in a line of its own."""
    closers: list[tuple[int | None, int | None]] = []
    last: dict[str, int] = {}
    last_own: dict[str, int] = {}
    for place in reversed(range(len(fences))):
        fence = fences[place][0]
        closers.append((last.get(fence), last_own.get(fence)))
        # It closes every shorter fence of its kind.
        own = _own_line(text, fences[place])
        for length in range(3, min(len(fence), _LONGEST_FENCE) + 1):
            last[fence[0] * length] = place
            if own:
                last_own[fence[0] * length] = place
    return closers[::-1]


def _blocks(text: str) -> Iterator[str]:
    """The JSON of the fenced blocks that hold some, in canonical form.

    A block ends at a fence of its kind in the same line, else at one in a line of its own, else at the end of the
    text; where that holds no JSON, at the next such fence wherever it stands.
    """
    fences = [fence for fence in _FENCE.finditer(text) if len(fence[0]) <= _LONGEST_FENCE]
    closers = _closers(text, fences)
    place = 0
    while place < len(fences):
        opening, (near, own) = fences[place], closers[place]
        tag = _TAG.match(text, opening.end())
        start = tag.end() if tag is not None else opening.end()
        if near is not None and "\n" not in text[opening.end() : fences[near].start()]:
            own = near
        end = near if own is None else own
        for stop in dict.fromkeys((end, near)):
            body = text[start:] if stop is None else text[start : fences[stop].start()]
            if ">" in text[max(0, opening.start() - 8) : opening.start()]:
                body = _QUOTED.sub("", body)
            answer = canonical_json(body)
            if answer is None and tag is not None and "json" in tag[1].lower():
                answer = last_json(body)
            if answer is not None:
                end = stop
                yield answer
                break
        place = len(fences) if end is None else end + 1


def read_json(text: str) -> Reading:
    """Read JSON: the whole text, the last code block that holds some, or its last object or array."""
    answer, rule = canonical_json(text), "json"  # first: a string in it may hold fences
    if answer is None:
        for block in _blocks(text):
            answer, rule = block, "json-block"
    if answer is None:
        answer = last_json(text)
    return Reading(answer, "none" if answer is None else rule)
