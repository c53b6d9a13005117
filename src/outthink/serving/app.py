"""The proxy: which handler answers a path, and what every request has in common.

Knows: paths, keys, places, errors, and the HTTP server below. Does not know how any path is answered: the handlers are
files of their own, which register themselves with `route`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from outthink.serving.admission import Admission, AdmissionSettings, Limits
from outthink.serving.bodies import waits
from outthink.serving.failure import Failure, failure_of, wrong_method
from outthink.serving.guard import Guard, forwarded_by
from outthink.serving.pool import BackendPool
from outthink.serving.pool.transport import AiohttpTransport
from outthink.serving.protocols import Key, Ledger
from outthink.serving.watch import RefusedRequest, Watchers
from outthink.workers.fairness import FairThreads, Rounds, asker

Route = Callable[[web.BaseRequest, Key], Awaitable[web.StreamResponse]]
_log = logging.getLogger("outthink.serving")
METRICS = "/metrics"
_LONGEST_PATH = 200
_LAST_SECONDS = 0.2
"""What is cancelled after the limit for running requests gets to tidy up."""


class App:
    """One proxy in one event loop.

    Args:
        pool: the backends.
        wire: moves bytes to them.
        ledger: keys, budgets and receipts; open.
        admission: how many requests come in at once.
        watchers: of what happens; more may be added.
        guard: decides who needs a key.
    """

    def __init__(
        self,
        pool: BackendPool,
        wire: AiohttpTransport,
        ledger: Ledger,
        limits: Limits,
        admission: AdmissionSettings,
        watchers: Watchers,
        guard: Guard | None = None,
    ) -> None:
        self.pool, self.wire, self.ledger, self.limits, self.watchers = pool, wire, ledger, limits, watchers
        self.guard = guard or Guard()
        self.admission = Admission(admission)
        self.failed: Counter[tuple[int, str]] = Counter()
        """Error objects by status and code."""
        self.stopping = False
        """Not ready any more; what comes nevertheless is served until `closed`."""
        self.closed = False
        self._asking: dict[int, str | None] = {}
        """Whose key each request has that is being answered, None where its record will tell."""
        self._routes: dict[str, dict[str, Route]] = {}
        self._public: set[str] = set()
        self._trees: dict[str, dict[str, Route]] = {}
        self._runner: web.ServerRunner | None = None
        self._hurried = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    def route(self, method: str, path: str, handler: Route, *, public: bool = False) -> None:
        """Answer a path; one that ends in `/` answers everything below it. `public` asks for no key."""
        if path.endswith("/") and path != "/":
            self._trees.setdefault(path, {})[method] = handler
        else:
            self._routes.setdefault(path, {})[method] = handler
        if public:
            self._public.add(path)

    async def start(self, host: str, port: int) -> int:
        """Meet the backends and listen; returns the port."""
        asyncio.get_running_loop().set_default_executor(FairThreads())
        # Before the port is open, so that the first client finds models.
        await self.pool.start()
        self._runner = web.ServerRunner(_Server(self.handle, self._refuse, self.limits), shutdown_timeout=_LAST_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024, reuse_address=True)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Be not ready, take no more requests, let running ones end within the limit, then close everything."""
        self.stopping = True
        if self._runner is not None:
            # Load balancers see that we are not ready, and send nothing more, before anything is refused.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.drain_seconds):
                    await self._hurried.wait()
            self.closed = True
            self.admission.refuse(_stopping())
            # A second signal may have come while nobody waited in `empty` yet; it must not be lost.
            await self.admission.empty(0 if self._hurried.is_set() else self.limits.stop_seconds)
            await self._runner.cleanup()
        if self._background:
            await asyncio.wait(self._background, timeout=self.limits.stop_seconds)
        await self.pool.stop()
        await self.wire.aclose()
        await self.ledger.close()

    def hurry(self) -> None:
        """Let `stop`, running or still to come, wait for nobody."""
        self._hurried.set()
        self.admission.give_up()

    def later(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Carry something out even if the client leaves."""
        task = asyncio.create_task(job)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not _is_foreseen(error):
            _log.error("something failed after its request", exc_info=error)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        try:
            return await self._route_request(request)
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets an error object
            return self._failed(error, request)
        finally:
            self._asking.pop(id(request), None)

    def _failed(self, error: Exception, request: web.BaseRequest) -> web.Response:
        """The reply for a request that raised this. Raises it again where nobody reads a reply."""
        # Not in the frame that it passed through: they would refer to each other, and hold the body until collected.
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            raise error  # the client left just before something was written: nobody failed, nobody reads a reply
        failure = failure_of(error)
        if failure is None:
            _log.error("a request failed in an unforeseen way", exc_info=error)
            failure = Failure(500, "the proxy failed; see its log", code="internal_error")
        self._refuse(failure, request)
        if request.writer.output_size > 0:  # a second reply must not follow half of one
            raise ConnectionResetError(failure.message) from error
        response = error_response(failure)
        if self.closed or waits(request):  # the next bytes of one that waits may be its body or another request
            response.force_close()
        return response

    def admitted(self, request: web.BaseRequest) -> None:
        """A record will tell how a request ends, so nothing else has to."""
        self._asking[id(request)] = None

    def _refuse(self, failure: Failure, request: web.BaseRequest | None) -> None:
        """Count an error object, and let the watchers know of a request that no record will tell of.

        Args:
            request: None for what is no HTTP.
        """
        code = failure.code or ""
        self.failed[failure.status, code] += 1
        key, method, path = "", "", ""
        if request is not None:
            asking = self._asking.get(id(request), "")
            if asking is None:
                return
            key, method, path = asking, request.method[:20], _path_of(request)[:_LONGEST_PATH]
        self.watchers.refused(RefusedRequest(time.time(), failure.status, code, key or None, method, path))

    async def _route_request(self, request: web.BaseRequest) -> web.StreamResponse:
        """Find who answers, who asks, and a place for the request; then let it be answered."""
        path = _path_of(request)
        route = self._find_route(path, request.method)
        key = await self._authorise(request, path)
        self._asking[id(request)] = key.id
        asker.set(key.id)
        # Probes, receipts and the dashboard take no place: they answer while all are taken.
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

    async def _authorise(self, request: web.BaseRequest, path: str) -> Key:
        bearer = request.headers.get("Authorization")
        if bearer is not None:
            scheme, _, bearer = bearer.partition(" ")
            bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        key = await self.ledger.authorise(bearer)
        key = self.guard.admitted(key, bearer, request.headers, self.ledger.guarded)
        if path in self._public:
            return key or Key("")
        if key is not None and key.metrics and path != METRICS:
            self._asking[id(request)] = key.id
            message = f"API key: may read {METRICS} and nothing else; use another one (outthink keys add)"
            raise Failure(403, message, param="Authorization", code="metrics_only")
        if key is None:
            self._asking[id(request)] = self.ledger.owner(bearer)
            needed = self.guard.needs_key(self.ledger.guarded)
            raise _unauthorised(bearer, None if needed else forwarded_by(request.headers))
        return key

    def _find_route(self, path: str, method: str) -> Route:
        methods = self._routes.get(path)
        if methods is None:
            methods = next((table for start, table in self._trees.items() if path.startswith(start)), None)
        if methods is None:
            hint = "; base_url ends in /v1" if not path.startswith("/v1/") else "; see /openapi.json"
            raise Failure(404, f"path: {path[:100]!r} is not served here{hint}", param="path", code="not_found")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise wrong_method(method, methods)
        return route


def _path_of(request: web.BaseRequest) -> str:
    return request._message.path.partition("?")[0]


def _is_foreseen(error: BaseException) -> bool:
    return isinstance(error, Exception) and failure_of(error) is not None


def error_response(failure: Failure) -> web.Response:
    """The reply for a failure."""
    return web.Response(
        body=failure.body(), status=failure.status, headers=failure.headers, content_type="application/json"
    )


def _stopping() -> Failure:
    return Failure(503, "the proxy is stopping; try again", code="stopping", retry_after=2.0)


def _unauthorised(bearer: str | None, forwarded: str | None) -> Failure:
    """The refusal; `forwarded` names the header that makes a key needed where otherwise none is."""
    if forwarded is not None:
        what = f"is needed for what comes through another server ({forwarded[:60]}); add one (outthink keys add)"
    elif bearer is None:
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


# aiohttp's server, with two differences: a client that opens a connection and asks nothing is given up sooner than one
# that has asked, and what aiohttp would answer in plain text becomes an error object. A handler is cancelled when its
# client leaves, which is what closes the backends' connections.

_http_log = logging.getLogger("outthink.serving.http")
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


class _Server(web.Server):
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
        self._open: dict[_Connection, None] = {}
        self._most = _most_files() // 2  # a request may need one more for its backend

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Where there are too many connections, close the oldest on which nothing is being answered.

        One that has never asked goes before those that have.
        """
        super().connection_made(handler, transport)
        assert isinstance(handler, _Connection)
        if len(self._open) >= self._most:
            new = (each for each in self._open if each.idle and not each.asked)
            if oldest := next(new, None) or next((each for each in self._open if each.idle), None):
                oldest.force_close()
        self._open[handler] = None

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """One less."""
        assert isinstance(handler, _Connection)
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    def __call__(self) -> RequestHandler:
        """A new connection."""
        return _Connection(self, self._refuse, self._limits)


class _Connection(RequestHandler):
    """One client's connection: `head_seconds` for its first head, `idle_seconds` before each of the others.

    A client that takes nothing of its reply for `write_seconds`, or next to nothing, is left: its request ends, and its
    place is free.
    """

    def __init__(self, server: _Server, refuse: Callable[[Failure, None], None], limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=0.0,  # see `finish_response`
            auto_decompress=False,  # a few bytes could become many
            logger=_http_log,
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
        finished = await super().finish_response(request, resp, start_time)
        content, ends = request.content, self._loop.time() + self._body_seconds
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
