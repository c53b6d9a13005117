"""A ledger that forgets: everyone may ask, and the last receipts are kept in memory. For trials and tests."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import NoReturn, Unpack

from outthink.core.errors import BadInput
from outthink.serving.ledger.sums import Sums, day_of, ranked
from outthink.serving.protocols import (
    ANYONE,
    GroupBy,
    Idempotency,
    Key,
    Ledger,
    RequestRecord,
    Reservation,
    SearchTerms,
    Spend,
    StoredKey,
    Terms,
)


class MemoryLedger(Ledger):
    """Keeps the last `size` records. There are no keys, no budgets by day or month and no replies to repeat."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self.records: OrderedDict[str, RequestRecord] = OrderedDict()

    async def authorise(self, bearer: str | None) -> Key | None:
        """Everyone may ask."""
        return ANYONE

    async def reserve(
        self,
        key: Key,
        tokens: int | None,
        usd: float | None,
        request_id: str,
        idempotency: Idempotency | None = None,
    ) -> Reservation:
        """Nothing is limited."""
        return Reservation(request_id, key.id, tokens, usd)

    async def settle(self, reservation: Reservation, record: RequestRecord) -> None:
        """Keep the record, and forget the oldest."""
        self.records[record.id] = record
        if len(self.records) > self._size:
            self.records.popitem(last=False)

    async def receipt(self, request_id: str) -> RequestRecord | None:
        """A record that has not been forgotten."""
        return self.records.get(request_id)

    async def search(self, **terms: Unpack[SearchTerms]) -> Sequence[RequestRecord]:
        """Records that fit, newest first."""
        records = sorted(self.records.values(), key=lambda record: (record.started, record.id), reverse=True)
        if (before := terms.get("before")) is not None:
            older = itertools.dropwhile(lambda record: record.id != before, records)
            records = list(older)[1:]
        return [record for record in records if _fits(record, terms)][: terms.get("limit", 100)]

    async def spend(self, group_by: GroupBy, since: float | None = None, until: float | None = None) -> Sequence[Spend]:
        """Sums over the records that are kept."""
        sums: dict[str, Sums] = {}
        for record in self.records.values():
            day = day_of(record.started)
            if (since is None or day >= day_of(since)) and (until is None or day <= day_of(until)):
                groups = {"key": record.key_id, "model": record.model, "strategy": record.strategy, "day": day}
                sums.setdefault(groups[group_by], Sums()).add(record)
        return ranked(sums, group_by)

    async def add_key(self, name: str, terms: Terms) -> tuple[StoredKey, str]:
        """Not possible here."""
        _no_keys()

    async def revoke_key(self, name: str) -> StoredKey:
        """Not possible here."""
        _no_keys()


def _fits(record: RequestRecord, terms: SearchTerms) -> bool:
    values = {"key": record.key_id, "model": record.model, "strategy": record.strategy, "stopped": record.stopped}
    since, until, text = terms.get("since"), terms.get("until"), terms.get("text")
    searched = f"{record.id} {record.model} {record.strategy} {record.error or ''}".lower()
    return (
        all(terms.get(name) in (None, value) for name, value in values.items())
        and (since is None or record.started >= since)
        and (until is None or record.started < until)
        and (text is None or text.lower() in searched)
    )


def _no_keys() -> NoReturn:
    raise BadInput("ledger", "memory:", "keeps no keys", "use a SQLite file or PostgreSQL")
