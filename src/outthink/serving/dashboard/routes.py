"""The dashboard's routes: the page for everybody, its data for admins.

Knows: which path tells what. Does not know how the ledger sums, or how the page looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from outthink.controller.policy.artefact import Policy
from outthink.serving.dashboard import story
from outthink.serving.dashboard.asked import PAGE, group_of, terms_of, times_of
from outthink.serving.dashboard.assets import GUARD, pages
from outthink.serving.dashboard.frontier import frontier
from outthink.serving.dashboard.live import Live
from outthink.serving.encoding import encode
from outthink.serving.failure import Failure
from outthink.serving.numbers import legal_id
from outthink.serving.protocols import Key, RequestRecord

if TYPE_CHECKING:
    from outthink.serving.app import App

Teller = Callable[[web.BaseRequest], Awaitable[dict[str, Any]]]
DATA = "/dashboard/api"
_REQUESTS = f"{DATA}/requests"
_ROW = ("id", "key_id", "endpoint", "model", "strategy", "stopped", "started", "seconds", "status", "stream", "error")
_COSTS = ("samples", "tokens", "at_most_tokens", "usd", "joules", "estimated")


def attach(app: App, active: Callable[[], Policy | None] = lambda: None) -> Live:
    """Serve the dashboard at `/`; returns the board that follows what runs.

    Args:
        active: the policy in use now, None where there is none.
    """
    live = Live()
    app.watchers.add(live)
    for path, handler in pages():
        app.route("GET", path, handler, public=True)
    data = Data(app, live, active)
    app.route("GET", f"{DATA}/live", _guarded(data.live))
    app.route("GET", f"{DATA}/keys", _guarded(data.keys))
    app.route("GET", f"{DATA}/spend", _guarded(data.spend))
    app.route("GET", f"{DATA}/policy", _guarded(data.policy))
    app.route("GET", _REQUESTS, _guarded(data.requests))
    app.route("GET", f"{_REQUESTS}/", _guarded(data.request))
    return live


def _guarded(tell: Teller) -> Callable[[web.BaseRequest, Key], Awaitable[web.StreamResponse]]:
    """A route whose data only admins get, as JSON that nobody stores."""

    async def handle(request: web.BaseRequest, key: Key) -> web.StreamResponse:
        if not key.admin:
            message = "API key: is not an admin's; use one made with `outthink keys add NAME --admin`"
            raise Failure(403, message, param="Authorization", code="admin_only")
        head = {**GUARD, "cache-control": "no-store", "content-type": "application/json"}
        return web.Response(body=encode(await tell(request)), headers=head)

    return handle


class Data:
    """What the page reads."""

    def __init__(self, app: App, live: Live, active: Callable[[], Policy | None]) -> None:
        self.app, self.board, self.active = app, live, active

    async def live(self, request: web.BaseRequest) -> dict[str, Any]:
        """The present."""
        return {**self.board.shown(), "problem": self.app.ledger.problem}

    async def keys(self, request: web.BaseRequest) -> dict[str, Any]:
        """Names of the keys by their ids; never a secret."""
        rows = await self.app.ledger.list_keys()
        return {"keys": [{"id": row.id, "name": row.name, "revoked": row.revoked is not None} for row in rows]}

    async def spend(self, request: web.BaseRequest) -> dict[str, Any]:
        """Sums by key, model, strategy or day."""
        by = group_of(request.query)
        rows = await self.app.ledger.spend(by, **times_of(request.query))
        return {"by": by, "rows": [asdict(row) for row in rows]}

    async def policy(self, request: web.BaseRequest) -> dict[str, Any]:
        """The frontier of the active policy, None without one."""
        policy = self.active()
        return {"policy": None if policy is None else frontier(policy)}

    async def requests(self, request: web.BaseRequest) -> dict[str, Any]:
        """A page of requests, newest first, and whether there are older ones."""
        found = await self.app.ledger.search(limit=PAGE + 1, **terms_of(request.query))
        return {"rows": [_row(record) for record in found[:PAGE]], "more": len(found) > PAGE}

    async def request(self, request: web.BaseRequest) -> dict[str, Any]:
        """One request's story. Raises Failure 404."""
        number = request.raw_path.partition("?")[0][len(_REQUESTS) + 1 :]
        remembered = self.board.story(number)
        record = await self.app.ledger.receipt(number) if legal_id(number) else None
        if record is not None:
            return story.tell(record, remembered, await self.app.ledger.content(number))
        if remembered is not None:
            return story.running(remembered)
        raise Failure(404, f"id: {number[:60]!r} is no request that is known here", param="id", code="not_found")


def _row(record: RequestRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in (*_ROW, *_COSTS)}
