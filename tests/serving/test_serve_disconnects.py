"""Clients that leave at random moments: their calls end at once, and nothing stays open."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, Hang, Reply, Seen, chat, chunk, stream, whole
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE, at_once, eventually, until

pytestmark = pytest.mark.timing
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("toy", {}),
    ("toy", {"stream": True}),
    ("outthink/single", {"stream": True}),
    ("outthink/self-consistency@3", {}),
    ("outthink/self-consistency@3", {"stream": True}),
]


def request(model: str, fields: dict[str, Any]) -> bytes:
    """A chat as it goes over the wire."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
    return f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def leave(port: int, sent: bytes, after: float) -> float:
    """Send a request and close the connection after so many seconds; returns when that was."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await asyncio.sleep(after)
    writer.transport.abort()
    return time.monotonic()


@pytest.mark.parametrize(("model", "fields"), WAYS)
def test_every_call_ends_at_once(model: str, fields: dict[str, Any]) -> None:
    silent = stream(chunk("Hello"), Hang()) if "stream" in fields or "/" in model else Reply((), before=(Hang(),))
    with ChatServer(silent) as backend, ProxyServer(backend.url) as proxy:
        calls = 3 if "@3" in model else 1

        async def leaving(before: int) -> float:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request(model, fields))
            await eventually(lambda: len(backend.calls) == before + calls)
            await asyncio.sleep(0.05)  # in the middle of what they wait for
            writer.transport.abort()
            return time.monotonic()

        def latest() -> float:
            before = len(backend.calls)
            left = asyncio.run(leaving(before))
            assert all(seen.gone.wait(PATIENCE) for seen in backend.calls)
            return max(seen.gone_at - left for seen in backend.calls[before:] if seen.gone_at is not None)

        assert at_once(backend.port, latest)


def test_hundreds_of_clients_leave_and_nothing_stays_open() -> None:
    def answer(seen: Seen) -> Reply:
        texts = ["The", " answer", " is", " 7."]
        if seen.body.get("stream") is True:
            return chat(texts, delay=0.005, together=False)
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(texts)}, "finish_reason": "stop"}
        return Reply(whole({"id": "c", "choices": [choice]}).steps, kind="application/json", before=(0.02,))

    draw = random.Random(3)
    with ChatServer(answer) as backend, ProxyServer(backend.url) as proxy:
        sent = [request(model, fields) for model, fields in WAYS]

        async def everybody() -> None:
            places = asyncio.Semaphore(40)

            async def one() -> None:
                async with places:
                    await leave(proxy.port, draw.choice(sent), draw.random() * 0.05)

            await asyncio.gather(*(one() for _ in range(300)))

        asyncio.run(everybody())
        until(lambda: all(seen.sent or seen.gone.is_set() for seen in backend.calls))
        until(lambda: proxy.app.admission.active == 0)
        until(lambda: not proxy.app._background)
        turns = proxy.endpoints.backends.places("toy")
        assert turns.active == 0
        records = list(proxy.ledger.records.values())  # type: ignore[attr-defined]
        assert len({record.id for record in records}) == len(records)
        assert any(record.stopped == "interrupted" for record in records)
        assert proxy.chat("outthink/self-consistency@3").status == 200
