"""The dashboard's routes: the page for everybody, its data for admins.

Knows: paths, the terms of a query and their bounds, and the headers that keep foreign code out of the page. Does not
know how the ledger sums, or how the page looks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.resources import files
from operator import attrgetter
from typing import TYPE_CHECKING, cast, get_args

from aiohttp import web

from outthink.controller.policy.artefact import Policy
from outthink.http.fields import JsonDict, encode
from outthink.serving.dashboard import story
from outthink.serving.dashboard.headroom import HourlyHeadroom
from outthink.serving.dashboard.live import LiveRequests
from outthink.serving.dashboard.story import frontier
from outthink.serving.failure import Failure, bad_field, check_admin
from outthink.serving.protocols import GroupBy, Key, RequestRecord, SearchTerms, legal_id

if TYPE_CHECKING:
    from outthink.serving.app import App, Route


PAGE, LONGEST = 50, 200
"""Rows of a page, and letters of a term."""
_WORDS = ("text", "key", "model", "strategy", "stopped")
_TIMES = ("since", "until")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARD = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

DataHandler = Callable[[web.BaseRequest], Awaitable[JsonDict]]
DATA = "/dashboard/api"
_REQUESTS = f"{DATA}/requests"
_ROW = (
    *("id", "key_id", "endpoint", "model", "strategy", "stopped", "started", "seconds", "status", "stream", "error"),
    *("samples", "tokens", "at_most_tokens", "usd", "joules", "estimated"),
)
_row_values = attrgetter(*_ROW)


def attach(
    app: App, active: Callable[[], Policy | None] = lambda: None, headroom: HourlyHeadroom | None = None
) -> LiveRequests:
    """Serve the dashboard at `/`; returns what follows the running requests.

    Args:
        active: the policy in use now, None where there is none.
        headroom: of the GPUs behind the proxy, None where nothing is known of them.
    """
    live = LiveRequests()
    app.watchers.add(live)
    for path, handler in pages():
        app.route("GET", path, handler, public=True)
    data = Data(app, live, active, headroom)
    app.route("GET", f"{DATA}/live", _guarded(data.live))
    app.route("GET", f"{DATA}/keys", _guarded(data.keys))
    app.route("GET", f"{DATA}/spend", _guarded(data.spend))
    app.route("GET", f"{DATA}/policy", _guarded(data.policy))
    app.route("GET", _REQUESTS, _guarded(data.requests))
    app.route("GET", f"{_REQUESTS}/", _guarded(data.request))
    return live


def _guarded(handler: DataHandler) -> Route:
    """A route whose data only admins get, as JSON that nobody stores."""

    async def handle(request: web.BaseRequest, key: Key) -> web.StreamResponse:
        check_admin(key)
        head = {**GUARD, "cache-control": "no-store", "content-type": "application/json"}
        return web.Response(body=encode(await handler(request)), headers=head)

    return handle


class Data:
    """What the page reads."""

    def __init__(
        self, app: App, live: LiveRequests, active: Callable[[], Policy | None], headroom: HourlyHeadroom | None
    ) -> None:
        self.app, self._live, self._active, self._headroom = app, live, active, headroom

    async def live(self, request: web.BaseRequest) -> JsonDict:
        """The present."""
        headroom = None if self._headroom is None else self._headroom.now()
        return {**self._live.json(), "problem": self.app.ledger.problem, "capacity": headroom}

    async def keys(self, request: web.BaseRequest) -> JsonDict:
        """Names of the keys by their ids; never a secret."""
        rows = await self.app.ledger.list_keys()
        return {"keys": [{"id": row.id, "name": row.name, "revoked": row.revoked is not None} for row in rows]}

    async def spend(self, request: web.BaseRequest) -> JsonDict:
        """Sums by key, model, strategy or day."""
        by = group_of(request.query)
        rows = await self.app.ledger.spend(by, **times_of(request.query))
        return {"by": by, "rows": [asdict(row) for row in rows]}

    async def policy(self, request: web.BaseRequest) -> JsonDict:
        """The frontier of the active policy, None without one."""
        policy = self._active()
        return {"policy": None if policy is None else frontier(policy)}

    async def requests(self, request: web.BaseRequest) -> JsonDict:
        """A page of requests, newest first, and whether there are older ones."""
        terms = terms_of(request.query)
        terms["limit"] = PAGE + 1  # one more than is shown tells whether there are older ones
        records = await self.app.ledger.search(**terms)
        return {"rows": [_row(record) for record in records[:PAGE]], "more": len(records) > PAGE}

    async def request(self, request: web.BaseRequest) -> JsonDict:
        """One request's story. Raises Failure 404."""
        number = request.raw_path.partition("?")[0][len(_REQUESTS) + 1 :]
        remembered = self._live.story(number)
        record = await self.app.ledger.receipt(number) if legal_id(number) else None
        if record is not None:
            return story.finished_story(record, remembered, await self.app.ledger.content(number))
        if remembered is not None:
            return story.running_story(remembered)
        raise Failure(404, f"id: {number[:60]!r} is no request that is known here", param="id", code="not_found")


def _row(record: RequestRecord) -> JsonDict:
    return dict(zip(_ROW, _row_values(record), strict=True))


# The page's files hold no data of any request, so anybody may have them. They are read once; nothing below a folder
# can be asked for.


def pages() -> Iterator[tuple[str, Route]]:
    """Every path with its handler; the page itself is at `/`."""
    for file in sorted((files("outthink.serving.dashboard") / "static").iterdir(), key=lambda file: file.name):
        ending = file.name.rpartition(".")[2]
        if ending in _TYPES:
            path = "/" if file.name == "index.html" else f"/dashboard/{file.name}"
            yield path, _handler(file.read_bytes(), _TYPES[ending])


def _handler(content: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    head = {**GUARD, "etag": tag, "cache-control": "no-cache", "content-type": f"{kind}; charset=utf-8"}

    async def handle(request: web.BaseRequest, key: Key) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=head)
        return web.Response(body=content, headers=head)

    return handle


def group_of(query: Mapping[str, str]) -> GroupBy:
    """What spend is summed by. Raises Failure."""
    by = query.get("by", "key")
    if by not in get_args(GroupBy):
        raise bad_field("by", by[:40], "is no group", f"use one of {', '.join(get_args(GroupBy))}")
    return cast(GroupBy, by)


def times_of(query: Mapping[str, str]) -> dict[str, float]:
    """`since` and `until` in seconds since the epoch, where they are given. Raises Failure."""
    moments = {}
    for name in _TIMES:
        if text := query.get(name):
            try:
                moment = float(text)
            except ValueError:
                moment = math.nan
            if not 0 <= moment < 1e11:  # up to the year 5138; NaN fails too
                raise bad_field(name, text[:40], "is no time", "give seconds since 1970")
            moments[name] = moment
    return moments


def terms_of(query: Mapping[str, str]) -> SearchTerms:
    """Arguments of the ledger's search. Raises Failure."""
    terms: JsonDict = {**times_of(query)}
    for name in _WORDS:
        if text := query.get(name, "").strip():
            if len(text) > LONGEST or "\0" in text:  # PostgreSQL takes no NUL in a text
                raise bad_field(name, f"{text[:40]}...", "cannot be searched for", f"use at most {LONGEST} letters")
            terms[name] = text
    if before := query.get("before"):
        if not legal_id(before):
            raise bad_field("before", before[:40], "is no id of a request", "give the last row's id")
        terms["before"] = before
    return cast(SearchTerms, terms)
