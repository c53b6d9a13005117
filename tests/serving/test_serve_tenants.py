"""Fifty clients at once, each with its own key, strategy, budget and prompt: nothing of one reaches another."""

from __future__ import annotations

import asyncio
import random
import re
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.ledger import open_ledger
from outthink.serving.protocols import Terms
from outthink.workers.fairness import asker
from support.chat_server import ChatServer, Reply, Seen, chat
from support.ledgers import KeyRing
from support.proxy_server import ProxyServer

CLIENTS, ROUNDS = 50, 4
STRATEGIES = ("single", "self-consistency@3", "adaptive-consistency@4", "short-m-of-k@3", "esc@4")


def echo(seen: Seen) -> Reply:
    """Says who asked: the word of the prompt comes back in the answer."""
    said = seen.body["messages"][-1]["content"]
    word = re.search(r"word-\d+", said if isinstance(said, str) else str(said))
    assert word is not None
    return chat([f"You said {word[0]}. The answer is {word[0].removeprefix('word-')}."], counts=(10, 5), delay=0.001)


async def _keys(url: str) -> list[tuple[str, str]]:
    ledger = open_ledger(url)
    await ledger.open()
    made = []
    for at in range(CLIENTS):
        terms = Terms(
            day=Budget(tokens=1_000_000) if at % 3 == 0 else Budget(),
            ceiling=Budget(tokens=2_000 + at) if at % 4 == 0 else Budget(),
            strategy=STRATEGIES[at % len(STRATEGIES)],
        )
        key, secret = await ledger.add_key(f"client-{at}", terms)
        made.append((key.id, secret))
    await ledger.close()
    return made


def test_nothing_of_one_client_reaches_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    keys = asyncio.run(_keys(url))
    receipts: dict[str, int] = {}
    with ChatServer(echo) as backend, ProxyServer(backend.url, ledger=open_ledger(url)) as proxy:

        def client(at: int) -> list[tuple[str, Any]]:
            draw = random.Random(at)
            received = []
            for _ in range(ROUNDS):
                strategy = draw.choice(("auto", STRATEGIES[at % len(STRATEGIES)]))
                more = {"temperature": 0.5 + at / 100, "max_tokens": 20 + at, "stream": draw.random() < 0.3}
                got = proxy.chat(
                    f"outthink/{strategy}", f"Say word-{at}", headers={"Authorization": f"Bearer {keys[at][1]}"}, **more
                )
                assert got.status == 200, got.content
                received.append((got.headers["x-outthink-receipt"], got))
            return received

        with ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(client, range(CLIENTS)))
        for at, rows in enumerate(replies):
            for receipt, got in rows:
                words = set(re.findall(rb"word-(\d+)", got.content))
                assert words == {str(at).encode()}, (at, words)
                receipts[receipt] = at
                own = {"Authorization": f"Bearer {keys[at][1]}"}
                other = {"Authorization": f"Bearer {keys[(at + 1) % CLIENTS][1]}"}
                record = proxy.get(f"/v1/receipts/{receipt}", **own).json
                wanted = STRATEGIES[at % len(STRATEGIES)].partition("@")[0]
                assert record["strategy"].partition(":")[0] == wanted
                assert proxy.get(f"/v1/receipts/{receipt}", **other).status == 404
        assert len(receipts) == CLIENTS * ROUNDS
        for seen in backend.calls:
            at = int(re.findall(r"word-(\d+)", seen.content.decode())[0])
            assert seen.body["max_tokens"] <= 20 + at
            assert seen.body["temperature"] == pytest.approx(0.5 + at / 100)
            assert "authorization" not in {name.lower() for name in seen.headers}


def test_what_is_read_beside_the_event_loop_for_one_key_leaves_threads_to_others() -> None:
    began, gate = threading.Event(), threading.Event()

    def held() -> bool:
        began.set()
        return gate.wait(60)

    async def long_texts() -> None:
        asker.set("a")
        await asyncio.gather(*[asyncio.to_thread(held) for _ in range(40)])

    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    with (
        ChatServer(chat(['{"x": "' + "y" * 10_000 + '"}'])) as backend,
        ProxyServer(backend.url, ledger=KeyRing("a", "b")) as proxy,
        ThreadPoolExecutor(1) as threads,
    ):
        many = threads.submit(proxy.do, long_texts())
        assert began.wait(60)
        got = proxy.chat("outthink/self-consistency@3", response_format=form, headers={"authorization": "Bearer b"})
        assert (got.status, many.done()) == (200, False)
        gate.set()
        many.result(60)


def test_one_round_takes_everybody_who_connects(proxy: ProxyServer) -> None:
    """While others make rounds long, nobody stands in line for a connection."""

    async def crowd() -> int:
        clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(64)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        rounds = 0
        while len(select.select(clients, (), (), 0)[0]) < len(clients):
            await asyncio.sleep(0)
            rounds += 1
        for client in clients:
            client.close()
        return rounds

    assert proxy.do(crowd()) < 32
