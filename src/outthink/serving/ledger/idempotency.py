"""`Idempotency-Key`: a request that a client repeats is answered once and paid for once.

Knows: what is kept for how long. A reply is repeated only where it was an answer: after a failure the
next attempt is served anew. Names are kept hashed: clients choose them, of any length.
"""

from __future__ import annotations

import hashlib

from outthink.serving.ledger.database import Database
from outthink.serving.protocols import Idempotency, Repeated, RequestRecord, Reservation

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
