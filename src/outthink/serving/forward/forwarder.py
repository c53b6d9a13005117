"""Pass-through: bytes in, bytes out, and a record of what the backend says it used.

Knows: which headers a client may have forwarded, and the order of things: ceilings, reservation, a place, the reply,
the record. Does not know what is in a reply, or which backend answers.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from outthink.engines.openai.engine import drain
from outthink.http.errors import refused_unread, retry_after
from outthink.http.fields import CHAT_LENGTH_FIELDS, JsonDict, completions_in, endpoint_of, with_length_name
from outthink.http.transport import Response, Timeouts, TransportFault
from outthink.http.usage import UNKNOWN, Usage, read_count
from outthink.serving.accounting import PASS, RECEIPT, Account, idempotency_of, replayed
from outthink.serving.admission import ByteRoom
from outthink.serving.bounds.checked import LONG
from outthink.serving.chat.backends import Backends
from outthink.serving.failure import Failure, failure_of
from outthink.serving.forward.ceilings import CappedRequest, cap_request, known_bound, named_once
from outthink.serving.forward.replies import Passage, complete, deliver, forward_stream
from outthink.serving.inbound.connections import ClientConnection
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.failover import Failover, Turn, take_turn
from outthink.serving.pool.transport import AiohttpResponse, Whole
from outthink.serving.protocols import Idempotency, Key

if TYPE_CHECKING:
    from outthink.serving.app import App

_FORWARDED = ("accept", "openai-beta", "x-request-id", "traceparent", "tracestate")
# Headers that belong to one connection, or tell of the backend's own server: ours are set anew.
_OWN_TO_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "set-cookie", "trailer"}
    | {"upgrade", "proxy-authenticate", "alt-svc", "strict-transport-security", "access-control-allow-origin"}
    | {"location", "content-location", "refresh", "link", "via"}
)


_LATE, _FULL = "budget:seconds", "replies_full"
_BROKEN_OFF = frozenset({_LATE, _FULL})
"""Failures of requests that a backend works on."""
_LONG = 1 << 17
"""Bytes of a request that is looked at beside the event loop."""


@dataclass(slots=True)
class _PassedRequest:
    """One request on its way to a backend."""

    account: Account
    path: str
    content: bytes
    headers: dict[str, str]
    completions: int = 1
    length: int | None = None
    hide_usage: bool = False
    lengths: Mapping[str, str] | None = None  # how its length is called by the URLs of backends, where they differ
    passage: Passage | None = None  # where its reply is, once there is one
    sent: bool = False  # a backend may have begun to work on it
    held: int = 0  # bytes of its reply that have room
    grows: bool = False  # its reply, of unknown length, is being read


class Forwarder:
    """Passes requests through."""

    def __init__(self, app: App, backends: Backends) -> None:
        self.app, self._backends, self.tariffs, self._places = app, backends, backends.tariffs, backends.places
        limits = app.limits
        self._timeouts = Timeouts(limits.connect_seconds, limits.backend_seconds)
        self._growing = asyncio.Lock()
        self._room, self._most = ByteRoom(limits.replies, most := max(1, limits.replies * 4 // 5)), most

    async def __call__(
        self, request: web.BaseRequest, key: Key, path: str, content: bytes, body: JsonDict
    ) -> web.StreamResponse:
        """Forward a request for one of the backends' models."""
        model = str(body["model"])
        account = Account(
            self.app.ledger, key, path, model, body.get("stream") is True, content=content, watchers=self.app.watchers
        )
        given, long = (request.headers, path, content, body), len(content) > _LONG
        idempotency, completions = await asyncio.to_thread(_looked_at, *given) if long else _looked_at(*given)
        # Compressed bytes could not be looked at on their way.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}
        passed = _PassedRequest(account, path, content, headers, completions)
        if passed.completions > 1:
            asked = [count for name in CHAT_LENGTH_FIELDS if (count := read_count(body.get(name))) is not None]
            passed.length = max(asked, default=None)
        if key.models and not key.counted:
            passed.content = await asyncio.to_thread(named_once, body) if long else named_once(body)
        if key.limited or idempotency is not None or key.budget.limited:
            capped = await self._cap(passed, body)
            await account.reserve(capped.tokens, capped.usd, idempotency)
            if (again := replayed(account)) is not None:
                return again
        bound = known_bound(path, content, body, passed.completions) if account.reservation is None else None
        self.app.admitted(request)
        if (trace := account.admitted(PASS, headers.get("traceparent"), bound)) is not None:
            headers["traceparent"] = trace
        return await self._pass(request, passed)

    async def _pass(self, request: web.BaseRequest, passed: _PassedRequest) -> web.StreamResponse:
        """The reply; whatever happens, the request is settled, and gives back what it holds."""
        account, places = passed.account, None
        key, model = account.key, account.model
        try:
            if (seconds := key.budget.seconds) is None and self.app.pool.places(model) is None:
                response = await self._answer(request, passed)
            else:
                async with asyncio.timeout(seconds):
                    if self.app.pool.places(model) is not None:
                        turn, queue = Turn(key.id, account.id), self._places(model)
                        await take_turn(queue, turn, self._backends.queue_seconds)
                        places = queue
                    response = await self._answer(request, passed)
            if passed.held and isinstance(connection := request.protocol, ClientConnection):
                held, passed.held = passed.held, 0
                connection.when_sent = partial(self._room.give, key.id, held)
            return response
        except TimeoutError as error:
            message = f"the key's ceiling of {key.budget.seconds:g} seconds is over"
            late = Failure(504, message, code=_LATE, stored=message)
            late.headers[RECEIPT] = account.id
            await self._settle_failed(passed, late)
            if passed.passage is not None and (told := await passed.passage.tell(late)) is not None:
                return told
            raise late from error
        except Exception as error:
            if (failure := failure_of(error)) is None:
                self._settle_failed(passed, error)
                raise
            failure.headers[RECEIPT] = account.id
            await self._settle_failed(passed, error)
            raise failure from error
        except BaseException as error:
            self._settle_failed(passed, error)
            raise
        finally:
            if passed.held:
                self._room.give(key.id, passed.held)
            if places is not None:
                places.give(turn)

    async def _cap(self, passed: _PassedRequest, body: JsonDict) -> CappedRequest:
        """Make the request fit its key's ceilings. Raises Failure where it cannot."""
        account, content = passed.account, passed.content
        model = account.model
        rules, most = self._backends.rules(model), self.app.limits.max_tokens
        given = account.key, passed.path, content, body, most, self.tariffs.bound(model), rules
        capped = await asyncio.to_thread(cap_request, *given) if len(content) > LONG else cap_request(*given)
        passed.content, passed.hide_usage, passed.completions = capped.content, capped.hide_usage, capped.completions
        if capped.length is not None:
            passed.length = capped.length
        if rules.lengths and account.key.counted and endpoint_of(passed.path) == "chat":
            passed.lengths = dict(rules.lengths)
        return capped

    async def _answer(self, request: web.BaseRequest, passed: _PassedRequest) -> web.StreamResponse:
        """The reply of the first backend that gives one, streamed or whole."""
        account = passed.account
        # Chats that begin alike meet the backend whose cache has that beginning.
        prefix, seconds = zlib.crc32(passed.content[:512]), self._backends.queue_seconds
        failover = Failover(self.app.pool, account.model, prefix, key=account.key.id, queue_seconds=seconds)
        try:
            reply, lease = await failover.send(partial(self._send, passed), complete=complete)
        finally:
            if passed.grows:
                self._growing.release()
        head = {name: value for name, value in reply.headers.items() if name.lower() not in _OWN_TO_HOP}
        head[RECEIPT] = account.id
        passed.passage = passage = Passage(
            account,
            self.tariffs.of(account.model, lease.url),
            lease,
            head,
            passed.completions,
            passed.length,
            passed.completions > 1 and self._backends.sums_choices(account.model),
            passed.hide_usage,
        )
        if isinstance(reply, Whole):
            if reply.status >= 400 and refused_unread(reply.status, reply.headers, reply.content):
                _name_pause(head)  # trying again is the client's
            lease.close()  # the backend has done its part: its place is not held while the ledger writes
            return await deliver(reply, passage)
        ended = False
        try:
            with lease:
                response = await forward_stream(request, reply, passage)
            ended = True
            return response
        finally:
            # Nobody waits for the end of a connection that is kept open.
            if ended and not (isinstance(reply, AiohttpResponse) and reply.ended):
                self.app.later(_let_end(reply))
            else:
                await reply.aclose()

    def _send(self, passed: _PassedRequest, lease: BackendLease) -> Awaitable[Response]:
        """Send it to a backend, under the name that its length has there."""
        passed.sent = True
        if passed.lengths is not None and (name := passed.lengths.get(lease.url)) is not None:
            return self._send_renamed(passed, lease, name)
        return self._send_as(passed.content, passed, lease)

    async def _send_renamed(self, passed: _PassedRequest, lease: BackendLease, name: str) -> Response:
        given, long = (passed.content, name), len(passed.content) > _LONG
        sent = await asyncio.to_thread(with_length_name, *given) if long else with_length_name(*given)
        return await self._send_as(sent, passed, lease)

    def _send_as(self, sent: bytes, passed: _PassedRequest, lease: BackendLease) -> Awaitable[Response]:
        url, headers = lease.url + passed.path[3:], {**passed.headers, **lease.headers}  # it ends in /v1
        if passed.account.stream:
            return self.app.wire.open("POST", url, headers, sent, self._timeouts)
        room = partial(self._take, passed)
        return self.app.wire.fetch("POST", url, headers, sent, self._timeouts, room=room)

    async def _take(self, passed: _PassedRequest, size: int, known: bool) -> None:
        """Wait for room for more of a reply; one that is longer than all of its key's takes that.

        Of unknown length one at a time grows: several would wait for each other until none has any time left.
        """
        size = min(size, self._most - passed.held)
        try:
            async with asyncio.timeout(self._backends.queue_seconds):
                if not known and not passed.grows:
                    passed.grows = await self._growing.acquire()
                await self._room.take(passed.account.key.id, size)
        except TimeoutError:
            why = "clients that have not taken theirs yet hold all the room for replies; try again later"
            raise Failure(503, f"reply: {why}", code=_FULL, retry_after=5.0) from None
        passed.held += size

    def _settle_failed(self, passed: _PassedRequest, error: BaseException) -> asyncio.Future[None]:
        """No reply, or the client left: settle in the background what is not settled yet."""
        account, passage = passed.account, passed.passage
        tariff, usage = self.tariffs.of(account.model, ""), UNKNOWN
        if passage is not None:
            tariff = passage.tariff
            if passage.usage is not None:
                usage = passage.counted(passage.usage.at_end(passed.completions))
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            failure = failure_of(error)
            status = 500 if failure is None else failure.status
            stored = "500 internal_error" if failure is None else failure.stored
            # A backend that was never reached has generated nothing; one that went silent, or was cut off, may have.
            reached = isinstance(error, TransportFault) and not error.unsent
            reached = reached or (passed.sent and failure is not None and failure.code in _BROKEN_OFF)
            record = account.passed(usage, tariff, "interrupted" if reached else "error", status, error=stored)
            record.stopped = "error"
        else:
            record = account.passed(usage if passed.sent else Usage(0, 0, 0), tariff, "interrupted", 499)
        return asyncio.shield(self.app.later(account.settle(record)))


def _looked_at(headers: Mapping[str, str], path: str, content: bytes, body: JsonDict) -> tuple[Idempotency | None, int]:
    """Under which key a request may be repeated, and how many completions it asks for."""
    return idempotency_of(headers, path, content), completions_in(path, body)


def _name_pause(head: dict[str, str]) -> None:
    """Let a refusal tell its client in seconds, or by a date, when to come again."""
    told = {name: value for name, value in head.items() if name.lower() == "retry-after"}
    if len(told) == 1 and retry_after({"retry-after": next(iter(told.values()))}) is not None:
        return
    wait = retry_after({name.lower(): value for name, value in head.items()})
    for name in told:
        del head[name]
    head["retry-after"] = str(max(1, math.ceil(wait or 0.0)))


async def _let_end(reply: Response) -> None:
    """Read the end of a body, so that its connection can be used again, if it comes at once."""
    try:
        await drain(reply)
    finally:
        await reply.aclose()
