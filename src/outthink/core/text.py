"""Text as it can be written: UTF-8 has no place for half a surrogate pair, which JSON escapes can hold.

Knows: pairs that arrived in two pieces, and what stands for half of one. Does not know who writes.
"""

from __future__ import annotations

import codecs
import json

REPLACED = "outthink.replaced"
"""Name of the error handler that writes U+FFFD for what UTF-8 cannot hold, and `?` where that cannot be written."""


def writable(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD; the two halves of a pair become its character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
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
