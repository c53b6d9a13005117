"""Connections to the backends over aiohttp, and replies read as they come or whole.

Knows: which aiohttp error means what, and which requests nobody has seen. Implements the engine's transport protocol.
Does not know the pool, JSON, or what a reply means.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_exceptions import ClientConnectionResetError

from outthink.core.errors import release_frames
from outthink.http.secrets import Credentials, MaskedResponse, mask_of
from outthink.http.transport import (
    Body,
    FaultKind,
    Parts,
    Response,
    Timeouts,
    TransportFault,
    closes_unannounced,
    read_to_end,
)
from outthink.http.unpack import unpacked
from outthink.workers.fairness import Rounds

_IDLE = 4.0  # seconds; uvicorn closes idle connections after 5, and losing that race costs a request
_STALE = 3  # connections in a row that may turn out to have been closed while they were idle
_MOST = 1 << 20  # bytes of a refusal that are read
_LONGEST = 128 << 20  # bytes of a whole reply; 2,000 long embeddings are as many
_FREE = 1 << 20  # bytes of a whole reply that need no room, and by which room is taken where its length is not told
Room = Callable[[int, bool], Awaitable[None]]
"""Waits until so many more bytes of a reply may be held; whether its length is known."""


class Whole(Response):
    """A reply that was read whole, or as far as it came. Header names are lower case."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content
        self._left = content

    @classmethod
    async def of(cls, reply: Response, most: int = _MOST, begun: bytes = b"") -> Whole:
        """Read a reply and close it; where its text was cut off, its status says more than that."""
        content, _ = await read_to_end(reply, most, begun)
        return cls(reply.status, reply.headers, content)

    async def __anext__(self) -> bytes:
        piece, self._left = self._left, b""
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Its connection was given back when it had been read."""


_BRIEF = 0.5  # seconds within which no server gives up a connection for being idle; to look costs microseconds
_WRITTEN = "outthink written"
"""Attribute of a connection: when it was last written on."""


class _AtOnce(bytes):
    """A short body, written with its head: by itself aiohttp makes a task for each, a twentieth of a request's time."""


class _Request(aiohttp.ClientRequest):
    """A request that is not written on a connection that the server has closed, or has written on unasked."""

    _body_at_once = b""

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        """Take the body."""
        if not isinstance(body, _AtOnce):
            super().update_body_from_data(body, _stacklevel)
            return
        self._body_at_once = body
        self.headers[aiohttp.hdrs.CONTENT_LENGTH] = str(len(body))

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Write the request. Raises ClientConnectionResetError where nothing was written."""
        if (protocol := conn.protocol) is None:
            return await super().send(conn)
        if protocol.should_close:  # what came unasked would be taken for the reply
            raise ClientConnectionResetError("the server wrote on the connection before the request was written")
        now, told = monotonic(), vars(protocol)
        # The event loop may not have noticed yet.
        if now - told.get(_WRITTEN, now) > _BRIEF and _has_come(protocol.transport):
            raise ClientConnectionResetError("the server had closed the connection before the request was written")
        told[_WRITTEN] = now
        if not self._body_at_once:
            return await super().send(conn)
        writer = aiohttp.http.StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write_eof(self._body_at_once)
        protocol.start_timeout()
        return self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )


def _has_come(transport: asyncio.Transport | None) -> bool:
    """Whether something is to be read, which before a request can only be the end. Over TLS that says nothing."""
    if sys.platform == "win32":
        return False  # has no `poll`; the event loop's own notice has to do
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return False
    descriptor = transport.get_extra_info("socket").fileno()
    poll = select.poll()
    if descriptor >= 0:
        poll.register(descriptor, select.POLLIN)
    return descriptor < 0 or bool(poll.poll(0))


_PIECE = 1 << 16
"""Bytes that are given to a connection at once: what it cannot take it copies."""


_LONG = 1 << 18
"""Bytes of a body that would hold the event loop up if it were written at once."""


class _PartsPayload(aiohttp.payload.Payload):
    """A body in parts, written piece by piece at the connection's pace.

    Args:
        rounds: of the event loop; each piece waits for one of its own.
    """

    def __init__(self, body: Parts, rounds: Rounds) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._parts, self._rounds = body.parts, rounds

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text."""
        return b"".join(self._parts).decode(encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """Write it; may be done again."""
        for part in self._parts:
            view = memoryview(part)
            for at in range(0, len(view), _PIECE):
                await self._rounds.turn()
                await writer.write(view[at : at + _PIECE])


def paced(content: bytes) -> bytes | aiohttp.payload.Payload:
    """The body of a whole reply: a long one is written piece by piece."""
    return content if len(content) <= _LONG else _PartsPayload(Parts((content,)), Rounds())


async def write_paced(response: aiohttp.web.StreamResponse, content: bytes) -> None:
    """Write a part of a reply that comes in events; a long one piece by piece."""
    if len(content) <= _LONG:
        await response.write(content)
        return
    view = memoryview(content)
    for at in range(0, len(view), _PIECE):
        await response.write(view[at : at + _PIECE])
        await asyncio.sleep(0)


class AiohttpTransport:
    """Connections to all backends, within one event loop."""

    known: tuple[Credentials, ...] = ()
    """Of all backends: none tells another's, whatever stands behind them."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._closing: set[str] = set()  # hosts that close connections without having said so
        self._rounds = Rounds()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE, ttl_dns_cache=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                request_class=_Request,
            )
        return self._session

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeouts: Timeouts
    ) -> Response:
        """Send a request and wait for the head of its reply; the reply tells no secret of it. Raises TransportFault."""
        if (mask := mask_of(url, headers, self.known)) is None:
            return unpacked(await self._send(method, url, headers, body, timeouts))
        try:
            return MaskedResponse(unpacked(await self._send(method, url, headers, body, timeouts)), mask)
        except TransportFault as fault:
            raise mask.fault(fault) from None

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeouts: Timeouts
    ) -> AiohttpResponse:
        limits = _limits(timeouts)
        if self._closing and urlsplit(url).netloc in self._closing:
            headers = {**headers, "connection": "close"}
        if isinstance(body, bytes):
            body = _AtOnce(body) if len(body) <= _PIECE else Parts((body,)) if len(body) > _LONG else body
        data = _PartsPayload(body, self._rounds) if isinstance(body, Parts) else body
        tries = _STALE
        while True:
            try:
                response = await self._open().request(
                    method, url, headers=headers, data=data, timeout=limits, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                tries -= 1
                if tries and _unsent(error):
                    continue
                raise _fault(error) from error
            if closes_unannounced(response.headers.get("server")):
                self._closing.add(urlsplit(url).netloc)
            return AiohttpResponse(response)

    async def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        timeouts: Timeouts,
        *,
        room: Room | None = None,
    ) -> Whole:
        """Send a request and read its reply whole; cancelling closes the connection. Raises TransportFault.

        Args:
            room: asked for the bytes of a long reply, before more of them are read.
        """
        if mask_of(url, headers, self.known) is not None:  # piece by piece: masking takes its time
            return await _read(await self.open(method, url, headers, body, timeouts), room)
        reply = await self._send(method, url, headers, body, timeouts)
        try:
            plain, length = unpacked(reply), reply.response.content_length
            if plain is not reply or length is None or length > _LONG:
                return await _read(plain, room)
            return Whole(reply.status, reply.headers, await reply.response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if reply.status >= 400:  # its status says more than the fact that its text was cut off
                return Whole(reply.status, reply.headers, b"")
            raise _fault(error) from error
        finally:
            reply.response.release()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(reply: Response, room: Room | None) -> Whole:
    """A reply, read to its end; a refusal as far as it comes: its status says more than that its text was cut off."""
    pieces: list[bytes] = []
    size, held = 0, _FREE
    try:
        async for piece in reply:
            pieces.append(piece)
            if (size := size + len(piece)) > held and room is not None:
                length = _length_told(reply.headers)
                more = max(_FREE, length - held)
                await room(more, size <= length)
                held += more
            if size > _LONGEST:
                raise TransportFault("dropped", f"a reply of more than {_LONGEST >> 20} MiB")
    except TransportFault:
        if reply.status < 400:
            raise
    finally:
        await reply.aclose()
    content = b"".join(pieces) if size <= _LONG else await asyncio.to_thread(b"".join, pieces)
    return Whole(reply.status, reply.headers, content)


_AT_ONCE = 1 << 14
"""Bytes of a reply that are handed on at once; hundreds of events may have come together."""
_LINES = 256
"""Lines of a reply that are handed on at once, about: each costs more than its bytes."""
_UNPAUSED = 1 << 12
"""Bytes of which pieces are handed on in one round of the event loop, the last one beyond them; a line as its share."""


class AiohttpResponse:
    """A reply as it comes."""

    __slots__ = ("_content", "_given", "_left", "headers", "response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response, self.status = response, response.status
        self.headers: Mapping[str, str] = response.headers
        self._content, self._left, self._given = response.content, b"", 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._given >= _UNPAUSED:  # what has come already is read without a pause
            self._given = 0
            await asyncio.sleep(0)
        if not (piece := self._left):
            try:
                piece = await self._content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _fault(error) from error
            if not piece:
                raise StopAsyncIteration
        most, lines = min(len(piece), _AT_ONCE), _lines(piece, _AT_ONCE)
        if lines > _LINES:
            most, lines = most * _LINES // lines, _LINES
        if most == len(piece):
            self._left = b""
        else:
            end = piece.rfind(b"\n\n", 0, most) + 2  # whole events are read faster
            end = end if end > 1 else most
            self._left, piece = piece[end:], piece[:end]
        self._given += max(len(piece), lines * (_AT_ONCE // _LINES))
        return piece

    @property
    def ended(self) -> bool:
        """Whether the body was read to its end."""
        return self._content.at_eof()

    async def aclose(self) -> None:
        """Close at once; a body read to its end leaves the connection open for the next request."""
        if self._content.at_eof():
            self.response.release()
        else:
            self.response.close()
            await asyncio.sleep(0)


def _lines(piece: bytes, size: int) -> int:
    """How many lines end in so many bytes, at most."""
    return piece.count(b"\n", 0, size) + piece.count(b"\r", 0, size)


@lru_cache(64)
def _limits(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect, sock_read=timeouts.idle)


def _length_told(headers: Mapping[str, str]) -> int:
    """Bytes that a reply says it has, no more than a whole one may; 0 where it does not say."""
    told = headers.get("content-length", "")
    return min(int(told), _LONGEST) if told.isdecimal() and len(told) < 16 else 0


def _unsent(error: BaseException) -> bool:
    """Whether the request was not written, because the server had closed the idle connection: nobody has seen it."""
    return isinstance(error, ClientConnectionResetError) or isinstance(error.__cause__, ClientConnectionResetError)


def _fault(error: BaseException) -> TransportFault:
    """What an error of a connection means; it is kept by the reply, whose frames refer to that."""
    release_frames(error)
    kind: FaultKind = "dropped"
    if isinstance(error, aiohttp.ClientSSLError):
        kind = "tls"
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        kind = "connect"
    elif isinstance(error, TimeoutError):
        kind = "idle"
    return TransportFault(kind, " ".join(str(error).split())[:200], unsent=_unsent(error))
