"""The body of a reply as decoded chunks: server-sent events, one JSON object, or a web page.

Knows the line format of events, and that servers get the content type wrong: it looks at the bytes. Does not know what
a chunk means.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]


def is_html(content: bytes) -> bool:
    """Whether this is a page for browsers."""
    return content.lstrip()[:200].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body"))


class Events:
    """An incremental parser of server-sent events: feed it pieces in any cuts, it returns the data of whole events."""

    __slots__ = ("_data", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes, in order."""
        if not self._tail and not self._data and piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2:
            # The common case first: one whole event. (`data: x\n?` also comes here, and goes the long way.)
            return [piece[6:-2]] if piece.endswith(b"\n") else self._lines(piece)
        return self._lines(self._tail + piece if self._tail else piece)

    def _lines(self, text: bytes) -> list[bytes]:
        if b"\r" in text:
            # A carriage return at the very end may be half of a line end: it waits for the next piece.
            held = text.endswith(b"\r")
            text = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            lines = text.split(b"\n")
            self._tail = lines.pop() + (b"\r" if held else b"")
        else:
            lines = text.split(b"\n")
            self._tail = lines.pop()
        events: list[bytes] = []
        for line in lines:
            self._line(line, events)
        return events

    def close(self) -> list[bytes]:
        """What is left when the body ends without the last line end or the last blank line."""
        events: list[bytes] = []
        self._line(self._tail.rstrip(b"\r"), events)
        self._line(b"", events)
        self._tail = b""
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            if self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        elif line.startswith(b"error:"):
            # llama.cpp before 2025 reported a failure as a field of its own.
            events.append(b'{"error":' + line[6:] + b"}")
        # Comments (`: ping`), `event:`, `id:` and `retry:` carry nothing that is needed here.


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

    def __init__(self, loads: Callable[[bytes], Json] | None = None) -> None:
        self._loads = loads
        self.kind: Kind = "unknown"
        self.done = False
        """The server said `[DONE]`: what follows, if anything, is none of ours."""
        self._held: list[bytes] = []
        self._events = Events()

    def feed(self, piece: bytes) -> list[JsonObject]:
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
                body, self._held = b"".join(self._held), []
                return self._decode(self._events.feed(body))
        return []

    def close(self) -> list[JsonObject]:
        """The chunks that the end of the body completes. Raises NotJson."""
        if self.kind == "events":
            return self._decode(self._events.close())
        body, self._held = b"".join(self._held), []
        if not body.strip():
            return []
        if self.kind == "page" and not is_html(body):
            raise NotJson(body[:80].decode("utf-8", "replace"))
        return [] if self.kind == "page" else [self._object(body.strip())]

    def _decode(self, events: list[bytes]) -> list[JsonObject]:
        chunks: list[JsonObject] = []
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

    def _object(self, data: bytes) -> JsonObject:
        if self._loads is not None:
            try:
                value = self._loads(data)
            except ValueError:
                return _object(data)
            if type(value) is dict:
                return value
        return _object(data)


def _object(data: bytes) -> JsonObject:
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
