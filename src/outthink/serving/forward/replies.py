"""Replies of backends on their way to the client: streamed piece by piece or whole, and what they say was used.

Knows: whether a client could read a reply, where it ends, and where its counts stand. Does not decode what it forwards:
only the counts at the end are looked at. Does not know keys or budgets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.http.fields import JsonDict, decode
from outthink.http.transport import Response, TransportFault
from outthink.http.usage import UNKNOWN, Usage, read_timings, read_usage
from outthink.serving.accounting import Account
from outthink.serving.failure import Failure, failure_of
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.transport import Reply, Whole

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


async def discard(reply: Reply) -> None:
    if not isinstance(reply, Whole):
        await reply.aclose()


async def complete(reply: Reply) -> Reply:
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
        record = account.passed(UNKNOWN, tariff, "interrupted" if ok else "error", status, error=failure.stored)
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
        await account.settle(account.passed(usage_in(tail), tariff, "error", reply.status, error=failure.stored))
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


class UsageFilter:
    """Takes the chunk with the usage out of a stream whose client has not asked for it."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an event."""

    def feed(self, piece: bytes) -> bytes:
        """Whole events that the client may see."""
        self.held += piece
        whole_events, mark, rest = self.held.rpartition(b"\n\n")
        if not mark:
            return b""
        self.held = rest
        if b'"usage"' not in whole_events:
            return whole_events + mark
        return b"".join(event + mark for event in whole_events.split(b"\n\n") if not _only_usage(event))

    def close(self) -> bytes:
        """What is left at the end."""
        held, self.held = self.held, b""
        return held


def _only_usage(event: bytes) -> bool:
    return b'"usage"' in event and b'"choices":[]' in event.replace(b" ", b"")


# A reply is forwarded as it came, so only its end is looked at: `usage` follows the choices in every known
# server, streamed or whole, and inside a JSON string its quotes would be escaped.

_TRIES = 4
_OBJECT = re.compile(rb'"(?:usage|timings)"\s*:\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})')
TAIL = 6144
"""Bytes at the end of a stream that hold its last counts."""


def usage_in(content: bytes) -> Usage:
    """The last counts in a reply, or in the end of one."""
    for name in (b'"usage"', b'"timings"'):
        at, tries = content.rfind(name), _TRIES
        while at >= 0 and tries:
            if (match := _OBJECT.match(content, at)) is not None and (counts := _decoded(match[1])):
                if name == b'"timings"':
                    return read_timings(counts)
                return read_usage(counts)
            at, tries = content.rfind(name, 0, at), tries - 1  # chunks before the last may say null
    return UNKNOWN


def _decoded(text: bytes) -> JsonDict:
    try:
        value = decode(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
