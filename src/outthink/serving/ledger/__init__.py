"""The durable ledger: keys, budgets, receipts and spend in SQLite or PostgreSQL, by its URL."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from outthink.serving.ledger.address import LedgerAddress, usual_url
from outthink.serving.ledger.durable import DurableLedger
from outthink.serving.ledger.postgres import PostgresDatabase
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.ledger.writer import Rules
from outthink.serving.protocols import Ledger

__all__ = ["DurableLedger", "Rules", "open_durable", "open_ledger", "usual_url"]


def open_ledger(url: str, rules: Rules | None = None) -> Ledger:
    """The ledger of a URL: sqlite:///PATH, postgresql://... or memory:. Connects on `open`. Raises BadInput."""
    if LedgerAddress.parse(url).kind == "memory":
        from outthink.serving.ledger.memory import MemoryLedger

        return MemoryLedger()
    return open_durable(url, rules)


def open_durable(
    url: str,
    rules: Rules | None = None,
    *,
    spool: Path | None = None,
    refresh: float = 2.0,
    clock: Callable[[], float] = time.time,
) -> DurableLedger:
    """A ledger in a database."""
    address = LedgerAddress.parse(url)

    def connect() -> SqliteDatabase | PostgresDatabase:
        if address.kind == "sqlite":
            return SqliteDatabase(Path(address.url))
        return PostgresDatabase(address.url, address.name)

    return DurableLedger(connect, spool or address.spool, rules or Rules(), refresh=refresh, clock=clock)
