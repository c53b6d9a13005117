"""A request's body: received within bounds of size, time, values and depth, then decoded.

Knows: what decoding would make of a text before it is decoded, and that one key's bodies must not fill the memory that
others need. Does not know what a body asks for.
"""

from __future__ import annotations

import asyncio
import re
from array import array
from collections.abc import Awaitable
from contextlib import suppress
from itertools import accumulate

from aiohttp import HttpVersion11, web

from outthink.http.fields import JsonDict, decode
from outthink.serving.admission import ByteRoom, Limits
from outthink.serving.failure import Failure, bad_body, too_long
from outthink.workers.fairness import Rounds

DEPTH = 128  # lists and objects within each other: what writes JSON, and walks through it, can follow that
_RATE = 1 << 16  # bytes a second that a slow client may be expected to reach
_SMALL = 1 << 16  # bytes of a body that counts for nothing: a thousand of them are no load
_STEP = 1 << 20  # by which room is taken for a body that does not tell its length
_LONG = 1 << 18  # bytes of a body that is decoded beside the event loop
_SLICE = 1 << 16  # bytes that are looked at in one go
_TURN = 1 << 14  # bytes that are looked at, or decoded, in a round of the event loop that is theirs
_OBJECT, _LIST, _TEXT = 5, 3, 2  # memory of each, in that of a number
_LOOSE, _DENSE = 4096, 0.38  # so many of these are always allowed, and so many for each byte: 20 times its memory
_STRING = re.compile(rb'"[^"]*+"?')
_BRACKETS = bytes(range(256)).translate(None, b"[]{}")
_SIGNS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


class BodyScan:
    """Looks at JSON text in pieces of any cut. Raises Failure where decoding it would take too much."""

    def __init__(self, values: int) -> None:
        self._most = values
        self._carry = b""  # begins the next piece where this one ends within a text
        self._size = self._dense = self._numbers = self._depth = 0

    def feed(self, piece: bytes) -> None:
        """The next piece."""
        for at in range(0, len(piece), _SLICE):
            self._look(piece[at : at + _SLICE] if len(piece) > _SLICE else piece)

    def _look(self, piece: bytes) -> None:
        text = self._carry + piece
        escape = b""
        if b"\\" in text:
            text = text.replace(b"\\\\", b"")
            escape = b"\\" if text.endswith(b"\\") else b""
            text = text.replace(b'\\"', b"")
        quotes = text.count(b'"')
        self._carry = (b'"' if quotes % 2 else b"") + escape
        bare = _STRING.sub(b"", text) if quotes else text
        objects, lists, names = bare.count(b"{"), bare.count(b"["), bare.count(b":")
        self._size += len(piece)
        self._numbers += bare.count(b",")
        self._dense += _OBJECT * objects + _LIST * lists + _TEXT * max(0, quotes // 2 - names)
        if objects + lists:
            signs = array("b", bare.translate(_SIGNS, _BRACKETS))
            depths = list(accumulate(signs, initial=self._depth))
            self._depth = depths[-1]
            if max(depths) > DEPTH:
                raise bad_body(400, f"is nested more than {DEPTH} deep; make it flatter", "too_deep")
        elif closed := bare.count(b"]") + bare.count(b"}"):
            self._depth -= closed
        if self._dense > _LOOSE + _DENSE * self._size or self._dense + self._numbers > self._most:
            what = f"holds too many values ({self._size} bytes were looked at); send fewer and longer ones"
            raise bad_body(400, what, "too_many_values")


class Bodies:
    """Receives and decodes the bodies of one proxy.

    Args:
        seconds: that a body waits for room at most.
    """

    def __init__(self, limits: Limits, seconds: float) -> None:
        self._limits, self._seconds = limits, seconds
        self._decoding, self._rounds = asyncio.Lock(), Rounds()
        most = max(limits.bodies, limits.body)
        self._room = ByteRoom(most, max(most // 2, limits.body))

    async def receive(self, request: web.BaseRequest, key: str) -> tuple[bytes, JsonDict, int]:
        """A body, the object in it, and the room that it takes, for `release`.

        Raises Failure: 413 too long, 408 too slow, 400 for what is no JSON object or too much of one, 503 where the
        bodies of others take all the room.
        """
        limits, payload, length = self._limits, request.content, request.content_length
        if length is not None and length > limits.body:
            raise too_long(limits.body)
        if payload.is_eof() and (length or 0) <= _SMALL:  # the usual case: it came with its head
            content = payload.read_nowait()
            if len(content) > limits.body:
                raise too_long(limits.body)
            if content.count(b"[") + content.count(b"{") > DEPTH:
                BodyScan(limits.values).feed(content)
            if len(content) > _TURN:
                await self._rounds.turn()
            return content, read_object(content), 0
        _invite(request)
        scan, held = BodyScan(limits.values), 0
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds) as clock:
                while piece := await payload.readany():
                    size += len(piece)
                    if size > limits.body:
                        raise too_long(limits.body)
                    if size > held and max(size, length or 0) > _SMALL:
                        more = (length or size + _STEP) - held
                        await _untimed(clock, self._take(key, more))
                        held += more
                    if len(piece) > _TURN:
                        await _untimed(clock, self._rounds.turn())
                    scan.feed(piece)
                    pieces.append(piece)
                    _prolong(clock, len(piece) / _RATE)
            if size > _LONG:
                work = asyncio.ensure_future(self._joined_beside(pieces))
                try:
                    content, body = await asyncio.shield(work)
                except asyncio.CancelledError:  # its client has left, and the thread goes on with it
                    room, held = held, 0
                    work.add_done_callback(lambda done: self._left(done, key, room))
                    raise
            else:
                if size > _TURN:
                    await self._rounds.turn()
                content, body = _joined(pieces)
        except BaseException as error:
            self.release(key, held)
            if (refusal := _refusal(error, size)) is not None:
                raise refusal from None
            raise
        return content, body, held

    async def _joined_beside(self, pieces: list[bytes]) -> tuple[bytes, JsonDict]:
        async with self._decoding:  # one at a time: it takes several times the body for a moment
            return await asyncio.to_thread(_joined, pieces)

    def _left(self, done: asyncio.Future[tuple[bytes, JsonDict]], key: str, held: int) -> None:
        self.release(key, held)
        if not done.cancelled():
            done.exception()  # nobody is left to hear of it

    def release(self, key: str, held: int) -> None:
        """The request is answered."""
        if held:
            self._room.give(key, held)

    async def _take(self, key: str, size: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._room.take(key, size)
                return
        most = self._limits.bodies >> 20
        what = f"found no room within {self._seconds:g} s, {most} MiB of others are being answered; try again later"
        raise Failure(503, f"body: {what}", param="body", code="bodies_full", retry_after=5.0)


def _refusal(error: BaseException, size: int) -> Failure | None:
    """What a client hears whose body broke off after so many bytes."""
    if isinstance(error, TimeoutError):
        return bad_body(408, f"not received within its time ({size} bytes came); send it faster", "timeout")
    if isinstance(error, web.RequestPayloadError):
        return bad_body(400, f"{error}; send it again", "invalid_body")
    return None


async def _untimed(clock: asyncio.Timeout, others: Awaitable[None]) -> None:
    """Wait for others, which is not the client's fault: its time stands still."""
    loop, ends = asyncio.get_running_loop(), clock.when()
    began = loop.time()
    clock.reschedule(None)
    await others
    clock.reschedule(ends)
    _prolong(clock, loop.time() - began)


def _prolong(clock: asyncio.Timeout, seconds: float) -> None:
    ends = clock.when()
    assert ends is not None
    clock.reschedule(ends + seconds)


def _invite(request: web.BaseRequest) -> None:
    """Let a client send its body that waits to hear whether it is wanted."""
    if waits(request) and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def waits(request: web.BaseRequest) -> bool:
    """Whether a client sends its body only when it is asked to."""
    return request.headers.get("Expect", "").lower() == "100-continue" and not request.content.is_eof()


def _joined(pieces: list[bytes]) -> tuple[bytes, JsonDict]:
    """A body whole, and the object in it."""
    content = b"".join(pieces)
    pieces.clear()
    return content, read_object(content)


def read_object(content: bytes) -> JsonDict:
    """The JSON object of a body. Raises Failure that says what is wrong with it."""
    try:
        value = decode(content)
    except (ValueError, RecursionError) as error:
        try:
            content.decode()
        except UnicodeDecodeError as wrong:
            what = f"is not valid UTF-8 (byte {wrong.start})"
        else:
            what = " ".join(str(error).split())[:120] or type(error).__name__
            what = "is empty" if not content.strip() else f"is not JSON ({what})"
        raise bad_body(400, f"{what}; send one JSON object", "invalid_json") from None
    if not isinstance(value, dict):
        raise bad_body(400, f"is a JSON {type(value).__name__}; send one JSON object", "invalid_json")
    return value
