"""Where a text states its answer: `the answer is ...`, `Answer: ...`, `#### ...`.

Knows the phrases and where such a statement ends. Does not know what kind of answer is wanted:
it offers statements, the last one first, and the kinds pick what they can read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
          | [:：=]
        )
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
_ABBREVIATIONS = frozenset(
    ["st", "dr", "mr", "mrs", "ms", "jr", "sr", "vs", "prof", "no", "approx", "e.g", "i.e", "u.s", "etc"]
)


def hashed(text: str) -> str | None:
    """What follows `####` on the last line, GSM8K's mark; None where the last line has none.

    Only the last line counts: anywhere else `####` is a markdown heading.
    """
    found = _HASHES.search(text.rstrip()[-_SPAN - 8 :])
    return found.group(1).strip() if found else None


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
