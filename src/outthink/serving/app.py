"""The proxy: which handler answers a path, and what every request has in common.

Knows: paths, keys, places and errors. Does not know how any path is answered: the handlers are
files of their own, which register themselves with `route`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from aiohttp import web

from outthink.core.errors import release_frames
from outthink.serving.admission import Admission, AdmissionSettings, Limits
from outthink.serving.failure import Failure, failure_of, wrong_method
from outthink.serving.guard import Guard, forwarded_by
from outthink.serving.inbound.bodies import waits
from outthink.serving.inbound.connections import ClientServer, Listener, error_response
from outthink.serving.pool import BackendPool
from outthink.serving.pool.transport import AiohttpTransport
from outthink.serving.protocols import Key, Ledger
from outthink.serving.watch import RefusedRequest, Watchers
from outthink.workers.fairness import FairThreads, asker

Route = Callable[[web.BaseRequest, Key], Awaitable[web.StreamResponse]]
_log = logging.getLogger("outthink.serving")
METRICS = "/metrics"
_LONGEST_PATH = 200


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
        self._listener: Listener | None = None
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
        self._listener = Listener(ClientServer(self.handle, self._refuse, self.limits))
        return await self._listener.open(host, port)

    async def stop(self) -> None:
        """Be not ready, take no more requests, let running ones end within the limit, then close everything."""
        self.stopping = True
        if self._listener is not None:
            # Load balancers see that we are not ready, and send nothing more, before anything is refused.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.drain_seconds):
                    await self._hurried.wait()
            self.closed = True
            self.admission.refuse(_stopping())
            # A second signal may have come while nobody waited in `empty` yet; it must not be lost.
            await self.admission.empty(0 if self._hurried.is_set() else self.limits.stop_seconds)
            await self._listener.close()
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
            try:
                return self._failed(error, request)
            finally:
                release_frames(error)
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
