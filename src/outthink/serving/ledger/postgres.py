"""The ledger in PostgreSQL. Knows psycopg and PostgreSQL's locks; does not know what is kept."""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.serving.ledger.database import ConnectionLost, QueryResult, SqlValue

if TYPE_CHECKING:
    import psycopg

_LOCKS = 0x6F740000_00000000
"""Our advisory locks begin here, so that they meet no others'."""
_OPTIONS = "-c statement_timeout=10s -c lock_timeout=1500ms -c idle_in_transaction_session_timeout=10s"
_WAIT = 2
"""Seconds to connect."""


class PostgresDatabase:
    """One connection. A server that hangs is noticed within seconds; a writer that hangs is disconnected by it.

    Args:
        absent: what to do where the database holds no ledger; left out, its tables are made.
        read_only: the server refuses to change anything.
    """

    def __init__(self, url: str, name: str, *, absent: str = "", read_only: bool = False) -> None:
        need_extra("postgres", "ledger", name)
        import psycopg

        self.name, self._errors = name, psycopg
        self._texts: dict[str, str] = {}
        try:
            given = psycopg.conninfo.conninfo_to_dict(url).get("options") or ""
            self._connection: psycopg.Connection[Any] = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=_WAIT,
                tcp_user_timeout=5000,
                keepalives_idle=5,
                options=f"{_OPTIONS} {'-c default_transaction_read_only=on' if read_only else ''} {given}",
                application_name="outthink",
                client_encoding="UTF8",
            )
        except psycopg.OperationalError as error:
            raise ConnectionLost(f"{name}: {_line(error)}") from error
        except psycopg.Error as error:
            raise BadInput("ledger", name, f"cannot be used ({_line(error)})", "correct the URL") from None
        if absent and self.execute("SELECT to_regclass('reservations')").fetchall() == [(None,)]:
            self._connection.close()
            raise BadInput("ledger", name, "holds no ledger", absent)

    def begin(self, locks: Sequence[str]) -> None:
        """Begin to write: replicas that write for the same keys take turns, in one order, so none blocks for good."""
        self.execute("BEGIN")
        numbers = sorted({_LOCKS + zlib.crc32(name.encode()) for name in locks})
        if numbers:
            self.execute("SELECT pg_advisory_xact_lock(n) FROM unnest(CAST(? AS BIGINT[])) AS n", (numbers,))

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        with suppress(self._errors.Error):  # the server undoes it when the connection ends
            self._connection.execute("ROLLBACK")

    def execute(self, statement: str, values: Sequence[SqlValue] = ()) -> QueryResult:
        """Run a statement."""
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = statement.replace("?", "%s")
        try:
            result: QueryResult = self._connection.execute(text, values or None)
        except (self._errors.OperationalError, self._errors.InternalError, self._errors.InterfaceError) as error:
            met = isinstance(error, (self._errors.errors.DeadlockDetected, self._errors.errors.SerializationFailure))
            raise ConnectionLost(f"{self.name}: {_line(error)}", again=met or self._connection.closed) from error
        except self._errors.ProgrammingError as error:
            if error.sqlstate is None:
                raise
            # The server lacks a table or a right: dropped, restored or replaced, and perhaps mended.
            raise ConnectionLost(f"{self.name}: {_line(error)}") from error
        return result

    def erase(self) -> None:
        """Nothing to do: the server's vacuum and its log's rotation are its operator's."""

    def interrupt(self) -> None:
        """Break off what another thread waits for: nothing more comes over this connection."""
        with suppress(OSError, self._errors.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect."""
        # Nothing is left to save: what was committed is durable, and the server undoes the rest.
        with suppress(self._errors.Error):
            self._connection.close()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
