"""The durable ledger: keys, budgets, receipts and spend in SQLite or PostgreSQL, by its URL.

Knows: URLs of ledgers, the usual place, which class serves which kind, and how what is in one is read by those who
serve nothing. Connects to nothing else.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from outthink.core.errors import BadInput
from outthink.core.paths import state_dir
from outthink.serving.ledger.database import ConnectionLost, Database, known_version
from outthink.serving.ledger.durable import DurableLedger
from outthink.serving.ledger.postgres import PostgresDatabase
from outthink.serving.ledger.queries import requests_of, search
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.ledger.writer import Rules
from outthink.serving.protocols import Ledger, LedgerDown, RequestRecord

__all__ = [
    "DurableLedger",
    "LedgerAddress",
    "Rules",
    "open_durable",
    "open_ledger",
    "read_requests",
    "usual_url",
]

T = TypeVar("T")
_VARIABLES = ("OUTTHINK_SERVE_LEDGER_URL", "OUTTHINK_SERVE_LEDGER")
_REMEDY = "use sqlite:///PATH, postgresql://USER@HOST/DATABASE or memory:"


def usual_url() -> str:
    """`$OUTTHINK_SERVE_LEDGER_URL` or `$OUTTHINK_SERVE_LEDGER`, else a SQLite file in the user's state folder."""
    named = next(filter(None, map(os.environ.get, _VARIABLES)), None)
    return named or f"sqlite:///{state_dir() / 'ledger.sqlite'}"


@dataclass(frozen=True, slots=True)
class LedgerAddress:
    """A URL that was understood.

    Args:
        name: for messages: without a password.
        spool: folder for records that wait for the database; each ledger has its own.
    """

    kind: Literal["sqlite", "postgresql", "memory"]
    url: str
    name: str
    spool: Path

    @property
    def identity(self) -> str:
        """The same for every way to write the address of one ledger."""
        if self.kind != "postgresql":
            return os.path.realpath(self.url) if self.kind == "sqlite" else self.url
        parts = urlsplit(self.name)
        return f"postgresql://{parts.hostname or ''}:{parts.port or 5432}{parts.path.rstrip('/')}"

    @classmethod
    def parse(cls, url: str) -> LedgerAddress:
        """Read a URL. Raises BadInput."""
        if url == "memory:":
            return cls("memory", url, url, Path())
        if url.startswith("sqlite:///"):
            try:
                path = Path(url.removeprefix("sqlite:///")).expanduser()
            except RuntimeError:
                raise BadInput("ledger", url, "names no user's folder", "write the whole path") from None
            if not path.name or url.endswith("/"):
                raise BadInput("ledger", url, "names no file", _REMEDY)
            path = Path(os.path.abspath(path))
            return cls("sqlite", str(path), f"sqlite:///{path}", path.with_name(path.name + ".spool"))
        if url.startswith(("postgresql://", "postgres://")):
            name = _without_password(url)
            number = hashlib.sha256(name.encode()).hexdigest()[:16]
            return cls("postgresql", url, name, state_dir() / "spool" / number)
        raise BadInput("ledger", url.partition(":")[0], "is no kind of ledger", _REMEDY)


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise BadInput("ledger", "postgresql", "has a URL that cannot be read", _REMEDY) from None
    user = f"{parts.username}@" if parts.username else ""
    return f"postgresql://{user}{host}{port}{parts.path}"


def open_ledger(url: str, rules: Rules | None = None, *, absent: str = "") -> Ledger:
    """The ledger of a URL: sqlite:///PATH, postgresql://... or memory:. Connects on `open`. Raises BadInput.

    Args:
        absent: what to do where there is no ledger yet, for the error then; left out, it is made.
    """
    if LedgerAddress.parse(url).kind == "memory":
        from outthink.serving.ledger.memory import MemoryLedger

        return MemoryLedger()
    return open_durable(url, rules, absent=absent)


def open_durable(
    url: str,
    rules: Rules | None = None,
    *,
    spool: Path | None = None,
    refresh: float = 1.0,
    clock: Callable[[], float] = time.time,
    absent: str = "",
) -> DurableLedger:
    """A ledger in a database; `absent` as in `open_ledger`."""
    address = LedgerAddress.parse(url)

    def connect() -> SqliteDatabase | PostgresDatabase:
        if address.kind == "sqlite":
            return SqliteDatabase(Path(address.url), absent=absent)
        return PostgresDatabase(address.url, address.name, absent=absent)

    return DurableLedger(connect, spool or address.spool, rules or Rules(), refresh=refresh, clock=clock)


_NO_LEDGER = "name the file or database of a proxy that has served, as in its [serve.ledger]"


def read_requests(url: str, since: float, until: float, take: Callable[[Iterator[RequestRecord]], T]) -> tuple[T, bool]:
    """What somebody takes of the requests that began in a span of time, and whether there is any before it.

    The ledger is looked at and in nothing changed; a proxy may use it meanwhile. Raises BadInput where it is none of
    this version, LedgerDown where it cannot be reached.

    Args:
        since, until: seconds since the epoch.
        take: is given the requests, newest first; perhaps twice, if a proxy begins meanwhile.
    """
    address = LedgerAddress.parse(url)

    def read(database: Database) -> tuple[T, bool]:
        try:
            if not known_version(database):
                raise BadInput("ledger", database.name, "holds no ledger", _NO_LEDGER)
            return take(requests_of(database, since, until)), bool(search(database, {"until": since, "limit": 1}))
        finally:
            database.close()

    if address.kind == "memory":
        raise BadInput("ledger", url, "is forgotten with its proxy", "name a file or a database")
    try:
        if address.kind == "postgresql":
            return read(PostgresDatabase(address.url, address.name, absent=_NO_LEDGER, read_only=True))
        path = Path(address.url)
        while True:
            unshared = SqliteDatabase.unshared(path)
            found = read(SqliteDatabase(path, absent=_NO_LEDGER, read_only=True))
            if not unshared or SqliteDatabase.unshared(path):
                return found
            # A proxy has begun to write, and what was read may be of two moments: once more, beside it.
    except ConnectionLost as error:
        raise LedgerDown("the ledger cannot be read", str(error)) from error
