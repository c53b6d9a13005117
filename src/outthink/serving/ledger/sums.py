"""Sums over requests: what they are charged, in whole numbers, by day, month and group.

Knows: how dollars become billionths, so that sums are exact in every order and database, what a request is charged
where its spend is not known, and the calendar of budgets (UTC). Does not know requests' rows, or who is limited.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from outthink.core.request import Budget
from outthink.serving.ledger.database import Database, SqlValue, clean, insert
from outthink.serving.protocols import GroupBy, RequestRecord, Spend

_NANO = 1_000_000_000
_MOST_TOKENS, _MOST_NANO = 1 << 50, 1 << 58
"""No request is charged more (10^15 tokens, 288 million dollars), so that sums stay within 64 bits."""
_UNLIMITED = 1 << 62


class Amounts(NamedTuple):
    """Tokens and billionths of a dollar."""

    tokens: int
    nanousd: int

    @classmethod
    def of(cls, tokens: int | None, usd: float | None) -> Amounts:
        """Of one request; what is not known takes nothing."""
        return cls(
            0 if tokens is None else min(max(tokens, 0), _MOST_TOKENS),
            0 if usd is None else min(math.ceil(_nano(usd)), _MOST_NANO),
        )

    @classmethod
    def limits(cls, budget: Budget) -> Amounts:
        """A budget. Amounts are rounded up and limits down, so what was granted is never exceeded."""
        return cls(
            _UNLIMITED if budget.tokens is None else min(budget.tokens, _MOST_TOKENS - 1),
            _UNLIMITED if budget.usd is None else min(math.floor(_nano(budget.usd)), _MOST_NANO - 1),
        )


def _nano(usd: float) -> float:
    return round(min(max(usd, 0.0), 1e9) * _NANO, 3)  # 0.1 * 3 is three times 0.1, not a little more


def dollars(amount: int) -> float:
    """Billionths in dollars."""
    return amount / _NANO


def charged(record: RequestRecord, reserved: Amounts | None) -> Amounts:
    """What a request is charged: its spend, else its upper bound, else what was reserved for it."""
    tokens = record.tokens if record.tokens is not None else record.at_most_tokens
    usd = record.usd if record.usd is not None else record.at_most_usd
    known = Amounts.of(tokens, usd)
    if reserved is None:
        return known
    return Amounts(
        known.tokens if tokens is not None else reserved.tokens, known.nanousd if usd is not None else reserved.nanousd
    )


@dataclass(slots=True)
class Sums:
    """A growing sum; its fields are columns of the `spend` table, in their order."""

    requests: int = 0
    estimated: int = 0
    seconds: float = 0.0
    tokens: int = 0
    nanousd: int = 0
    joules: float = 0.0
    unknown_tokens: int = 0
    unknown_usd: int = 0
    unknown_joules: int = 0

    def add(self, record: RequestRecord, sign: int = 1) -> None:
        """Count a request; with sign -1 take it out again."""
        known = Amounts.of(record.tokens, record.usd)
        self.requests += sign
        self.estimated += sign * record.estimated
        self.seconds += sign * record.seconds
        self.tokens += sign * known.tokens
        self.nanousd += sign * known.nanousd
        self.joules += sign * (record.joules or 0.0)
        self.unknown_tokens += sign * (record.tokens is None)
        self.unknown_usd += sign * (record.usd is None)
        self.unknown_joules += sign * (record.joules is None)

    def spend(self, group: str) -> Spend:
        """What the group spent."""
        usd = dollars(self.nanousd)
        return Spend(
            group,
            self.requests,
            self.estimated,
            self.seconds,
            None if self.unknown_tokens else self.tokens,
            self.tokens,
            self.unknown_tokens,
            None if self.unknown_usd else usd,
            usd,
            self.unknown_usd,
            None if self.unknown_joules else self.joules,
            self.joules,
            self.unknown_joules,
        )


def ranked(sums: Mapping[str, Sums], group_by: GroupBy) -> list[Spend]:
    """What the groups spent: days in order, of others the most tokens first."""
    spent = [total.spend(group) for group, total in sums.items()]
    return sorted(spent, key=lambda row: row.group if group_by == "day" else (-row.known_tokens, row.group))


SUMS = tuple(field.name for field in fields(Sums))
_columns = attrgetter(*SUMS)


_DAY = 86_400


def day_of(moment: float) -> str:
    """The day of a moment (seconds since the epoch), as 2026-11-24."""
    return _named(int(moment // _DAY))


def month_of(day: str) -> str:
    """The month of a day, as 2026-11."""
    return day[:7]


def ends_in(period: str, moment: float) -> float:
    """Seconds from a moment until a day or month is over; not below 0."""
    if len(period) == 10:
        end = datetime.fromisoformat(period) + timedelta(days=1)
    else:
        year, month = int(period[:4]), int(period[5:])
        end = datetime(year + month // 12, month % 12 + 1, 1)
    return max(0.0, end.replace(tzinfo=UTC).timestamp() - moment)


@lru_cache(maxsize=1024)
def _named(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY, UTC).strftime("%Y-%m-%d")


_PERIODS = "INSERT INTO periods (key_id, period, tokens, nanousd, reserved_tokens, reserved_nanousd)"
_ADD = "ON CONFLICT (key_id, period) DO UPDATE SET " + ", ".join(
    f"{name} = periods.{name} + excluded.{name}"
    for name in ("tokens", "nanousd", "reserved_tokens", "reserved_nanousd")
)
_SPEND = f"INSERT INTO spend (day, key_id, model, strategy, {', '.join(SUMS)})"
_SUM = "ON CONFLICT (day, key_id, model, strategy) DO UPDATE SET " + ", ".join(
    f"{name} = spend.{name} + excluded.{name}" for name in SUMS
)


class Tally:
    """What a batch of requests adds to the sums of its keys, periods and groups; one statement a sum writes them."""

    def __init__(self) -> None:
        self._periods: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self._spend: defaultdict[tuple[str, str, str, str], Sums] = defaultdict(Sums)

    def spent(self, day: str, record: RequestRecord, reserved: Amounts | None, sign: int = 1) -> None:
        """Count a request on a day; with sign -1 take it out again."""
        tokens, nanousd = charged(record, reserved)
        self._add(day, record.key_id, sign * tokens, sign * nanousd, 0, 0)
        self._spend[day, record.key_id, clean(record.model), clean(record.strategy)].add(record, sign)

    def released(self, day: str, key_id: str, reserved: Amounts) -> None:
        """A reservation is over."""
        self._add(day, key_id, 0, 0, -reserved.tokens, -reserved.nanousd)

    def _add(self, day: str, key_id: str, *amounts: int) -> None:
        for period in (day, month_of(day)):
            sums = self._periods[key_id, period]
            for at, amount in enumerate(amounts):
                sums[at] += amount

    def write(self, database: Database) -> None:
        """Add everything to the tables."""
        periods: list[Sequence[SqlValue]] = [(*of, *sums) for of, sums in sorted(self._periods.items())]
        insert(database, _PERIODS, periods, _ADD)
        insert(database, _SPEND, [(*of, *_columns(sums)) for of, sums in sorted(self._spend.items())], _SUM)
