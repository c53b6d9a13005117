r"""The last complete `\boxed{...}` of a text, and braces that balance.

Knows LaTeX braces and escapes. Does not know what the box holds or whether it is an answer.
"""

from __future__ import annotations

import re

_OPEN = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


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


def last_boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{...}` (or `\fbox{...}`) holds, None without one.

    "Last" goes by where a box opens, so of nested boxes the innermost last one is read.
    """
    if "box" not in text:
        return None
    end = len(text)
    for match in reversed(list(_OPEN.finditer(text))):
        stop = closing(text, match.end(), end)
        if stop is not None:
            return text[match.end() : stop].strip()
        # A box that opens earlier cannot close behind one that stays open: this keeps the search linear.
        end = match.start()
    return None
