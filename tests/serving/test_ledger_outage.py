"""The database locked, gone, damaged or newer than the program; the local disk full as well."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from outthink.core.errors import BadInput
from outthink.serving.ledger import DurableLedger, Rules, open_durable, open_ledger
from outthink.serving.ledger.database import MIGRATIONS, ConnectionLost, migrate
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.protocols import AdmittedRequest, Idempotency, Key, LedgerDown, Reservation
from support.ledgers import NOON, connected, doing, new_key, opened, record, rows
from support.postgres import PostgresServer
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.faults


class Switch:
    """Connections that can be taken away and given back, whatever the database."""

    def __init__(self, url: str) -> None:
        self.url, self.gone = url, False

    def __call__(self) -> Switched:
        if self.gone:
            raise ConnectionLost("switched off")
        return Switched(self)


class Switched:
    """One of them."""

    def __init__(self, switch: Switch) -> None:
        self._switch, self._database = switch, connected(switch.url)
        self.name = self._database.name

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    def execute(self, statement: str, values: object = ()) -> object:
        if self._switch.gone:
            raise ConnectionLost("switched off")
        return self._database.execute(statement, values)  # type: ignore[arg-type]

    def begin(self, locks: object) -> None:
        if self._switch.gone:
            raise ConnectionLost("switched off")
        self._database.begin(locks)  # type: ignore[arg-type]


async def back(ledger: DurableLedger) -> None:
    """Wait until the ledger is well."""
    await eventually(lambda: ledger.problem is None)


def test_records_wait_on_local_disk_and_are_counted_once(
    ledger_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    switch, spool = Switch(ledger_url), tmp_path / "spool"

    async def job() -> None:
        ledger = DurableLedger(switch, spool, Rules(logs_content=True))
        await ledger.open()
        limited, free = await new_key(ledger, "limited", day="tokens=1000"), await new_key(ledger, "free")
        held = await ledger.reserve(limited, 100, None, "r0")
        await ledger.settle(Reservation("r1", free.id), record("r1", free.id, tokens=1))
        switch.gone = True
        await ledger.settle(held, record("r0", limited.id, tokens=7))
        await ledger.settle(Reservation("r1", free.id), record("r1", free.id, tokens=1))  # told again
        for at in range(2, 40):
            received = record(f"r{at}", free.id, tokens=1, error="ü\ud83d", body=b"\xff\x00", content=b"{}")
            await ledger.settle(Reservation(f"r{at}", free.id), received)
        with pytest.raises(LedgerDown, match="budget"):
            await ledger.reserve(limited, 1, None, "r90")
        assert (await ledger.reserve(free, 1, None, "r91", Idempotency("i", "d"))).replay is None
        assert ledger.problem is not None
        assert len(list(spool.iterdir())) == 1
        switch.gone = False
        await back(ledger)
        await eventually(lambda: not list(spool.iterdir()))  # a slow disk has them loaded in several turns
        await ledger.reserve(limited, 993, None, "r92")
        by_key = {row.group: (row.requests, row.tokens) for row in await ledger.spend("key")}
        assert by_key == {limited.id: (1, 7), free.id: (39, 39)}
        assert await ledger.content("r9") == ("{}", "\ufffd\ufffd")
        await ledger.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(job())
    assert len([item for item in caplog.records if "cannot be used" in item.message]) == 1


def test_tables_that_are_dropped_meanwhile_are_an_outage(ledger_url: str, tmp_path: Path) -> None:
    async def job() -> None:
        async with opened(ledger_url, spool=tmp_path / "spool") as ledger:
            limited = await new_key(ledger, "limited", day="tokens=1000")
            renamed(ledger_url, "", "_old")
            with pytest.raises(LedgerDown):
                await ledger.list_keys()
            assert await ledger.authorise("ot-unknown") is None
            await ledger.settle(Reservation("r1", "any"), record("r1", "any", tokens=1))
            with pytest.raises(LedgerDown, match="budget"):
                await ledger.reserve(limited, 1, None, "r2")
            renamed(ledger_url, "_old", "")
            await back(ledger)
            assert await ledger.receipt("r1") is not None

    asyncio.run(job())


def renamed(url: str, old: str, new: str) -> None:
    database = connected(url)
    for table in ("keys", "periods", "requests", "reservations"):
        database.execute(f"ALTER TABLE {table}{old} RENAME TO {table}{new}")
    database.close()


def test_what_an_ended_process_left_is_taken_over(ledger_url: str, tmp_path: Path) -> None:
    switch, spool = Switch(ledger_url), tmp_path / "spool"

    async def leave() -> None:
        ledger = DurableLedger(switch, spool, Rules())
        await ledger.open()
        switch.gone = True
        for at in range(5):
            await ledger.settle(Reservation(f"r{at}", "a"), record(f"r{at}", "a", tokens=1))
        await ledger.close()

    asyncio.run(leave())
    (left,) = spool.iterdir()
    with left.open("ab") as file:
        file.write(b'{"reservation": {"requ')  # it was killed while it wrote this
    switch.gone = False

    async def find(ledger: DurableLedger) -> int:
        return sum(row.requests for row in await ledger.spend("day"))

    assert doing(ledger_url, find, spool=spool) == 5
    assert not list(spool.iterdir())


@pytest.mark.parametrize(
    "damage", [b"{", b"", b"null", b"[1]", b"\0" * 99, b'{"reservation": {}}', b'{"reservation": [], "record": []}']
)
def test_a_damaged_line_holds_up_neither_the_start_nor_the_other_records(
    ledger_url: str, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    switch, spool = Switch(ledger_url), tmp_path / "spool"

    async def leave() -> None:
        ledger = DurableLedger(switch, spool, Rules())
        await ledger.open()
        switch.gone = True
        for number in ("r1", "r2"):
            await ledger.settle(Reservation(number, "a"), record(number, "a", tokens=1))
        await ledger.close()

    asyncio.run(leave())
    (left,) = spool.iterdir()
    first, second = left.read_bytes().splitlines()
    left.write_bytes(b"\n".join([first, damage, second, b""]))
    with caplog.at_level(logging.ERROR):
        doing(ledger_url, lambda ledger: asyncio.sleep(0), spool=spool)
    assert sorted(rows(ledger_url, "SELECT id FROM requests")) == [("r1",), ("r2",)]
    (kept,) = spool.iterdir()
    assert caplog.messages[1:] == [f"1 records cannot be read, so the ledger lacks them; their file is kept: {kept}"]
    assert kept.name == f"{left.name}.damaged"
    doing(ledger_url, lambda ledger: asyncio.sleep(0), spool=spool)
    assert list(spool.iterdir()) == [kept]


def test_a_full_disk_crashes_nothing(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch, full = Switch(ledger_url), [True]

    def fsync(descriptor: int) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)

    async def job() -> None:
        ledger = DurableLedger(switch, tmp_path / "spool", Rules())
        await ledger.open()
        switch.gone = True
        for at in range(5):
            await ledger.settle(Reservation(f"r{at}", "a"), record(f"r{at}", "a", tokens=1))
        assert "No space left" in (ledger.problem or "")
        full[0] = False
        await ledger.settle(Reservation("r5", "a"), record("r5", "a", tokens=1))
        assert "No space left" not in (ledger.problem or "")
        full[0] = True
        await ledger.settle(Reservation("r6", "a"), record("r6", "a", tokens=1))
        switch.gone = False
        await back(ledger)
        assert [item.id for item in await ledger.search()] == [f"r{at}" for at in range(6, -1, -1)]
        (spent,) = await ledger.spend("key")
        assert (spent.requests, spent.tokens) == (7, 7)
        await ledger.close()

    asyncio.run(job())


def test_records_that_no_disk_takes_are_named_at_the_end_and_found_lost_later(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, full, force = Switch(ledger_url), [True], os.fsync

    def fsync(descriptor: int) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        force(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    async def job() -> None:
        ledger = DurableLedger(switch, tmp_path / "spool", Rules())
        await ledger.open()
        switch.gone = True
        for number in ("r1", "r2", "r3"):
            ledger.note(AdmittedRequest(number, "a", "/v1/chat/completions", "tiny", "single", False, NOON, 9, None))
            await ledger.settle(Reservation(number, "a"), record(number, "a", tokens=1))
        full[0] = False
        await ledger.settle(Reservation("r4", "a"), record("r4", "a", tokens=1))  # and with it those before it
        full[0] = True
        ledger.note(AdmittedRequest("r5", "a", "/v1/chat/completions", "tiny", "single", False, NOON, 9, None))
        await ledger.settle(Reservation("r5", "a"), record("r5", "a", tokens=1))
        with pytest.raises(LedgerDown, match=r"^1 records are lost.*No space left.*: r5$"):
            await ledger.close()

    asyncio.run(job())
    switch.gone = full[0] = False
    doing(ledger_url, lambda ledger: asyncio.sleep(0), spool=tmp_path / "spool")
    stopped = dict(rows(ledger_url, "SELECT id, stopped FROM requests"))
    assert stopped == {**dict.fromkeys(("r1", "r2", "r3", "r4"), "finished"), "r5": "lost"}


def test_what_waits_is_settled_between_requests(ledger_url: str, tmp_path: Path) -> None:
    switch, spool, count = Switch(ledger_url), tmp_path / "spool", 4000

    async def job() -> None:
        ledger = DurableLedger(switch, spool, Rules())
        await ledger.open()
        switch.gone = True
        waiting = [record(f"r{at}", "a", tokens=1) for at in range(count)]
        await asyncio.gather(*(ledger.settle(Reservation(item.id, "a"), item) for item in waiting))
        switch.gone = False
        await back(ledger)
        await ledger.settle(Reservation("new", "a"), record("new", "a", tokens=1))
        assert len(list(spool.iterdir())) == 1
        await eventually(lambda: not list(spool.iterdir()))
        (spent,) = await ledger.spend("key")
        assert (spent.requests, spent.tokens) == (count + 1, count + 1)
        await ledger.close()

    asyncio.run(job())


def test_a_database_that_stays_locked_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"

    async def job() -> None:
        ledger = DurableLedger(lambda: SqliteDatabase(path, patience=0.05), tmp_path / "spool", Rules())
        await ledger.open()
        other = SqliteDatabase(path)
        other.begin([])
        await ledger.settle(Reservation("r1", "a"), record("r1", "a", tokens=1))
        assert "locked" in (ledger.problem or "")
        assert await ledger.receipt("r1") is None  # reading goes on
        other.rollback()
        other.close()
        await back(ledger)
        assert await ledger.receipt("r1") is not None
        await ledger.close()

    asyncio.run(job())


def test_postgresql_stops_and_comes_back(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.schema("restarted")

    async def job(ledger: DurableLedger) -> None:
        limited = await new_key(ledger, day="tokens=1000")
        held = await ledger.reserve(limited, 100, None, "r0")
        postgres.stop()
        try:
            await ledger.settle(held, record("r0", limited.id, tokens=7))
            with pytest.raises(LedgerDown):
                await ledger.reserve(limited, 1, None, "r1")
            with pytest.raises(LedgerDown):
                await ledger.receipt("r0")
        finally:
            await asyncio.to_thread(postgres.start)
        await back(ledger)
        assert (await ledger.receipt("r0")) is not None
        await ledger.reserve(limited, 993, None, "r2")

    doing(url, job, spool=tmp_path / "spool")


def test_a_connection_that_was_closed_meanwhile_is_no_outage(postgres: PostgresServer) -> None:
    url = postgres.database("closed")

    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000")
        others = "FROM pg_stat_activity WHERE datname = 'closed' AND pid <> pg_backend_pid()"
        assert len(rows(url, f"SELECT pg_terminate_backend(pid) {others}")) == 2
        await ledger.reserve(key, 1, None, "r1")
        assert ledger.problem is None
        assert await ledger.receipt("r1") is None

    doing(url, job)


def test_rows_that_cannot_be_read_are_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    database = SqliteDatabase(path)
    database.execute("CREATE TABLE many (text TEXT)")
    for _ in range(200):
        database.execute("INSERT INTO many VALUES (?)", ("x" * 3000,))
    assert len(database.execute("SELECT text FROM many").fetchall()) == 200
    database.close()
    with path.open("r+b") as file:  # behind the first rows
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 100_000)
    database = SqliteDatabase(path)
    with pytest.raises(ConnectionLost, match="malformed"):
        database.execute("SELECT text FROM many").fetchall()
    database.close()


def test_migrations_run_once_in_order_and_never_backwards(ledger_url: str) -> None:
    database = connected(ledger_url)
    grown = (*MIGRATIONS, ("CREATE TABLE more (a TEXT)", "INSERT INTO more VALUES ('x')"))
    try:
        assert migrate(database) == len(MIGRATIONS)
        assert migrate(database) == 0
        assert migrate(database, grown) == 1
        assert migrate(database, grown) == 0
        with pytest.raises(Exception, match="nonsense"):
            migrate(database, (*grown, ("CREATE TABLE fine (a TEXT)", "INSERT INTO more VALUES (nonsense)")))
        assert database.execute("SELECT a FROM more").fetchall()[0][0] == "x"
        with pytest.raises(Exception, match="fine"):
            database.execute("SELECT * FROM fine")
        with pytest.raises(BadInput, match="newer outthink"):
            migrate(database)
    finally:
        database.close()
    with pytest.raises(BadInput, match="newer outthink"):
        doing(ledger_url, lambda ledger: ledger.search())


def test_many_open_a_new_database_at_once(ledger_url: str) -> None:
    async def job() -> None:
        ledgers = [open_durable(ledger_url) for _ in range(6)]
        await asyncio.gather(*(ledger.open() for ledger in ledgers))
        await asyncio.gather(*(ledger.close() for ledger in ledgers))

    asyncio.run(job())
    assert rows(ledger_url, "SELECT version FROM schema_version") == [(len(MIGRATIONS),)]


def test_connections_that_make_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """Each round alone went wrong about one time in fifteen."""
    for number in range(40):
        start = threading.Barrier(8)

        def connect(_: int, path: Path = tmp_path / f"{number}.sqlite", start: threading.Barrier = start) -> None:
            start.wait(10)
            SqliteDatabase(path).close()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(connect, range(8)))


@pytest.mark.parametrize(
    "url", ["ledger.sqlite", "mysql://x", "sqlite:///", "sqlite:///x/", "postgresql://h:x/d", "", "sqlite:///~none/x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BadInput, match="ledger"):
        open_ledger(url)


def test_what_cannot_be_opened_says_so_without_passwords(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(BadInput, match="is no ledger"):
        doing(f"sqlite:///{tmp_path}/text", lambda ledger: ledger.search())
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="folder' is no file"):
        doing(f"sqlite:///{tmp_path}/folder", lambda ledger: ledger.search())
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerDown) as error:
        doing("postgresql://me:secret@127.0.0.1:1/x", lambda ledger: ledger.search(), spool=tmp_path / "spool")
    assert "secret" not in str(error.value)
    assert isinstance(open_ledger("memory:"), MemoryLedger)


def test_one_record_that_no_database_takes_does_not_sink_the_others(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        received = [record(f"r{at}", "a", tokens=1) for at in range(10)]
        received[4] = replace(received[4], receipt={"what": object()})
        settling = (ledger.settle(Reservation(item.id, "a"), item) for item in received)
        got = await asyncio.gather(*settling, return_exceptions=True)
        assert [type(item) for item in got] == [TypeError if at == 4 else type(None) for at in range(10)]
        assert len(await ledger.search()) == 9
        assert ledger.problem is None

    doing(ledger_url, job)


def test_anyone_may_ask_until_there_is_a_key(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        assert await ledger.authorise(None) == await ledger.authorise("x") == Key("anyone", admin=True)

    doing(ledger_url, job)


def test_closing_writes_what_is_queued_and_ends_it(ledger_url: str) -> None:
    async def job() -> None:
        ledger = open_durable(ledger_url)
        await ledger.open()
        received = [record(f"r{at}", "a", tokens=1) for at in range(1000)]
        settling = [asyncio.create_task(ledger.settle(Reservation(item.id, "a"), item)) for item in received]
        await asyncio.sleep(0)
        await ledger.close()
        await asyncio.wait_for(asyncio.gather(*settling), PATIENCE)
        await ledger.close()
        for late in (ledger.settle(Reservation("x", "a"), record("x", "a")), ledger.receipt("r1")):
            with pytest.raises(LedgerDown, match="closed"):
                await asyncio.wait_for(late, PATIENCE)
        await open_durable(ledger_url).close()

    asyncio.run(job())
    assert rows(ledger_url, "SELECT COUNT(*) FROM requests") == [(1000,)]
