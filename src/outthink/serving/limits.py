"""Bounds of what one request may ask of the proxy. Knows numbers; does not know who sets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and times.

    Args:
        body: bytes of a request.
        messages: messages of a chat.
        body_seconds: to receive a body, and a second more for every 64 KiB of it.
        idle_seconds: a client's connection is kept this long between requests.
        connect_seconds: to reach a backend.
        backend_seconds: between two bytes of a backend's reply.
        progress_seconds: between two signs of life in a stream.
        max_tokens: of one completion where the request does not say.
        samples: the most that a strategy may draw for one request.
        calls: calls in flight for one backend model; the rest wait for their turn.
        stop_seconds: that running requests get to end when the proxy is stopped.
    """

    body: int = 32 << 20
    messages: int = 4096
    body_seconds: float = 20.0
    idle_seconds: float = 75.0
    connect_seconds: float = 10.0
    backend_seconds: float = 300.0
    progress_seconds: float = 4.0
    max_tokens: int = 1024
    samples: int = 256
    calls: int = 256
    stop_seconds: float = 10.0
