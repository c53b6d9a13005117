"""The body of a reply as decoded chunks: server-sent events, one JSON object, or a web page.

Knows the line format of events, of which everybody reads the same, whatever the cuts and the ends of lines; and that
servers get the content type wrong: it looks at the bytes. Does not know what a chunk means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]


def is_html(content: bytes) -> bool:
    """Whether this is a page for browsers."""
    return content.lstrip()[:200].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body"))


class NotJson(ValueError):
    """The body, or one event of it, is not JSON. The message quotes its start, or says how long it is."""


class ErrorEvent(bytes):
    """The data of an event that is named `error`: whatever it holds, it tells of a failure."""

    __slots__ = ()


LONGEST = 32 << 20
"""Bytes of one event, or of a whole reply that is read as it comes."""
LONG = 1 << 15
"""Bytes of one event, or of a whole reply, beyond which it is read beside the event loop."""
BOM = b"\xef\xbb\xbf"
# A blank line: two ends of lines, each a line feed, a carriage return or both.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")


class Events:
    """An incremental parser of server-sent events: feed it pieces in any cuts, it returns the data of whole events.

    An event is whole as soon as its blank line has ended, be it by the carriage return of a pair that is cut in two.
    """

    __slots__ = ("_begun", "_clean", "_end", "_held", "_paired", "_size")

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the event that is not whole yet
        self._size = 0
        self._end = b""  # its last bytes, in which a blank line may have begun
        self._begun = False
        self._paired = False  # a line feed that comes now belongs to a carriage return before it
        self._clean = False  # what comes now is the beginning of an event and nothing else

    @property
    def pending(self) -> int:
        """Bytes of an event that has begun and is not whole."""
        return self._size if self._held else 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes, in order."""
        text = piece
        if not self._clean:
            _, text = self._begin(piece)
            if not text:
                return []
        # The common case first.
        elif piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2 and piece.endswith(b"\n"):
            return [piece[6:-2]]
        if b"\r" in text:  # a line with a lone carriage return is left to `Decoder`
            return [data for _, data in self._split(text) if data is not None]
        *blocks, rest = text.split(b"\n\n")
        self._hold(rest)
        found = [
            block[6:] if block.startswith(b"data: ") and b"\n" not in block else read_event(block) for block in blocks
        ]
        return [data for data in found if data is not None]

    def frames(self, piece: bytes) -> list[tuple[bytes, bytes | None]]:
        """The events that this piece completes: their bytes as they came, and their data (None: only comments)."""
        lead, text = self._begin(piece)
        frames = self._split(text) if text else []
        if lead:
            frames.insert(0, (lead, None))
        return frames

    def _begin(self, piece: bytes) -> tuple[bytes, bytes]:
        """The rest of an end of a line, and what has come of the event after it and those behind; empty: nothing new.

        Only where the event may have ended it is put together: it may come byte by byte.
        """
        self._clean = False
        if not self._begun:
            piece = b"".join(self._held) + piece
            if len(piece) < len(BOM) and BOM.startswith(piece):
                self._held, self._size = [piece], len(piece)
                return b"", b""
            piece, self._held, self._begun = piece.removeprefix(BOM), [], True
        lead = b""
        if self._paired and piece:
            self._paired = False
            if piece.startswith(b"\n"):
                lead, piece = b"\n", piece[1:]
        if not self._held or not piece:
            return lead, piece
        if _BLANK.search(self._end + piece) is None:
            self._held.append(piece)
            self._size += len(piece)
            if self._size > LONGEST:
                raise NotJson(f"an event of more than {LONGEST >> 20} MiB")
            self._end = (self._end + piece)[-3:]
            return b"", b""
        return lead, b"".join(self._held) + piece

    def _hold(self, rest: bytes, *, paired: bool = False) -> None:
        """Keep what is left behind whole events."""
        self._held = [rest] if rest else []
        self._size, self._end = len(rest), rest[-3:]
        self._paired, self._clean = paired, not rest and not paired

    def _split(self, text: bytes) -> list[tuple[bytes, bytes | None]]:
        """Whole events of a text that begins with one; what is left over is held."""
        frames: list[tuple[bytes, bytes | None]] = []
        if b"\r" not in text:
            *blocks, rest = text.split(b"\n\n")
            for block in blocks:
                frames.append((block + b"\n\n", read_event(block)))
        else:
            at = 0
            for blank in _BLANK.finditer(text):
                frames.append((text[at : blank.end()], read_event(text[at : blank.start()])))
                at = blank.end()
            rest = text[at:]
        self._hold(rest, paired=not rest and text.endswith(b"\r"))
        return frames

    def close(self) -> list[bytes]:
        """What is left when the body ends without the last line end or the last blank line."""
        return [data for _, data in self.remains() if data is not None]

    def remains(self) -> list[tuple[bytes, bytes | None]]:
        """The same with its bytes as they came."""
        rest, self._held, self._end = b"".join(self._held), [], b""
        return [(rest, read_event(rest))] if rest else []


def read_event(block: bytes) -> bytes | None:
    """The data of an event; None where it has none."""
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:]
    lines: list[bytes] = []
    failed = False
    for line in block.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"error:"):
            # llama.cpp before 2025 reported a failure as a field of its own.
            lines.append(b'{"error":' + line[6:] + b"}")
        elif line.startswith(b"event:"):
            failed = line[6:].strip().lower() == b"error"
        # Comments (`: ping`), `id:` and `retry:` carry nothing that is needed here.
    if not lines:
        return None
    data = lines[0] if len(lines) == 1 else b"\n".join(lines)
    return ErrorEvent(data) if failed else data


_LOOKED_AT = 16


def first_event(content: bytes) -> bytes | None:
    """The data of the first event of a body that has any, None where none of the first ones has."""
    rest = content.removeprefix(BOM).lstrip()
    for _ in range(_LOOKED_AT):
        blank = _BLANK.search(rest)
        if (data := read_event(rest if blank is None else rest[: blank.start()])) is not None or blank is None:
            return data
        rest = rest[blank.end() :].lstrip()
    return None


_decode = json.JSONDecoder(strict=False).raw_decode  # some servers write control characters as they are

Kind = Literal["unknown", "events", "object", "page"]


class Decoder:
    """Feed it pieces of the body; it returns the JSON objects they complete.

    Args:
        loads: a faster reader of JSON, which may be stricter: what it refuses with a ValueError is read again.
    """

    __slots__ = ("_events", "_held", "_loads", "done", "kind", "size")

    def __init__(self, loads: Callable[[bytes], Json] | None = None) -> None:
        self._loads = loads
        self.kind: Kind = "unknown"
        self.done = False
        """The server said `[DONE]`: what follows, if anything, is none of ours."""
        self._held: list[bytes] = []
        self.size = 0
        """Bytes of the body that have come."""
        self._events = Events()

    @property
    def pending(self) -> int:
        """Bytes that have come and are not decoded yet."""
        return self._events.pending if self.kind == "events" else self.size

    def feed(self, piece: bytes) -> list[JsonObject]:
        """The chunks that this piece completes. Raises NotJson."""
        self.size += len(piece)
        if self.kind == "events":
            return self._decode(self._events.feed(piece))
        self._held.append(piece)
        if self.size > LONGEST:
            raise NotJson(f"more than {LONGEST >> 20} MiB")
        if self.kind == "unknown":
            body = b"".join(self._held)
            if len(body) < len(BOM) and BOM.startswith(body):
                return []
            start = body.removeprefix(BOM).lstrip()
            if not start:
                self._held = [body[: len(BOM)] if body.startswith(BOM) else b""]  # white space says nothing
                return []
            if start[:1] in (b"{", b"["):
                self.kind = "object"
            elif start[:1] == b"<":
                self.kind = "page"
            else:
                self.kind, self._held = "events", []
                return self._decode(self._events.feed(body))
        return []

    def close(self) -> list[JsonObject]:
        """The chunks that the end of the body completes. Raises NotJson."""
        if self.kind == "events":
            return self._decode(self._events.close())
        body, self._held = b"".join(self._held).removeprefix(BOM), []
        if not body.strip():
            return []
        if self.kind == "page" and not is_html(body):
            raise NotJson(body[:80].decode("utf-8", "replace"))
        return [] if self.kind == "page" else [self._object(body.strip())]

    def chunks(self, data: bytes) -> list[JsonObject]:
        """The chunks of one event: one, and none in the last. Raises NotJson."""
        return self._decode([data])

    def _decode(self, events: list[bytes]) -> list[JsonObject]:
        chunks: list[JsonObject] = []
        loads = self._loads
        for data in events:
            if self.done:
                break
            if loads is not None and type(data) is bytes and data[:1] == b"{":
                try:
                    value = loads(data)
                except ValueError:  # it is stricter than servers are
                    value = None
                if type(value) is dict:
                    chunks.append(value)
                    continue
            chunks += self._decode_other(data)
        return chunks

    def _decode_other(self, data: bytes) -> list[JsonObject]:
        """The chunks of an event of another form: the last, one that tells of an error, or several as one."""
        text = data.strip()
        if text in (b"", b"[DONE]"):
            self.done = bool(text)
            return []
        try:
            chunk = self._object(text)
        except NotJson:
            if b"\r" in data and type(data) is bytes:  # these end lines, too
                frames = Events().frames(b"data: " + data + b"\n\n")
                return self._decode([part for _, part in frames if part is not None])
            if type(data) is ErrorEvent:  # in words
                return [{"error": {"message": data.decode("utf-8", "replace")}}]
            if b"\n" in data:
                # Servers that forget the blank line between events: each line is an object of its own.
                return self._decode(data.split(b"\n"))
            raise
        return [{"error": chunk} if type(data) is ErrorEvent and not chunk.get("error") else chunk]

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
