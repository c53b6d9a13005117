"""Connections to llama.cpp's server. Knows one quirk of it; everything else is the default transport's.

It closes the connection behind every streamed reply without saying so (no `Connection: close`). A
client that keeps it loses the race with that end-of-file sooner or later, and with it the next request.
"""

from __future__ import annotations

from collections.abc import Mapping

from outthink.engines.openai.client import HttpxTransport
from outthink.engines.openai.transport import Reply, Timeouts


class OneShot:
    """The default transport, with a connection of its own for every request."""

    def __init__(self, concurrency: int) -> None:
        self._inner = HttpxTransport(concurrency, secure=False, proxies=False)

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Reply:
        """Send a request and wait for the head of its reply."""
        return await self._inner.open(method, url, {**headers, "connection": "close"}, body, timeouts)

    async def aclose(self) -> None:
        """Close what this event loop opened."""
        await self._inner.aclose()
