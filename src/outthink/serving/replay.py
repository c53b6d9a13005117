"""The reply that a request has got before under the same `Idempotency-Key`. Knows how it is told again."""

from __future__ import annotations

from aiohttp import web

from outthink.serving.accounting import Account

RECEIPT = "x-outthink-receipt"


def replayed(account: Account) -> web.Response | None:
    """The same reply again, with the receipt of the first; None where this is the first."""
    before = account.reservation
    if before is None or before.replay is None:
        return None
    kind = "text/event-stream" if account.stream else "application/json"
    return web.Response(
        body=before.replay, status=before.status, headers={"content-type": kind, RECEIPT: before.request_id}
    )
