"""What clients hear of a database that is gone: enough to try again, and nothing of where it is."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.ledger import DurableLedger, Rules
from outthink.serving.ledger.database import ConnectionLost, Database
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, Hang, chat, chunk, models, stream
from support.ledgers import doing, rows
from support.proxy_process import announced, serving
from support.proxy_server import ProxyServer

pytestmark = pytest.mark.faults
WHERE = "postgresql://ledger@192.0.2.7:5432/spend: connection refused"


class Switch:
    """Connections to a file, as long as it is there."""

    def __init__(self, path: Path) -> None:
        self._path, self.gone = path, False

    def __call__(self) -> Database:
        if self.gone:
            raise ConnectionLost(WHERE)
        return Leaving(self._path, self)


class Leaving(SqliteDatabase):
    """A connection that ends with the switch."""

    def __init__(self, path: Path, switch: Switch) -> None:
        super().__init__(path)
        self._switch = switch

    def execute(self, statement: str, values: object = ()) -> object:  # type: ignore[override]
        if self._switch.gone:
            raise ConnectionLost(WHERE)
        return super().execute(statement, values)  # type: ignore[arg-type]


def test_only_admins_hear_where_the_database_is(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "ledger.db")
    ledger = DurableLedger(switch, tmp_path / "spool", Rules())
    backend = ChatServer(chat(["4"]), routes={"/v1/models": models("tiny")})
    with backend, ProxyServer(backend.url, ledger=ledger) as proxy:
        terms = {"admin": Terms(admin=True), "free": Terms(), "daily": Terms(day=Budget(tokens=9_000))}
        keys = {
            name: {"authorization": "Bearer " + proxy.do(ledger.add_key(name, received))[1]}
            for name, received in terms.items()
        }
        assert proxy.chat("outthink/single", headers=keys["daily"]).status == 200
        switch.gone = True
        number = proxy.chat("outthink/single", headers=keys["free"]).headers["x-outthink-receipt"]
        refused = [
            proxy.chat("outthink/single", headers=keys["daily"]),
            proxy.get(f"/v1/receipts/{number}", **keys["free"]),
        ]
        for got in refused:
            assert (got.status, got.error["code"]) == (503, "ledger_unavailable")
            assert got.error["message"].startswith("the ledger's database cannot be used now")
            assert "retry-after" in got.headers
        probe, theirs, ours = (proxy.get("/readyz", **by) for by in ({}, keys["free"], keys["admin"]))
        assert probe.json == theirs.json == {"status": "ready", "ledger": "cannot be used now; see the log"}
        assert WHERE in ours.json["ledger"]
        received = b"".join(got.content for got in (*refused, probe, theirs))
        assert b"192.0.2.7" not in received
        switch.gone = False


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits are set as Linux does it")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_no_record_vanishes_where_nothing_can_be_written(tmp_path: Path, ending: signal.Signals) -> None:
    import resource

    url, log = f"sqlite:///{tmp_path}/ledger.sqlite", tmp_path / "log"
    arguments = ["--ledger", url, "--new-ledger", "--set", f"logs.file={log}"]
    with ChatServer(chat(["4"]), routes={"/v1/models": models("tiny")}) as backend:
        arguments += ["--model", backend.url]
        with serving(*arguments) as (process, address):
            served = [_ask(address) for _ in range(2)]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))  # as if every disk was full
            lost = [_ask(address) for _ in range(3)]
            process.send_signal(ending)
            _, told = process.communicate(timeout=60)
        if ending == signal.SIGTERM:
            assert process.returncode == 1
            assert "3 records are lost" in told
            assert all(number in told for number in lost)
            assert "lines of the log" in told
        with announced(*arguments) as (_, line):
            assert line.startswith("3 requests were being served")
            found = dict(rows(url, "SELECT id, stopped FROM requests"))
    assert found == {**dict.fromkeys(served, "finished"), **dict.fromkeys(lost, "lost")}


@pytest.mark.timing
def test_a_stream_and_a_locked_ledger_hold_up_the_end_for_less_than_ten_seconds(tmp_path: Path) -> None:
    arguments = ["--ledger", f"sqlite:///{tmp_path}/ledger.sqlite", "--new-ledger", "--set", "logs.level=error"]
    endless = stream(chunk("4"), Hang())
    with (
        ChatServer(endless, routes={"/v1/models": models("tiny")}) as backend,
        serving(*arguments, "--model", backend.url) as (process, address),
        _opened(address, stream=True) as reply,
        closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as other,
    ):
        number = reply.headers["x-outthink-receipt"]
        other.execute("BEGIN EXCLUSIVE")
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - began < 10.0
    doing(arguments[1], lambda ledger: ledger.list_keys())
    assert rows(arguments[1], "SELECT id, stopped FROM requests") == [(number, "interrupted")]


def _ask(address: str) -> str:
    with _opened(address) as reply:
        reply.read()
        return str(reply.headers["x-outthink-receipt"])


def _opened(address: str, **more: object) -> http.client.HTTPResponse:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "2 + 2?"}], "max_tokens": 9, **more}
    head = {"content-type": "application/json"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), head)
    reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=30)
    return reply
