r"""Free text as an answer.

Knows how to make two spellings of the same words one string: white space, case, quotes or emphasis
around it, full stops behind it. Does not know synonyms or meaning.
"""

from __future__ import annotations

import re
import unicodedata

from outthink.answers.boxed import closing, last_boxed
from outthink.answers.phrase import sentence, stated
from outthink.answers.protocol import Reading

_WRAP = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf)|mbox)\s*\{")
_PAIRS = (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("$", "$"))
_MATH = (("\\(", "\\)"), ("\\[", "\\]"))
_TRAILING = ".,;:!?。！？…"


def _peeled(text: str) -> str:
    """`text` in small letters, without one layer of marks around it and punctuation behind it."""
    text = " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())
    text = text.rstrip(_TRAILING).rstrip()
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
    """Casefolded, white space collapsed, trailing punctuation and surrounding marks removed; None if empty."""
    while (peeled := _peeled(text)) != text:
        text = peeled
    return text or None


def read(text: str) -> Reading:
    """Read text: boxed, stated (up to the end of the sentence), or the whole of it."""
    box = last_boxed(text)
    if box is not None and (answer := canonical_text(box)) is not None:
        return Reading(answer, "boxed")
    for statement in stated(text):
        if (answer := canonical_text(sentence(statement))) is not None:
            return Reading(answer, "answer-is")
    answer = canonical_text(text)
    return Reading(answer, "none" if answer is None else "whole-text")
