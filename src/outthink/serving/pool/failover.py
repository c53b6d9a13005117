"""How a request reaches a backend, and once more where nobody can have begun it.

Knows: when a request is sent again and where, what the pool is told of each attempt, and that a place on a backend is
held until its reply has been read. Does not know JSON, chats, strategies or what a reply means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from outthink.core.errors import EngineError
from outthink.http.errors import refused_unread, retry_after
from outthink.http.transport import Response, TransportFault
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.pool import BackendPool, Full, NoBackend, Resting
from outthink.serving.pool.transport import Whole
from outthink.session.runner import Places

_FAILED = frozenset({429, 500, 502, 503, 504})
"""Statuses that say something about the backend."""
_REFUSALS = 2
"""Backends that may refuse a request before its client hears of it: trying again is the client's."""
_PAUSE = 0.25
"""Seconds before a call goes to the same backend again, where it names none."""
_LONGEST_PAUSE = 1.0
"""Seconds that a call of a strategy waits; who is asked to wait longer leaves that to the client."""
REFUSED = (401, 403)
"""Statuses by which a backend refuses our key: its client has sent us another, and hears nothing of ours."""


class KeyRefused(EngineError):
    """A backend has refused our key; `backend` names it for the operator."""

    def __init__(self, status: int, backend: str) -> None:
        super().__init__(f"the backend refused the proxy's own key ({status})", fatal=True)
        self.status, self.backend = status, backend


R = TypeVar("R", bound=Response)


class Attempt(NamedTuple, Generic[R]):
    """A reply, and the place at the backend that it came from: to be closed when the reply has been read."""

    reply: R
    lease: BackendLease


class Failover:
    """The attempts of one request on the backends of a model.

    A call is sent again only where no backend can have begun it: none of it was written, 429, or 503 with a pause or
    from a model that loads. Every backend may be out of reach, but only two refuse it before its client hears of that.

    Args:
        prefix: hash of the prompt, so that equal beginnings meet one cache.
        key: id of the client's API key.
        queue_seconds: to wait for a place where all backends are full, None for as long as it takes.
        patient: wait a moment and begin anew with the backends that have failed, once all of them have; for requests
            of many calls.
    """

    def __init__(
        self,
        pool: BackendPool,
        model: str,
        prefix: int,
        *,
        key: str = "",
        queue_seconds: float | None = None,
        patient: bool = False,
    ) -> None:
        self._pool, self._model, self._prefix, self._key, self._patient = pool, model, prefix, key, patient
        self._queue_seconds = queue_seconds
        self._failed: list[str] = []

    async def send(
        self,
        send: Callable[[BackendLease], Awaitable[R]],
        *,
        complete: Callable[[R], Awaitable[R]],
        brief: bool = False,
    ) -> Attempt[R]:
        """The reply, of the first backend that does not refuse. Raises TransportFault, KeyRefused or NoBackend.

        Args:
            send: sends the request to a backend.
            complete: reads a refusal or redirection to its end, and closes it: only the whole of it tells whether the
                call was begun, and nobody reads one that is not handed on.
            brief: the request generates nothing, so it takes no place and says nothing about the backend but faults.
        """
        refusals, unsent = _REFUSALS, max(_REFUSALS, len(self._pool.urls(self._model)))
        while True:
            try:
                lease = self._pool.choose(self._model, self._prefix, self._failed, brief=brief, key=self._key)
            except NoBackend:
                lease = await self._lease(brief=brief)
            pause: float | None = None
            if not brief:
                lease.take()
            try:
                try:
                    reply = await send(lease)
                    if reply.status >= 300:
                        reply = await complete(reply)
                except TransportFault as fault:
                    lease.report(ok=False)
                    unsent -= 1
                    if not fault.unsent or not unsent or (pause := self._pause(lease, None)) is None:
                        raise
                else:
                    wait = retry_after(reply.headers) if reply.status in _FAILED else None
                    if not brief and reply.status >= 400:  # who reads a success reports what is in it
                        lease.report(ok=reply.status not in _FAILED, status=reply.status, retry_after=wait)
                        if reply.status in REFUSED:
                            raise KeyRefused(reply.status, lease.url)
                        content = reply.content if isinstance(reply, Whole) else b""
                        if refused_unread(reply.status, reply.headers, content):
                            refusals -= 1
                            pause = self._pause(lease, wait) if refusals else None
                    if pause is None:
                        return Attempt(reply, lease)
            except BaseException:
                lease.close()
                raise
            lease.close()
            if pause:
                await asyncio.sleep(pause)

    async def _lease(self, *, brief: bool) -> BackendLease:
        """A place on a backend that has not failed yet; where all are full, the next one to come free."""
        prefix: int | None = self._prefix
        rested = not self._patient
        seconds = self._queue_seconds
        ends = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while True:
            try:
                return self._pool.choose(self._model, prefix, self._failed, brief=brief, key=self._key)
            except Full as full:  # of calls for other models, or of those that failed elsewhere
                try:
                    async with asyncio.timeout_at(ends):
                        await self._pool.room(self._model)
                except TimeoutError:
                    raise full from None
            except NoBackend as none:
                if self._patient and self._failed:
                    self._failed.clear()
                    prefix = None  # the backend that it prefers is the one that failed first
                elif not rested and isinstance(none, Resting) and (none.retry_after or 0.0) <= _LONGEST_PAUSE:
                    rested = True
                    await asyncio.sleep(none.retry_after or 0.0)
                else:
                    raise

    def _pause(self, lease: BackendLease, wait: float | None) -> float | None:
        """Seconds after which another try makes sense, None where there is none."""
        self._failed.append(lease.url)
        if self._has_another():
            return 0.0
        pause = _PAUSE if wait is None else wait
        return pause if self._patient and pause <= _LONGEST_PAUSE else None

    def _has_another(self) -> bool:
        """Whether a backend is left that has not failed this request."""
        try:
            self._pool.choose(self._model, self._prefix, self._failed, key=self._key)
        except Full:
            return True
        except NoBackend:
            return False
        return True


class Turn(NamedTuple):
    """Who waits for a place at a model's backends: requests take turns, and keys before them."""

    key: str
    request: str


async def take_turn(places: Places, turn: Turn, seconds: float) -> None:
    """Take a place at a model's backends. Raises Full where a request has none for so many seconds."""
    try:
        await places.take(turn, seconds)
    except TimeoutError:
        raise Full(f"no backend had a place within {seconds:g} s; try again later", retry_after=1.0) from None
