"""Bounds of what one request may ask of the proxy. Knows numbers; does not know who sets them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and times.

    Args:
        body: bytes of a request.
        messages: messages of a chat.
        body_seconds: to receive a body, and a second more for every 64 KiB of it.
        head_seconds: from a new connection to the end of its first head.
        idle_seconds: a client's connection is kept this long between requests; the next head must come within it.
        connect_seconds: to reach a backend.
        backend_seconds: between two bytes of a backend's reply.
        progress_seconds: between two signs of life in a stream.
        max_tokens: of one completion where the request does not say.
        samples: the most that a strategy may draw for one request.
        calls: calls in flight for one backend model; the rest wait for their turn.
        stop_seconds: that running requests get to end when the proxy is stopped.
        drain_seconds: that the proxy says it is not ready, and serves on, before it is stopped: for load balancers.
    """

    body: int = 32 << 20
    messages: int = 4096
    body_seconds: float = 20.0
    head_seconds: float = 20.0
    idle_seconds: float = 75.0
    connect_seconds: float = 10.0
    backend_seconds: float = 300.0
    progress_seconds: float = 4.0
    max_tokens: int = 1024
    samples: int = 256
    calls: int = 256
    stop_seconds: float = 10.0
    drain_seconds: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "drain_seconds":
                if not 0 <= value <= 86_400:
                    raise BadInput(one.name, value, "is no time", "give seconds from 0 to 86400")
            elif isinstance(one.default, int) and value < 1:
                raise BadInput(one.name, value, "lets nothing through", "give 1 or more")
            elif not value > 0:
                raise BadInput(one.name, value, "is no time", "give seconds above 0")
