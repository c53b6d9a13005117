"""Leases and age: what was reserved and never settled is charged, and what is old is deleted.

Knows: a process renews the leases of its requests; those of one that was killed run out. Runs within
transactions of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from outthink.serving.ledger.amounts import dollars
from outthink.serving.ledger.database import Database, insert, marks
from outthink.serving.ledger.idempotency import KEPT, freed
from outthink.serving.ledger.rows import row
from outthink.serving.ledger.settling import INSERT, ONCE, Held, take
from outthink.serving.ledger.tally import Tally
from outthink.serving.protocols import RequestRecord

LOST = "lost"
"""`stopped` of a request whose process ended, or lost touch, before it was settled."""
_LONGEST = 86_400.0
"""Seconds after which no lease is renewed: no request runs for a day."""
_PIECE = 1000


def renew(database: Database, owner: str, now: float, lease: float) -> None:
    """Keep the leases of one process for another while."""
    database.begin([])
    database.execute(
        "UPDATE reservations SET expires = ? WHERE owner = ? AND expires < ? AND created > ?",
        (now + lease, owner, now + lease, now - _LONGEST),
    )
    database.commit()


def sweep(database: Database, now: float) -> int:
    """Charge leases that have run out at their reservations; returns how many."""
    found = database.execute("SELECT id, key_id FROM reservations WHERE expires < ? LIMIT ?", (now, _PIECE)).fetchall()
    if not found:
        return 0
    database.begin(sorted({key_id for _, key_id in found}))
    held = list(take(database, [number for number, _ in found], expired_at=now).values())
    tally, rows = Tally(), []
    for one in held:
        record = _record(one)
        rows.append(row(record, swept=1))
        tally.spent(one.day, record, None)
        tally.released(one.day, one.key_id, one.amounts)
        freed(database, one.id)
    insert(database, INSERT, rows, ONCE)
    tally.write(database)
    database.commit()
    return len(held)


def _record(held: Held) -> RequestRecord:
    return RequestRecord(
        held.id,
        held.key_id,
        endpoint="",
        model="",
        backend_model="",
        strategy="",
        stopped=LOST,
        started=held.created,
        seconds=0.0,
        status=0,
        cancelled_tokens=None,
        at_most_tokens=held.tokens,
        at_most_usd=None if held.nanousd is None else dollars(held.nanousd),
        samples=0,
        estimated=True,
        error="the process that served it ended before it was settled; charged as reserved",
    )


def prune(database: Database, older_than: float, *, content_only: bool = False) -> int:
    """Delete what began before a moment (seconds since the epoch), a piece a transaction; returns requests deleted.

    Sums by day stay: they hold no request. `content_only` deletes stored prompts and replies and keeps receipts.
    """
    deleted = _pieces(database, "contents", "stored", older_than)
    if not content_only:
        deleted = _pieces(database, "requests", "started", older_than)
    return deleted


def forget(database: Database, request_id: str) -> bool:
    """Delete what is stored of a request's content; its receipt stays."""
    database.begin([])
    count = database.execute("DELETE FROM contents WHERE id = ?", (request_id,)).rowcount
    count += database.execute(
        "DELETE FROM idempotency WHERE request_id = ? AND status IS NOT NULL", (request_id,)
    ).rowcount
    database.commit()
    return count > 0


def tidy(database: Database, now: float) -> None:
    """Drop replies whose idempotency keys may be used anew."""
    _pieces(database, "idempotency", "created", now - KEPT, "request_id")


def _pieces(database: Database, table: str, column: str, before: float, number: str = "id") -> int:
    deleted = 0
    while True:
        found = database.execute(
            f"SELECT {number} FROM {table} WHERE {column} < ? LIMIT ?",  # noqa: S608 - names of ours
            (before, _PIECE),
        ).fetchall()
        if not found:
            return deleted
        ids: Sequence[str] = [one for (one,) in found]
        database.begin([])
        done = database.execute(f"DELETE FROM {table} WHERE {number} IN {marks(ids)}", ids).rowcount  # noqa: S608
        database.commit()
        deleted += done
        if not done:
            return deleted
        time.sleep(0.01)  # others want to write too
