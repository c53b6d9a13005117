"""Choices: the letter, A to J, that a text names.

Knows `(b)`, `**B**`, `\\text{(B)}` and letters in sentences. Does not know what the options say; several letters
(`A and C`) are unreadable.
"""

from __future__ import annotations

import re

from outthink.answers.reading import Reading, first, offered

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
