"""`/v1/receipts/{id}`: what a request cost. Knows who may see it; others cannot tell that it exists."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from outthink.serving.failure import Failure
from outthink.serving.numbers import legal_id
from outthink.serving.protocols import Key, Ledger, RequestRecord

_HIDDEN = frozenset({"body", "content", "receipt", "key_id"})


async def forgotten(ledger: Ledger, number: str, key: Key) -> dict[str, Any]:
    """What a request sent and got is deleted, its receipt stays. Raises Failure 404 like `told`."""
    await told(ledger, number, key)
    return {"object": "receipt.content", "id": number, "deleted": await ledger.forget(number)}


async def told(ledger: Ledger, number: str, key: Key) -> dict[str, Any]:
    """A receipt. Raises Failure 404 for one that does not exist or belongs to another key."""
    record = await ledger.receipt(number) if legal_id(number) else None
    if record is None or (record.key_id != key.id and not key.admin):
        raise Failure(404, f"id: {number[:60]!r} is no receipt of this key", param="id", code="receipt_not_found")
    values = shown(record)
    if values["receipt"] is not None and not key.admin:
        values["receipt"] = {name: value for name, value in values["receipt"].items() if name != "shadow"}
    return values


def shown(record: RequestRecord) -> dict[str, Any]:
    """The record, and within it the full receipt where there is one."""
    values = {name: value for name, value in asdict(record).items() if name not in _HIDDEN}
    return {"object": "receipt", **values, "receipt": record.receipt}
