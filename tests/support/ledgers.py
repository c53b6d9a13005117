"""A ledger for tests: a clock that is set by hand, records, and a look at what is reserved."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from outthink.core.request import Budget
from outthink.serving.ledger import DurableLedger, LedgerAddress, Rules, open_durable
from outthink.serving.ledger.database import Database
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.ledger.postgres import PostgresDatabase
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.protocols import Idempotency, Key, RequestRecord, Reservation, Terms

T = TypeVar("T")
NOON = 1_795_521_600.0
"""2026-11-24 12:00 UTC."""


@dataclass
class Clock:
    """Seconds since the epoch, by hand."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    url: str, clock: Callable[[], float] | None = None, rules: Rules | None = None, **more: Any
) -> AsyncIterator[DurableLedger]:
    """An open ledger; records that wait are kept beside the test's database."""
    settings = {**more, **({} if clock is None else {"clock": clock})}
    ledger = open_durable(url, rules, **settings)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


def doing(url: str, job: Callable[[DurableLedger], Awaitable[T]], **settings: Any) -> T:
    """Run a job on a ledger that is opened and closed for it."""

    async def run() -> T:
        async with opened(url, **settings) as ledger:
            return await job(ledger)

    return asyncio.run(run())


async def new_key(ledger: DurableLedger, name: str = "a", **terms: Any) -> Key:
    """A key; `day` and `month` as text."""
    budgets = {field: Budget.parse(terms.pop(field)) for field in ("day", "month", "ceiling") if field in terms}
    _, secret = await ledger.add_key(name, Terms(**budgets, **terms))
    key = await ledger.authorise(secret)
    assert key is not None
    return key


def record(number: str, key_id: str, *, started: float = NOON, **more: Any) -> RequestRecord:
    """What a request did; unknown spend unless it is given."""
    values = {"model": "tiny", "strategy": "single", "stopped": "finished", "status": 200, "seconds": 0.5, **more}
    return RequestRecord(number, key_id, "/v1/chat/completions", backend_model="tiny", started=started, **values)


def written(folder: Path) -> bytes:
    """All files below a folder. Read elsewhere: closing a ledger's file here would drop SQLite's locks on it."""
    command = ["find", str(folder), "-type", "f", "-exec", "cat", "{}", "+"]  # files may go meanwhile
    return subprocess.run(command, capture_output=True, check=False).stdout


def connected(url: str) -> Database:
    """A connection beside the ledger's."""
    address = LedgerAddress.parse(url)
    if address.kind == "sqlite":
        return SqliteDatabase(Path(address.url))
    return PostgresDatabase(address.url, address.name)


def rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What is in the database."""
    database = connected(url)
    try:
        return [tuple(row) for row in database.execute(statement, values).fetchall()]
    finally:
        database.close()


def periods(url: str) -> dict[str, tuple[int, int, int, int]]:
    """Tokens and billionths of a dollar that are spent, then reserved, by period; of the only key."""
    result = rows(url, "SELECT period, tokens, nanousd, reserved_tokens, reserved_nanousd FROM periods")
    return {period: (tokens, nanousd, held, held_nanousd) for period, tokens, nanousd, held, held_nanousd in result}


class KeyRing(MemoryLedger):
    """A ledger in memory whose keys are their own secrets."""

    guarded = True

    def __init__(self, *keys: Key | str) -> None:
        super().__init__()
        named = [Key(key) if isinstance(key, str) else key for key in keys]
        self._ring = {key.id: key for key in named}

    async def authorise(self, bearer: str | None) -> Key | None:
        """The key of that name."""
        return self._ring.get(bearer or "")


class Charging(KeyRing):
    """The same, and `left` of so many tokens a day for all keys: each record is charged as a budget would be."""

    def __init__(self, left: int, *keys: Key) -> None:
        super().__init__(*keys)
        self.left = left

    async def reserve(
        self,
        key: Key,
        tokens: int | None,
        usd: float | None,
        request_id: str,
        idempotency: Idempotency | None = None,
    ) -> Reservation:
        """Nothing is set aside: the tests ask one request after the other."""
        return Reservation(request_id, key.id, tokens, usd)

    async def settle(self, reservation: Reservation, record: RequestRecord) -> None:
        """Charge what was spent, else its upper bound."""
        await super().settle(reservation, record)
        self.left -= record.tokens if record.tokens is not None else record.at_most_tokens or 0
