"""Load on an HTTP server: closed loop, open loop with Poisson arrivals, streams, and clients that leave.

Knows: keep-alive connections that send one request after the other, and when the reply was complete.
It speaks HTTP/1.1 by itself, because a client library would take more time than what is measured.
Does not know which server answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

QUESTION = "What is 17 times 23?"
_WARM = 0.5  # seconds before anything is counted
_STAGGER = 0.01  # seconds between the first requests of streams


@dataclass
class Load:
    """What was measured. Times in milliseconds."""

    requests: int
    seconds: float
    times: np.ndarray = field(repr=False)
    errors: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def at(self, percent: float) -> float:
        """A percentile of the times."""
        return float(np.percentile(self.times, percent)) if len(self.times) else float("nan")

    def row(self, server: str, load: str, connections: int) -> dict[str, Any]:
        """For a table."""
        return {
            "server": server,
            "load": load,
            "connections": connections,
            "requests/s": self.rate,
            "p50 ms": self.at(50),
            "p99 ms": self.at(99),
            "requests": self.requests,
            "errors": self.errors,
        }


def chat(url: str, model: str, headers: Mapping[str, str] | None = None, **fields: Any) -> bytes:
    """A chat request as it goes over the wire."""
    parts = urlsplit(url)
    value = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 64, **fields}
    body = json.dumps(value).encode()
    head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {told}\r\n" for name, told in (headers or {}).items())
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Client(asyncio.Protocol):
    """One connection; `done(seconds, ok)` is called when a reply is complete."""

    def __init__(self, request: bytes, done: Callable[[_Client, float, bool], None]) -> None:
        self._request, self._done = request, done
        self._buffer = b""
        self.began = 0.0
        self.first = 0.0
        self.events = 0
        self.closed = False
        self.kept = True
        """The server has not said that it closes the connection after this reply."""

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def send(self) -> None:
        """Another request."""
        self.began, self.first, self._buffer = time.perf_counter(), 0.0, b""
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.first and (b"data: " in data or b"{" in data):
            self.first = time.perf_counter()
        self.events += data.count(b"data: ")
        buffer = self._buffer = self._buffer + data
        head, blank, body = buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            if len(body) < int(lower[at + 17 :].split(b"\r\n", 1)[0]):
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.kept = b"\r\nconnection: close" not in lower and not lower.startswith(b"http/1.0")
        self._done(self, time.perf_counter() - self.began, head[9:12] == b"200")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


async def _connect(url: str, make: Callable[[], _Client]) -> _Client:
    parts = urlsplit(url)
    _, client = await asyncio.get_running_loop().create_connection(make, parts.hostname, parts.port)
    return client


async def closed_loop(url: str, request: bytes, connections: int, seconds: float) -> Load:
    """So many connections, each with one request in flight all the time."""
    times: list[float] = []
    counting, running, errors = False, True, 0
    clients: set[_Client] = set()
    tasks: set[asyncio.Task[None]] = set()

    def done(client: _Client, took: float, ok: bool) -> None:
        nonlocal errors
        if counting:
            times.append(took)
            errors += not ok
        if running and client.kept:
            client.send()
        elif running:
            clients.discard(client)
            client.transport.abort()
            tasks.add(task := asyncio.create_task(begin()))
            task.add_done_callback(tasks.discard)

    async def begin() -> None:
        began = time.perf_counter()
        clients.add(client := await _connect(url, lambda: _Client(request, done)))
        client.send()
        client.began = began  # a server that keeps no connection makes its clients wait for a new one

    await asyncio.gather(*(begin() for _ in range(connections)))
    await asyncio.sleep(_WARM)
    counting, began = True, time.perf_counter()
    await asyncio.sleep(seconds)
    running = counting = False
    lasted = time.perf_counter() - began
    errors += sum(client.closed for client in clients)
    for client in clients:
        client.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Load(len(times), lasted, 1000 * np.array(times), errors)


async def many(url: str, request: bytes, connections: int, requests: int) -> int:
    """So many requests over so many connections; returns how many did not succeed."""
    left, errors, ended = requests, 0, asyncio.Event()
    finished = 0

    def done(client: _Client, took: float, ok: bool) -> None:
        nonlocal left, errors, finished
        errors, finished = errors + (not ok), finished + 1
        if left > 0:
            left -= 1
            client.send()
        elif finished >= requests:
            ended.set()

    clients = [await _connect(url, lambda: _Client(request, done)) for _ in range(connections)]
    left -= connections
    for client in clients:
        client.send()
    await ended.wait()
    for client in clients:
        client.transport.abort()
    return errors


async def open_loop(url: str, request: bytes, connections: int, rate: float, seconds: float, seed: int) -> Load:
    """Poisson arrivals. A request's time begins when it arrives, whether or not a connection is free then."""
    draw = random.Random(seed)
    times: list[float] = []
    waiting: deque[float] = deque()
    idle: list[_Client] = []
    arrived: dict[_Client, float] = {}
    errors = 0

    def send(client: _Client, at: float) -> None:
        arrived[client] = at
        client.send()

    def done(client: _Client, took: float, ok: bool) -> None:
        nonlocal errors
        times.append(time.perf_counter() - arrived[client])
        errors += not ok
        if waiting:
            send(client, waiting.popleft())
        else:
            idle.append(client)

    idle += [await _connect(url, lambda: _Client(request, done)) for _ in range(connections)]
    clients = list(idle)
    due = began = time.perf_counter()
    count = 0
    while due - began < seconds:
        due += draw.expovariate(rate)
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        count += 1
        now = time.perf_counter()
        if idle:
            send(idle.pop(), now)
        else:
            waiting.append(now)
    for _ in range(500):
        if len(times) >= count:
            break
        await asyncio.sleep(0.01)
    for client in clients:
        client.transport.abort()
    return Load(len(times), time.perf_counter() - began, 1000 * np.array(times), errors + count - len(times))


@dataclass
class Streams:
    """What streams have shown; first events in milliseconds after their requests."""

    events: float
    """A second."""
    first: np.ndarray = field(repr=False)
    errors: int = 0


async def streams(url: str, request: bytes, connections: int, seconds: float) -> Streams:
    """So many concurrent streams, each followed by another; they begin one after the other, as clients do."""
    firsts: list[float] = []
    errors = 0

    def done(client: _Client, took: float, ok: bool) -> None:
        nonlocal errors
        firsts.append(client.first - client.began)
        errors += not ok
        client.send()

    clients = [await _connect(url, lambda: _Client(request, done)) for _ in range(connections)]
    for client in clients:
        client.send()
        await asyncio.sleep(_STAGGER)
    await asyncio.sleep(_WARM)
    firsts.clear()
    before, began = sum(client.events for client in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    after, lasted = sum(client.events for client in clients), time.perf_counter() - began
    errors += sum(client.closed for client in clients)
    for client in clients:
        client.transport.abort()
    return Streams((after - before) / lasted, 1000 * np.array(firsts), errors)


async def leavers(url: str, requests: list[bytes], count: int, connections: int, longest: float, seed: int) -> None:
    """Clients that send a request and close the connection at a random moment of the reply, or before it.

    Args:
        longest: seconds after which a client has left.
    """
    draw = random.Random(seed)
    left = count

    async def one() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            client = await _connect(url, lambda: _Client(draw.choice(requests), lambda *_: None))
            client.send()
            await asyncio.sleep(draw.random() * longest)
            client.transport.abort()

    await asyncio.gather(*(one() for _ in range(connections)))
