r"""LaTeX expressions: which piece of a text is one, and a light normal form.

Knows delimiters (`$`, `\(`, `\[`), spacing and size commands. Does not know mathematics: `x+1` and `1+x`
stay different strings here, equivalence is the worker's business.
"""

from __future__ import annotations

import re

from outthink.answers.number import canonical_number

LONGEST = 1000  # characters: beyond, an expression is unreadable (parsing time grows fast)

_DELIMITED = re.compile(
    r"(?<!\\)\$\$((?:[^$\\]|\\.)+)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]",
    re.DOTALL,
)
_NOTHING = re.compile(
    r"\\(?:left|right)(?![A-Za-z])\.?|\\(?:displaystyle|limits|[bB]ig[lr]?)(?![A-Za-z])|\\[!,;:]|[~\u2009\xa0]"
)
_SPACED = re.compile(r"\s*([-+=,()^_/*<>|])\s*")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*\Z|\\degree\s*\Z|°\s*\Z")
_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMAND = re.compile(r"\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "exp",
        "sqrt",
        "arcsin",
        "arccos",
        "arctan",
        "min",
        "max",
        "gcd",
        "lcm",
    ]
)


def light(text: str) -> str | None:
    """The normal form of one expression: no delimiters, sizes or spacing; a number becomes canonical.

    None for an empty or absurdly long one.
    """
    if len(text) > LONGEST:
        return None
    while (lighter := _lighter(text)) != text:
        text = lighter
    return canonical_number(text) or text or None


def _lighter(text: str) -> str:
    text = " ".join(text.split()).rstrip(".;:, ")
    delimited = _DELIMITED.fullmatch(text)
    if delimited is not None:
        text = next(part for part in delimited.groups() if part)
    text = _NOTHING.sub("", re.sub(r"\\[dtc]frac", r"\\frac", text))
    return _SPACED.sub(r"\1", _DEGREES.sub("", text)).strip()


def expression(statement: str) -> str | None:
    """The expression a statement gives: the first delimited one, else all of it if it holds no words."""
    delimited = _DELIMITED.search(statement)
    if delimited is not None:
        return light(next(part for part in delimited.groups() if part))
    statement = statement.strip().strip("*_`").rstrip(".;:, ")
    words = _WORD.findall(_COMMAND.sub(" ", statement))
    if any(word.lower() not in _FUNCTIONS for word in words):
        return None
    return light(statement)
