"""Pass-through: bytes in, bytes out, and a record of what the backend says it used.

Knows: which headers a client may have forwarded, and the order of things: ceilings, reservation, a place, the reply,
the record. Does not know what is in a reply, or which backend answers.
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from outthink.http.errors import refused_unread, retry_after
from outthink.http.fields import JsonDict
from outthink.http.transport import Timeouts, TransportFault
from outthink.http.usage import UNKNOWN
from outthink.serving.accounting import PASS, RECEIPT, Account, idempotency_of, replayed
from outthink.serving.chat.backends import Backends
from outthink.serving.failure import Failure, failure_of
from outthink.serving.forward.ceilings import cap_request
from outthink.serving.forward.replies import (
    UsageFilter,
    complete,
    deliver,
    discard,
    forward_stream,
    is_garbled,
)
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
        self._rules = backends.rules
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
        idempotency = idempotency_of(request.headers, path, content)
        # Compressed bytes could not be looked at on their way.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}
        passed = _PassedRequest(account, path, content, headers)
        if key.limited or idempotency is not None or key.budget.limited:
            tariff = self.tariffs.bound(model)
            rules = self._rules(model)
            capped = cap_request(key, path, content, body, self.app.limits.max_tokens, tariff, rules)
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
            message = f"the key's ceiling of {key.budget.seconds:g} seconds is over"
            late = Failure(504, message, code="budget:seconds", stored=message)
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
        failover = Failover(self.app.pool, account.model, zlib.crc32(content[:512]), key=account.key.id)
        reply, lease, place = await failover.send(send, discard=discard, complete=complete, garbled=is_garbled)
        head = {name: value for name, value in reply.headers.items() if name.lower() not in _OWN_TO_HOP}
        head[RECEIPT] = account.id
        tariff = self.tariffs.of(account.model, lease.url)
        if isinstance(reply, Whole):
            if retry_after(reply.headers) is None and refused_unread(reply.status, reply.headers, reply.content):
                head["retry-after"] = "1"  # trying again is the client's
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
            stored = "500 internal_error" if failure is None else failure.stored
            # A backend that was never reached has generated nothing; one that went silent may have.
            reached = isinstance(error, TransportFault) and not error.unsent
            record = account.passed(UNKNOWN, tariff, "interrupted" if reached else "error", status, error=stored)
            record.stopped = "error"
        else:
            record = account.passed(UNKNOWN, tariff, "interrupted", 499)
        self.app.later(account.settle(record))
