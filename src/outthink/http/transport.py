"""The seam between a server's client and whatever moves bytes over HTTP, and the default over httpx2.

Knows: one request, its reply as it arrives, the four ways in which that can fail, whether the server can have begun it,
and one pool of connections an event loop. Does not know JSON or server-sent events. The proxy swaps in a faster client,
tests a scripted one. httpx2 is imported with the first request, which keeps `import outthink` fast.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    import httpx2


FaultKind = Literal["connect", "tls", "idle", "dropped"]


class TransportFault(Exception):
    """The bytes stopped.

    Args:
        kind: `connect` no connection was made, `tls` its certificate was not accepted, `idle` no byte
            came for too long, `dropped` the connection broke or spoke no HTTP.
        detail: one line for people, without secrets.
        unsent: not a byte of the request was written, so that no server can have begun it; always so where no
            connection was made.
    """

    def __init__(self, kind: FaultKind, detail: str = "", *, unsent: bool = False) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail
        self.unsent = unsent or kind in ("connect", "tls")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for a connection, and between any two bytes of a reply; None waits forever."""

    connect: float | None = 10.0
    idle: float | None = 60.0


class Response(Protocol):
    """A reply whose head has arrived. Iterating yields the body as it comes, in any cuts."""

    status: int
    headers: Mapping[str, str]
    """Under lower-case names."""

    def __aiter__(self) -> Self:
        """The reply is its own iterator, so that closing it leaves nothing behind."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body. Raises TransportFault."""

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it at once."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A body in parts that follow each other; other requests may share them, so that long ones are kept once."""

    parts: tuple[bytes, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def joined(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)


Body = bytes | Parts
"""What is sent with a request."""


_LONG = 1 << 20
"""Bytes that are put together beside the event loop."""


async def read_to_end(reply: Response, most: int, begun: bytes = b"") -> tuple[bytes, TransportFault | None]:
    """The body of a reply, which is closed then, and what broke it off.

    Args:
        most: bytes after which reading ends.
        begun: what was read of it before.
    """
    pieces = [begun]
    size, broken = len(begun), None
    try:
        async for piece in reply:
            pieces.append(piece)
            if (size := size + len(piece)) > most:
                break
    except TransportFault as fault:
        broken = fault
    finally:
        await reply.aclose()
    return b"".join(pieces) if size <= _LONG else await asyncio.to_thread(b"".join, pieces), broken


class Transport(Protocol):
    """Sends requests. May be used from several event loops, one after the other or at once."""

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeouts: Timeouts
    ) -> Response:
        """Send a request and wait for the head of its reply. Raises TransportFault.

        Sent again, on another connection, only where not a byte of it was written: a kept connection was stale.
        """

    async def aclose(self) -> None:
        """Close what this event loop opened."""


_KEEP_ALIVE = 4.0  # seconds; uvicorn closes idle connections after 5, and losing that race costs a sample
_CLOSE = {"connection": "close"}


@lru_cache(64)
def closes_unannounced(server: str | None) -> bool:
    """Whether a server that calls itself so closes connections after a stream without having said so.

    A request that is on its way meanwhile is lost, and nobody can tell that it was not begun: such a server gets a
    connection for every request.
    """
    return server is not None and server.lower().startswith("llama.cpp")


class HttpxTransport:
    """Connections for one server. What it writes behind a reply, in one packet with it, is taken for the next one.

    Args:
        concurrency: idle connections worth keeping; how many may be open at once is not limited.
        secure: False for http:// servers, which spares loading the certificate store.
        proxies: read proxy settings from the environment; off for servers on this machine.
        reuse: keep connections; otherwise every request has one of its own, and says so to the server.
    """

    def __init__(self, concurrency: int, *, secure: bool = True, proxies: bool = True, reuse: bool = True) -> None:
        self._concurrency, self._secure, self._proxies = concurrency, secure, proxies
        self._headers: Mapping[str, str] = {} if reuse else _CLOSE
        self._clients: dict[asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None]]] = {}

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeouts: Timeouts
    ) -> HttpxResponse:
        """Send a request and wait for the head of its reply."""
        import httpx2

        client = await self._client()
        limits = httpx2.Timeout(connect=timeouts.connect, read=timeouts.idle, write=timeouts.idle, pool=None)
        try:
            request = client.build_request(
                method,
                url,
                headers={**headers, **self._headers},
                content=body.joined() if isinstance(body, Parts) else body,
                timeout=limits,
            )
            # The pool has looked at the connection: one that the server has closed meanwhile is not used.
            response = await client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _fault(error) from error
        if closes_unannounced(response.headers.get("server")):
            self._headers = _CLOSE
        return HttpxResponse(response, httpx2.HTTPError)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        entry = self._clients.get(asyncio.get_running_loop())
        if entry is not None:
            await entry[1].aclose()

    async def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if (entry := self._clients.get(loop)) is not None:
            return entry[0]
        import httpx2

        client = httpx2.AsyncClient(
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=self._concurrency, keepalive_expiry=_KEEP_ALIVE
            ),
            # Over http:// nothing is verified, and an empty context is made in no time.
            verify=True if self._secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=self._proxies,
            follow_redirects=False,
        )
        guard = self._guard(loop, client)
        self._clients[loop] = client, guard
        await anext(guard)
        return client

    async def _guard(self, loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient) -> AsyncGenerator[None]:
        # An event loop finalises its asynchronous generators before it closes (asyncio.run does), which
        # is the one moment at which idle connections can still be closed properly by whoever forgot to.
        try:
            yield
        finally:
            self._clients.pop(loop, None)
            await client.aclose()


class HttpxResponse(Response):
    """A reply of httpx2 as the engine reads it."""

    def __init__(self, response: httpx2.Response, error: type[Exception]) -> None:
        self._error = error
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._pieces = response.aiter_raw()

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except self._error as error:
            raise _fault(error) from error

    async def aclose(self) -> None:
        """Close at once; a body read to its end leaves the connection open for the next request."""
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()
        await self._response.aclose()


def _fault(error: Exception) -> TransportFault:
    import httpx2

    detail = " ".join(str(error).split())
    kind: FaultKind = "dropped"
    if isinstance(error, httpx2.ConnectError) and ("CERTIFICATE" in detail or "SSL" in detail):
        kind = "tls"
    elif isinstance(
        error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError | httpx2.UnsupportedProtocol
    ):
        kind = "connect"
    elif isinstance(error, httpx2.TimeoutException):
        kind = "idle"
    return TransportFault(kind, detail)
