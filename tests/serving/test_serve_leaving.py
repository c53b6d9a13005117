"""Clients that leave a backend with few places: every place, turn and watcher's entry is given back.

`test_serve_disconnects` has how soon calls end; here what is left behind, by every way of asking at once.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from outthink.serving.protocols import AdmittedRequest, RequestRecord
from outthink.serving.watch import Watcher
from support.chat_server import ChatServer, Reply, Seen, chat, models, whole
from support.proxy_server import CHAT, ProxyServer
from support.waiting import until

pytestmark = pytest.mark.timing
LIMIT = 6
LEAVERS = 300
MODELS = ("toy", "small")
WAYS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"stream": stream}) for name in MODELS for stream in (False, True)),
    *((f"outthink/{name}", {"stream": stream}) for name in ("single", "esc@4") for stream in (False, True)),
    ("outthink/self-consistency@5", {"outthink": {"model": MODELS[1]}}),
    ("outthink/self-consistency@5", {"stream": True, "outthink": {"progress": "reasoning"}}),
]


class Live(Watcher):
    """Who is being answered, as a dashboard would see it."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.began_in_all = 0

    def began(self, running: AdmittedRequest) -> None:
        """One more."""
        self.running.add(running.id)
        self.began_in_all += 1

    def finished(self, record: RequestRecord) -> None:
        """One less; a record without a beginning is an error."""
        self.running.remove(record.id)


def answer(seen: Seen) -> Reply:
    """Four words in twenty milliseconds."""
    texts = ["The", " answer", " is", " 7."]
    if seen.body.get("stream") is True:
        return chat(texts, delay=0.005, together=False)
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(texts)}, "finish_reason": "stop"}
    return Reply(whole({"id": "c", "choices": [choice]}).steps, kind="application/json", before=(0.02,))


async def leave(port: int, model: str, fields: dict[str, Any], after: float) -> None:
    """Ask, and close the connection after so many seconds, whatever has come by then."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await asyncio.sleep(after)
    writer.transport.abort()


async def crowd(port: int, seconds: float) -> None:
    """Forty at a time, each for up to so many seconds: some leave in line, some in the middle, few are done."""
    draw, doors = random.Random(6), asyncio.Semaphore(40)

    async def one() -> None:
        async with doors:
            model, fields = draw.choice(WAYS)
            await leave(port, model, fields, draw.random() * seconds)

    await asyncio.gather(*(one() for _ in range(LEAVERS)))


def connections(proxy: ProxyServer) -> tuple[int, int]:
    """Those to backends that are in use, and those that are kept for the next request."""
    connector: Any = proxy.app.wire._session.connector  # type: ignore[attr-defined]
    return len(connector._acquired), sum(len(kept) for kept in connector._conns.values())


def test_nothing_is_kept_for_those_who_left(caplog: pytest.LogCaptureFixture) -> None:
    live = Live()
    with (
        ChatServer(answer, routes={"/v1/models": models(*MODELS)}) as backend,
        ProxyServer(BackendSettings(url=backend.url, limit=LIMIT)) as proxy,
    ):
        proxy.app.watchers.add(live)
        for seconds in (0.6, 1.2, 2.4):  # on a busy machine all would leave before it was their turn
            asyncio.run(crowd(proxy.port, seconds))
            ends = [seen.sent for seen in backend.calls]
            if ends.count(True) > 20 and ends.count(False) > 5:
                break
        only = proxy.pool.backends[0]
        turns = [proxy.endpoints.backends.places(name) for name in MODELS]
        assert until(lambda: proxy.app.admission.active == proxy.app.admission.waiting == 0)
        assert until(lambda: not proxy.app._background)
        assert until(lambda: not live.running)
        assert [turn.active for turn in turns] == [0, 0]
        assert (only.active, only.waiting) == (0, [])
        assert until(lambda: all(seen.sent or seen.gone.is_set() for seen in backend.calls))
        assert until(lambda: connections(proxy) == (0, backend.open), "the end of a connection that nobody keeps")
        assert not caplog.records, (
            "a client that leaves is worth no complaint, and a watcher that fails is told of there"
        )
        assert live.began_in_all > LEAVERS / 2, "hardly anybody was let in"
        assert ends.count(True) > 20, "hardly any call came to its end"
        assert ends.count(False) > 5, "hardly any call was left in its middle"
        for model in (*MODELS, "outthink/self-consistency@5"):
            assert proxy.chat(model).status == 200
