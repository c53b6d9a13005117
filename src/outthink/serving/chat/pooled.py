"""The transport of a request's calls: each goes to the backend that the pool chooses, in its turn.

Knows the engine's transport protocol, the pool and the turns. Does not know chats or strategies.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Self

from outthink.http.errors import retry_after
from outthink.http.server import Address
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.pool.protocols import Full, Lease, NoBackend, Pool, Wire

# Whose call runs next where a backend takes only so many. Knows requests by number; no calls, no clocks.
#
# Requests take turns: one that wants thirty-two samples gets one place in each round, like one that wants
# a single sample. Nobody starves, and many small requests are not held up by a large one.


class Turns:
    """Places on the backends of one model.

    Args:
        limit: calls in flight; asked anew every time, because backends come and go.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit, self.active = limit, 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, who: str) -> None:
        """Wait for a place; cancelling gives the turn up."""
        if not self._waiting and self.active < self._limit():
            self.active += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        self.move()  # a backend may have come meanwhile
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()  # the place had come at that very moment
            else:
                self._forget(who, place)
            raise

    def give(self) -> None:
        """Give a place back; the next request in the round gets it."""
        self.active -= 1
        self.move()

    def move(self) -> None:
        """Hand out what is free, one place a request and round."""
        while self._waiting and self.active < self._limit():
            who, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[who] = places  # at the end of the round
            if not place.done():
                self.active += 1
                place.set_result(None)

    def _forget(self, who: str, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(who)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._waiting[who]


ROOT = "http://backend.invalid"
"""What the engine believes its server to be; the pool knows better."""
BASE = ROOT + "/v1"
_ILL = frozenset({429, 500, 502, 503, 504})


class PooledTransport:
    """Calls of one request.

    Args:
        who: the request, for the order of turns.
        prefix: hash of its prompt, so that its samples meet one cache.
        more: headers that every call gets besides.
    """

    def __init__(
        self, pool: Pool, wire: Wire, turns: Turns, *, model: str, who: str, prefix: int, more: Mapping[str, str]
    ) -> None:
        self._pool, self._wire, self._turns = pool, wire, turns
        self._model, self._who, self._prefix, self._more = model, who, prefix, more
        self._failed: list[str] = []

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Response:
        """Send a request to a backend of the pool, to another one where it fails. Raises TransportFault."""
        generates = url.startswith(BASE)
        if generates:
            await self._turns.take(self._who)
        try:
            return await self._sent(method, url, headers, body, timeouts, generates)
        except BaseException:
            if generates:
                self._turns.give()
            raise

    async def _sent(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeouts: Timeouts,
        generates: bool,
    ) -> _Held:
        """The first reply that is worth having, together with its place."""
        while True:
            try:
                lease = self._choose(brief=not generates)
            except Full:  # of calls for other models, or of those that failed elsewhere
                await self._pool.room(self._model)
                continue
            except NoBackend as error:
                raise TransportFault("connect", str(error)) from error
            with ExitStack() as place:
                if generates:
                    place.enter_context(lease)
                base = lease.url if generates else Address.parse(lease.url).root
                target = base + url[len(BASE if generates else ROOT) :]
                try:
                    reply = await self._wire.open(
                        method, target, {**headers, **self._more, **lease.headers}, body, timeouts
                    )
                except TransportFault as fault:
                    lease.report(ok=False)
                    if fault.kind == "idle" or not self._another(lease):
                        raise
                    continue
                if generates and reply.status in _ILL:
                    lease.report(ok=False, status=reply.status, retry_after=retry_after(reply.headers))
                    if self._another(lease):
                        await reply.aclose()
                        continue
                elif generates:
                    lease.report(ok=True, status=reply.status)
                return _Held(reply, place.pop_all(), self._turns if generates else None)

    def _another(self, lease: Lease) -> bool:
        """Whether a backend is left that has not failed this request."""
        self._failed.append(lease.url)
        try:
            self._pool.choose(self._model, self._prefix, self._failed)
        except Full:
            return True
        except NoBackend:
            return False
        return True

    def _choose(self, *, brief: bool) -> Lease:
        """Another backend than those that failed, if there is one."""
        try:
            return self._pool.choose(self._model, self._prefix, self._failed, brief=brief)
        except Full:
            raise
        except NoBackend:
            if not self._failed:
                raise
            self._failed.clear()
            return self._pool.choose(self._model, self._prefix, brief=brief)

    async def aclose(self) -> None:
        """Nothing of its own to close: connections belong to the proxy."""


class _Held:
    """A reply together with its place on the backend."""

    def __init__(self, reply: Response, place: ExitStack, turns: Turns | None) -> None:
        self.reply, self.status, self.headers = reply, reply.status, reply.headers
        self._place: ExitStack | None = place
        self._turns = turns

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
            place, self._place = self._place, None
            if place is not None:
                place.close()
                if self._turns is not None:
                    self._turns.give()
