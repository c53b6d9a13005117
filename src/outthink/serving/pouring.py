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
    try:
        await response.prepare(request)
        async for piece in reply:
            account.spoke()
            tail = (tail + piece)[-TAIL:]
            if b"[DONE]" in piece:
                await account.settle(account.passed(used(tail), tariff, "finished", reply.status))
            if hiding is None:
                await write(piece)
            elif shown := hiding.feed(piece):
                await write(shown)
        if hiding is not None and (rest := hiding.close()):
            await write(rest)
        ok = reply.status < 400
        counts = used(tail) if ok else UNKNOWN
        await account.settle(account.passed(counts, tariff, "finished" if ok else "error", reply.status))
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
