"""A transport without a network: scripted replies through the engine's public seam."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from outthink.http.transport import Timeouts, TransportFault


@dataclass
class FakeReply:
    """A reply from memory; a TransportFault among the pieces is raised at its place."""

    pieces: list[bytes | TransportFault]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        piece = self.pieces.pop(0)
        if isinstance(piece, TransportFault):
            raise piece
        return piece

    async def aclose(self) -> None:
        """Only noted."""
        self.closed = True


@dataclass
class FakeTransport:
    """Answers with what `answer(method, url, body)` returns or raises; keeps what was sent."""

    answer: Callable[[str, str, dict[str, Any]], FakeReply]
    sent: list[tuple[str, str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    replies: list[FakeReply] = field(default_factory=list)
    timeouts: Timeouts | None = None
    closed: bool = False

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> FakeReply:
        """Answer from the script."""
        self.timeouts = timeouts
        received = json.loads(body) if body else {}
        self.sent.append((method, url, dict(headers), received))
        reply = self.answer(method, url, received)
        self.replies.append(reply)
        return reply

    async def aclose(self) -> None:
        """Only noted."""
        self.closed = True
