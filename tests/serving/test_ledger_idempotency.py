"""`Idempotency-Key`: served once, told twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from outthink.serving.ledger import DurableLedger
from outthink.serving.protocols import Idempotency, Key, Repeated
from support.ledgers import Clock, doing, new_key, opened, periods, record

ASKED = Idempotency("i-1", "digest")
ANYONE = Key("anyone")


def test_a_reply_is_repeated_for_a_day(ledger_url: str) -> None:
    clock = Clock()

    async def job(ledger: DurableLedger) -> None:
        held = await ledger.reserve(ANYONE, 10, None, "r1", ASKED)
        assert held.replay is None
        await ledger.settle(held, record("r1", "anyone", tokens=3, body=b"\x00reply"))
        again = await ledger.reserve(ANYONE, 10, None, "r2", ASKED)
        assert (again.request_id, again.replay, again.status) == ("r1", b"\x00reply", 200)
        other = await ledger.reserve(Key("another"), 10, None, "r3", ASKED)
        assert other.replay is None
        clock.now += 86_401
        assert (await ledger.reserve(ANYONE, 10, None, "r4", ASKED)).replay is None

    doing(ledger_url, job, clock=clock)


def test_another_request_or_one_that_is_running_is_refused(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        held = await ledger.reserve(ANYONE, 10, None, "r1", ASKED)
        with pytest.raises(Repeated, match="being served"):
            await ledger.reserve(ANYONE, 10, None, "r2", ASKED)
        await ledger.settle(held, record("r1", "anyone", tokens=3, body=b"reply"))
        with pytest.raises(Repeated, match="another request"):
            await ledger.reserve(ANYONE, 10, None, "r3", Idempotency("i-1", "other"))

    doing(ledger_url, job)


@pytest.mark.parametrize("more", [{"status": 502, "body": b"bad"}, {"status": 499}])
def test_a_failure_is_not_repeated(ledger_url: str, more: dict[str, object]) -> None:
    async def job(ledger: DurableLedger) -> None:
        held = await ledger.reserve(ANYONE, 10, None, "r1", ASKED)
        await ledger.settle(held, record("r1", "anyone", tokens=3, **more))
        assert (await ledger.reserve(ANYONE, 10, None, "r2", ASKED)).replay is None

    doing(ledger_url, job)


def test_only_one_of_many_at_once_is_served(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        async with opened(ledger_url) as other:
            asked = [(ledger, other)[at % 2].reserve(ANYONE, 10, None, f"r{at}", ASKED) for at in range(20)]
            got = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(item).__name__ for item in got) == ["Repeated"] * 19 + ["Reservation"]

    doing(ledger_url, job)


def test_what_is_refused_for_its_budget_may_be_asked_again(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=10")
        first = await ledger.reserve(key, 10, None, "r0")
        for _ in range(2):
            with pytest.raises(Exception, match="tokens are left"):
                await ledger.reserve(key, 10, None, "r1", ASKED)
        await ledger.settle(first, record("r0", key.id, tokens=0))
        held = await ledger.reserve(key, 10, None, "r1", ASKED)
        await ledger.settle(held, record("r1", key.id, tokens=4, body=b"reply"))
        assert (await ledger.reserve(key, 10, None, "r2", ASKED)).replay == b"reply"

    doing(ledger_url, job, clock=Clock())
    assert periods(ledger_url)["2026-11-24"] == (4, 0, 0, 0)


def test_a_process_that_died_frees_its_keys(ledger_url: str) -> None:
    clock = Clock()

    async def lost(ledger: DurableLedger) -> None:
        await ledger.reserve(ANYONE, 10, None, "r1", ASKED)

    async def found(ledger: DurableLedger) -> None:
        assert (await ledger.reserve(ANYONE, 10, None, "r2", ASKED)).replay is None
        assert replace((await ledger.receipt("r1")) or record("", "")).stopped == "lost"

    doing(ledger_url, lost, clock=clock)
    clock.now += 61
    doing(ledger_url, found, clock=clock)
