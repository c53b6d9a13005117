"""Reservations and settlements: bounds are taken from a key's budgets before anything is spent, then replaced by it.

Knows: one conditional UPDATE decides, so no number of replicas can together exceed a budget; each request is counted
once, however often it is reported; a repeated `Idempotency-Key` is answered once and paid for once. Runs within
transactions that hold the locks of the keys concerned; does not know who opens them.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from outthink.core.errors import Unsupported
from outthink.core.request import Budget
from outthink.http.fields import JsonDict, encode
from outthink.serving.ledger.database import (
    Database,
    SqlValue,
    insert,
    loaded,
    marks,
    packed,
    read,
    row,
    text_of,
    unpacked,
)
from outthink.serving.ledger.sums import Amounts, Tally, day_of, dollars, ends_in, month_of
from outthink.serving.protocols import Idempotency, OverBudget, Repeated, RequestRecord, Reservation, Terms

KEPT = 86_400.0
"""Seconds after which a key may be used anew."""
INSERT = "INSERT INTO requests (id, key_id, model, strategy, stopped, started, error, swept, record)"
ONCE = "ON CONFLICT (id) DO NOTHING"
_MANY = 500
_FITS = "tokens + reserved_tokens + ? <= ? AND nanousd + reserved_nanousd + ? <= ?"
_TAKE = (
    "UPDATE periods SET reserved_tokens = reserved_tokens + ?, reserved_nanousd = reserved_nanousd + ? "  # noqa: S608
    f"WHERE key_id = ? AND ((period = ? AND {_FITS}) OR (period = ? AND {_FITS}))"
)


class ReservationRequest(NamedTuple):
    """What a request asks to have set aside. `terms` None: its key has no budget by day or month."""

    request_id: str
    key_id: str
    tokens: int | None
    usd: float | None
    terms: Terms | None
    idempotency: Idempotency | None

    @property
    def granted(self) -> Reservation:
        """What it gets where nothing stands against it."""
        return Reservation(self.request_id, self.key_id, self.tokens, self.usd, held=True, idempotency=self.idempotency)


def check_bounds(request: ReservationRequest) -> None:
    """Raises Unsupported for a request without a bound in a currency that its key has a budget in."""
    if request.terms is None:
        return
    currencies = {*request.terms.day.limited, *request.terms.month.limited}
    if "tokens" in currencies and request.tokens is None:
        raise Unsupported("tokens: the request has no upper bound, and this key has a budget of tokens")
    if "usd" in currencies and request.usd is None:
        raise Unsupported("model: what it costs is not known, and this key has a budget in dollars; use another model")


def reserve(database: Database, request: ReservationRequest, owner: str, now: float, lease: float) -> Reservation:
    """Set bounds aside. Raises OverBudget or Repeated, and then leaves no trace."""
    # Others' reservations are in the same transaction, and must not be undone with this one.
    database.execute("SAVEPOINT reserving")
    try:
        before = None
        if request.idempotency is not None:
            before = claim(database, request.key_id, request.idempotency, request.request_id, now)
        if before is None:
            _take(database, request, owner, now, lease)
    except (OverBudget, Repeated):
        database.execute("ROLLBACK TO SAVEPOINT reserving")
        database.execute("RELEASE SAVEPOINT reserving")
        raise
    database.execute("RELEASE SAVEPOINT reserving")
    return before or request.granted


def _take(database: Database, request: ReservationRequest, owner: str, now: float, lease: float) -> None:
    key_id, day = request.key_id, day_of(now)
    amounts = Amounts.of(request.tokens, request.usd)
    bounds = (
        None if request.tokens is None else amounts.tokens,
        None if request.usd is None else amounts.nanousd,
    )
    inserted = database.execute(
        "INSERT INTO reservations (id, key_id, owner, day, tokens, nanousd, created, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (request.request_id, key_id, owner, day, *bounds, now, now + lease),
    )
    if inserted.rowcount != 1:
        return  # a second attempt, after a commit whose outcome did not come back
    periods = (day, month_of(day))
    database.execute(
        "INSERT INTO periods (key_id, period) VALUES (?, ?), (?, ?) ON CONFLICT (key_id, period) DO NOTHING",
        (key_id, periods[0], key_id, periods[1]),
    )
    budgets = (Budget(), Budget()) if request.terms is None else (request.terms.day, request.terms.month)
    values: list[SqlValue] = [*amounts, key_id]
    for period, budget in zip(periods, budgets, strict=True):
        limit = Amounts.limits(budget)
        values += [period, amounts.tokens, limit.tokens, amounts.nanousd, limit.nanousd]
    if database.execute(_TAKE, values).rowcount != len(periods):
        raise _over(database, key_id, amounts, tuple(zip(periods, budgets, strict=True)), now)


def release(database: Database, request: ReservationRequest) -> None:
    """Give a reservation back of a request that was never served; a transaction of its own."""
    database.begin([request.key_id])
    tally = Tally()
    for held in take(database, [request.request_id]).values():
        tally.released(held.day, held.key_id, held.amounts)
    tally.write(database)
    free_key(database, request.request_id)
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


class Settlement(NamedTuple):
    """What was set aside and what came of it."""

    reservation: Reservation
    record: RequestRecord


def line_of(settlement: Settlement) -> bytes:
    """A settlement as a line of JSON."""
    reservation: JsonDict = asdict(settlement.reservation)
    reservation.pop("replay")
    parts = {
        "reservation": reservation,
        "record": loaded(packed(settlement.record)),
        "body": _text(settlement.record.body),
        "content": _text(settlement.record.content),
    }
    return encode(parts) + b"\n"


def settlement_of(line: bytes) -> Settlement:
    """The settlement of a line. Raises ValueError, TypeError, LookupError or AttributeError where it is none."""
    value = loaded(line)
    reservation = value["reservation"]
    idempotency = None if reservation["idempotency"] is None else Idempotency(*reservation["idempotency"])
    record = unpacked(value["record"])
    record.body, record.content = _bytes(value["body"]), _bytes(value["content"])
    return Settlement(Reservation(**{**reservation, "idempotency": idempotency}), record)


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


class HeldReservation(NamedTuple):
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
    # The first of equals wins, as over time.
    by_id = {settlement.record.id: settlement for settlement in reversed(settlements)}
    items = list(by_id.values())[::-1]
    # Usually all of them are new. Only where some are not does it pay to look which; one alone leaves nothing to undo.
    several = len(items) > 1
    if several:
        database.execute("SAVEPOINT settling")
    if insert(database, INSERT, [row(settlement.record) for settlement in items], ONCE) != len(items):
        if several:
            database.execute("ROLLBACK TO SAVEPOINT settling")
        items = _unknown(database, items)
        insert(database, INSERT, [row(settlement.record) for settlement in items], ONCE)
    if several:
        database.execute("RELEASE SAVEPOINT settling")
    held = take(database, [settlement.record.id for settlement in items if settlement.reservation.held])
    tally = Tally()
    for reservation, record in items:
        kept = held.get(record.id)
        day = day_of(record.started) if kept is None else kept.day
        tally.spent(day, record, Amounts.of(reservation.tokens, reservation.usd))
        if kept is not None:
            tally.released(kept.day, kept.key_id, kept.amounts)
    tally.write(database)
    for reservation, record in items:
        if reservation.idempotency is not None:
            keep_reply(database, record)
    if logs_content:
        stored = [
            (record.id, now, text_of(record.content), text_of(record.body))
            for _, record in items
            if record.content is not None or record.body is not None
        ]
        insert(database, "INSERT INTO contents (id, stored, request, reply)", stored, "ON CONFLICT (id) DO NOTHING")


def _unknown(database: Database, items: Sequence[Settlement]) -> list[Settlement]:
    """Settlements that are not in the database; records that the sweeper wrote make room for the true ones."""
    stored: dict[str, tuple[int, str]] = {}
    ids = [settlement.record.id for settlement in items]
    for at in range(0, len(ids), _MANY):
        batch = ids[at : at + _MANY]
        rows = database.execute(f"SELECT id, swept, record FROM requests WHERE id IN {marks(batch)}", batch)  # noqa: S608
        stored.update({str(number): (int(swept), record) for number, swept, record in rows.fetchall()})
    tally, swept = Tally(), [number for number, (by_us, _) in stored.items() if by_us]
    for number in swept:
        record = read(stored[number][1])
        tally.spent(day_of(record.started), record, None, -1)
        database.execute("DELETE FROM requests WHERE id = ?", (number,))
    tally.write(database)
    return [settlement for settlement in items if settlement.record.id not in stored or settlement.record.id in swept]


def take(database: Database, ids: Sequence[str], expired_at: float | None = None) -> dict[str, HeldReservation]:
    """Take reservations out; those that are gone already, or by then not expired, are left out."""
    until = expired_at if expired_at is not None else math.inf
    taken: dict[str, HeldReservation] = {}
    for at in range(0, len(ids), _MANY):
        batch = ids[at : at + _MANY]
        statement = (
            f"DELETE FROM reservations WHERE id IN {marks(batch)} AND expires < ? "  # noqa: S608 - question marks
            "RETURNING id, key_id, day, tokens, nanousd, created"
        )
        for held in database.execute(statement, [*batch, until]).fetchall():
            taken[held[0]] = HeldReservation(*held)
    return taken


# A reply is repeated only where it was an answer: after a failure the next attempt is served anew. Names of idempotency
# keys are kept hashed: clients choose them, of any length.


def claim(database: Database, key_id: str, idempotency: Idempotency, request_id: str, now: float) -> Reservation | None:
    """Take the key for a request, or give back what it was answered with before. Raises Repeated."""
    name = hashlib.sha256(idempotency.key.encode("utf-8", "surrogateescape")).hexdigest()
    database.execute(
        "DELETE FROM idempotency WHERE key_id = ? AND name = ? AND created < ?", (key_id, name, now - KEPT)
    )
    inserted = database.execute(
        "INSERT INTO idempotency (key_id, name, digest, request_id, created) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (key_id, name) DO NOTHING",
        (key_id, name, idempotency.digest, request_id, now),
    )
    if inserted.rowcount == 1:
        return None
    ((digest, before, status, body),) = database.execute(
        "SELECT digest, request_id, status, body FROM idempotency WHERE key_id = ? AND name = ?", (key_id, name)
    ).fetchall()
    if before == request_id:  # a second attempt to write the same
        return None
    if digest != idempotency.digest:
        raise Repeated("Idempotency-Key: was used with another request; use a new one")
    if status is None:
        raise Repeated("Idempotency-Key: its request is being served now; wait, then ask again")
    return Reservation(before, key_id, replay=bytes(body), status=int(status))


def keep_reply(database: Database, record: RequestRecord) -> None:
    """Keep the reply of a request, or free its key after a failure."""
    if record.body is not None and record.status < 400:
        database.execute(
            "UPDATE idempotency SET status = ?, body = ? WHERE request_id = ?",
            (record.status, record.body, record.id),
        )
    else:
        free_key(database, record.id)


def free_key(database: Database, request_id: str) -> None:
    """The request of an idempotency key came to nothing, so the key may be used again."""
    database.execute("DELETE FROM idempotency WHERE request_id = ? AND status IS NULL", (request_id,))
