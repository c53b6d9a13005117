"""The seam between the engine and whatever moves bytes over HTTP.

Knows: one request, its reply as it arrives, and the four ways in which that can fail. Does not know
JSON, server-sent events or any server. The proxy swaps in a faster client here, tests a scripted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self

FaultKind = Literal["connect", "tls", "idle", "dropped"]


class TransportFault(Exception):
    """The bytes stopped.

    Args:
        kind: `connect` no connection was made, `tls` its certificate was not accepted, `idle` no byte
            came for too long, `dropped` the connection broke or spoke no HTTP.
        detail: one line for people, without secrets.
    """

    def __init__(self, kind: FaultKind, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for a connection, and between any two bytes of a reply; None waits forever."""

    connect: float | None = 10.0
    idle: float | None = 60.0


class Reply(Protocol):
    """A reply whose head has arrived. Iterating yields the decoded body as it comes, in any cuts."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers under lower-case names."""
        ...

    def __aiter__(self) -> Self:
        """The reply is its own iterator, so that closing it leaves nothing behind."""
        ...

    async def __anext__(self) -> bytes:
        """The next piece of the body. Raises TransportFault."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it at once."""
        ...


class Transport(Protocol):
    """Sends requests. May be used from several event loops, one after the other or at once."""

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Reply:
        """Send a request and wait for the head of its reply. Raises TransportFault, never retries."""
        ...

    async def aclose(self) -> None:
        """Close what this event loop opened."""
        ...
