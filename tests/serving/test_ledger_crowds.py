"""Many at once: random interleavings against a model, and processes that are killed while they spend."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.request import Budget
from outthink.serving.ledger import Rules
from outthink.serving.ledger.sums import day_of
from outthink.serving.protocols import OverBudget, Reservation, Terms
from support import spender
from support.ledgers import NOON, Clock, connected, doing, opened, periods, record, rows
from support.waiting import eventually, until

LEASE, BY_DAY, BY_MONTH = 60.0, 150, 260
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 1), st.integers(0, 120)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.floats(0, 1)),
    st.tuples(st.just("settle unknown"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("wait"), st.just(0), st.integers(1, 90)),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
)


@dataclass
class Model:
    """What the ledger ought to say."""

    bounds: dict[str, tuple[int, float]] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def total(self, period: str) -> int:
        """What is spent or reserved in a day or month."""
        return sum(
            self.charged.get(number, bound)
            for number, (bound, began) in self.bounds.items()
            if day_of(began).startswith(period)
        )

    def fits(self, bound: int, now: float) -> bool:
        day = day_of(now)
        return self.total(day) + bound <= BY_DAY and self.total(day[:7]) + bound <= BY_MONTH

    def sweep(self, now: float) -> None:
        for number, (bound, began) in self.bounds.items():
            if began + LEASE < now:
                self.charged.setdefault(number, bound)


async def follow(url: str, steps: Sequence[tuple[str, int, float]]) -> None:
    """Take the steps with two ledgers in turn, and compare with the model after each."""
    clock, model, held = Clock(NOON + 43_100), Model(), list[Reservation]()
    terms = Terms(day=Budget(tokens=BY_DAY), month=Budget(tokens=BY_MONTH))
    async with opened(url, clock) as first:
        _, secret = await first.add_key("a", terms)
    async with opened(url, clock) as one, opened(url, clock) as two:
        key = await one.authorise(secret)
        assert key is not None
        for step, who, amount in steps:
            ledger = (one, two)[who]
            if step == "reserve":
                number, bound = f"r{len(model.bounds)}", int(amount)
                if model.fits(bound, clock.now):
                    held.append(await ledger.reserve(key, bound, None, number))
                    model.bounds[number] = bound, clock.now
                else:
                    with pytest.raises(OverBudget):
                        await ledger.reserve(key, bound, None, number)
            elif step.startswith("settle") and held:
                which = held[int(amount * (len(held) - 1))]
                bound, began = model.bounds[which.request_id]
                tokens = None if step == "settle unknown" else int(amount * bound)
                await ledger.settle(which, record(which.request_id, key.id, started=began, tokens=tokens))
                if which.request_id not in model.settled:
                    model.settled.add(which.request_id)
                    model.charged[which.request_id] = bound if tokens is None else tokens
            elif step == "wait":
                clock.now += amount
            elif step == "sweep":
                async with opened(url, clock):
                    model.sweep(clock.now)
            for period, (tokens, _, reserved, _) in periods(url).items():
                assert tokens + reserved == model.total(period)
                assert tokens + reserved <= (BY_DAY if len(period) == 10 else BY_MONTH)
        clock.now += LEASE + 1
        async with opened(url, clock) as last:
            model.sweep(clock.now)
            assert sum(row.requests for row in await last.spend("key")) == len(model.bounds)
    for period, (tokens, _, reserved, _) in periods(url).items():
        assert (tokens, reserved) == (model.total(period), 0)


@settings(max_examples=12, deadline=None)
@given(st.lists(STEPS, min_size=8, max_size=30))
def test_no_interleaving_exceeds_a_budget_or_loses_a_token(steps: list[tuple[str, int, float]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(follow(f"sqlite:///{folder}/ledger.sqlite", steps))


def test_processes_share_a_budget_and_one_is_killed(ledger_url: str) -> None:
    budget, bound = 24_000, 100
    _, secret = doing(ledger_url, lambda ledger: ledger.add_key("a", Terms(month=Budget(tokens=budget))))

    def started(name: str, *last: str) -> subprocess.Popen[str]:
        command = [sys.executable, spender.__file__, ledger_url, secret, name, str(bound), *last]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed = started("killed", "40")
    assert killed.stdout is not None
    first = killed.stdout.readline()  # the others come while it works, however busy the machine is
    others = [started(name) for name in ("other", "another")]
    rest, _ = killed.communicate()

    def over() -> bool:
        (spent, _, reserved, _), *_ = [value for name, value in periods(ledger_url).items() if len(name) == 7]
        assert spent + reserved <= budget
        return all(process.poll() is not None for process in others)

    until(over, "the end of the budget")
    outputs = [first, rest, *(process.communicate()[0] for process in others)]
    assert [process.returncode for process in (killed, *others)] == [-signal.SIGKILL, 0, 0]
    lines = [line.split() for line in "".join(outputs).splitlines() if line != "over"]
    confirmed = {line[0]: int(line[1]) for line in lines if len(line) == 2}

    def swept() -> bool:  # the leases of the killed process have run out
        doing(ledger_url, lambda ledger: ledger.receipt("x"), rules=Rules(lease=1.0))
        return not rows(ledger_url, "SELECT id FROM reservations")

    until(swept)
    ((spent, _, reserved, _),) = [value for name, value in periods(ledger_url).items() if len(name) == 7]
    kept = dict(rows(ledger_url, "SELECT id, swept FROM requests"))
    assert reserved == 0
    assert spent <= budget
    assert not [number for number in confirmed if kept.get(number) != 0]  # nothing that was confirmed is lost
    lost = [number for number, swept in kept.items() if swept]
    assert len(lost) <= 8  # as many as it had running
    assert all(number.startswith("killed-") for number in lost)
    unheard = len([number for number in kept if number not in confirmed and number not in lost])
    assert unheard <= 8  # settled, and killed before it could say so
    assert sum(confirmed.values()) + bound * len(lost) <= spent
    assert spent <= sum(confirmed.values()) + bound * (len(lost) + unheard)
    ((requests, tokens),) = rows(ledger_url, "SELECT SUM(requests), SUM(tokens) FROM spend")
    assert requests == len(kept)
    assert int(tokens) == spent - bound * len(lost)


def test_what_is_old_is_deleted_between_requests(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    doing(url, lambda ledger: ledger.settle(Reservation("old", "a"), record("old", "a", started=1.0)))
    database = connected(url)
    database.begin([])
    for _ in range(15):  # 32,768 rows
        columns = "key_id, model, strategy, stopped, started, error, swept, record"
        database.execute(f"INSERT INTO requests SELECT lower(hex(randomblob(9))), {columns} FROM requests")
    database.commit()
    database.close()

    async def job() -> None:
        async with opened(url, rules=Rules(keep=86_400.0)) as ledger:
            await ledger.settle(Reservation("new", "a"), record("new", "a", started=time.time()))
            assert rows(url, "SELECT COUNT(*) FROM requests")[0][0] > 1
            await eventually(lambda: rows(url, "SELECT id FROM requests") == [("new",)])

    asyncio.run(job())


def test_what_was_written_just_before_a_file_is_seen_to_be_replaced_is_in_the_new_one(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.sqlite" for name in ("old", "new")]
    for url in urls:
        doing(url, lambda ledger: ledger.list_keys())

    async def job() -> None:
        async with opened(urls[0]) as ledger:
            await ledger.settle(Reservation("r0", "a"), record("r0", "a", tokens=1))
            for end in ("-wal", "-shm"):
                (tmp_path / f"old.sqlite{end}").unlink()
            (tmp_path / "new.sqlite").replace(tmp_path / "old.sqlite")
            ids = []
            while not ids or not rows(urls[0], "SELECT 1 FROM requests WHERE id = ?", ids[-1]):
                ids.append(f"r{len(ids) + 1}")
                await ledger.settle(Reservation(ids[-1], "a"), record(ids[-1], "a", tokens=1))
            found = {number for (number,) in rows(urls[0], "SELECT id FROM requests")}
            assert found == {"r0", *ids}
            (spent,) = await ledger.spend("key")
            assert spent.tokens == len(found)

    asyncio.run(job())
