"""Pass-through: bytes in, bytes out, and a record of what the backend says it used.

Knows: what a client may have forwarded, whether it could read a reply, and where a reply ends. Does not decode what it
forwards: only the model's name and the counts at the end are looked at. Which backend answers is the failover's matter.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.http.fields import JsonDict, decode
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.serving.accounting import PASS, RECEIPT, Account, replayed
from outthink.serving.ceilings import TAIL, UNKNOWN, UsageFilter, cap_request, usage_in
from outthink.serving.chat.backends import Backends
from outthink.serving.failure import Failure, failure_of
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.failover import Failover
from outthink.serving.pool.transport import Reply, Whole
from outthink.serving.protocols import Key
from outthink.session.runner import Places

if TYPE_CHECKING:
    from outthink.serving.app import App

_FORWARDED = ("accept", "openai-beta", "x-request-id", "traceparent", "tracestate")
# Headers that belong to one connection, or tell of the backend's own server: ours are set anew.
_OWN_TO_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "set-cookie", "trailer"}
    | {"upgrade", "proxy-authenticate", "alt-svc", "strict-transport-security", "access-control-allow-origin"}
)


@dataclass(slots=True)
class _PassedRequest:
    """One request on its way to a backend."""

    account: Account
    path: str
    content: bytes
    headers: dict[str, str]
    usage_filter: UsageFilter | None = None


class Forwarder:
    """Passes requests through."""

    def __init__(self, app: App, backends: Backends) -> None:
        self.app, self.tariffs, self._places = app, backends.tariffs, backends.places
        limits = app.limits
        self._timeouts = Timeouts(limits.connect_seconds, limits.backend_seconds)

    async def __call__(
        self, request: web.BaseRequest, key: Key, path: str, content: bytes, body: JsonDict
    ) -> web.StreamResponse:
        """Forward a request for one of the backends' models."""
        model = str(body["model"])
        account = Account(
            self.app.ledger, key, path, model, body.get("stream") is True, content=content, watchers=self.app.watchers
        )
        idempotency = request.headers.get("Idempotency-Key")
        # Compressed bytes could not be looked at on their way.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}
        passed = _PassedRequest(account, path, content, headers)
        if key.limited or idempotency is not None or key.budget.limited:
            tariff = self.tariffs.bound(model)
            capped = cap_request(key, path, content, body, self.app.limits.max_tokens, tariff)
            passed.content, passed.usage_filter = capped.content, UsageFilter() if capped.hide_usage else None
            await account.reserve(capped.tokens, capped.usd, idempotency)
            if (again := replayed(account)) is not None:
                return again
        if (trace := account.admitted(PASS, headers.get("traceparent"))) is not None:
            headers["traceparent"] = trace
        places: Places | None = None
        try:
            async with nullcontext() if key.budget.seconds is None else asyncio.timeout(key.budget.seconds):
                if self.app.pool.places(model) is not None:
                    await (queue := self._places(model)).take(account.id)
                    places = queue
                return await self._answer(request, passed)
        except TimeoutError as error:
            late = Failure(504, f"the key's ceiling of {key.budget.seconds:g} seconds is over", code="budget:seconds")
            self._settle_failed(account, late)
            raise late from error
        except BaseException as error:
            self._settle_failed(account, error)
            raise
        finally:
            if places is not None:
                places.give(account.id)

    async def _answer(self, request: web.BaseRequest, passed: _PassedRequest) -> web.StreamResponse:
        """The reply of the first backend that gives one, streamed or whole."""
        account, wire, content = passed.account, self.app.wire, passed.content

        async def send(lease: BackendLease) -> Reply:
            url, headers = lease.url + passed.path.removeprefix("/v1"), {**passed.headers, **lease.headers}
            if account.stream:
                return await wire.open("POST", url, headers, content, self._timeouts)
            return await wire.fetch("POST", url, headers, content, self._timeouts)

        # Chats that begin alike meet the backend whose cache has that beginning.
        failover = Failover(self.app.pool, account.model, zlib.crc32(content[:512]))
        reply, lease, place = await failover.send(send, discard=_discard, complete=_complete, garbled=is_garbled)
        head = {name: value for name, value in reply.headers.items() if name.lower() not in _OWN_TO_HOP}
        head[RECEIPT] = account.id
        tariff = self.tariffs.of(account.model, lease.url)
        if isinstance(reply, Whole):
            place.close()  # the backend has done its part: its place is not held while the ledger writes
            return await deliver(reply, head, account, tariff)
        with place:
            return await forward_stream(request, reply, head, account, tariff, lease, passed.usage_filter)

    def _settle_failed(self, account: Account, error: BaseException) -> None:
        """No reply, or the client left: settle in the background what is not settled yet."""
        if account.settled:
            return
        tariff = self.tariffs.of(account.model, "")
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


# Whether a client could read what a backend has answered, and the error object where it could not. Only both
# ends of a reply and the beginning of a stream are looked at; what lies between is not decoded.

_EVENTS = (b"data", b"event", b"id", b"retry", b":", b"{")
_SPACE = b" \t\r\n"
_MOST = 32 << 20
"""Bytes of a whole reply to a request for a stream that are read."""


def _comes_whole(headers: Mapping[str, str]) -> bool:
    """Whether a reply is none that comes in events, whatever was asked for."""
    return headers.get("content-type", "").startswith(("application/json", "text/html"))


def is_garbled(reply: Reply) -> bool:
    """Whether a whole reply that says that all is well is none."""
    if not isinstance(reply, Whole) or reply.status >= 400:
        return False
    content = reply.content
    if content[:64].lstrip(_SPACE)[:1] == b"{" and content[-64:].rstrip(_SPACE)[-1:] == b"}":
        return False
    return _comes_whole(reply.headers) or not content or not begins_events(content)  # some stream unasked


def _unreadable(reply: Whole) -> Failure | None:
    """The error object instead of a whole reply that is none; None where the reply is one."""
    if is_garbled(reply):
        return Failure(502, "the backend answered something that is not JSON; try again", code="backend_error")
    status = reply.status
    if status < 400:
        return None
    try:
        value = decode(reply.content)
    except ValueError:
        value = None
    if isinstance(value, dict) and ("error" in value or "message" in value):
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an error"
    return Failure(status, f"the backend answered {status} ({phrase}) and did not say why", code="backend_error")


def begins_events(piece: bytes) -> bool:
    """Whether a stream may begin so: its first piece, which may be cut anywhere."""
    start = piece[:64].lstrip(_SPACE)
    return any(start.startswith(word) or word.startswith(start) for word in _EVENTS)


async def _discard(reply: Reply) -> None:
    if not isinstance(reply, Whole):
        await reply.aclose()


async def _complete(reply: Reply) -> Reply:
    """A reply that does not come in events, read to its end, or its beginning where it is long or breaks off."""
    if isinstance(reply, Whole) or (reply.status < 400 and not _comes_whole(reply.headers)):
        return reply
    content = b""
    try:
        async for piece in reply:
            content += piece
            if len(content) > _MOST:
                break
    except TransportFault:
        pass  # its end is missing, and that shows
    finally:
        await reply.aclose()
    return Whole(reply.status, reply.headers, content)


async def deliver(reply: Whole, head: Mapping[str, str], account: Account, tariff: Tariff) -> web.Response:
    """Settle a reply that has come whole, and hand it on as it came; an error object instead of what is no reply."""
    status, body = reply.status, reply.content
    ok, failure = status < 400, _unreadable(reply)
    if failure is None:
        usage = usage_in(body) if ok else UNKNOWN
        record = account.passed(usage, tariff, "finished" if ok else "error", status, body=body)
    else:  # who says nothing readable has not said either that nothing was generated
        status, body = failure.status, failure.body()
        head = {name: value for name, value in head.items() if name.lower() != "content-type"}
        head["content-type"] = "application/json"
        record = account.passed(UNKNOWN, tariff, "interrupted" if ok else "error", status, error=failure.message)
        record.stopped = "error"
    await account.settle(record)
    return web.Response(body=body, status=status, headers=head)


async def forward_stream(
    request: web.BaseRequest,
    reply: Response,
    head: Mapping[str, str],
    account: Account,
    tariff: Tariff,
    lease: BackendLease,
    usage_filter: UsageFilter | None = None,
) -> web.StreamResponse:
    """Forward a stream piece by piece, untouched; its end is held until the ledger has the record.

    Args:
        usage_filter: takes out a chunk that the client has not asked for.
    """
    response = web.StreamResponse(status=reply.status, headers=head)
    write, tail = response.write, b""
    kept = bytearray() if account.keeps else None
    try:
        await response.prepare(request)
        async for piece in reply:
            if not tail and not begins_events(piece):
                raise TransportFault("dropped", "no events")
            account.first_token()
            tail = (tail + piece)[-TAIL:]  # counts come last, and a long stream must not be kept for them
            shown = piece if usage_filter is None else usage_filter.feed(piece)
            if kept is not None:
                kept += shown
            # The record comes first: who has read the end may ask for the receipt at once.
            if b"[DONE]" in piece:
                body = _kept_body(kept, usage_filter)
                await account.settle(account.passed(usage_in(tail), tariff, "finished", reply.status, body=body))
            if shown:
                await write(shown)
        body = _kept_body(kept, usage_filter)
        if usage_filter is not None and (rest := usage_filter.close()):
            await write(rest)
        await account.settle(account.passed(usage_in(tail), tariff, "finished", reply.status, body=body))
        await response.write_eof()
    except TransportFault as fault:
        lease.report(ok=False)
        # An error event tells the client, and nothing pretends to be whole.
        failure = failure_of(fault) or Failure(502, "the backend broke off")
        await account.settle(account.passed(usage_in(tail), tariff, "error", reply.status, error=failure.message))
        await write(b"data: " + failure.body() + b"\n\n")
        await response.write_eof()
    finally:
        await reply.aclose()
    return response


def _kept_body(kept: bytearray | None, usage_filter: UsageFilter | None) -> bytes | None:
    """What has been kept of a stream; its last event may still lack its end."""
    if kept is None:
        return None
    return (bytes(kept) + (usage_filter.held if usage_filter is not None else b"")).rstrip(b"\n") + b"\n\n"
