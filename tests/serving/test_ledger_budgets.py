"""Budgets by day and month: what is reserved, settled, refused and charged, to the token and the billionth."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from outthink.core.errors import Unsupported
from outthink.serving.ledger import DurableLedger, Rules
from outthink.serving.protocols import OverBudget
from support.ledgers import NOON, Clock, doing, new_key, opened, periods, record, rows
from support.waiting import eventually

DAY, MONTH = "2026-11-24", "2026-11"


def test_a_reservation_becomes_what_was_spent(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000,usd=1")
        held = await ledger.reserve(key, 600, 0.3, "r1")
        assert periods(ledger_url) == {DAY: (0, 0, 600, 300_000_000), MONTH: (0, 0, 600, 300_000_000)}
        await ledger.settle(held, record("r1", key.id, tokens=17, usd=0.1))
        assert periods(ledger_url) == {DAY: (17, 100_000_000, 0, 0), MONTH: (17, 100_000_000, 0, 0)}

    doing(ledger_url, job, clock=Clock())


@pytest.mark.parametrize(
    ("told", "tokens", "nanousd"),
    [
        ({"tokens": 5, "usd": 0.1}, 5, 100_000_000),
        ({"tokens": 0, "usd": 0.0}, 0, 0),
        ({"at_most_tokens": 40, "at_most_usd": 0.2}, 40, 200_000_000),
        ({}, 600, 300_000_000),
        ({"tokens": 5}, 5, 300_000_000),
    ],
)
def test_unknown_spend_is_charged_at_its_bound(
    ledger_url: str, told: dict[str, float], tokens: int, nanousd: int
) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000,usd=1")
        await ledger.settle(await ledger.reserve(key, 600, 0.3, "r1"), record("r1", key.id, **told))

    doing(ledger_url, job, clock=Clock())
    assert periods(ledger_url)[DAY] == (tokens, nanousd, 0, 0)


def test_settling_again_changes_nothing(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000")
        held = await ledger.reserve(key, 600, None, "r1")
        first = record("r1", key.id, tokens=17)
        await asyncio.gather(*(ledger.settle(held, replace(first, tokens=17 + at)) for at in range(5)))
        await ledger.settle(held, replace(first, tokens=900))
        assert await ledger.receipt("r1") == first
        (spent,) = await ledger.spend("key")
        assert (spent.requests, spent.tokens) == (1, 17)

    doing(ledger_url, job, clock=Clock())
    assert periods(ledger_url)[DAY] == (17, 0, 0, 0)


@pytest.mark.parametrize(
    ("budgets", "currency", "period", "wait"),
    [
        ({"day": "tokens=1000"}, "tokens", "day", 43_200),
        ({"day": "usd=0.5"}, "usd", "day", 43_200),
        ({"month": "tokens=1000"}, "tokens", "month", 6.5 * 86_400),
        ({"day": "tokens=1000", "month": "tokens=1001"}, "tokens", "month", 6.5 * 86_400),
        ({"day": "tokens=1000", "month": "usd=9"}, "tokens", "day", 43_200),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(
    ledger_url: str, budgets: dict[str, str], currency: str, period: str, wait: float
) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, **budgets)
        await ledger.reserve(key, 600, 0.3, "r1")
        before = periods(ledger_url)
        with pytest.raises(OverBudget, match=f"this {period}") as refused:
            await ledger.reserve(key, 600, 0.3, "r2")
        assert (refused.value.currency, refused.value.period) == (currency, period)
        assert refused.value.retry_after == pytest.approx(wait)
        assert periods(ledger_url) == before
        await ledger.reserve(key, 400, 0.2, "r3")  # exactly what is left

    doing(ledger_url, job, clock=Clock())


def test_sums_of_money_are_exact(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="usd=1")
        for at in range(10):
            held = await ledger.reserve(key, 1, 0.1, f"r{at}")
            await ledger.settle(held, record(f"r{at}", key.id, tokens=1, usd=0.1))
        with pytest.raises(OverBudget):
            await ledger.reserve(key, 1, 1e-9, "more")

    doing(ledger_url, job, clock=Clock())
    assert periods(ledger_url)[DAY] == (10, 1_000_000_000, 0, 0)


@pytest.mark.parametrize(("budget", "bounds"), [("usd=1", (10, None)), ("tokens=100", (None, 0.1))])
def test_an_unknown_bound_is_not_zero(ledger_url: str, budget: str, bounds: tuple[int | None, float | None]) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, month=budget)
        with pytest.raises(Unsupported):
            await ledger.reserve(key, *bounds, "r1")

    doing(ledger_url, job)


def test_absurd_bounds_and_counts_do_no_harm(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day=f"tokens={10**30}")
        with pytest.raises(OverBudget):
            await ledger.reserve(key, 10**40, 1e300, "r1")
        held = await ledger.reserve(key, 10, None, "r2")
        received = record("r2", key.id, tokens=10**40, usd=1e300, error="half \ud83d of a pair\x00", model="m\x00")
        await ledger.settle(held, received)
        assert [item.id for item in await ledger.search(text="of a pair")] == ["r2"]

    doing(ledger_url, job)


def test_days_and_months_are_utc_and_a_request_counts_where_it_began(ledger_url: str) -> None:
    clock = Clock(NOON + 6.5 * 86_400 - 1)  # the last second of November

    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=100", month="tokens=100")
        held = await ledger.reserve(key, 100, None, "r1")
        clock.now += 1
        await ledger.reserve(key, 100, None, "r2")
        await ledger.settle(held, record("r1", key.id, started=clock.now - 1, tokens=30))

    doing(ledger_url, job, clock=clock)
    assert periods(ledger_url) == {
        "2026-11-30": (30, 0, 0, 0),
        "2026-11": (30, 0, 0, 0),
        "2026-12-01": (0, 0, 100, 0),
        "2026-12": (0, 0, 100, 0),
    }


def test_a_lease_that_runs_out_is_charged_as_reserved(ledger_url: str) -> None:
    clock = Clock()

    async def lost(ledger: DurableLedger) -> None:
        await ledger.reserve(await new_key(ledger, day="tokens=1000,usd=1"), 600, 0.25, "r1")

    doing(ledger_url, lost, clock=clock)
    clock.now += 59
    doing(ledger_url, lambda ledger: ledger.receipt("r1"), clock=clock)
    assert periods(ledger_url)[DAY] == (0, 0, 600, 250_000_000)
    clock.now += 2
    result = doing(ledger_url, lambda ledger: ledger.receipt("r1"), clock=clock)
    assert result is not None
    assert (result.estimated, result.tokens, result.at_most_tokens, result.at_most_usd) == (True, None, 600, 0.25)
    assert periods(ledger_url)[DAY] == (600, 250_000_000, 0, 0)
    doing(ledger_url, lambda ledger: ledger.receipt("r1"), clock=clock)
    assert periods(ledger_url)[DAY] == (600, 250_000_000, 0, 0)


def test_the_truth_replaces_what_was_charged_for_a_lost_lease(ledger_url: str) -> None:
    clock = Clock()

    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000")
        held = await ledger.reserve(key, 600, None, "r1")
        clock.now += 100
        async with opened(ledger_url, clock):  # another process finds the lease expired
            assert periods(ledger_url)[DAY] == (600, 0, 0, 0)
        received = record("r1", key.id, tokens=17)
        await ledger.settle(held, received)
        await ledger.settle(held, received)
        assert await ledger.receipt("r1") == received
        (spent,) = await ledger.spend("model")
        assert (spent.group, spent.requests, spent.tokens, spent.estimated) == ("tiny", 1, 17, 0)

    doing(ledger_url, job, clock=clock)
    assert periods(ledger_url)[DAY] == (17, 0, 0, 0)


def test_a_lease_is_renewed_while_its_process_lives(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        await ledger.reserve(await new_key(ledger, day="tokens=1000"), 600, None, "r1")
        first = rows(ledger_url, "SELECT expires FROM reservations")
        await eventually(lambda: rows(ledger_url, "SELECT expires FROM reservations") > first)
        async with opened(ledger_url):
            assert rows(ledger_url, "SELECT id FROM reservations") == [("r1",)]

    doing(ledger_url, job, rules=Rules(lease=4.0))


def test_a_client_that_leaves_while_it_is_reserved_for_leaves_nothing(ledger_url: str) -> None:
    async def job(ledger: DurableLedger) -> None:
        key = await new_key(ledger, day="tokens=1000")
        asking = asyncio.create_task(ledger.reserve(key, 600, None, "r1"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await ledger.reserve(key, 1000, None, "r2")

    doing(ledger_url, job, clock=Clock())
    assert periods(ledger_url)[DAY] == (0, 0, 1000, 0)
