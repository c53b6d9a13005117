"""The calls of an engine on the backends of the pool, each in its turn.

Knows: which paths generate, the queue for a model, and that a place is held until the reply has been closed. Implements
the engine's transport protocol. Does not know when a call is sent again, chats or strategies.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from outthink.core.errors import EngineError
from outthink.http.server import Address
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.failover import Failover, take_turn
from outthink.serving.pool.pool import Full, NoBackend
from outthink.serving.pool.transport import AiohttpTransport, Read
from outthink.session.runner import Places

ROOT = "http://backend.invalid"
"""What an engine believes its server to be; the chosen backend's address takes its place."""
BASE = ROOT + "/v1"


class PooledTransport:
    """An engine's transport: the calls of one request, each in its turn on a backend of the pool.

    Args:
        places: the queue for the model.
        request: its id: requests take turns.
        headers: that every call gets besides.
        queue_seconds: that a request may be without any place.
    """

    def __init__(
        self,
        failover: Failover,
        wire: AiohttpTransport,
        places: Places,
        *,
        request: str,
        headers: Mapping[str, str],
        queue_seconds: float,
    ) -> None:
        self._failover, self._wire, self._places, self._queue_seconds = failover, wire, places, queue_seconds
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
                try:
                    await take_turn(self._places, self._request, self._queue_seconds)
                except Full as full:
                    raise EngineError(str(full), again=False) from full
                place.callback(self._places.give, self._request)
            try:
                attempt = await self._failover.send(
                    send, discard=_close, complete=_complete, brief=not generates, verdict=False
                )
            except NoBackend as error:
                raise TransportFault("connect", str(error)) from error
            place.push(attempt.place)
            return PlacedResponse(attempt.reply, attempt.lease if generates else None, place.pop_all())

    async def aclose(self) -> None:
        """Nothing of its own to close: connections belong to the proxy."""


async def _close(reply: Response) -> None:
    await reply.aclose()


async def _complete(reply: Response) -> Response:
    """A refusal whole: what it says tells whether the call was begun."""
    return reply if reply.status < 400 else await Read.of(reply)


class PlacedResponse:
    """A reply together with its place on the backend and in the queue, and with the verdict on it."""

    def __init__(self, reply: Response, lease: BackendLease | None, place: ExitStack) -> None:
        self.reply, self.status, self.headers = reply, reply.status, reply.headers
        self.failed = False
        """Whoever reads it has found that it tells of a failure, or is no reply."""
        self._lease, self._place = lease, place

    def __aiter__(self) -> Self:
        # The inner reply iterates by itself, which saves a step for every piece.
        return self.reply  # type: ignore[return-value]

    async def __anext__(self) -> bytes:
        return await anext(self.reply)

    async def aclose(self) -> None:
        """Close the reply and give the place back, once."""
        lease, self._lease = self._lease, None
        if lease is not None and self.status < 400:  # refusals were reported when they came
            lease.report(ok=not self.failed)
        try:
            await self.reply.aclose()
        finally:
            self._place.close()  # empty the second time


def blame(reply: Response) -> None:
    """Let the pool hear of a reply that claims success and is none."""
    if isinstance(reply, PlacedResponse):
        reply.failed = True
