"""Reservations: upper bounds are taken from a key's budgets before anything is spent.

Knows: one conditional UPDATE decides, so no number of replicas can together exceed a budget. Runs within
a transaction that holds the key's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from outthink.core.errors import Unsupported
from outthink.core.request import Budget
from outthink.serving.keys import Terms
from outthink.serving.ledger.amounts import Amounts, dollars
from outthink.serving.ledger.database import Database
from outthink.serving.ledger.idempotency import claim, freed
from outthink.serving.ledger.periods import day_of, ends_in, month_of
from outthink.serving.ledger.settling import take
from outthink.serving.ledger.tally import Tally
from outthink.serving.protocols import Idempotency, OverBudget, Repeated, Reservation

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
