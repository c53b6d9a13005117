"""A proxy in a thread, in front of scripted backends, and a plain HTTP client to talk to it.

Needs the `serve` extra: tests that import this skip without aiohttp.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from outthink.serving.admission import AdmissionSettings, Limits
from outthink.serving.app import App
from outthink.serving.endpoints import Endpoints
from outthink.serving.guard import Guard
from outthink.serving.inbound.connections import ClientConnection
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.pool import BackendPool, BackendSettings, PoolSettings
from outthink.serving.pool.transport import AiohttpTransport
from outthink.serving.protocols import Ledger
from outthink.serving.proxy import new_event_loop
from outthink.serving.watch import Watchers
from support.callbacks import measured
from support.waiting import until

CHAT = "/v1/chat/completions"


@dataclass
class Got:
    """A reply that was read whole."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, in the one shape that it may have."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert "\n" not in error["message"]
        return dict(error)

    @property
    def events(self) -> list[Any]:
        """The data of the events, `[DONE]` included, comments left out."""
        lines = [line[6:] for line in self.content.decode().split("\n\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        """The content of a stream's first choice."""
        choices = [event["choices"][0] for event in self.events[:-1] if event.get("choices")]
        return "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == 0)


class ProxyServer:
    """`with ProxyServer(url) as proxy: proxy.post(...)`.

    A backend is a URL or its settings; `pool`, `limits` and `admission` hold settings by name. `guard` decides who
    needs a key. It runs in the event loop that `outthink serve` would use; `timed` in one whose callbacks can be timed.
    """

    def __init__(self, *backends: str | BackendSettings, ledger: Ledger | None = None, **more: Any) -> None:
        self._backends = [BackendSettings(url=backend) if isinstance(backend, str) else backend for backend in backends]
        self._watched = PoolSettings(**{"interval": 60.0, "timeout": 2.0, **more.pop("pool", {})})
        self.ledger = ledger or MemoryLedger()
        self.limits = Limits(**{"connect_seconds": 2.0, "stop_seconds": 2.0, **more.pop("limits", {})})
        self._admission = AdmissionSettings(**more.pop("admission", {}))
        self._guard: Guard | None = more.pop("guard", None)
        self._more = more
        self.port = 0
        self.pool: BackendPool
        self.app: App
        self.endpoints: Endpoints
        self._loop = asyncio.new_event_loop() if more.pop("timed", False) else new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """What a client would be told."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._start())
        return self

    def stop(self) -> None:
        """End it as its operator would."""
        self.do(self.app.stop())

    def hurry(self) -> None:
        """End it as a second signal does."""
        self._loop.call_soon_threadsafe(self.app.hurry)

    def __exit__(self, *_: object) -> None:
        if not self.app.closed:
            self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _start(self) -> None:
        wire = AiohttpTransport()
        self.pool = BackendPool(wire, self._backends, self._watched)
        self.app = App(self.pool, wire, self.ledger, self.limits, self._admission, Watchers(), self._guard)
        self.endpoints = Endpoints(self.app, **self._more)
        await self.ledger.open()
        self.port = await self.app.start("127.0.0.1", 0)

    def do(self, job: Any) -> Any:
        """Run a coroutine in the proxy's thread."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(20)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Got:
        """One request: bytes as they are, anything else as JSON. Header `a_b` is sent as `a-b`."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, content, {"content-type": "application/json", **named})
            reply = connection.getresponse()
            return Got(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def abandon(self, model: str, when: Callable[[], object]) -> None:
        """Send a chat, and leave before the reply, once something has come true."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        until(when)
        connection.close()

    def get(self, path: str, **headers: str) -> Got:
        """A GET."""
        return self.send("GET", path, **headers)

    def chat(
        self,
        model: str,
        content: str | Sequence[Any] = "Hello",
        *,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Got:
        """A chat with one user message, or with the messages given."""
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        return self.send("POST", CHAT, {"model": model, "messages": messages, **fields}, **(headers or {}))


def all_brief(proxy: ProxyServer, act: Callable[[], Any]) -> None:
    """No callback of a `timed` proxy holds its loop up while something is done.

    By processor time of its thread, of the quickest of three times: other work on the same core empties its caches,
    and now and then that costs a callback several times what it takes by itself.
    """
    for _ in range(3):
        if not (long := _long(proxy, act)):
            return
    raise AssertionError(long)


def _long(proxy: ProxyServer, act: Callable[[], Any]) -> list[tuple[float, str]]:
    """Callbacks that took more than 20 ms, or what that is on a slower core."""

    async def begin() -> Any:
        watching = measured()
        return watching, watching.__enter__()

    async def end() -> None:
        watching.__exit__(None, None, None)

    watching, found = proxy.do(begin())
    gc.disable()  # how long a collection takes depends on what other tests have left
    try:
        act()
    finally:
        proxy.do(end())
        gc.enable()
    long = [row for row in found if row[0] > 0.02]
    limit = 0.02 * slowness() if long else 0.02
    return [row for row in long if row[0] > limit]


@contextmanager
def left_to_collect(proxy: ProxyServer) -> Iterator[list[str]]:
    """What of ours is freed by looking for circles alone, of what the block has let go."""
    left: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left
        until(lambda: not proxy.app.admission.active, "its end")
        gc.collect()
        ours = (type(each) for each in gc.garbage if type(each).__module__.startswith("outthink"))
        # Connections, which clients close in their own time, refer to themselves, as asyncio makes them.
        left += [kind.__qualname__ for kind in ours if kind is not ClientConnection]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def slowness() -> float:
    """By how much a step of a loop takes longer here and now than 20 ns, which most cores undercut; 1 at least."""
    steps, took = 200_000, []
    for _ in range(5):
        began = time.thread_time()
        sum(range(steps))
        took.append(time.thread_time() - began)
    return max(1.0, min(took) / (steps * 20e-9))
