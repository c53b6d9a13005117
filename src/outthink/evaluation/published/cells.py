"""What the cells of a data file of problems hold: a question, choices, a gold answer.

Knows which values are refused as one of these, and that a gold answer must be readable as its kind. Does not know
columns, files or forms, nor what a cell means wherever it stands.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal

from outthink.answers import canonical_key
from outthink.answers.reading import last_boxed
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, Fields, Message
from outthink.core.text import writable
from outthink.engines.cells import BadCell, Cell, decoded, empty, text_of

Question = str | tuple[Fields, ...]
"""A question's text, or the messages of a chat in OpenAI's form."""
LETTERS = "ABCDEFGHIJ"
"""Of choices, as many as the kind `choice` reads."""
_UNBRACED = re.compile(r"\\boxed\s+([^\s$]+)")


def question_of(value: Cell) -> Question:
    """A text, or messages; BadCell for everything else."""
    value = decoded(value)
    if empty(value):
        raise BadCell("is null")
    if isinstance(value, str):
        if not value.strip():
            raise BadCell("is an empty question")
        if (chat := _chat(value)) is None:
            return writable(value)
        value = chat
    if isinstance(value, list):
        return _messages(value)
    raise BadCell("is no text")


def _chat(text: str) -> list[Cell] | None:
    """Messages that a table without lists holds as JSON; None for every other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    chat = parts and all(isinstance(part, dict) and {"role", "content"} <= part.keys() for part in parts)
    return list(parts) if chat else None


def _messages(value: Sequence[Cell]) -> tuple[Fields, ...]:
    messages = []
    for part in value:
        # A table gives every message the keys of all.
        known = (
            {name: decoded(cell) for name, cell in part.items() if cell is not None}
            if isinstance(part, Mapping)
            else {}
        )
        content = known.get("content")
        parts = isinstance(content, list) and all(isinstance(piece, Mapping) for piece in content)
        if not isinstance(known.get("role"), str) or not (isinstance(content, str) or parts or "tool_calls" in known):
            raise BadCell("is neither text nor messages with role and content")
        whole = json.dumps(known | {"content": content}, ensure_ascii=False, default=text_of)
        messages.append(json.loads(writable(whole)))
    # Parts other than text (images, tool calls) say something, too.
    if not any(Message.of(message).text.strip() or isinstance(message["content"], list) for message in messages):
        raise BadCell("is an empty question")
    return tuple(messages)


def question_text(question: Question) -> str:
    """A question as text: of messages their texts, one below the other."""
    if isinstance(question, str):
        return question
    return "\n".join(text for message in question if (text := Message.of(message).text).strip())


def extended(question: Question, lines: str) -> Question:
    """A question with more text behind it: of a chat, behind its last message of the user."""
    if isinstance(question, str):
        return question + lines
    users = [place for place, message in enumerate(question) if message["role"] == "user"]
    place = users[-1] if users else len(question) - 1
    content = question[place]["content"]
    more = content + lines if isinstance(content, str) else [*(content or ()), {"type": "text", "text": lines}]
    return (*question[:place], {**question[place], "content": more}, *question[place + 1 :])


def choices_of(value: Cell) -> list[str]:
    """The texts of choices, two to ten; BadCell for everything else."""
    value = listed(value)
    if not isinstance(value, list | tuple):
        raise BadCell("is null" if empty(value) else "is no list")
    if not 2 <= len(value) <= len(LETTERS):
        raise BadCell(f"has {len(value)} choices, not 2 to {len(LETTERS)}")
    texts = []
    for place, choice in enumerate(value):
        try:
            texts.append(choice_of(choice))
        except BadCell as error:
            raise BadCell(f"has at place {place} what {error}") from None
    return texts


def listed(value: Cell) -> Cell:
    """A list that a table without lists holds as JSON; everything else as it is."""
    value = decoded(value)
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return list(json.loads(value))
    except (ValueError, RecursionError):
        raise BadCell("is no list") from None


def choice_of(value: Cell) -> str:
    """The text of one choice; BadCell for what has none."""
    if empty(value):
        raise BadCell("is null")
    if isinstance(value, bool | list | Mapping):
        raise BadCell("is no text")
    if not (text := text_of(value)):
        raise BadCell("is empty")
    return text.strip()


def shown(choices: Sequence[str]) -> str:
    """Choices as lines `A. ...`."""
    return "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False))


def gold_of(value: Cell, kind: AnswerKind | AnswerReader | None, choices: Sequence[str] | None = None) -> str:
    """A gold answer as text, which its kind can read; a place among choices becomes its letter.

    Args:
        kind: None where it is not known: what no kind could use is refused.
        choices: texts of the choices, None for an answer that is no choice.

    Raises BadCell for null, NaN, empty text, a place outside the choices, what cannot be read; for a number also
    for truth values, lists and objects.
    """
    value = decoded(value)
    if empty(value):
        raise BadCell("is null")
    if kind == "number" and isinstance(value, bool | list | Mapping | datetime.date | datetime.time):
        raise BadCell("is no number")
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise BadCell("is not finite")
    if choices is not None:
        text = _letter(value, choices)
    elif isinstance(value, list) and kind != "json":
        text = ", ".join(map(_item, value))
    else:
        text = _item(value)
    if not text:
        raise BadCell("is empty")
    if kind is not None:
        readable(text, kind)
    return text


def _item(value: Cell) -> str:
    """A gold answer, or one of several, as text; lists and objects as JSON."""
    if isinstance(value, list | Mapping):
        return writable(json.dumps(value, ensure_ascii=False, default=text_of))
    if (text := text_of(value)) is None:
        raise BadCell("is empty")
    return text.strip()


def readable(gold: str, kind: AnswerKind | AnswerReader) -> str:
    """What a kind reads in a gold answer; BadCell for one that it cannot read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return canonical_key(kind, gold)
    except BadInput as error:
        raise BadCell(error.problem) from None


def is_readable(gold: str, kind: AnswerKind | AnswerReader) -> bool:
    """Whether a kind can read a gold answer."""
    try:
        readable(gold, kind)
    except BadCell:
        return False
    return True


def _letter(value: Cell, choices: Sequence[str]) -> str:
    """The letter of the right choice: from its place (from 0), its letter, or its whole text."""
    letters = LETTERS[: len(choices)]
    if isinstance(value, bool | list | Mapping):
        raise BadCell("is neither a place nor a letter of the choices")
    if isinstance(value, float) and value.is_integer():  # a table with a null writes whole numbers as floats
        value = int(value)
    if isinstance(value, int):
        if not 0 <= value < len(choices):
            raise BadCell(f"is outside the {len(choices)} choices")
        return letters[value]
    text = (text_of(value) or "").strip()
    if len(text) == 1 and text.upper() in letters:
        return text.upper()
    same = [letter for letter, choice in zip(letters, choices, strict=True) if choice == text]
    if text.isascii() and text.isdecimal():
        # `2` may be a place or the text of a choice: where both fit and differ, neither is taken.
        place = letters[int(text)] if int(text) < len(letters) else None
        found = {*same, *([place] if place else [])}
        if not found:
            raise BadCell(f"is outside the {len(choices)} choices")
    else:
        found = {*same} or ({readable(text, "choice")} & {*letters} if is_readable(text, "choice") else set())
    if len(found) != 1:
        raise BadCell("fits several choices" if found else "is neither a place nor a letter of the choices")
    return found.pop()


def is_hashed(value: Cell) -> bool:
    """Whether a cell has GSM8K's mark."""
    return isinstance(value, str | bytes) and "####" in str(value)


def behind_hashes(value: Cell) -> Cell:
    """GSM8K's gold answer: what stands behind `####`; a cell without it as it is."""
    value = decoded(value)
    if not isinstance(value, str) or "####" not in value:
        return value
    gold = value.rpartition("####")[2].strip()
    if not gold:
        raise BadCell("has nothing behind ####")
    return value if "\n" in gold else gold  # elsewhere than on the last line it is a heading


def boxes(value: Cell) -> Cell:
    r"""MATH's solution, whose boxes are the gold answer; BadCell for one without.

    The whole solution is kept: how its boxes make one answer is known where answers are read.
    """
    value = decoded(value)
    if isinstance(value, str) and value.strip() and not last_boxed(value):
        bare = _UNBRACED.findall(value)  # `\boxed 5`, which TeX takes as well
        if not bare:
            raise BadCell("has no \\boxed answer")
        return str(bare[-1])
    return value
