"""What a batch of requests adds to the sums: by key and period, and by day, key, model and strategy.

Knows: that one statement a sum is enough for any number of requests. Does not know requests' rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outthink.serving.ledger.amounts import Amounts, charged
from outthink.serving.ledger.database import Database, insert
from outthink.serving.ledger.periods import month_of
from outthink.serving.ledger.rows import clean
from outthink.serving.ledger.sums import Sums, SumsRow
from outthink.serving.protocols import RequestRecord

_PERIODS = "INSERT INTO periods (key_id, period, tokens, nanousd, reserved_tokens, reserved_nanousd)"
_ADD = "ON CONFLICT (key_id, period) DO UPDATE SET " + ", ".join(
    f"{name} = periods.{name} + excluded.{name}"
    for name in ("tokens", "nanousd", "reserved_tokens", "reserved_nanousd")
)
_SPEND = f"INSERT INTO spend (day, key_id, model, strategy, {', '.join(SumsRow._fields)})"
_SUM = "ON CONFLICT (day, key_id, model, strategy) DO UPDATE SET " + ", ".join(
    f"{name} = spend.{name} + excluded.{name}" for name in SumsRow._fields
)


class Tally:
    """Sums that are still to be written."""

    def __init__(self) -> None:
        self._periods: dict[tuple[str, str], list[int]] = {}
        self._spend: dict[tuple[str, str, str, str], Sums] = {}

    def spent(self, day: str, record: RequestRecord, reserved: Amounts | None, sign: int = 1) -> None:
        """Count a request on a day; with sign -1 take it out again."""
        tokens, nanousd = charged(record, reserved)
        self._add(day, record.key_id, sign * tokens, sign * nanousd, 0, 0)
        group = day, record.key_id, clean(record.model), clean(record.strategy)
        sums = self._spend.get(group)
        if sums is None:
            sums = self._spend[group] = Sums()
        sums.add(record, sign)

    def released(self, day: str, key_id: str, reserved: Amounts) -> None:
        """A reservation is over."""
        self._add(day, key_id, 0, 0, -reserved.tokens, -reserved.nanousd)

    def _add(self, day: str, key_id: str, *amounts: int) -> None:
        for period in (day, month_of(day)):
            sums = self._periods.get((key_id, period))
            if sums is None:
                self._periods[key_id, period] = list(amounts)
            else:
                for at, amount in enumerate(amounts):
                    sums[at] += amount

    def write(self, database: Database) -> None:
        """Add everything to the tables."""
        periods: list[Sequence[Any]] = [(*of, *sums) for of, sums in sorted(self._periods.items())]
        insert(database, _PERIODS, periods, _ADD)
        insert(database, _SPEND, [(*of, *sums.row()) for of, sums in sorted(self._spend.items())], _SUM)
