"""Pass-through: bytes in, bytes out, and a record of what the backend says it used.

Knows: the choice of a backend, failover before the first byte, and where a reply ends. Does not
decode what it forwards; only the model's name and the counts at the end are looked at.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.http.errors import retry_after
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.accounting import PASS, RECEIPT, Account, replayed
from outthink.serving.bodies import decode
from outthink.serving.chat.pooled import Turns
from outthink.serving.failure import Failure, failure_of
from outthink.serving.passthrough.ceilings import TAIL, UNKNOWN, Hiding, capped, used
from outthink.serving.pool.protocols import Full, Lease, NoBackend, Whole
from outthink.serving.pool.tariffs import Tariffs
from outthink.serving.protocols import Key

if TYPE_CHECKING:
    from outthink.serving.app import App


# Whether a client could read what a backend has answered, and the error object where it could not.
#
# Looks at both ends of a reply and at the beginning of a stream; what lies between is not decoded.

_EVENTS = (b"data", b"event", b"id", b"retry", b":", b"{")
_SPACE = b" \t\r\n"


def is_whole(headers: Mapping[str, str]) -> bool:
    """Whether a reply is none that comes in events, whatever was asked for."""
    return headers.get("content-type", "").startswith(("application/json", "text/html"))


def garbled(reply: Whole) -> bool:
    """Whether a reply that says that all is well is none."""
    content = reply.content
    if reply.status >= 400:
        return False
    if content[:64].lstrip(_SPACE)[:1] == b"{" and content[-64:].rstrip(_SPACE)[-1:] == b"}":
        return False
    return is_whole(reply.headers) or not content or not begins_events(content)  # some stream unasked


def unreadable(reply: Whole) -> Failure | None:
    """The error object instead of a whole reply that is none; None where the reply is one."""
    if garbled(reply):
        return Failure(502, "the backend answered something that is not JSON; try again", code="backend_error")
    status = reply.status
    if status < 400:
        return None
    try:
        told = decode(reply.content)
    except ValueError:
        told = None
    if isinstance(told, dict) and ("error" in told or "message" in told):
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an error"
    return Failure(status, f"the backend answered {status} ({phrase}) and did not say why", code="backend_error")


def begins_events(piece: bytes) -> bool:
    """Whether a stream may begin so: its first piece, which may be cut anywhere."""
    start = piece[:64].lstrip(_SPACE)
    return any(start.startswith(word) or word.startswith(start) for word in _EVENTS)


# A backend's stream on its way to the client: piece by piece, untouched, its end held until the ledger has it.
#
# Knows: where a stream ends, and what to say when it breaks off. Does not know which backend was chosen or why.

_MOST = 32 << 20
"""Bytes of a whole reply to a request for a stream that are read."""


async def deliver(reply: Whole, head: Mapping[str, str], account: Account, tariff: Tariff) -> web.Response:
    """Settle a reply that has come whole, and hand it on as it came; an error object instead of what is no reply."""
    status, told = reply.status, reply.content
    ok, wrong = status < 400, unreadable(reply)
    if wrong is None:
        counts = used(told) if ok else UNKNOWN
        record = account.passed(counts, tariff, "finished" if ok else "error", status, body=told)
    else:  # who says nothing readable has not said either that nothing was generated
        status, told = wrong.status, wrong.body()
        head = {name: value for name, value in head.items() if name.lower() != "content-type"}
        head["content-type"] = "application/json"
        record = account.passed(UNKNOWN, tariff, "interrupted" if ok else "error", status, error=wrong.message)
        record.stopped = "error"
    await account.settle(record)
    return web.Response(body=told, status=status, headers=head)


async def collect(reply: Response) -> bytes:
    """The whole of a reply that does not come in events, or its beginning where it is long or breaks off."""
    told = b""
    try:
        async for piece in reply:
            told += piece
            if len(told) > _MOST:
                break
    except TransportFault:
        pass  # its end is missing, and that shows
    finally:
        await reply.aclose()
    return told


async def forward_stream(
    request: web.BaseRequest,
    reply: Response,
    head: Mapping[str, str],
    account: Account,
    tariff: Tariff,
    lease: Lease,
    hiding: Hiding | None = None,
) -> web.StreamResponse:
    """Forward a reply. `hiding` takes out a chunk that the client has not asked for."""
    response = web.StreamResponse(status=reply.status, headers=head)
    write, tail = response.write, b""
    kept = bytearray() if account.keeps else None
    try:
        await response.prepare(request)
        async for piece in reply:
            if not tail and not begins_events(piece):
                raise TransportFault("dropped", "no events")
            account.spoke()
            tail = (tail + piece)[-TAIL:]
            shown = piece if hiding is None else hiding.feed(piece)
            if kept is not None:
                kept += shown
            if b"[DONE]" in piece:
                body = _whole(kept, hiding)
                await account.settle(account.passed(used(tail), tariff, "finished", reply.status, body=body))
            if shown:
                await write(shown)
        body = _whole(kept, hiding)
        if hiding is not None and (rest := hiding.close()):
            await write(rest)
        await account.settle(account.passed(used(tail), tariff, "finished", reply.status, body=body))
        await response.write_eof()
    except TransportFault as fault:
        lease.report(ok=False)
        # An error event tells the client, and nothing pretends to be whole.
        failure = failure_of(fault) or Failure(502, "the backend broke off")
        await account.settle(account.passed(used(tail), tariff, "error", reply.status, error=failure.message))
        await write(b"data: " + failure.body() + b"\n\n")
        await response.write_eof()
    finally:
        await reply.aclose()
    return response


def _whole(kept: bytearray | None, hiding: Hiding | None) -> bytes | None:
    """What has been gathered of a stream; its last event may still lack its end."""
    if kept is None:
        return None
    return (bytes(kept) + (hiding.held if hiding is not None else b"")).rstrip(b"\n") + b"\n\n"


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
                    told = Whole(reply.status, reply.headers, await collect(reply))
                    if garbled(told) and self._another(model, lease, failed, True):
                        lease.report(ok=False)
                        continue
                    return await deliver(told, head, account, tariff)
                return await forward_stream(request, reply, head, account, tariff, lease, hiding)

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
