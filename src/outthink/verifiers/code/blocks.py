"""Where the code of a chat answer is.

Knows fences as models write them: three or more backticks or tildes, any tag, indented or quoted, on one line, never
closed. Runs in time linear in the text, which it does not parse as Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"(?P<before>[ \t]*(?:(?:>|[-*+]|\d{1,9}[.)])[ \t]*)*)(?P<fence>`{3,}|~{3,})(?P<tag>.*)")
_LANGUAGE = re.compile(r"(?:python|py)3?[ \t]+")
_BODY = re.compile(r"^[ \t]*(?:return|yield)\b", re.MULTILINE)
_PYTHON = re.compile(
    r"[@#)\]}]|(?:from|import|def|class|async|if|for|while|try|with|else|elif|except|finally)\b|\w+[ \t]*[=(\[.]"
)
_SPAN = re.compile(r"(?<!`)(`{1,3})(?!`)(?:(?:python|py)3?[ \t]+)?([^`\n]+)\1(?!`)")
_INDENTED = re.compile(r"^[ \t]*[\xa0\ufeff][ \t\xa0\ufeff]*", re.MULTILINE)  # as text from web pages is
_INSIDE = 4  # columns behind its fence from which on a fence is part of the code, such as one in a docstring


@dataclass(frozen=True, slots=True)
class FoundCode:
    """The code of one answer.

    Args:
        code: the block that defines the entry point, else what may be its body.
        others: the other blocks, of which it may need something.
        rest: what else may be the code where `code` is no Python, in turn.
    """

    code: str
    others: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def find_code(text: str, entry_point: str) -> FoundCode:
    """The last block that defines the entry point; without one a block that may be its body, else the whole text."""
    text = _INDENTED.sub(lambda blank: blank[0].replace("\ufeff", "").replace("\xa0", " "), text.replace("\r\n", "\n"))
    blocks = list(_blocks(text))
    defining = _defining(blocks, entry_point)
    if defining is not None:
        code = blocks[defining]
        return FoundCode(code, tuple(blocks[:defining] + blocks[defining + 1 :]), tuple(_within(code, entry_point)))
    if not blocks:
        return FoundCode(text, rest=tuple(_without_prose(text, entry_point)))
    before = "".join(_unfenced(text))
    bodies = [place for place, block in enumerate(blocks) if _BODY.search(block)]
    if not bodies and _BODY.search(before):  # its fence was opened in the prompt
        return FoundCode(before, tuple(blocks), tuple(_without_prose(before, entry_point)))
    place = bodies[-1] if bodies else 0
    rest = [before, text] if before.strip() else [text]
    return FoundCode(blocks[place], tuple(blocks[:place] + blocks[place + 1 :]), tuple(rest))


def _defining(blocks: list[str], entry_point: str) -> int | None:
    """The place of the last block that defines a name, in its first column if any does."""
    name = re.escape(entry_point)
    heads = rf"(?:async[ \t]+)?def[ \t]+{name}\b|class[ \t]+{name}\b"
    # Indented, a value of that name is a variable of the function's body.
    for pattern in (rf"^(?:{heads}|{name}[ \t]*(?::[^=\n]*)?=(?!=))", rf"^[ \t]+(?:{heads})"):
        defines = re.compile(pattern, re.MULTILINE)
        places = [place for place, block in enumerate(blocks) if defines.search(block)]
        if places:
            return places[-1]
    return None


def _blocks(text: str) -> Iterator[str]:
    """The blocks of a text, without the indentation or the quotation marks of their fences."""
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if opened is None:
            if fence is None:
                continue
            inline = _inline(fence)
            if inline is not None:
                yield inline
            elif fence["fence"][0] == "~" or "`" not in fence["tag"]:
                opened, lines = fence, []
        elif fence is not None and _ends(opened, fence):
            yield "".join(lines)
            opened, lines = (fence, []) if fence["tag"].strip() else (None, [])
        else:
            lines.append(_without(opened["before"], line) + "\n")
    if opened is not None:
        yield "".join(lines).removesuffix("\n")


def _inline(fence: re.Match[str]) -> str | None:
    """The code of a block that is opened and closed in one line."""
    code, closing, behind = fence["tag"].rpartition(fence["fence"])
    if not closing or behind.strip() or not code.strip():
        return None
    code = code.strip()
    language = _LANGUAGE.match(code)
    return code[language.end() if language else 0 :] + "\n"


def _ends(opened: re.Match[str], fence: re.Match[str]) -> bool:
    """Whether a fence closes a block; one with a tag opens the next one too."""
    same = fence["fence"][0] == opened["fence"][0] and len(fence["fence"]) >= len(opened["fence"])
    deeper = _width(fence["before"]) - _width(opened["before"])
    return same and deeper < (1 if fence["tag"].strip() else _INSIDE)


def _width(before: str) -> int:
    return len(before.expandtabs(4))


def _without(before: str, line: str) -> str:
    """A line of a block without what stands before its fence."""
    if ">" in before:
        line = re.sub(r"^[ \t]*>[ \t]?", "", line)
        before = before.rpartition(">")[2][1:]
    if not before:
        return line
    blank = len(line) - len(line.lstrip(" \t"))
    return line[min(blank, len(before)) :]


def _within(code: str, entry_point: str) -> Iterator[str]:
    """Of a block with fences in it: a block of these, and what stands in front of them, perhaps all of it."""
    blocks = list(_blocks(code))
    defining = _defining(blocks, entry_point)
    if defining is not None:
        yield blocks[defining]
    before = "".join(_unfenced(code))
    if blocks and before.strip():
        yield before


def _without_prose(text: str, entry_point: str) -> Iterator[str]:
    """Of a text without blocks: what begins like Python, is indented, or stands between backticks; else a body."""
    indented = (line + "\n" for line in text.split("\n") if not line[:1].strip())
    spans = (span[2] + "\n" for span in _SPAN.finditer(text))
    for kept in ("".join(_code_lines(text)), "".join(indented), *spans):
        if _defining([kept], entry_point) is not None:
            yield kept
    if _BODY.match(text) or text[:1] in " \t":
        yield "".join(_code_lines(text, stops=True))


def _code_lines(text: str, *, stops: bool = False) -> Iterator[str]:
    """The lines that begin like Python, and indented ones behind them.

    Args:
        stops: the text begins with code, and the first other line ends it.
    """
    code = stops
    for line in text.split("\n"):
        if line[:1].strip():
            code = _PYTHON.match(line) is not None
            if stops and not code:
                return
        if code:
            yield line + "\n"


def _unfenced(text: str) -> Iterator[str]:
    """The lines in front of the first fence."""
    for line in text.split("\n"):
        if _FENCE.fullmatch(line):
            return
        yield line + "\n"
