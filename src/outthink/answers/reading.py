r"""What it means to read an answer, and the places where a text gives one: a statement, `####`, `\boxed{...}`.

Knows the shape of a reading, the phrases that state an answer and where a statement ends, LaTeX braces and escapes.
Does not know any kind of answer: it offers statements, the last one first, and the kinds pick what they can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

IN_PLACE = 2 * 1024
"""Characters up to which reading holds an event loop up for less than 20 ms, whatever they are."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A canonical answer and the rule that found it; `answer` None (rule `none`) is no vote."""

    answer: str | None
    rule: str


UNREADABLE = Reading(None, "none")

# Where a text states its answer: `the answer is ...`, `Answer: ...`, `#### ...`.

_MOST = 8  # statements looked at, from the end
_SPAN = 1000  # characters of one statement
# Every repetition is bounded or has nothing to fail on behind it, so odd text costs linear time.
_STATED = re.compile(
    r"""
    (?:
        \banswers?\b(?:\s{1,3}(?:to|for|of)\s[^\n.:]{1,80}?)?["'”)*_\s]{0,12}
        (?:
            \b(?:is|are|was|equals|(?:would|will|should|must)\s+be)\b(?!\s+not\b)
            (?:\s+(?:therefore|thus|then|simply|exactly|given\s+by|equal\s+to)\b)?
            [*_\s]{0,12}[:：=]?
          | [:：]
        )
      | \banswers?\b["'”)*_\s]{0,12}=
      | (?m:^)[ \t]*[\#*_]+[ \t]*(?:the[ ]+)?(?:final[ ]+)?answer[ \t]*[*_]*[ \t]*(?=\n)
      | 答案(?:是|为|[:：])[:：]?
    )
    [*_]{0,4}\s*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_HASHES = re.compile(r"####[ \t]*([^\n#][^\n]{0,999})\Z")
_DISPLAY = {"\\[": "\\]", "$$": "$$"}
_SENTENCE = re.compile(r"[.!?](?=\s|$)|。")
_LAST_WORD = re.compile(r"([^\s.]+(?:\.[^\s.]+)*)\Z")
# A full stop behind one of these (or a single letter) does not end a sentence.
_SHORTENED = "st dr mr mrs ms jr sr vs prof no nr approx ca e.g i.e u.s etc fig eq pp sq rs fr kr tk"
_ABBREVIATIONS = frozenset(_SHORTENED.split())


def hashed(text: str) -> str | None:
    """What follows `####` on the last line, GSM8K's mark; None where the last line has none.

    Only the last line counts: anywhere else `####` is a markdown heading.
    """
    match = _HASHES.search(text.rstrip()[-_SPAN - 8 :])
    return match.group(1).strip() if match else None


def stated(text: str) -> Iterator[str]:
    """Statements of an answer, the last one first: the rest of the line behind the phrase.

    A statement that opens display mathematics runs to its closing mark instead.
    """
    mark = hashed(text)
    if mark is not None:
        yield mark
    for match in reversed(list(_STATED.finditer(text))[-_MOST:]):
        rest = text[match.end() : match.end() + _SPAN]
        close = _DISPLAY.get(rest[:2])
        if close is not None:
            inside = rest[2:].partition(close)[0]
            if inside.strip():
                yield f"${' '.join(inside.split())}$"
                continue
        line = rest.partition("\n")[0].strip()
        if line:
            yield line


def sentence(text: str) -> str:
    """The first sentence of `text`, without its full stop; abbreviations and decimals do not end it."""
    for match in _SENTENCE.finditer(text):
        word = _LAST_WORD.search(text, 0, match.start())
        last = word.group(1).lstrip("\"'“‘(*_").lower() if word else ""
        if match.end() < len(text) and (last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha())):
            continue
        return text[: match.start()]
    return text


# What makes a list of two answers.

OR = r"(?:\b(?:or|oder|ou|или)\b|\bo\b(?!\s*=)|或|または|또는|\\(?:lor|vee)\b)"
JOINER = rf"(?:[,;、，&]|{OR}|\b(?:and/or|and|und|et|и|as\s+well\s+as)\b|\by\b(?!\s*=)|和|及|と|및|\\(?:land|wedge)\b)"

# The last complete `\boxed{...}` of a text.

_OPEN = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOXES = 16  # of one list
_BETWEEN = 120  # characters between two boxes of one list
_LISTED = re.compile(rf"\s*{JOINER}|.*{JOINER}(?:\s*[a-zA-Z](?:_\{{?\w\}}?)?\s*=)?\s*\Z", re.DOTALL)
_CONCLUDED = re.compile(
    r"[.!?](?=\s)|\n\s*\n|\b(?:so|then|thus|therefore|hence|final(?:ly)?|answer|which|total|means|gives)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm)\s*\{|\\[,;:! ()\[\]]|\\q?quad|[$\{}~*]|\\boxed")


def closing(text: str, start: int, end: int) -> int | None:
    """The index of the brace that closes the group opened just before `start`; None if none before `end`."""
    depth = 1
    for match in _BRACE.finditer(text, start, end):
        mark = match.group()
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Complete boxes, the last one first: where each begins and ends, and what it holds."""
    end = len(text)
    for match in reversed(list(_OPEN.finditer(text))):
        stop = closing(text, match.end(), end)
        if stop is not None:
            yield match.start(), stop + 1, text[match.end() : stop].strip()
        # A box that opens earlier cannot close behind one that stays open: this keeps the search linear.
        end = match.start()


def last_boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{...}` (or `\fbox{...}`) holds, None without one.

    "Last" goes by where a box opens, so of nested boxes the innermost last one is read. Boxes of one sentence that
    commas, `and` or `or` join are one list: `\boxed{-2} and \boxed{1}` holds `-2, 1`.
    """
    if "box" not in text:
        return None
    held: list[str] = []
    begins = 0
    for start, stop, content in _boxes(text):
        if held and not _one_list(text[stop:begins]):
            break
        begins = start
        if content not in held:
            held.append(content)
        if len(held) == _BOXES:
            break
    return ", ".join(reversed(held)) if held else None


def _one_list(between: str) -> bool:
    """Whether a text between two boxes makes them items of one list."""
    if len(between) > _BETWEEN or not between:
        return False
    plain = _MARKUP.sub(" ", between)
    return _LISTED.match(plain) is not None and _CONCLUDED.search(plain) is None


# What a text gives, by the places above.

Find = Callable[[str], str | None]
"""From a piece of text to the canonical answer in it: None where it holds none, empty where it holds several."""


def placed(text: str, boxed: Find, statement: Find) -> tuple[str, str] | None:
    """(answer, rule) of the last box, else of a statement; None where neither gives one."""
    box = last_boxed(text)
    if box is not None and (answer := boxed(box)) is not None:
        return answer, "boxed"
    answers = (answer for piece in stated(text) if (answer := statement(piece)) is not None)
    return next(((answer, "answer-is") for answer in answers), None)


def told(answer: str | None, rule: str) -> Reading:
    """What the most trusted rule gives; several answers are one that cannot be read, not an excuse to guess."""
    return Reading(answer, rule) if answer else UNREADABLE
