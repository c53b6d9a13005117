"""A database that never answers: noticed in two seconds, waited for by nobody, and nothing is lost or counted twice."""

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
from typing import Any

import pytest

from outthink.core.request import Budget
from outthink.serving.dashboard.routes import DATA
from outthink.serving.ledger import DurableLedger, Rules, open_ledger
from outthink.serving.protocols import LedgerDown, Reservation, Terms
from support.chat_server import ChatServer, chat, whole
from support.ledgers import connected, doing, new_key, record, rows
from support.postgres import PostgresServer
from support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timing]  # that two seconds are two seconds is the promise
NOTICED = 2.5
"""Seconds: two, and what the machine takes to see it."""


class Hanging:
    """Connections that hang from a moment on, whatever is asked of them, and cannot be broken off."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self) -> Hung:
        self.answers.wait()
        return Hung(self)


class Hung:
    """One of them."""

    def __init__(self, switch: Hanging) -> None:
        self._switch, self._database = switch, connected(switch.url)
        self.name = self._database.name

    def __getattr__(self, name: str) -> Any:
        self._switch.answers.wait()
        return getattr(self._database, name)

    def interrupt(self) -> None:
        """It cannot be."""


def test_a_hung_database_is_one_that_is_gone(ledger_url: str, tmp_path: Path) -> None:
    hanging = Hanging(ledger_url)

    async def job() -> None:
        ledger = DurableLedger(hanging, tmp_path / "spool", Rules())
        await ledger.open()
        limited, free = await new_key(ledger, "limited", day="tokens=1000"), await new_key(ledger, "free")
        held = await ledger.reserve(limited, 100, None, "r0")
        hanging.answers.clear()
        began = time.monotonic()
        written = [ledger.settle(held, record("r0", limited.id, tokens=7))]
        written += [ledger.settle(Reservation(f"r{at}", free.id), record(f"r{at}", free.id)) for at in range(1, 30)]
        await asyncio.gather(*written)
        assert time.monotonic() - began < NOTICED
        assert ledger.problem is not None
        began = time.monotonic()
        with pytest.raises(LedgerDown):
            await ledger.reserve(limited, 10, None, "r90")
        assert (await ledger.reserve(free, 10, None, "r91")).held
        assert time.monotonic() - began < 1.0, "what is known costs nobody two seconds"
        for question in (ledger.receipt("r0"), ledger.search(), ledger.spend("key")):
            with pytest.raises(LedgerDown):
                await question
        hanging.answers.set()
        await eventually(lambda: ledger.problem is None)
        assert (await ledger.reserve(limited, 900, None, "r92")).held, "what was refused holds nothing"
        await ledger.close()

    asyncio.run(job())
    assert rows(ledger_url, "SELECT COUNT(*) FROM requests") == [(30,)]
    assert rows(ledger_url, "SELECT SUM(requests) FROM spend") == [(30,)]


def test_what_hangs_while_nobody_asks_is_noticed_as_well(ledger_url: str, tmp_path: Path) -> None:
    hanging = Hanging(ledger_url)

    async def job() -> None:
        ledger = DurableLedger(hanging, tmp_path / "spool", Rules())
        await ledger.open()
        hanging.answers.clear()
        began = time.monotonic()
        await eventually(lambda: ledger.problem is not None)
        assert time.monotonic() - began < NOTICED
        hanging.answers.set()
        await eventually(lambda: ledger.problem is None)
        await ledger.close()

    asyncio.run(job())


def test_trying_it_again_holds_nobody_up(ledger_url: str, tmp_path: Path) -> None:
    hanging = Hanging(ledger_url)

    async def job() -> None:
        ledger = DurableLedger(hanging, tmp_path / "spool", Rules())
        await ledger.open()
        hanging.answers.clear()
        await eventually(lambda: ledger.problem is not None)
        ends, at = time.monotonic() + 6.0, 0
        while time.monotonic() < ends:
            began, at = time.monotonic(), at + 1
            await ledger.settle(Reservation(f"r{at}", "a"), record(f"r{at}", "a"))
            assert time.monotonic() - began < 1.0
            await asyncio.sleep(0.05)
        assert sum(thread.name == "outthink-ledger-reader" for thread in threading.enumerate()) < 12
        hanging.answers.set()
        await eventually(lambda: ledger.problem is None)
        await ledger.close()

    asyncio.run(job())


def test_a_local_disk_that_hangs_as_well_leaves_records_in_memory(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, disk, force = Hanging(ledger_url), threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        disk.wait()
        force(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    async def job() -> None:
        ledger = DurableLedger(hanging, tmp_path / "spool", Rules())
        await ledger.open()
        hanging.answers.clear()
        began = time.monotonic()
        await ledger.settle(Reservation("r1", "a"), record("r1", "a"))
        assert time.monotonic() - began < 2 * NOTICED
        assert "local disk" in (ledger.problem or "")
        began = time.monotonic()
        await ledger.settle(Reservation("r2", "a"), record("r2", "a"))
        assert time.monotonic() - began < 1.0
        disk.set()
        hanging.answers.set()
        await eventually(lambda: ledger.problem is None)
        await ledger.close()

    asyncio.run(job())
    doing(ledger_url, lambda ledger: asyncio.sleep(0), spool=tmp_path / "spool")
    assert sorted(rows(ledger_url, "SELECT id FROM requests")) == [("r1",), ("r2",)]


def test_one_that_hangs_at_the_end_holds_up_nothing_and_loses_nothing(ledger_url: str, tmp_path: Path) -> None:
    hanging = Hanging(ledger_url)

    async def first() -> None:
        ledger = DurableLedger(hanging, tmp_path / "spool", Rules())
        await ledger.open()
        await ledger.settle(Reservation("r1", "a"), record("r1", "a"))
        hanging.answers.clear()
        writing = asyncio.create_task(ledger.settle(Reservation("r2", "a"), record("r2", "a")))
        await asyncio.sleep(0)
        began = time.monotonic()
        await ledger.close()
        assert time.monotonic() - began < 2 * NOTICED
        await writing

    asyncio.run(first())
    hanging.answers.set()
    doing(ledger_url, lambda ledger: asyncio.sleep(0), spool=tmp_path / "spool")
    assert sorted(rows(ledger_url, "SELECT id FROM requests")) == [("r1",), ("r2",)]


def test_one_that_hangs_at_the_start_is_told(ledger_url: str, tmp_path: Path) -> None:
    hanging = Hanging(ledger_url)
    hanging.answers.clear()

    async def job() -> None:
        with pytest.raises(LedgerDown):
            await DurableLedger(hanging, tmp_path / "spool", Rules()).open()

    asyncio.run(job())
    hanging.answers.set()


COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve", "--port", "0"]


async def _secrets(url: str) -> dict[str, str]:
    ledger = open_ledger(url)
    await ledger.open()
    terms = {"limited": Terms(day=Budget(tokens=10_000)), "free": Terms(), "admin": Terms(admin=True)}
    made = {name: (await ledger.add_key(name, term))[1] for name, term in terms.items()}
    await ledger.close()
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="the server's processes are looked up in /proc")
def test_a_proxy_before_a_stopped_server_serves_on_says_so_and_ends(
    postgres: PostgresServer, tmp_path: Path, state: Path
) -> None:
    url = postgres.schema("hung")
    secret = asyncio.run(_secrets(url))
    choice = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    done = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    with ChatServer(lambda seen: chat(["4"]) if seen.body.get("stream") else whole(done)) as backend:
        arguments = ["--model", backend.url, "--ledger", url, "--set", "logs.level=error"]
        process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        try:
            assert process.stderr is not None
            found = re.search(r"http://[^:]+:(\d+)", process.stderr.readline())
            assert found is not None
            port = int(found[1])

            def ask(name: str, path: str = "/v1/chat/completions", **fields: object) -> tuple[int, bytes, float]:
                began = time.monotonic()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                body = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9, **fields}
                method, sent = ("POST", json.dumps(body)) if path.endswith("completions") else ("GET", None)
                connection.request(method, path, sent, {"authorization": f"Bearer {secret[name]}"})
                reply = connection.getresponse()
                content = reply.read()
                connection.close()
                return reply.status, content, time.monotonic() - began

            assert [ask(name)[0] for name in secret] == [200, 200, 200]
            with postgres.hung():
                first = ask("free")
                assert (first[0], first[2] < NOTICED) == (200, True)
                for model in ("toy", "outthink/single"):
                    later = ask("free", model=model)
                    assert (later[0], later[2] < 1.0) == (200, True), "what is known costs nobody two seconds"
                status, content, took = ask("limited")
                assert (status, json.loads(content)["error"]["code"], took < 1.0) == (503, "ledger_unavailable", True)
                assert "ledger" in json.loads(ask("admin", "/readyz")[1])
                status, _, took = ask("admin", f"{DATA}/requests")
                assert (status, took < NOTICED) == (503, True)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                assert process.wait(60) == 0
                assert time.monotonic() - began < 10.0
        finally:
            process.kill()
            process.communicate()
    doing(url, lambda ledger: asyncio.sleep(0))
    assert rows(url, "SELECT COUNT(*) FROM requests") == [(6,)]
    assert rows(url, "SELECT SUM(reserved_tokens) FROM periods") == [(0,)]
