"""A backend's stream on its way to the client: piece by piece, untouched, its end held until the ledger has it.

Knows: where a stream ends, and what to say when it breaks off. Does not know which backend was chosen or why.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.http.transport import Response, TransportFault
from outthink.serving.accounting import Account
from outthink.serving.backend_protocols import Lease, Whole
from outthink.serving.ceilings import Hiding
from outthink.serving.failure import Failure, failure_of
from outthink.serving.readable import begins_events, unreadable
from outthink.serving.usage import TAIL, UNKNOWN, used

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


async def gathered(reply: Response) -> bytes:
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


async def pour(
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
