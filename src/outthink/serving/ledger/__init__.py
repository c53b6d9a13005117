"""The durable ledger: keys, budgets, receipts and spend in SQLite or PostgreSQL, by its URL.

Knows: URLs of ledgers, the usual place, and which class serves which kind. Connects to nothing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from outthink.core.errors import BadInput
from outthink.core.paths import state_dir
from outthink.serving.ledger.durable import DurableLedger
from outthink.serving.ledger.postgres import PostgresDatabase
from outthink.serving.ledger.sqlite import SqliteDatabase
from outthink.serving.ledger.writer import Rules
from outthink.serving.protocols import Ledger

__all__ = ["DurableLedger", "LedgerAddress", "Rules", "open_durable", "open_ledger", "usual_url"]

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
