"""Receipts, search, spend, stored content and what is deleted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from outthink.core.errors import BadInput
from outthink.serving.ledger import DurableLedger, Rules
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.protocols import Ledger, RequestRecord, Reservation
from support.ledgers import NOON, Clock, doing, record, rows

DAY = 86_400.0


async def settled(ledger: Ledger, *records: RequestRecord) -> None:
    for item in records:
        await ledger.settle(Reservation(item.id, item.key_id), item)


def told() -> list[RequestRecord]:
    """Five requests, oldest first."""
    return [
        record("r0", "a", tokens=10, usd=0.1, joules=5.0, started=NOON - 2 * DAY),
        record("r1", "a", tokens=20, usd=0.2, started=NOON - DAY, strategy="self-consistency:n=8"),
        record("r2", "b", tokens=None, at_most_tokens=50, estimated=True, started=NOON, model="100%_big"),
        record("r3", "b", tokens=40, usd=0.4, started=NOON, stopped="error", error="the backend said NO"),
        record("r4", "a", tokens=50, usd=None, started=NOON + 1),
    ]


def test_a_receipt_comes_back_as_it_was(ledger_url: str) -> None:
    full = record(
        "r1",
        "a",
        tokens=3,
        usd=0.1,
        receipt={"entries": [{"text": "naïve ☃ \ud83d"}], "seconds": 0.25},
        error="a\x00b",
        stream=True,
    )

    async def job(ledger: DurableLedger) -> None:
        await settled(ledger, full)
        assert await ledger.receipt("r1") == full
        assert await ledger.receipt("r2") is None

    doing(ledger_url, job)
    assert doing(ledger_url, lambda ledger: ledger.receipt("r1")) == full


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({}, "43210"),
        ({"limit": 2}, "43"),
        ({"before": "r3"}, "210"),
        ({"before": "r3", "limit": 1}, "2"),
        ({"key": "a"}, "410"),
        ({"key": "a", "before": "r4"}, "10"),
        ({"model": "100%_big"}, "2"),
        ({"strategy": "single", "key": "a"}, "40"),
        ({"stopped": "error"}, "3"),
        ({"since": NOON}, "432"),
        ({"until": NOON}, "10"),
        ({"since": NOON - DAY, "until": NOON + 1}, "321"),
        ({"text": "SELF-"}, "1"),
        ({"text": "said no"}, "3"),
        ({"text": "0%_b"}, "2"),
        ({"text": "%"}, "2"),
        ({"text": "' OR 1=1 --"}, ""),
        ({"key": "nobody"}, ""),
    ],
)
@pytest.mark.parametrize("durable", [True, False])
def test_search(ledger_url: str, terms: dict[str, object], found: str, durable: bool) -> None:
    async def job(ledger: Ledger) -> None:
        await settled(ledger, *told())
        got = await ledger.search(**terms)  # type: ignore[arg-type]
        assert "".join(item.id[1:] for item in got) == found

    doing(ledger_url, job if durable else lambda _: job(MemoryLedger()))


def test_search_is_bounded(ledger_url: str) -> None:
    for limit in (0, 100_000):
        with pytest.raises(BadInput, match="limit"):
            doing(ledger_url, lambda ledger, limit=limit: ledger.search(limit=limit))


@pytest.mark.parametrize("durable", [True, False])
def test_spend_says_what_is_not_known(ledger_url: str, durable: bool) -> None:
    async def job(ledger: Ledger) -> None:
        await settled(ledger, *told())
        a, b = await ledger.spend("key")
        assert (a.group, a.requests, a.estimated, a.seconds) == ("a", 3, 0, 1.5)
        assert (a.tokens, a.known_tokens, a.unknown_tokens) == (80, 80, 0)
        assert (a.usd, a.known_usd, a.unknown_usd) == (None, pytest.approx(0.3), 1)
        assert (a.joules, a.known_joules, a.unknown_joules) == (None, 5.0, 2)
        assert (b.tokens, b.known_tokens, b.unknown_tokens, b.estimated) == (None, 40, 1, 1)
        by_day = await ledger.spend("day")
        assert [row.group for row in by_day] == ["2026-11-22", "2026-11-23", "2026-11-24"]
        assert [row.requests for row in by_day] == [1, 1, 3]
        assert [row.requests for row in await ledger.spend("day", since=NOON - DAY, until=NOON - 1)] == [1, 3]
        assert [row.group for row in await ledger.spend("strategy", until=NOON - DAY)] == [
            "self-consistency:n=8",
            "single",
        ]
        assert {row.group for row in await ledger.spend("model")} == {"tiny", "100%_big"}

    doing(ledger_url, job if durable else lambda _: job(MemoryLedger()))


def test_old_requests_go_by_themselves_and_their_sums_stay(ledger_url: str) -> None:
    clock = Clock(NOON + 10)
    doing(ledger_url, lambda ledger: settled(ledger, *told()), clock=clock)

    async def job(ledger: DurableLedger) -> None:
        await ledger.forget("r9")  # the round of upkeep that follows opening has run when this has
        assert [item.id for item in await ledger.search()] == ["r4", "r3", "r2"]
        assert sum(row.requests for row in await ledger.spend("day")) == 5

    doing(ledger_url, job, clock=clock, rules=Rules(keep=DAY))


def test_content_is_stored_only_where_it_was_asked_for(ledger_url: str) -> None:
    one = replace(told()[0], content=b'{"messages": "hello \xff"}', body=b"the REPLY")

    async def job(ledger: DurableLedger) -> None:
        await settled(ledger, one)
        assert await ledger.content("r0") is None
        assert not await ledger.search(text="reply")

    doing(ledger_url, job)
    assert not ledger.logs_content if (ledger := MemoryLedger()) else None
    assert b"hello" not in repr(rows(ledger_url, "SELECT * FROM requests")).encode()


def test_stored_content_is_found_and_deleted(ledger_url: str) -> None:
    one, other = (replace(told()[0], id=name, content=f"hello {name}".encode(), body=b"the REPLY") for name in "xy")

    async def job(ledger: DurableLedger) -> None:
        assert ledger.logs_content
        await settled(ledger, one, other)
        assert await ledger.content("x") == ("hello x", "the REPLY")
        assert [result.id for result in await ledger.search(text="reply")] == ["y", "x"]
        assert await ledger.forget("x")
        assert not await ledger.forget("x")
        assert await ledger.content("x") is None
        assert await ledger.receipt("x") is not None
        assert await ledger.content("y") is not None

    async def later(ledger: DurableLedger) -> None:
        await ledger.forget("z")
        assert await ledger.content("y") is None
        assert await ledger.receipt("y") is not None

    doing(ledger_url, job, clock=Clock(), rules=Rules(logs_content=True))
    doing(ledger_url, later, clock=Clock(NOON + 31 * DAY), rules=Rules(logs_content=True))


def test_what_a_killed_process_left_in_the_log_is_moved_before_anything_is_written(tmp_path: Path) -> None:
    """Later everybody who writes would wait for the disk; and what was deleted is in the log until then."""
    before, after = tmp_path / "before.sqlite", tmp_path / "after.sqlite"
    killed = SqliteDatabase(before)
    made, deleted = ("CREATE TABLE letters (text)", "INSERT INTO letters VALUES ('secret')"), ("DELETE FROM letters",)
    for statements in (made, deleted):
        killed.begin([])
        for statement in statements:
            killed.execute(statement)
        killed.commit()
    for end in ("", "-wal"):
        shutil.copy(f"{before}{end}", f"{after}{end}")
    killed.close()
    assert b"secret" in Path(f"{after}-wal").read_bytes()
    database = SqliteDatabase(after)
    database.begin([])
    assert Path(f"{after}-wal").stat().st_size == 0
    assert b"secret" not in after.read_bytes()
    database.rollback()
    database.close()
