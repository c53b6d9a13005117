"""Settlements: each request is counted exactly once, however often and from wherever it is told.

Knows: reservations become spend in the transaction that writes the record. Runs within a transaction
that holds the locks of the keys concerned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from outthink.serving.ledger.amounts import Amounts
from outthink.serving.ledger.database import Database, insert, marks
from outthink.serving.ledger.idempotency import answered
from outthink.serving.ledger.periods import day_of
from outthink.serving.ledger.rows import read, row, text_of
from outthink.serving.ledger.tally import Tally
from outthink.serving.protocols import RequestRecord, Reservation

INSERT = "INSERT INTO requests (id, key_id, model, strategy, stopped, started, error, swept, record)"
ONCE = "ON CONFLICT (id) DO NOTHING"
_MANY = 500


class Settlement(NamedTuple):
    """What was set aside and what came of it."""

    reservation: Reservation
    record: RequestRecord


class Held(NamedTuple):
    """A reservation as it is kept."""

    id: str
    key_id: str
    day: str
    tokens: int | None
    nanousd: int | None
    created: float

    @property
    def amounts(self) -> Amounts:
        """What it takes from the budgets."""
        return Amounts(self.tokens or 0, self.nanousd or 0)


def settle(database: Database, settlements: Sequence[Settlement], now: float, *, logs_content: bool) -> None:
    """Write records, sums and replies."""
    fresh = {one.record.id: one for one in reversed(settlements)}  # the first of equals wins, as over time
    items = list(fresh.values())[::-1]
    database.execute("SAVEPOINT settling")
    if insert(database, INSERT, [row(one.record) for one in items], ONCE) != len(items):
        database.execute("ROLLBACK TO SAVEPOINT settling")
        items = _unknown(database, items)
        insert(database, INSERT, [row(one.record) for one in items], ONCE)
    database.execute("RELEASE SAVEPOINT settling")
    held = take(database, [one.record.id for one in items if one.reservation.held])
    tally = Tally()
    for one in items:
        kept = held.get(one.record.id)
        tally.spent(day_of(one.record.started) if kept is None else kept.day, one.record, _reserved(one.reservation))
        if kept is not None:
            tally.released(kept.day, kept.key_id, kept.amounts)
    tally.write(database)
    for one in items:
        if one.reservation.idempotency is not None:
            answered(database, one.record)
    if logs_content:
        stored = [
            (one.record.id, now, text_of(one.record.content), text_of(one.record.body))
            for one in items
            if one.record.content is not None or one.record.body is not None
        ]
        insert(database, "INSERT INTO contents (id, stored, request, reply)", stored, "ON CONFLICT (id) DO NOTHING")


def _reserved(reservation: Reservation) -> Amounts | None:
    return Amounts.of(reservation.tokens, reservation.usd)


def _unknown(database: Database, items: Sequence[Settlement]) -> list[Settlement]:
    """Settlements that are not in the database; records that the sweeper wrote make room for the true ones."""
    there: dict[str, tuple[int, str]] = {}
    ids = [one.record.id for one in items]
    for at in range(0, len(ids), _MANY):
        some = ids[at : at + _MANY]
        found = database.execute(f"SELECT id, swept, record FROM requests WHERE id IN {marks(some)}", some)  # noqa: S608
        there.update({str(number): (int(swept), record) for number, swept, record in found.fetchall()})
    tally, swept = Tally(), [number for number, (by_us, _) in there.items() if by_us]
    for number in swept:
        record = read(there[number][1])
        tally.spent(day_of(record.started), record, None, -1)
        database.execute("DELETE FROM requests WHERE id = ?", (number,))
    tally.write(database)
    return [one for one in items if one.record.id not in there or one.record.id in swept]


def take(database: Database, ids: Sequence[str], expired_at: float | None = None) -> dict[str, Held]:
    """Take reservations out; those that are gone already, or by then not expired, are left out."""
    until = expired_at if expired_at is not None else math.inf
    taken: dict[str, Held] = {}
    for at in range(0, len(ids), _MANY):
        some = ids[at : at + _MANY]
        statement = (
            f"DELETE FROM reservations WHERE id IN {marks(some)} AND expires < ? "  # noqa: S608 - question marks
            "RETURNING id, key_id, day, tokens, nanousd, created"
        )
        taken.update({found[0]: Held(*found) for found in database.execute(statement, [*some, until]).fetchall()})
    return taken
