"""A ledger that forgets: everyone may ask, and the last receipts are kept in memory. For trials and tests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from outthink.serving.protocols import Key, RequestRecord, Reservation

_ANYONE = Key("anyone", admin=True)


class MemoryLedger:
    """Keeps the last `size` records. There are no keys and no budgets by day or month."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self.records: OrderedDict[str, RequestRecord] = OrderedDict()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to write."""

    @property
    def guarded(self) -> bool:
        """There are no keys."""
        return False

    async def authorise(self, bearer: str | None) -> Key | None:
        """Everyone may ask."""
        return _ANYONE

    async def reserve(
        self,
        key: Key,
        tokens: int | None,
        usd: float | None,
        request_id: str,
        idempotency_key: str | None = None,
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

    async def search(self, **terms: Any) -> Sequence[RequestRecord]:
        """Records whose fields equal the terms, newest first."""
        found = reversed(self.records.values())
        return [record for record in found if all(getattr(record, name) == value for name, value in terms.items())]
