"""The events of a reply on their way to the client: each goes on when it is whole, as the bytes that came.

Knows: which event ends a reply, which tells of a failure, and which holds nothing but counts that the client has not
asked for. Decodes only what could be one of these. Does not know connections, keys or ledgers.
"""

from __future__ import annotations

import re

from outthink.http.errors import ErrorBody, failed_choice, failure_in
from outthink.http.events import Decoder, Events, Json, JsonObject, NotJson
from outthink.http.fields import decode, encode
from outthink.http.transport import TransportFault
from outthink.http.usage import ReplyUsage


def is_plain(text: bytes) -> bool:
    """Whether nothing in here can be counts, an end or a failure, however a server writes its JSON."""
    # Names may be written with escapes: those of their letters all begin with the same two zeros.
    low = text.lower()
    return (b'"choices"' in low or b'"delta"' in low) and not (
        b"usage" in low
        or b"error" in low
        or b"[done]" in low
        or b"timings" in low
        or b"failed" in low
        or b'finish_reason":"' in low
        or b'finish_reason": "' in low
        or b"\\u00" in low
    )


_MOST_LEARNT = 8
_LONGEST_LEARNT = 4096
"""Bytes of an event that is matched: a long one would hold up the event loop."""
# Up to the text of the first member that is one, and from its end to that of the one event.
_TEXT = re.compile(
    rb'(data: [^\r\n]*?"(?:content|text|reasoning_content|reasoning|delta)": ?")(?:[^"\\\r\n]|\\.)*("[^\r\n]*\n\n)\Z'
)

# What every chunk of a stream has, and the counts.
_BESIDE_USAGE = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "timings", "system_fingerprint", "service_tier"}
    | {"obfuscation", "provider"}
)
_LAST = ("response.completed", "response.incomplete", "response.failed")
_EMPTY: tuple[Json, ...] = (None, "", [], {})


def _counts(chunk: JsonObject) -> bool:
    if chunk.get("usage") or chunk.get("timings"):
        return True
    response = chunk.get("response")
    return isinstance(response, dict) and bool(response.get("usage") or response.get("timings"))


class EventReader:
    """Reads a reply's events as they pass.

    Args:
        hide_usage: take out the chunk with the counts, which we have asked for and the client has not.
        usage: what the counts are noted in.
    """

    def __init__(self, *, hide_usage: bool = False, usage: ReplyUsage | None = None) -> None:
        self._hide = hide_usage
        self._events, self._decoder = Events(), Decoder(decode)
        self._first: JsonObject | None = None  # what the first chunk holds that others may repeat beside the counts
        self._like: tuple[bytes, bytes] | None = None  # both ends of an event that only adds text
        self._learnt = 0
        self._hidden = False  # the last event was taken out
        self._easy = False  # an event begins now, and only counts, an end or a failure would matter
        self.usage = usage or ReplyUsage()
        self.failure: ErrorBody | None = None
        """What an event has told of; the first that did. One that refuses our key is not shown, nor what follows."""
        self.ended = False
        """The last event of a response was shown; little can follow."""
        self.empty = True
        """Nothing but comments has been shown."""

    @property
    def done(self) -> bool:
        """The reply has said that it is at its end; nothing behind it is shown."""
        return self._decoder.done

    @property
    def pending(self) -> int:
        """Bytes of an event that is not whole yet."""
        return self._events.pending

    def feed(self, piece: bytes) -> bytes:
        """What the client may see of the events that this piece completes. Raises TransportFault for an endless one."""
        if self.adds_text(piece):
            return piece
        try:
            frames = self._events.frames(piece)
        except NotJson as error:
            raise TransportFault("dropped", str(error)) from None
        return self._shown(frames)

    def adds_text(self, piece: bytes) -> bool:
        """Whether a piece holds whole events with more of the same: the common case, in which nothing is decoded."""
        if not self._easy:
            return False
        if self._is_alike(piece):
            return True
        if piece.endswith(b"\n\n") and is_plain(piece):
            self._learn(piece)
            return True
        return False

    def _is_alike(self, piece: bytes) -> bool:
        """Whether a piece is an event that differs in its text alone from one that was learnt."""
        if (like := self._like) is None or not piece.startswith(like[0]) or not piece.endswith(like[1]):
            return False
        text = piece[len(like[0]) : -len(like[1])]
        return b'"' not in text and text[-1:] != b"\\"

    def _learn(self, piece: bytes) -> None:
        """Note both ends of an event that only adds text: what differs from it in the text alone adds text too."""
        if self._learnt < _MOST_LEARNT and len(piece) <= _LONGEST_LEARNT and (match := _TEXT.match(piece)) is not None:
            self._learnt += 1
            self._like = match[1], match[2]

    @property
    def complete(self) -> bool:
        """Whether the reply has told of its end, or of a failure: one that stops without either was broken off."""
        return self.done or self.ended or self.usage.ended or self.failure is not None

    def close(self) -> bytes:
        """What is left when the reply ends without a last blank line: an event if it can be read, and not a part."""
        frames = [] if self.done else self._events.remains()
        for _, data in frames:
            try:
                if data is not None and Decoder(decode).chunks(data) is not None:
                    return self._shown(frames)
            except NotJson:
                self.usage.add_unread()
        return b""

    def _shown(self, frames: list[tuple[bytes, bytes | None]]) -> bytes:
        shown, settled = [], self.usage.settled
        for raw, data in frames:
            if data is None or (settled and (self._is_alike(raw) or is_plain(raw))):
                if raw != b"\n" or not self._hidden:  # the line feed of a pair goes where its carriage return went
                    shown.append(raw)
                self._hidden = False
                continue
            text = self._read(raw, data)
            settled, self._hidden = self.usage.settled, not text
            if self.failure is not None and self.failure.about_key:
                break
            shown.append(text)
            self.empty = False
            if self._decoder.done:
                break
        self._easy = settled and not self.pending
        return b"".join(shown)

    def _read(self, raw: bytes, data: bytes) -> bytes:
        """Note what an event says; what the client may see of it."""
        try:
            chunks = self._decoder.chunks(data)
        except NotJson:
            self.usage.add_unread()
            return raw
        hidden = 0
        for chunk in chunks:
            self.usage.add(chunk)
            if self.failure is None:
                self.failure = failure_in(chunk) or (ErrorBody("a choice failed") if failed_choice(chunk) else None)
            self.ended = self.ended or chunk.get("type") in _LAST
            if self._hide and self._only_usage(chunk):
                hidden += 1
            if self._hide and self._first is None:
                self._first = {name: value for name, value in chunk.items() if name not in _BESIDE_USAGE}
        if not hidden:
            if self.failure is None and not self.done and not any(_counts(chunk) for chunk in chunks):
                self._learn(raw)
            return raw
        # Servers that forget the blank line between events have sent several as one.
        kept = [chunk for chunk in chunks if not self._only_usage(chunk)]
        end = b"data: [DONE]\n\n" if self._decoder.done else b""
        return b"".join(b"data: " + encode(chunk) + b"\n\n" for chunk in kept) + end

    def _only_usage(self, chunk: JsonObject) -> bool:
        """Whether a chunk holds counts, and beside them nothing that it does not share with the first."""
        if chunk.get("choices") != [] or not isinstance(chunk.get("usage"), dict):
            return False
        first = self._first or {}
        return all(
            name in _BESIDE_USAGE or value in _EMPTY or first.get(name) == value for name, value in chunk.items()
        )
