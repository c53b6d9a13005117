"""How a request reaches a backend: failover from one to the next, and the calls of an engine in their turn.

Knows: which failures another backend may cure, what the pool is told of each attempt, and that a place on a backend is
held until its reply has been read. Implements the engine's transport protocol. Does not know JSON, chats, strategies or
what a reply means.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Generic, NamedTuple, Self, TypeVar

from outthink.core.errors import EngineError
from outthink.http.errors import retry_after
from outthink.http.server import Address
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.pool import BackendPool, Full, NoBackend
from outthink.serving.pool.transport import AiohttpTransport, Reply
from outthink.session.runner import Places

_ELSEWHERE = frozenset({429, 500, 502, 503, 504})
"""Statuses after which another backend is asked, if there is one."""
REFUSED = (401, 403)
"""Statuses by which a backend refuses our key: its client has sent us another, and hears nothing of ours."""


class KeyRefused(EngineError):
    """A backend has refused our key; `backend` names it for the operator."""

    def __init__(self, status: int, backend: str) -> None:
        super().__init__(f"the backend refused the proxy's own key ({status})", fatal=True)
        self.status, self.backend = status, backend


R = TypeVar("R", bound=Reply)


class Attempt(NamedTuple, Generic[R]):
    """A reply, the backend that it came from, and the place there: to be closed when the reply has been read."""

    reply: R
    lease: BackendLease
    place: ExitStack


class Failover:
    """The attempts of one request on the backends of a model.

    Args:
        prefix: hash of the prompt, so that equal beginnings meet one cache.
        key: id of the client's API key.
        anew: begin again with the backends that have failed once all of them have; for requests of many calls.
    """

    def __init__(self, pool: BackendPool, model: str, prefix: int, *, key: str = "", anew: bool = False) -> None:
        self._pool, self._model, self._prefix, self._key, self._anew = pool, model, prefix, key, anew
        self._failed: list[str] = []

    async def send(
        self,
        send: Callable[[BackendLease], Awaitable[R]],
        *,
        discard: Callable[[R], Awaitable[None]] | None = None,
        complete: Callable[[R], Awaitable[R]] | None = None,
        garbled: Callable[[R], bool] | None = None,
        brief: bool = False,
    ) -> Attempt[R]:
        """The first reply that another backend could not better. Raises TransportFault, KeyRefused or NoBackend.

        Args:
            send: sends the request to a backend.
            discard: closes a reply that nobody reads.
            complete: reads a reply to its end where only the whole of it tells whether it is one.
            garbled: whether a reply that claims success is none.
            brief: the request generates nothing, so it takes no place and says nothing about the backend but faults.
        """
        while True:
            lease = await self._lease(brief=brief)
            with ExitStack() as place:
                if not brief:
                    place.enter_context(lease)
                try:
                    reply = await send(lease)
                except TransportFault as fault:
                    lease.report(ok=False)
                    # One that hung until its time was over has used up the client's patience as well.
                    if fault.kind == "idle" or not self._has_another(lease):
                        raise
                    continue
                if brief:
                    return Attempt(reply, lease, place.pop_all())
                if reply.status in REFUSED:
                    lease.report(ok=True, status=reply.status)
                    if discard is not None:
                        await discard(reply)
                    raise KeyRefused(reply.status, lease.url)
                if reply.status in _ELSEWHERE:
                    lease.report(ok=False, status=reply.status, retry_after=retry_after(reply.headers))
                    if self._has_another(lease):
                        if discard is not None:
                            await discard(reply)
                        continue
                if complete is not None:
                    reply = await complete(reply)
                if garbled is not None and garbled(reply):
                    lease.report(ok=False)
                    if self._has_another(lease):
                        continue
                elif reply.status not in _ELSEWHERE:
                    lease.report(ok=True, status=reply.status)
                return Attempt(reply, lease, place.pop_all())

    async def _lease(self, *, brief: bool) -> BackendLease:
        """A place on a backend that has not failed yet; where all are full, the next one to come free."""
        prefix: int | None = self._prefix
        while True:
            try:
                return self._pool.choose(self._model, prefix, self._failed, brief=brief, key=self._key)
            except Full:  # of calls for other models, or of those that failed elsewhere
                await self._pool.room(self._model)
            except NoBackend:
                if not self._anew or not self._failed:
                    raise
                self._failed.clear()
                prefix = None  # the backend that it prefers is the one that failed first

    def _has_another(self, lease: BackendLease) -> bool:
        """Whether a backend is left that has not failed this request."""
        self._failed.append(lease.url)
        try:
            self._pool.choose(self._model, self._prefix, self._failed, key=self._key)
        except Full:
            return True
        except NoBackend:
            return False
        return True


ROOT = "http://backend.invalid"
"""What an engine believes its server to be; the chosen backend's address takes its place."""
BASE = ROOT + "/v1"


class PooledTransport:
    """An engine's transport: the calls of one request, each in its turn on a backend of the pool.

    Args:
        places: the queue for the model.
        request: its id: requests take turns.
        headers: that every call gets besides.
    """

    def __init__(
        self, failover: Failover, wire: AiohttpTransport, places: Places, *, request: str, headers: Mapping[str, str]
    ) -> None:
        self._failover, self._wire, self._places = failover, wire, places
        self._request, self._headers = request, headers

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Response:
        """Send a request and wait for the head of its reply. Raises TransportFault."""
        generates = url.startswith(BASE)
        path = url[len(BASE if generates else ROOT) :]

        async def send(lease: BackendLease) -> Response:
            base = lease.url if generates else Address.parse(lease.url).root
            sent = {**headers, **self._headers, **lease.headers}
            return await self._wire.open(method, base + path, sent, body, timeouts)

        with ExitStack() as place:
            if generates:
                await self._places.take(self._request)
                place.callback(self._places.give, self._request)
            try:
                attempt = await self._failover.send(send, discard=_close, brief=not generates)
            except NoBackend as error:
                raise TransportFault("connect", str(error)) from error
            place.push(attempt.place)
            return _PlacedResponse(attempt.reply, place.pop_all())

    async def aclose(self) -> None:
        """Nothing of its own to close: connections belong to the proxy."""


async def _close(reply: Response) -> None:
    await reply.aclose()


class _PlacedResponse:
    """A reply together with its place on the backend and in the queue."""

    def __init__(self, reply: Response, place: ExitStack) -> None:
        self.reply, self.status, self.headers = reply, reply.status, reply.headers
        self._place = place

    def __aiter__(self) -> Self:
        # The inner reply iterates by itself, which saves a step for every piece.
        return self.reply  # type: ignore[return-value]

    async def __anext__(self) -> bytes:
        return await anext(self.reply)

    async def aclose(self) -> None:
        """Close the reply and give the place back, once."""
        try:
            await self.reply.aclose()
        finally:
            self._place.close()  # empty the second time
