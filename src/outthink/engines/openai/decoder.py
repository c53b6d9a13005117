"""The body of a reply as decoded chunks. Knows that it may be a stream, one object or a web page.

Does not know what a chunk means. Looks at the bytes and not at the content type, which servers get wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from outthink.engines.openai.complaint import html
from outthink.engines.openai.sse import Events

_decode = json.JSONDecoder().raw_decode

Kind = Literal["unknown", "events", "object", "page"]


class NotJson(ValueError):
    """The body, or one event of it, is not JSON. The message quotes its start."""


class Decoder:
    """Feed it pieces of the body; it returns the JSON objects they complete.

    Args:
        loads: a faster reader of JSON, which may be stricter: what it refuses with a ValueError is read again.
    """

    __slots__ = ("_events", "_held", "_loads", "done", "kind")

    def __init__(self, loads: Callable[[bytes], Any] | None = None) -> None:
        self._loads = loads
        self.kind: Kind = "unknown"
        self.done = False
        """The server said `[DONE]`: what follows, if anything, is none of ours."""
        self._held: list[bytes] = []
        self._events = Events()

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The chunks that this piece completes."""
        if self.kind == "events":
            return self._decode(self._events.feed(piece))
        self._held.append(piece)
        if self.kind == "unknown":
            start = b"".join(self._held).lstrip()
            if not start:
                return []
            if start[:1] in (b"{", b"["):
                self.kind = "object"
            elif start[:1] == b"<":
                self.kind = "page"
            else:
                self.kind = "events"
                whole, self._held = b"".join(self._held), []
                return self._decode(self._events.feed(whole))
        return []

    def close(self) -> list[dict[str, Any]]:
        """The chunks that the end of the body completes. Raises NotJson."""
        if self.kind == "events":
            return self._decode(self._events.close())
        whole, self._held = b"".join(self._held), []
        if not whole.strip():
            return []
        if self.kind == "page" and not html(whole):
            raise NotJson(whole[:80].decode("utf-8", "replace"))
        return [] if self.kind == "page" else [self._object(whole.strip())]

    def _decode(self, events: list[bytes]) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        for data in events:
            if self.done:
                break
            if data[:1] != b"{" and (text := data.strip()) in (b"", b"[DONE]"):
                self.done = bool(text)
            else:
                try:
                    chunks.append(self._object(data if data[:1] == b"{" else data.strip()))
                except NotJson:
                    if b"\n" not in data:
                        raise
                    # Servers that forget the blank line between events: each line is an object of its own.
                    chunks += self._decode(data.split(b"\n"))
        return chunks

    def _object(self, data: bytes) -> dict[str, Any]:
        if self._loads is not None:
            try:
                value = self._loads(data)
            except ValueError:
                return _object(data)
            if type(value) is dict:
                return value
        return _object(data)


def _object(data: bytes) -> dict[str, Any]:
    text = data.decode("utf-8", "replace")
    try:
        # `json.loads` looks at options and white space first, which takes as long as a short chunk itself.
        value, end = _decode(text)
        if end < len(text) and text[end:].strip():
            raise ValueError("more than one value")
    except ValueError:
        raise NotJson(data[:80].decode("utf-8", "replace")) from None
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if not isinstance(value, dict):
        raise NotJson(data[:80].decode("utf-8", "replace"))
    return value
