"""Clients' connections: how they are taken, how long each may be silent, and what is answered to what is no HTTP.

aiohttp's server, with these differences: a client that opens a connection and asks nothing is given up sooner than one
that has asked, a client that reads nothing is left, all new connections of a round are taken in it, and what aiohttp
would answer in plain text becomes an error object. A handler is cancelled when its client leaves, which is what closes
the backends' connections. Does not know paths, keys or what a request asks for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from outthink.serving.admission import Limits
from outthink.serving.failure import Failure
from outthink.workers.fairness import Rounds

_log = logging.getLogger("outthink.serving.http")
_LINGER = 5.0
"""Seconds between two pieces of what nobody wants any more."""
_SLOWEST = 2048
"""Bytes a second that a client has to take of a long reply."""


FILES = 65_536
"""Connections and files at once where the system sets no limit."""


def _most_files() -> int:
    """How many connections and files the system lets us have at once."""
    try:
        import resource
    except ImportError:
        return FILES  # Windows has no such limit
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if most != resource.RLIM_INFINITY else FILES


class ClientServer(web.Server):
    """Makes a connection for every client. `handler` answers every request, `refuse` hears of what is none."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        refuse: Callable[[Failure, None], None],
        limits: Limits,
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._refuse, self._limits = refuse, limits
        self.rounds = Rounds()
        self._open: dict[ClientConnection, None] = {}
        self.most = _most_files() // 2  # a request may need one more for its backend

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Where there are too many connections, close the oldest on which nothing is being answered.

        One that has never asked goes before those that have.
        """
        super().connection_made(handler, transport)
        assert isinstance(handler, ClientConnection)
        if len(self._open) >= self.most:
            new = (each for each in self._open if each.idle and not each.asked)
            if oldest := next(new, None) or next((each for each in self._open if each.idle), None):
                oldest.force_close()
        self._open[handler] = None

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """One less."""
        assert isinstance(handler, ClientConnection)
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    def __call__(self) -> RequestHandler:
        """A new connection."""
        return ClientConnection(self, self._refuse, self._limits)


class ClientConnection(RequestHandler):
    """One client's connection: `head_seconds` for its first head, `idle_seconds` before each of the others.

    A client that takes nothing of its reply for `write_seconds`, or next to nothing, is left: its request ends, and its
    place is free.
    """

    when_sent: Callable[[], None] | None = None
    """Called when the reply to the request at hand has been written, or its client has left."""

    def __init__(self, server: ClientServer, refuse: Callable[[Failure, None], None], limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=0.0,  # see `finish_response`
            auto_decompress=False,  # a few bytes could become many
            logger=_log,
        )
        self._refuse = refuse
        self._head_seconds = min(limits.head_seconds, limits.idle_seconds)
        self._write_seconds, self._body_seconds, self._rounds = limits.write_seconds, limits.body_seconds, server.rounds
        self._unread: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first head; aiohttp has set its timer to `idle_seconds`, so it is set again."""
        super().connection_made(transport)
        if sys.platform == "linux":  # also what is too little for a pause, and what is left when we have closed
            told = transport.get_extra_info("socket")
            told.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(self._write_seconds * 1000))
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._next_keepalive_close_time = ends = self._loop.time() + self._head_seconds
            self._keepalive_handle = self._loop.call_at(ends, self._process_keepalive)

    @property
    def idle(self) -> bool:
        """Whether the next request's head is waited for."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def asked(self) -> bool:
        """Whether a request has ever come."""
        return self._request_count > 0

    def pause_writing(self) -> None:
        """The buffers between us and the client are full: it must take something soon."""
        super().pause_writing()
        self._unread = self._loop.call_soon(self._look, math.inf)  # when all that is written now is in the buffers

    def resume_writing(self) -> None:
        """The client has taken enough."""
        super().resume_writing()
        self._forget_unread()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone; its request is cancelled."""
        self._forget_unread()
        super().connection_lost(exc)

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _look(self, before: float) -> None:
        """Leave a client that has taken too little since so many bytes stood in the buffers."""
        if self.transport is None:
            return
        left = self.transport.get_write_buffer_size()
        if before - left < _SLOWEST * self._write_seconds:
            self.transport.abort()  # closing would wait until the client has read the rest
        else:
            self._unread = self._loop.call_later(self._write_seconds, self._look, left)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write a reply. What the client still sends is thrown away, so that it comes to read the reply.

        By turns: by itself aiohttp reads from all at once, and everybody waits while some send megabytes.
        """
        try:
            finished = await super().finish_response(request, resp, start_time)
        finally:
            if isinstance(resp, web.Response):
                resp.body = None  # aiohttp keeps the reply until the next one, as long as a client keeps its connection
            if self.when_sent is not None:
                self.when_sent()
                self.when_sent = None
        content = request.content
        if content.is_eof():
            return finished
        ends = self._loop.time() + self._body_seconds
        with suppress(TimeoutError, web.RequestPayloadError):
            while not content.is_eof():
                async with asyncio.timeout_at(min(ends, self._loop.time() + _LINGER)):
                    await content.readany()
                await self._rounds.turn()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The reply to what is no HTTP, or to a failure that nobody foresaw."""
        if status >= 500 and not isinstance(exc, ConnectionError):  # the client left, or `App` has said what failed
            self.log_exception("a request failed in an unforeseen way", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the reply had begun")
        what = " ".join((message or "").split())[:160] if status < 500 else "the proxy failed; see its log"
        failure = Failure(status, f"request: {what or 'is no valid HTTP'}", code="bad_request")
        self._refuse(failure, None)
        response = error_response(failure)
        response.force_close()
        return response


_LAST_SECONDS = 0.2
"""What is cancelled when the port is closed gets to tidy up."""
_BACKLOG = 1024
_AT_ONCE = 256
"""Connections that are taken in one round of the event loop, where files are left for so many."""
_PAUSE = 1.0
"""Seconds without new connections where no file is left for one."""


class Listener:
    """The port. Every round of the event loop takes all connections that have come.

    uvloop's own servers take one a round (so does libuv): while rounds are long, everybody who connects would stand in
    line, whoever makes them long. What its server leaves is taken beside it; asyncio's takes all by itself.
    """

    def __init__(self, server: ClientServer) -> None:
        self._server = server
        self._runner = web.ServerRunner(server, shutdown_timeout=_LAST_SECONDS)
        self._at_once = max(1, min(_AT_ONCE, server.most // 4))  # those that make room close a round or two later
        self._beside: list[socket.socket] = []
        self._taken: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=_BACKLOG, reuse_address=True)
        await site.start()
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):
            for listening in site._server.sockets:  # type: ignore[union-attr]
                self._beside.append(beside := socket.socket(fileno=os.dup(listening.fileno())))
                beside.setblocking(False)
                loop.add_reader(beside, self._take, beside)
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Take no more connections, and end those that are open."""
        loop = asyncio.get_running_loop()
        for beside in self._beside:
            loop.remove_reader(beside)
            beside.close()
        self._beside.clear()
        await self._runner.cleanup()

    def _take(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._at_once):
            try:
                client, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no file is left; asking again at once would take all the processor's time
                loop.remove_reader(listening)
                loop.call_later(_PAUSE, self._take_again, listening)
                return
            task = loop.create_task(self._serve(client))
            self._taken.add(task)
            task.add_done_callback(self._taken.discard)

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._server, client)
        except OSError:  # it has left already
            client.close()

    def _take_again(self, listening: socket.socket) -> None:
        if listening in self._beside:
            asyncio.get_running_loop().add_reader(listening, self._take, listening)


def error_response(failure: Failure) -> web.Response:
    """The reply for a failure."""
    return web.Response(
        body=failure.body(), status=failure.status, headers=failure.headers, content_type="application/json"
    )
