"""Texts of models: what of one was said and not only thought, and how it can be written.

Knows the marks that models put around their thinking, and that a mark which is quoted or part of a program marks
nothing; that UTF-8 has no place for half a surrogate pair, which JSON escapes can hold. Does not know kinds of
answers, code, or who writes.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Iterator

REPLACED = "outthink.replaced"
"""Name of the error handler that writes U+FFFD for what UTF-8 cannot hold, and `?` where that cannot be written."""


def writable(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD; the two halves of a pair become its character."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a codec would replace the lone ones too, four times slower
        return _LONE.sub("\ufffd", text).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    return text


def writable_json(text: str) -> str:
    """The same for JSON whose letters beyond ASCII are escaped, as `json.dumps` writes it."""
    if "\\ud" not in text:  # both halves of a pair are escaped so
        return text
    return json.dumps(json.loads(writable(json.dumps(json.loads(text), ensure_ascii=False))))


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    count = error.end - error.start
    mark = "\ufffd".encode() if error.encoding.lower().replace("-", "") == "utf8" else b"?"
    return mark * count, error.end


codecs.register_error(REPLACED, _replaced)


_LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")

# Thinking marks.

_NAMES = ("think", "thought", "reasoning", "<|channel|>", "<unused9")
_MARK = re.compile(
    r"""
    (?<!["'“‘«]) (?:(?<!`)|(?<=```))
    (?:
        < /? (?: (?:\w{1,16}[:_])?think | thinking | thought | reasoning ) [ ]? >     # `<seed:think>`, too
      | \[ /? think [ ]? \]                                 # Mistral
      | ◁ /? think ▷                                        # Kimi
      | <\| (?:START|END)_THINKING \|> | <\| (?:begin|end)_of_thought \|>            # Command, Sky
      | <\|channel\|> (?:analysis|commentary|final) <\|message\|>                    # gpt-oss
      | <unused9[45]>                                       # MedGemma
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FENCE = re.compile(r"^[ \t]*(?:(?:[-*+>]|[0-9]{1,3}[.)])[ \t]+)?(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)


def visible(text: str) -> str | None:
    """A completion without its thinking, in linear time; None where thinking is cut or nothing follows it.

    A closing mark alone ends thinking that began at the start: chat templates often write the opening one. A mark
    behind a quotation mark is only spoken of; one within a block of code is code, unless it has a line for itself.
    """
    lower = text.lower()
    if not any(name in lower for name in _NAMES):  # most texts, in a tenth of the time
        return text
    pieces: list[str] = []
    thinking, start, marked = "", 0, False
    blocks: list[int] | None = None
    for mark in _MARK.finditer(text):
        ends, name = _meaning(mark[0].lower())
        if thinking:
            if ends and name == thinking:
                thinking, start = "", mark.end()
            continue
        if blocks is None:
            blocks = list(_blocks(text))
        # Ends of blocks stand at odd places: an odd number of borders lies before a mark within one.
        if bisect_right(blocks, mark.start()) % 2 and not _alone(text, mark):
            continue
        marked = True
        if ends:
            pieces.clear()
            start = mark.end()
        else:
            pieces.append(text[start : mark.start()])
            thinking = name
    if not marked:
        return text
    rest = text[start:]
    return None if thinking or not rest.strip() else "\n".join([*pieces, rest])


def _meaning(mark: str) -> tuple[bool, str]:
    """Whether a mark ends thinking, and a name that only its counterpart shares."""
    if mark.startswith("<|channel|>"):
        return "final" in mark, "channel"
    if mark.startswith("<unused"):
        return "95" in mark, "unused"
    ends = mark.startswith(("</", "[/", "◁/", "<|end"))
    return ends, mark.replace("/", "").replace(" ", "").replace("end_", "").replace("start_", "").replace("begin_", "")


def _blocks(text: str) -> Iterator[int]:
    """Where closed blocks of code begin and end, in turns."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            yield opened.start()
            yield fence.end()
            opened = None


def _alone(text: str, mark: re.Match[str]) -> bool:
    before = text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()]
    end = text.find("\n", mark.end())
    return not before.strip() and not text[mark.end() : None if end < 0 else end].strip()
