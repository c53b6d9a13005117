"""Reservations: upper bounds are taken from a key's budgets before anything is spent.

Knows: one conditional UPDATE decides, so no number of replicas can together exceed a budget. Runs within
a transaction that holds the key's lock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from outthink.core.errors import Unsupported
from outthink.core.request import Budget
from outthink.serving.ledger.database import Database, insert, marks, read, row, text_of
from outthink.serving.ledger.sums import Amounts, Tally, day_of, dollars, ends_in, month_of
from outthink.serving.protocols import Idempotency, OverBudget, Repeated, RequestRecord, Reservation, Terms

# `Idempotency-Key`: a request that a client repeats is answered once and paid for once.
#
# Knows: what is kept for how long. A reply is repeated only where it was an answer: after a failure the
# next attempt is served anew. Names are kept hashed: clients choose them, of any length.

KEPT = 86_400.0
"""Seconds after which a key may be used anew."""


def claim(database: Database, key_id: str, asked: Idempotency, request_id: str, now: float) -> Reservation | None:
    """Take the key for a request, or give back what it was answered with before. Raises Repeated."""
    name = hashlib.sha256(asked.key.encode("utf-8", "surrogateescape")).hexdigest()
    database.execute(
        "DELETE FROM idempotency WHERE key_id = ? AND name = ? AND created < ?", (key_id, name, now - KEPT)
    )
    taken = database.execute(
        "INSERT INTO idempotency (key_id, name, digest, request_id, created) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (key_id, name) DO NOTHING",
        (key_id, name, asked.digest, request_id, now),
    )
    if taken.rowcount == 1:
        return None
    ((digest, before, status, body),) = database.execute(
        "SELECT digest, request_id, status, body FROM idempotency WHERE key_id = ? AND name = ?", (key_id, name)
    ).fetchall()
    if before == request_id:  # a second attempt to write the same
        return None
    if digest != asked.digest:
        raise Repeated("Idempotency-Key: was used with another request; use a new one")
    if status is None:
        raise Repeated("Idempotency-Key: its request is being served now; wait, then ask again")
    return Reservation(before, key_id, replay=bytes(body), status=int(status))


def answered(database: Database, record: RequestRecord) -> None:
    """Keep the reply of a request, or free its key after a failure."""
    if record.body is not None and record.status < 400:
        database.execute(
            "UPDATE idempotency SET status = ?, body = ? WHERE request_id = ?",
            (record.status, record.body, record.id),
        )
    else:
        freed(database, record.id)


def freed(database: Database, request_id: str) -> None:
    """The request of a key came to nothing."""
    database.execute("DELETE FROM idempotency WHERE request_id = ? AND status IS NULL", (request_id,))


# Settlements: each request is counted exactly once, however often and from wherever it is told.
#
# Knows: reservations become spend in the transaction that writes the record. Runs within a transaction
# that holds the locks of the keys concerned.

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


_FITS = "tokens + reserved_tokens + ? <= ? AND nanousd + reserved_nanousd + ? <= ?"
_TAKE = (
    "UPDATE periods SET reserved_tokens = reserved_tokens + ?, reserved_nanousd = reserved_nanousd + ? "  # noqa: S608
    f"WHERE key_id = ? AND ((period = ? AND {_FITS}) OR (period = ? AND {_FITS}))"
)


class Wanted(NamedTuple):
    """What a request asks to have set aside. `terms` None: its key has no budget by day or month."""

    request_id: str
    key_id: str
    tokens: int | None
    usd: float | None
    terms: Terms | None
    idempotency: Idempotency | None


def check_bounds(wanted: Wanted) -> None:
    """Raises Unsupported for a request without a bound in a currency that its key has a budget in."""
    if wanted.terms is None:
        return
    currencies = {*wanted.terms.day.limited, *wanted.terms.month.limited}
    if "tokens" in currencies and wanted.tokens is None:
        raise Unsupported("tokens: the request has no upper bound, and this key has a budget of tokens")
    if "usd" in currencies and wanted.usd is None:
        raise Unsupported("model: what it costs is not known, and this key has a budget in dollars; use another model")


def reserve(database: Database, wanted: Wanted, owner: str, now: float, lease: float) -> Reservation:
    """Set bounds aside. Raises OverBudget or Repeated, and then leaves no trace."""
    database.execute("SAVEPOINT reserving")
    try:
        before = None
        if wanted.idempotency is not None:
            before = claim(database, wanted.key_id, wanted.idempotency, wanted.request_id, now)
        if before is None:
            _take(database, wanted, owner, now, lease)
    except (OverBudget, Repeated):
        database.execute("ROLLBACK TO SAVEPOINT reserving")
        database.execute("RELEASE SAVEPOINT reserving")
        raise
    database.execute("RELEASE SAVEPOINT reserving")
    return before or Reservation(
        wanted.request_id, wanted.key_id, wanted.tokens, wanted.usd, held=True, idempotency=wanted.idempotency
    )


def _take(database: Database, wanted: Wanted, owner: str, now: float, lease: float) -> None:
    key_id, day = wanted.key_id, day_of(now)
    amounts = Amounts.of(wanted.tokens, wanted.usd)
    bounds = (
        None if wanted.tokens is None else amounts.tokens,
        None if wanted.usd is None else amounts.nanousd,
    )
    kept = database.execute(
        "INSERT INTO reservations (id, key_id, owner, day, tokens, nanousd, created, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (wanted.request_id, key_id, owner, day, *bounds, now, now + lease),
    )
    if kept.rowcount != 1:
        return  # a second attempt, after a commit whose outcome was not heard
    periods = (day, month_of(day))
    database.execute(
        "INSERT INTO periods (key_id, period) VALUES (?, ?), (?, ?) ON CONFLICT (key_id, period) DO NOTHING",
        (key_id, periods[0], key_id, periods[1]),
    )
    budgets = (Budget(), Budget()) if wanted.terms is None else (wanted.terms.day, wanted.terms.month)
    values: list[object] = [*amounts, key_id]
    for period, budget in zip(periods, budgets, strict=True):
        limit = Amounts.limits(budget)
        values += [period, amounts.tokens, limit.tokens, amounts.nanousd, limit.nanousd]
    if database.execute(_TAKE, values).rowcount != len(periods):
        raise _over(database, key_id, amounts, tuple(zip(periods, budgets, strict=True)), now)


def release(database: Database, wanted: Wanted) -> None:
    """Give a reservation back of a request that was never served; a transaction of its own."""
    database.begin([wanted.key_id])
    tally = Tally()
    for held in take(database, [wanted.request_id]).values():
        tally.released(held.day, held.key_id, held.amounts)
    tally.write(database)
    freed(database, wanted.request_id)
    database.commit()


def _over(
    database: Database, key_id: str, amounts: Amounts, budgets: tuple[tuple[str, Budget], ...], now: float
) -> OverBudget:
    """The error for the period that ends last of those that do not cover the request."""
    for period, budget in reversed(budgets):
        ((tokens, usd),) = database.execute(
            "SELECT tokens + reserved_tokens, nanousd + reserved_nanousd FROM periods WHERE key_id = ? AND period = ?",
            (key_id, period),
        ).fetchall()
        limits = Amounts.limits(budget)
        name = "day" if len(period) == 10 else "month"
        wait = ends_in(period, now)
        if tokens + amounts.tokens > limits.tokens:
            left = f"{max(0, limits.tokens - tokens)} of {limits.tokens} tokens are left this {name} (UTC)"
            message = f"budget: {left}, and the request may need {amounts.tokens}"
            return OverBudget(message, currency="tokens", period=name, retry_after=wait)
        if usd + amounts.nanousd > limits.nanousd:
            left = f"{dollars(max(0, limits.nanousd - usd)):.6g} of {budget.usd:g} dollars are left this {name} (UTC)"
            message = f"budget: {left}, and the request may need {dollars(amounts.nanousd):.6g}"
            return OverBudget(message, currency="usd", period=name, retry_after=wait)
    raise AssertionError("a budget that covers the request did not")
