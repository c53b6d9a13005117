"""The proxy: which handler answers a path, and what every request has in common.

Knows paths, keys and errors. Does not know how any of them is answered: each handler is a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from outthink.core.errors import BadInput
from outthink.serving.admission import Admission, AdmissionSettings, Limits, check_origin, is_loopback
from outthink.serving.failure import Failure, failure_of, wrong_method
from outthink.serving.observe.watch import Watchers
from outthink.serving.pool.protocols import Pool, Wire
from outthink.serving.protocols import Key, Ledger

# The HTTP server under the proxy: aiohttp's, with error objects where it would answer in plain text.
#
# Knows connections and malformed HTTP. Does not know any path. A handler is cancelled when its client
# leaves, which is what closes the backends' connections.

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


Route = Callable[[web.BaseRequest, Key], Awaitable[web.StreamResponse]]
_log = logging.getLogger("outthink.serving")
_LAST_SECONDS = 0.2
"""What is cancelled after the limit for running requests gets to tidy up."""


class App:
    """One proxy in one event loop.

    Args:
        pool: the backends.
        wire: moves bytes to them.
        ledger: keys, budgets and receipts.
        admission: how many requests come in at once.
    """

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        ledger: Ledger,
        limits: Limits | None = None,
        admission: AdmissionSettings | None = None,
    ) -> None:
        self.pool, self.wire, self.ledger = pool, wire, ledger
        self.limits = limits or Limits()
        self.admission = Admission(admission)
        self.watchers = Watchers()
        self.failed: Counter[tuple[int, str]] = Counter()
        """Error objects by status and code."""
        self.stopping = False
        """Not ready any more; what comes nevertheless is served until `closed`."""
        self.closed = False
        self._routes: dict[str, dict[str, Route]] = {}
        self._open: set[str] = set()
        self._trees: list[tuple[str, dict[str, Route]]] = []
        self._runner: web.ServerRunner | None = None
        self._opened = False
        self._background: set[asyncio.Task[Any]] = set()

    def route(self, method: str, path: str, handler: Route, *, public: bool = False) -> None:
        """Answer a path; one that ends in `/` answers everything below it. `public` asks for no key."""
        if path.endswith("/") and path != "/":
            tree = next((table for start, table in self._trees if start == path), None)
            if tree is None:
                self._trees.append((path, tree := {}))
            tree[method] = handler
        else:
            self._routes.setdefault(path, {})[method] = handler
        if public:
            self._open.add(path)

    async def start(self, host: str, port: int) -> int:
        """Open the ledger, meet the backends and listen; returns the port."""
        await self.ledger.open()
        self._opened = True
        if not is_loopback(host) and not self.ledger.guarded:
            remedy = "add a key first (outthink keys add), or listen on 127.0.0.1"
            raise BadInput("host", host, "is reachable from elsewhere, and there are no API keys", remedy)
        await self.pool.start()
        self._runner = web.ServerRunner(Listener(self.handle, self.limits), shutdown_timeout=_LAST_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024, reuse_address=True)
        await site.start()
        address: Any = self._runner.addresses[0]
        return int(address[1])

    async def stop(self) -> None:
        """Be not ready, take no more requests, let running ones end within the limit, then close everything."""
        self.stopping = True
        if self._runner is not None:
            await asyncio.sleep(self.limits.drain_seconds)
            self.closed = True
            self.admission.refuse(_stopping())
            await self.admission.empty(self.limits.stop_seconds)
            await self._runner.cleanup()
        if self._background:
            await asyncio.wait(self._background, timeout=self.limits.stop_seconds)
        await self.pool.stop()
        await self.wire.aclose()
        if self._opened:  # one that could not be opened has nothing to write
            await self.ledger.close()

    def later(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Carry something out even if the client leaves."""
        task = asyncio.create_task(job)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and failure_of(error) is None:  # type: ignore[arg-type]
            _log.error("something failed after its request: %r", error)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        try:
            path = request._message.path.partition("?")[0]
            route = self._found(path, request.method)
            bearer = request.headers.get("Authorization")
            if bearer is not None:
                scheme, _, bearer = bearer.partition(" ")
                bearer = bearer.strip() if scheme.lower() == "bearer" else ""
            if not self.ledger.guarded:
                check_origin(request.headers)
            key = await self.ledger.authorise(bearer)
            if key is None:
                if path not in self._open:
                    raise _unauthorised(bearer)
                key = Key("")
            if request.method != "POST" or not path.startswith("/v1/"):
                return await route(request, key)
            if self.closed:
                raise _stopping()
            if not self.admission.enter(key.id):
                await self.admission.wait(key.id)
            try:
                return await route(request, key)
            finally:
                self.admission.leave(key.id)
        except Exception as error:
            if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                raise  # the client left just before something was written: nobody failed, nobody reads a reply
            failure = failure_of(error)
            if failure is None:
                _log.exception("a request failed in an unforeseen way")
                failure = Failure(500, "the proxy failed; see its log", code="internal_error")
            self.failed[failure.status, failure.code or ""] += 1
            if request.writer.output_size > 0:  # a second reply must not follow half of one
                raise ConnectionResetError(failure.message) from error
            reply = answer(failure)
            if self.closed:
                reply.force_close()
            return reply

    def _found(self, path: str, method: str) -> Route:
        methods = self._routes.get(path)
        if methods is None:
            methods = next((table for start, table in self._trees if path.startswith(start)), None)
        if methods is None:
            hint = "; base_url ends in /v1" if not path.startswith("/v1/") else "; see /openapi.json"
            raise Failure(404, f"path: {path[:100]!r} is not served here{hint}", param="path", code="not_found")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise wrong_method(method, methods)
        return route


def _stopping() -> Failure:
    return Failure(503, "the proxy is stopping; try again", code="stopping", retry_after=2.0)


def _unauthorised(bearer: str | None) -> Failure:
    if bearer is None:
        what = "is missing; send Authorization: Bearer KEY"
    else:
        what = "is not known, expired or revoked; ask for another (outthink keys add)"
    return Failure(
        401,
        f"API key: {what}",
        param="Authorization",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
