"""The tables, as numbered migrations that SQLite and PostgreSQL both read.

Knows: which tables there are and how an older database becomes a current one. SQLite takes the column
types of PostgreSQL by their affinity, so there is one text for both.
"""

from __future__ import annotations

from collections.abc import Sequence

from outthink.core.errors import BadInput
from outthink.serving.ledger.database import Database

_FIRST = (
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        terms TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        revoked DOUBLE PRECISION,
        last_used DOUBLE PRECISION
    )""",
    "CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked IS NULL",
    # What a key has spent and reserved in a day (2026-11-24) or a month (2026-11); money in billionths of a dollar.
    """CREATE TABLE periods (
        key_id TEXT NOT NULL,
        period TEXT NOT NULL,
        tokens BIGINT NOT NULL DEFAULT 0,
        nanousd BIGINT NOT NULL DEFAULT 0,
        reserved_tokens BIGINT NOT NULL DEFAULT 0,
        reserved_nanousd BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (key_id, period)
    )""",
    # A NULL bound: not known, and the key has no budget in that currency.
    """CREATE TABLE reservations (
        id TEXT PRIMARY KEY,
        key_id TEXT NOT NULL,
        owner TEXT NOT NULL,
        day TEXT NOT NULL,
        tokens BIGINT,
        nanousd BIGINT,
        created DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION NOT NULL
    )""",
    "CREATE INDEX reservations_by_expiry ON reservations (expires)",
    # `swept`: written for a lease that nobody settled; the true record may still come and takes its place.
    """CREATE TABLE requests (
        id TEXT PRIMARY KEY,
        key_id TEXT NOT NULL,
        model TEXT NOT NULL,
        strategy TEXT NOT NULL,
        stopped TEXT NOT NULL,
        started DOUBLE PRECISION NOT NULL,
        error TEXT,
        swept SMALLINT NOT NULL,
        record TEXT NOT NULL
    )""",
    "CREATE INDEX requests_by_time ON requests (started, id)",
    "CREATE INDEX requests_by_key ON requests (key_id, started, id)",
    """CREATE TABLE contents (
        id TEXT PRIMARY KEY,
        stored DOUBLE PRECISION NOT NULL,
        request TEXT,
        reply TEXT
    )""",
    "CREATE INDEX contents_by_time ON contents (stored)",
    # `status` is NULL while the request is being served.
    """CREATE TABLE idempotency (
        key_id TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        request_id TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        status SMALLINT,
        body BYTEA,
        PRIMARY KEY (key_id, name)
    )""",
    "CREATE INDEX idempotency_by_request ON idempotency (request_id)",
    "CREATE INDEX idempotency_by_time ON idempotency (created)",
    """CREATE TABLE spend (
        day TEXT NOT NULL,
        key_id TEXT NOT NULL,
        model TEXT NOT NULL,
        strategy TEXT NOT NULL,
        requests BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        seconds DOUBLE PRECISION NOT NULL,
        tokens BIGINT NOT NULL,
        nanousd BIGINT NOT NULL,
        joules DOUBLE PRECISION NOT NULL,
        unknown_tokens BIGINT NOT NULL,
        unknown_usd BIGINT NOT NULL,
        unknown_joules BIGINT NOT NULL,
        PRIMARY KEY (day, key_id, model, strategy)
    )""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Statements that lead from version n to n + 1. What has been released is never changed, only added to."""


def migrate(database: Database, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> int:
    """Bring a database up to date, all or nothing; returns the versions that were added.

    Raises BadInput where it was written by a newer program, which knows things about it that we do not.
    """
    database.begin(["schema"])
    try:
        database.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        rows = database.execute("SELECT version FROM schema_version").fetchall()
        found = int(rows[0][0]) if rows else 0
        if found > len(migrations):
            raise BadInput(
                "ledger",
                database.name,
                f"was written by a newer outthink (schema {found}; this one knows {len(migrations)})",
                "update outthink",
            )
        for statements in migrations[found:]:
            for statement in statements:
                database.execute(statement)
        if not rows:
            database.execute("INSERT INTO schema_version VALUES (?)", (len(migrations),))
        elif found < len(migrations):
            database.execute("UPDATE schema_version SET version = ?", (len(migrations),))
    except BaseException:
        database.rollback()
        raise
    database.commit()
    return len(migrations) - found
