"""Replies that come compressed although nobody has asked for it, unpacked on their way.

Knows: gzip and deflate, in the forms in which servers send them, and how much may come of a few bytes. Does not know
what is in a reply, or how its bytes move.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from outthink.http.transport import Response, TransportFault

_MOST = 64 << 20
"""Bytes that one reply may become: a few could become gigabytes."""
_PIECE = 1 << 16
"""Bytes that are unpacked at once."""
_TURN = 1 << 20
_HEADER, _AS_IT_IS = "content-encoding", "identity"
_KNOWN = ("gzip", "x-gzip", "deflate")
_GZIP, _ZLIB, _RAW = 31, 15, -15
_SEEN = 2
_TEXTS = (b'{"', b"{ ", b"{\n", b"{\r", b"{}", b"[{", b"[]", b"<!", b"<h", b"da", b"ev", b"id", b": ", b"\xef\xbb")
"""So begin JSON, pages and events; hardly a compressed body does."""


def unpacked(reply: Response) -> Response:
    """The reply without its compression, and without the header that tells of it.

    What is packed in a way that nobody here knows is a fault: nobody can tell what is in it.
    """
    told = reply.headers.get(_HEADER)
    if told is None:
        return reply
    layers = [word for part in told.lower().split(",") if (word := part.strip()) not in ("", _AS_IT_IS)]
    headers = {name.lower(): value for name, value in reply.headers.items() if name.lower() != _HEADER}
    for layer in reversed(layers or [_AS_IT_IS]):
        reply = UnpackedResponse(reply, layer, headers)
    return reply


class UnpackedResponse(Response):
    """A reply as it comes, unpacked by one layer."""

    def __init__(self, reply: Response, layer: str, headers: Mapping[str, str]) -> None:
        self.reply, self.status, self.headers = reply, reply.status, headers
        self._layer = layer
        self._unpacker: zlib._Decompress | None = None
        self._plain = layer == _AS_IT_IS
        """It is labelled compressed, and is not."""
        self._first = self._left = b""
        self._size = 0

    async def __anext__(self) -> bytes:
        while True:
            while self._left and not self._plain:
                if piece := self._unpack():
                    if self._size // _TURN > (self._size - len(piece)) // _TURN:
                        await asyncio.sleep(0)  # a few bytes that become many must not hold up the event loop
                    return piece
            try:
                piece = await anext(self.reply)
            except StopAsyncIteration:
                if self._unpacker is not None and not self._plain and not self._unpacker.eof:
                    raise TransportFault("dropped", f"a {self._layer} body without its end") from None
                raise
            if self._unpacker is None and not self._plain:
                piece = self._first = self._first + piece
                if len(piece) < _SEEN:
                    continue
                self._begin(piece)
            if self._plain:
                return piece
            self._left = piece

    def _begin(self, piece: bytes) -> None:
        """Decide by its first bytes how the body is unpacked. Raises TransportFault."""
        if self._layer == "deflate":  # some servers leave out the header that belongs to it
            wrapped = piece[0] & 15 == 8 and (piece[0] << 8 | piece[1]) % 31 == 0
            self._plain = piece[:2] in _TEXTS
            self._unpacker = zlib.decompressobj(_ZLIB if wrapped else _RAW)
        elif self._layer not in _KNOWN:
            self._plain = piece.lstrip()[:2] in _TEXTS
            if not self._plain:
                raise TransportFault("dropped", f"a body packed as {self._layer[:40]}, unasked")
        else:
            self._plain = piece[0] != 0x1F
            self._unpacker = zlib.decompressobj(_GZIP)

    def _unpack(self) -> bytes:
        """The next piece of what has come. Raises TransportFault."""
        unpacker = self._unpacker
        assert unpacker is not None
        if unpacker.eof:  # a body may have several members; what else follows is none of it
            if self._layer == "deflate" or self._left[0] != 0x1F:
                self._left = b""
                return b""
            unpacker = self._unpacker = zlib.decompressobj(_GZIP)
        try:
            piece = unpacker.decompress(self._left, _PIECE)
        except zlib.error as error:
            raise TransportFault("dropped", f"a broken {self._layer} body: {error}") from None
        self._left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
        self._size += len(piece)
        if self._size > _MOST:
            raise TransportFault("dropped", f"a {self._layer} body that becomes more than {_MOST >> 20} MiB")
        return piece

    async def aclose(self) -> None:
        """Close the reply."""
        await self.reply.aclose()
