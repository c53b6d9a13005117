"""SQLite's write-ahead log, switched on for a file that others may be opening too. Knows no table."""

from __future__ import annotations

import sqlite3
import time

_PAUSE = 0.01


def use_log(connection: sqlite3.Connection, patience: float) -> None:
    """Switch a file to WAL, which it stays in.

    Where several connections switch a new file at once, SQLite refuses some without waiting for its timeout.

    Args:
        patience: seconds to try it.

    Raises sqlite3.DatabaseError for what is no database, OperationalError where it stays locked.
    """
    ends = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
        time.sleep(_PAUSE)
