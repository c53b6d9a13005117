"""The proxy killed with SIGKILL under load: no request is charged twice, and no confirmed spend is lost."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.ledger import open_ledger
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, Seen, chat, whole
from support.waiting import until

pytestmark = pytest.mark.faults
COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve", "--port", "0"]
TOKENS = 7
DAY = 86_400.0


def answer(seen: Seen):
    """Whole or as a stream, after a moment."""
    if seen.body.get("stream"):
        return chat(["The answer is 4."], counts=(5, 2), delay=0.002)
    choice = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": TOKENS}
    return whole({"id": "c", "object": "chat.completion", "choices": [choice], "usage": counts})


async def _key(url: str) -> tuple[str, str]:
    ledger = open_ledger(url)
    await ledger.open()
    key, secret = await ledger.add_key("limited", Terms(day=Budget(tokens=10_000_000)))
    await ledger.close()
    return key.id, secret


async def _books(url: str, key: str, ids: list[str]) -> tuple[int, int, dict[str, int]]:
    """Tokens and requests of the key today, and what the receipts say."""
    ledger = open_ledger(url)
    await ledger.open()
    rows = [row for row in await ledger.spend("key", time.time() - DAY, time.time() + DAY) if row.group == key]
    received = {}
    for number in ids:
        record = await ledger.receipt(number)
        assert record is not None, f"{number} was answered and is not in the ledger"
        received[number] = record.tokens or 0
    await ledger.close()
    return sum(row.known_tokens for row in rows), sum(row.requests for row in rows), received


def start(backend: ChatServer, url: str, environ: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """A proxy in a process of its own, and its port."""
    arguments = ["--model", backend.url, "--ledger", url, "--set", "logs.level=error"]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=environ)
    assert process.stderr is not None
    result = re.search(r"http://[^:]+:(\d+)", process.stderr.readline())
    assert result is not None
    return process, int(result[1])


def load(port: int, secret: str, enough: threading.Event, answered: list[str]) -> None:
    """One client after another until the proxy is gone."""
    head = {"content-type": "application/json", "Authorization": f"Bearer {secret}"}
    at = 0
    while not enough.is_set():
        at += 1
        model = ("toy", "toy", "outthink/self-consistency@3")[at % 3]
        body = {"model": model, "messages": [{"role": "user", "content": "2 + 2?"}], "max_tokens": 20, "seed": 0}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
            reply = connection.getresponse()
            reply.read()
            if reply.status == 200:
                answered.append(reply.headers["x-outthink-receipt"])
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


@pytest.mark.parametrize("replies", [10, 100])
def test_killed_under_load(tmp_path: Path, replies: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    environ = {**os.environ, "OUTTHINK_STATE": str(tmp_path / "state")}
    key, secret = asyncio.run(_key(url))
    answered: list[str] = []
    enough = threading.Event()
    with ChatServer(answer) as backend:
        process, port = start(backend, url, environ)
        clients = [threading.Thread(target=load, args=(port, secret, enough, answered)) for _ in range(6)]
        for client in clients:
            client.start()
        until(lambda: len(answered) >= replies)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        enough.set()
        for client in clients:
            client.join(10)
        confirmed = TOKENS * sum(seen.sent for seen in backend.calls)
        assert len(set(answered)) == len(answered)

        process, port = start(backend, url, environ)  # and once more, on the same ledger
        again: list[str] = []
        once = threading.Thread(target=load, args=(port, secret, enough, again))
        enough.clear()
        once.start()
        until(lambda: len(again) >= 3)
        enough.set()
        once.join(10)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    spent, requests, received = asyncio.run(_books(url, key, answered + again))
    settled = sum(received.values())
    # Settled once each: what is answered is in the sums exactly once. What was reserved when the proxy was
    # killed stays reserved until its lease ends, and is then charged at the reservation.
    assert spent >= settled
    assert requests >= len(received)
    assert _taken(tmp_path / "ledger.sqlite", key) >= confirmed
    assert spent <= TOKENS * sum(1 for _ in backend.calls)


def _taken(path: Path, key: str) -> int:
    """Tokens that the key's days are charged, with those that are still set aside.

    What a sample used that was cancelled at its end is not known, so it is in no sum of what was spent, and charged as
    the most that it can have used.
    """
    import sqlite3

    with sqlite3.connect(path) as database:
        days = "from periods where key_id = ? and length(period) = length('2026-11-24')"
        charged, held = database.execute(f"select sum(tokens), sum(reserved_tokens) {days}", (key,)).fetchone()
        each = "select coalesce(sum(tokens), 0) from reservations where key_id = ?"
        assert database.execute(each, (key,)).fetchone() == (held,)
    return int(charged + held)
