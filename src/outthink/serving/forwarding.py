"""Pass-through: bytes in, bytes out, and a record of what the backend says it used.

Knows: the choice of a backend, failover before the first byte, and where a reply ends. Does not
decode what it forwards; only the model's name and the counts at the end are looked at.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from aiohttp import web

from outthink.http.errors import retry_after
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.accounting import PASS, Account
from outthink.serving.backend_protocols import Full, Lease, NoBackend, Whole
from outthink.serving.ceilings import Hiding, capped
from outthink.serving.chat.turns import Turns
from outthink.serving.failure import Failure, failure_of
from outthink.serving.pouring import deliver, gathered, pour
from outthink.serving.protocols import Key
from outthink.serving.readable import garbled, is_whole
from outthink.serving.replay import RECEIPT, replayed
from outthink.serving.tariffs import Tariffs
from outthink.serving.usage import UNKNOWN

if TYPE_CHECKING:
    from outthink.serving.app import App

_ASK = ("accept", "openai-beta", "x-request-id", "traceparent", "tracestate")
_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "set-cookie", "trailer"}
    | {"upgrade", "proxy-authenticate", "alt-svc", "strict-transport-security", "access-control-allow-origin"}
)
_ELSEWHERE = frozenset({429, 500, 502, 503, 504})
"""Statuses after which another backend is asked, if there is one."""
_BROKEN = ("connect", "tls", "dropped")
"""Faults after which it is asked as well. One that hung until its time was over has used up the client's patience."""


class Forwarder:
    """Passes requests through.

    Args:
        turns: the queue for a model, where its backends take only so many calls.
    """

    def __init__(self, app: App, tariffs: Tariffs, turns: Callable[[str], Turns]) -> None:
        self.app, self.tariffs, self._turns = app, tariffs, turns
        limits = app.limits
        self._timeouts = Timeouts(limits.connect_seconds, limits.backend_seconds)

    async def __call__(
        self, request: web.BaseRequest, key: Key, path: str, content: bytes, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        """Forward a request for one of the backends' models."""
        model = str(body["model"])
        account = Account(self.app.ledger, key, path, model, body.get("stream") is True, content=content)
        account.watchers = self.app.watchers
        idempotency = request.headers.get("Idempotency-Key")
        hiding = None
        if key.limited or idempotency is not None or key.budget.limited:
            tariff = self.tariffs.bound(model)
            fit = capped(key, path, content, body, self.app.limits.max_tokens, tariff)
            content, hiding = fit.content, Hiding() if fit.hide else None
            await account.reserve(fit.tokens, fit.usd, idempotency)
            if (again := replayed(account)) is not None:
                return again
        sent = {"content-type": "application/json", "accept-encoding": "identity"}
        for name in _ASK:
            if (value := request.headers.get(name)) is not None:
                sent[name] = value
        if (trace := account.admitted(PASS, sent.get("traceparent"))) is not None:
            sent["traceparent"] = trace
        prefix = zlib.crc32(content[:512])
        turns = None
        try:
            async with nullcontext() if key.budget.seconds is None else asyncio.timeout(key.budget.seconds):
                if self.app.pool.places(model) is not None:
                    await (waited := self._turns(model)).take(account.id)
                    turns = waited
                if account.stream:
                    return await self._stream(request, account, path, content, sent, prefix, hiding)
                return await self._whole(account, path, content, sent, prefix)
        except TimeoutError as error:
            late = Failure(504, f"the key's ceiling of {key.budget.seconds:g} seconds is over", code="budget:seconds")
            await self._broken(account, model, late)
            raise late from error
        except BaseException as error:
            await self._broken(account, model, error)
            raise
        finally:
            if turns is not None:
                turns.give()

    async def _whole(
        self, account: Account, path: str, content: bytes, sent: dict[str, str], prefix: int
    ) -> web.StreamResponse:
        url, reply = await self._fetched(account.model, path, content, sent, prefix)
        return await deliver(reply, _back(reply.headers, account.id), account, self.tariffs.of(account.model, url))

    async def _fetched(
        self, model: str, path: str, content: bytes, sent: dict[str, str], prefix: int
    ) -> tuple[str, Whole]:
        """The reply of the first backend that gives one, and that backend's URL."""
        app, failed = self.app, list[str]()
        while True:
            with await self._lease(model, prefix, failed) as lease:
                try:
                    reply = await app.wire.fetch(
                        "POST", lease.url + path[3:], {**sent, **lease.headers}, content, self._timeouts
                    )
                except TransportFault as fault:
                    lease.report(ok=False)
                    if not self._another(model, lease, failed, fault.kind in _BROKEN):
                        raise
                    continue
                if nonsense := garbled(reply):
                    lease.report(ok=False)
                else:
                    _report(lease, reply)
                if (nonsense or reply.status in _ELSEWHERE) and self._another(model, lease, failed, True):
                    continue
                return lease.url, reply

    async def _lease(self, model: str, prefix: int, failed: list[str]) -> Lease:
        """A place on a backend; where all are full of calls for other models, the next one to come free."""
        pool = self.app.pool
        while True:
            try:
                return pool.choose(model, prefix, failed)
            except Full:
                await pool.room(model)

    def _another(self, model: str, lease: Lease, failed: list[str], again: bool) -> bool:
        """Whether another backend can be asked instead."""
        failed.append(lease.url)
        if not again:
            return False
        try:
            self.app.pool.choose(model, None, failed)
        except Full:
            return True
        except NoBackend:
            return False
        return True

    async def _stream(
        self,
        request: web.BaseRequest,
        account: Account,
        path: str,
        content: bytes,
        sent: dict[str, str],
        prefix: int,
        hiding: Hiding | None,
    ) -> web.StreamResponse:
        app, failed, model = self.app, list[str](), account.model
        while True:
            with await self._lease(model, prefix, failed) as lease:
                try:
                    reply = await app.wire.open(
                        "POST", lease.url + path[3:], {**sent, **lease.headers}, content, self._timeouts
                    )
                except TransportFault as fault:
                    lease.report(ok=False)
                    if not self._another(model, lease, failed, fault.kind in _BROKEN):
                        raise
                    continue
                _report(lease, reply)
                if reply.status in _ELSEWHERE and self._another(model, lease, failed, True):
                    await reply.aclose()
                    continue
                head, tariff = _back(reply.headers, account.id), self.tariffs.of(model, lease.url)
                if reply.status >= 400 or is_whole(reply.headers):
                    told = Whole(reply.status, reply.headers, await gathered(reply))
                    if garbled(told) and self._another(model, lease, failed, True):
                        lease.report(ok=False)
                        continue
                    return await deliver(told, head, account, tariff)
                return await pour(request, reply, head, account, tariff, lease, hiding)

    async def _broken(self, account: Account, model: str, error: BaseException) -> None:
        """No reply, or the client left: settle in the background what is not settled yet."""
        if account.settled:
            return
        tariff = self.tariffs.of(model, "")
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            failure = failure_of(error)
            status = 500 if failure is None else failure.status
            # A backend that was never reached has generated nothing; one that went silent may have.
            reached = isinstance(error, TransportFault) and error.kind in ("idle", "dropped")
            record = account.passed(UNKNOWN, tariff, "interrupted" if reached else "error", status, error=str(error))
            record.stopped = "error"
        else:
            record = account.passed(UNKNOWN, tariff, "interrupted", 499)
        self.app.later(account.settle(record))


def _report(lease: Lease, reply: Response | Whole) -> None:
    """Tell the pool how a backend has answered."""
    if reply.status in _ELSEWHERE:
        lease.report(ok=False, status=reply.status, retry_after=retry_after(reply.headers))
    else:
        lease.report(ok=True, status=reply.status)


def _back(headers: Mapping[str, str], receipt: str) -> dict[str, str]:
    """Headers of the reply that the client gets."""
    kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
    kept[RECEIPT] = receipt
    return kept
