"""The seam between the ledger's rules and a database: one connection, used by one thread.

Knows: what both databases have in common, the tables as numbered migrations, and how a record becomes a row. Statements
are written with `?`. Does not know what is reserved or counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Protocol

from outthink.core.errors import BadInput
from outthink.http.fields import JsonDict, decode, encode
from outthink.serving.protocols import RequestRecord

SqlValue = str | int | float | bytes | Sequence[int] | None


class ConnectionLost(Exception):
    """The database cannot be used now: locked, full, stopped or out of reach.

    Nothing of the transaction stays, unless it was lost while it was being committed.

    Args:
        again: a second attempt at once may succeed (the connection was closed, two writers met).
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class QueryResult(Protocol):
    """Of one statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""

    def fetchall(self) -> list[Any]:
        """Rows that were found."""


class Fetched:
    """A result that holds its rows: some databases look for each when it is asked for, which may hang or fail."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, result: QueryResult) -> None:
        self._rows = result.fetchall()
        self.rowcount = result.rowcount

    def fetchall(self) -> list[Any]:
        """Rows that were found."""
        return self._rows


class Database(Protocol):
    """A connection. Every method raises Gone; errors of the statement itself pass."""

    @property
    def name(self) -> str:
        """The address, without passwords."""

    def begin(self, locks: Sequence[str]) -> None:
        """Begin to write: nobody else writes under any of these names until the end of the transaction."""

    def commit(self) -> None:
        """Make everything since `begin` durable."""

    def rollback(self) -> None:
        """Undo everything since `begin`; never raises."""

    def execute(self, statement: str, values: Sequence[SqlValue] = ()) -> QueryResult:
        """Run a statement."""

    def erase(self) -> None:
        """Take what was deleted out of the files, too, as soon as nobody reads it any more; never waits for that."""

    def interrupt(self) -> None:
        """Break off what another thread waits for here, as far as that is possible; never waits, never raises."""

    def close(self) -> None:
        """Disconnect; never raises."""


Connect = Callable[[], Database]
"""Opens a connection. Raises ConnectionLost, or BadInput where there never can be one."""


def insert(database: Database, head: str, rows: Sequence[Sequence[SqlValue]], tail: str = "") -> int:
    """Insert many rows with few statements; returns how many were inserted.

    One statement for every row would take and leave the interpreter's lock for each of them, and stall
    the thread that serves requests. Powers of two keep the number of different statements small.
    """
    done, at, left = 0, 0, len(rows)
    while left:
        size = min(64, 1 << (left.bit_length() - 1))
        values = [value for row in rows[at : at + size] for value in row]
        done += database.execute(f"{head} VALUES {', '.join([marks(rows[0])] * size)} {tail}", values).rowcount
        at, left = at + size, left - size
    return done


def marks(values: Sequence[SqlValue]) -> str:
    """`(?, ?, ?)` for a list of values."""
    return "(" + ", ".join("?" * len(values)) + ")"


# SQLite takes the column types of PostgreSQL by their affinity, so there is one text for both.

_FIRST_VERSION = (
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

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST_VERSION,)
"""Statements that lead from version n to n + 1. What has been released is never changed, only added to."""


def migrate(database: Database, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> int:
    """Bring a database up to date, all or nothing; returns the versions that were added.

    Raises BadInput where it was written by a newer program, which knows things about it that we do not.
    """
    database.begin(["schema"])
    try:
        database.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        version = known_version(database, len(migrations))
        for statements in migrations[version:]:
            for statement in statements:
                database.execute(statement)
        if version < len(migrations):
            database.execute("DELETE FROM schema_version")
            database.execute("INSERT INTO schema_version VALUES (?)", (len(migrations),))
    except BaseException:
        database.rollback()
        raise
    database.commit()
    return len(migrations) - version


def known_version(database: Database, newest: int = len(MIGRATIONS)) -> int:
    """The version of a database's tables, 0 for one that has none yet. Raises BadInput for one that we do not know."""
    rows = database.execute("SELECT version FROM schema_version").fetchall()
    version = rows[0][0] if rows else 0
    if not isinstance(version, int):  # others call their tables so, too
        raise BadInput("ledger", database.name, "is another program's (schema_version)", "give another one")
    if version > newest:
        problem = f"was written by a newer outthink (schema {version}; this one knows {newest})"
        raise BadInput("ledger", database.name, problem, "update outthink")
    return version


_BYTES = ("body", "content")
_NAMES = tuple(field.name for field in fields(RequestRecord) if field.name not in _BYTES)
_KNOWN = frozenset(_NAMES)
_values = attrgetter(*_NAMES)
_LONGEST_TEXT = 2000
"""Characters of a name or an error in the columns that are searched; the JSON has them whole."""


def clean(text: str) -> str:
    """Text that any database takes: no NUL, no half of a surrogate pair."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def packed(record: RequestRecord) -> bytes:
    """A record as JSON, without the bytes of body and content."""
    return encode(dict(zip(_NAMES, _values(record), strict=True)))


def unpacked(value: JsonDict) -> RequestRecord:
    """A record from its decoded JSON. Fields of other versions are left out."""
    return RequestRecord(**{name: item for name, item in value.items() if name in _KNOWN})


def loaded(text: str | bytes) -> Any:
    """A value from JSON of ours, which may hold what clients sent: halves of pairs, numbers beyond 64 bits."""
    try:
        return decode(text if isinstance(text, bytes) else text.encode())
    except ValueError:
        return json.loads(text)


def read(record: str | bytes) -> RequestRecord:
    """A record from its JSON."""
    return unpacked(loaded(record))


def row(record: RequestRecord, swept: int = 0) -> Sequence[SqlValue]:
    """The columns of `requests`, in their order."""
    return (
        record.id,
        record.key_id,
        clean(record.model[:_LONGEST_TEXT]),
        clean(record.strategy[:_LONGEST_TEXT]),
        clean(record.stopped[:_LONGEST_TEXT]),
        record.started,
        None if record.error is None else clean(record.error[:_LONGEST_TEXT]),
        swept,
        packed(record).decode(),
    )


def text_of(content: bytes | None) -> str | None:
    """Stored content; bytes that are no UTF-8 are replaced."""
    return None if content is None else content.decode("utf-8", "replace").replace("\x00", "\ufffd")
