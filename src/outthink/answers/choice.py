r"""Multiple-choice letters A to J.

Knows how a letter is written: `B`, `(b)`, `B.`, `**B**`, `\text{(B)}`, `option C`. Does not know what the
options say, and does not read more than one letter (`A and C` is unreadable).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from outthink.answers.boxed import last_boxed
from outthink.answers.phrase import stated
from outthink.answers.protocol import Reading

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


def _found(text: str) -> Iterator[tuple[str | None, str]]:
    box = last_boxed(text)
    if box is not None:
        yield letter(box), "boxed"
    for statement in stated(text):
        yield letter(statement), "answer-is"
    if len(text) < _SHORT:
        yield letter(text), "letter"
    yield last_letter(text), "letter"


def read(text: str) -> Reading:
    """Read a choice: boxed, stated, the whole of a short text, or the last letter that the text names."""
    for answer, rule in _found(text):
        if answer is not None:
            # Several letters are an answer that cannot be read, not an excuse to guess one.
            return Reading(answer, rule) if answer else Reading(None, "none")
    return Reading(None, "none")
