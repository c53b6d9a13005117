"""The transport of a request's calls: each goes to the backend that the pool chooses, in its turn.

Knows the engine's transport protocol, the pool and the turns. Does not know chats or strategies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from outthink.engines.openai.address import Address
from outthink.engines.openai.transport import Reply, Timeouts, TransportFault
from outthink.serving.chat.turns import Turns
from outthink.serving.protocols import Lease, NoBackend, Pool, Wire

ROOT = "http://backend.invalid"
"""What the engine believes its server to be; the pool knows better."""
BASE = ROOT + "/v1"
_ILL = frozenset({429, 500, 502, 503, 504})


class PooledTransport:
    """Calls of one request.

    Args:
        who: the request, for the order of turns.
        prefix: hash of its prompt, so that its samples meet one cache.
    """

    def __init__(self, pool: Pool, wire: Wire, turns: Turns, *, model: str, who: str, prefix: int) -> None:
        self._pool, self._wire, self._turns = pool, wire, turns
        self._model, self._who, self._prefix = model, who, prefix
        self._failed: list[str] = []

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Reply:
        """Send a request to a backend of the pool. Raises TransportFault."""
        generates = url.startswith(BASE)
        if generates:
            await self._turns.take(self._who)
        try:
            lease = self._choose()
        except NoBackend as error:
            if generates:
                self._turns.give()
            raise TransportFault("connect", str(error)) from error
        lease.__enter__()
        held = _Held(lease, self._turns if generates else None)
        try:
            base = lease.url if generates else Address.parse(lease.url).root
            target = base + url[len(BASE if generates else ROOT) :]
            reply = await self._wire.open(method, target, {**headers, **lease.headers}, body, timeouts)
        except TransportFault:
            lease.report(ok=False)
            self._failed.append(lease.url)
            held.release()
            raise
        except BaseException:
            held.release()
            raise
        if generates:
            lease.report(ok=reply.status not in _ILL, status=reply.status)
        held.reply = reply
        return held

    def _choose(self) -> Lease:
        """Another backend than those that failed, if there is one."""
        try:
            return self._pool.choose(self._model, self._prefix, self._failed)
        except NoBackend:
            if not self._failed:
                raise
            self._failed.clear()
            return self._pool.choose(self._model, self._prefix)

    async def aclose(self) -> None:
        """Nothing of its own to close: connections belong to the proxy."""


class _Held:
    """A reply together with its place on the backend."""

    def __init__(self, lease: Lease, turns: Turns | None) -> None:
        self._lease, self._turns = lease, turns
        self.reply: Reply | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        assert self.reply is not None
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers under lower-case names."""
        assert self.reply is not None
        return self.reply.headers

    def __aiter__(self) -> Self:
        # The inner reply iterates by itself, which saves a step for every piece.
        return self.reply  # type: ignore[return-value]

    async def __anext__(self) -> bytes:
        assert self.reply is not None
        return await anext(self.reply)

    async def aclose(self) -> None:
        """Close the reply and give the place back."""
        try:
            if self.reply is not None:
                await self.reply.aclose()
        finally:
            self.release()

    def release(self) -> None:
        """Give the place back, once."""
        if self._lease is not None:
            lease, self._lease = self._lease, None  # type: ignore[assignment]
            lease.__exit__(None, None, None)
            if self._turns is not None:
                self._turns.give()
