"""Keys in the database. Knows their table; does not know requests or secrets."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.request import Budget
from outthink.serving.keys import StoredKey, Terms, check_name
from outthink.serving.ledger.database import Database

_COLUMNS = "id, name, terms, created, revoked, last_used"
_BUDGETS = ("day", "month", "ceiling")


def add(database: Database, name: str, terms: Terms, digest: str, now: float) -> StoredKey:
    """Keep a new key. Raises BadInput where a key that is not revoked has the name."""
    key = StoredKey(id=f"key-{secrets.token_hex(6)}", name=check_name(name), terms=terms, created=now)
    database.begin(["keys"])
    if _named(database, name):
        database.rollback()
        raise BadInput("name", name, "belongs to another key", "choose another one, or revoke that key first")
    database.execute(
        "INSERT INTO keys (id, digest, name, terms, created) VALUES (?, ?, ?, ?, ?)",
        (key.id, digest, name, json.dumps(asdict(terms)), now),
    )
    database.commit()
    return key


def revoke(database: Database, name: str, now: float) -> StoredKey:
    """Revoke a key by its id or name. Raises BadInput where there is none, or it is revoked already."""
    database.begin(["keys"])
    found = _named(database, name)
    if not found:
        database.rollback()
        raise BadInput("key", name, "is no key that could be revoked", "see outthink keys list")
    database.execute("UPDATE keys SET revoked = ? WHERE id = ?", (now, found[0].id))
    database.commit()
    key = found[0]
    return StoredKey(
        id=key.id, name=key.name, terms=key.terms, created=key.created, revoked=now, last_used=key.last_used
    )


def _named(database: Database, name: str) -> list[StoredKey]:
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE revoked IS NULL AND (name = ? OR id = ?) ORDER BY id = ? DESC",  # noqa: S608
        (name, name, name),
    ).fetchall()
    return [_key(*row) for row in rows]


def stored(database: Database) -> dict[str, StoredKey]:
    """All keys by the digest of their secret, oldest first."""
    rows = database.execute(f"SELECT digest, {_COLUMNS} FROM keys ORDER BY created, id").fetchall()  # noqa: S608
    return {digest: _key(*row) for digest, *row in rows}


def changes(database: Database) -> tuple[int, int]:
    """Differs whenever keys do: they are only added, and revoked once."""
    ((keys, revoked),) = database.execute("SELECT COUNT(*), COUNT(revoked) FROM keys").fetchall()
    return int(keys), int(revoked)


def used(database: Database, key_id: str, now: float) -> None:
    """Note when a key was last used."""
    database.execute("UPDATE keys SET last_used = ? WHERE id = ?", (now, key_id))


def _key(
    number: str, name: str, terms: str, created: float, revoked: float | None, last_used: float | None
) -> StoredKey:
    return StoredKey(
        id=number, name=name, terms=_terms(json.loads(terms)), created=created, revoked=revoked, last_used=last_used
    )


def _terms(value: Mapping[str, Any]) -> Terms:
    budgets = {name: Budget(**value[name]) for name in _BUDGETS}
    return Terms(**{**value, **budgets, "models": tuple(value["models"])})
