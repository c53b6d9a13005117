"""The HTTP server under the proxy: aiohttp's, with error objects where it would answer in plain text.

Knows connections and malformed HTTP. Does not know any path. A handler is cancelled when its client
leaves, which is what closes the backends' connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from outthink.serving.failure import Failure
from outthink.serving.limits import Limits

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_quiet = logging.getLogger("outthink.serving.http")


class Connection(RequestHandler):
    """One client's connection. Its first head has `head_seconds`; others must come while it is kept idle."""

    head_seconds: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give up on a client that opens a connection and asks nothing, sooner than on one that has asked."""
        super().connection_made(transport)
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._next_keepalive_close_time = ends = self._loop.time() + self.head_seconds
            self._keepalive_handle = self._loop.call_at(ends, self._process_keepalive)

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
        said = " ".join((message or "").split())[:160] if status < 500 else "the proxy failed; see its log"
        response = answer(Failure(status, f"request: {said or 'is no valid HTTP'}", code="bad_request"))
        response.force_close()
        return response


class Listener(web.Server):
    """Makes connections. `handler` answers every request."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._limits = limits

    def __call__(self) -> RequestHandler:
        """A new connection."""
        connection = Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=5.0,
            auto_decompress=False,  # a few bytes could become many
            logger=_quiet,
        )
        connection.head_seconds = min(self._limits.head_seconds, self._limits.idle_seconds)
        return connection


def answer(failure: Failure) -> web.Response:
    """The reply for a failure."""
    return web.Response(
        body=failure.body(), status=failure.status, headers=failure.headers, content_type="application/json"
    )
