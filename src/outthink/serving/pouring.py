"""A backend's stream on its way to the client: piece by piece, untouched, its end held until the ledger has it.

Knows: where a stream ends, and what to say when it breaks off. Does not know which backend was chosen or why.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.engines.openai.transport import Reply, TransportFault
from outthink.serving.accounting import Account
from outthink.serving.ceilings import Hiding
from outthink.serving.failure import Failure, failure_of
from outthink.serving.protocols import Lease
from outthink.serving.usage import TAIL, UNKNOWN, used


async def pour(
    request: web.BaseRequest,
    reply: Reply,
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
        ok = reply.status < 400
        counts, body = used(tail) if ok else UNKNOWN, _whole(kept, hiding)
        if hiding is not None and (rest := hiding.close()):
            await write(rest)
        await account.settle(account.passed(counts, tariff, "finished" if ok else "error", reply.status, body=body))
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
