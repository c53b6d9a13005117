"""The page's files: which there are, and the headers that keep foreign code out of it.

Knows: names, types and the content security policy. Holds no data of any request, so anybody may
have them. Files are read once; nothing below a folder can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files

from aiohttp import web

from outthink.serving.protocols import Key

Handler = Callable[[web.BaseRequest, Key], Awaitable[web.StreamResponse]]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
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


def pages() -> Iterator[tuple[str, Handler]]:
    """Every path with its handler; the page itself is at `/`."""
    for file in sorted((files("outthink.serving.dashboard") / "static").iterdir(), key=lambda file: file.name):
        ending = file.name.rpartition(".")[2]
        if ending in _TYPES:
            path = "/" if file.name == "index.html" else f"/dashboard/{file.name}"
            yield path, _handler(file.read_bytes(), _TYPES[ending])


def _handler(content: bytes, kind: str) -> Handler:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    head = {**GUARD, "etag": tag, "cache-control": "no-cache", "content-type": f"{kind}; charset=utf-8"}

    async def handle(request: web.BaseRequest, key: Key) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=head)
        return web.Response(body=content, headers=head)

    return handle
