"""The ledger in a SQLite file. Knows SQLite's settings and errors; does not know what is kept.

WAL with synchronous=NORMAL: what is committed survives a kill -9 of every process. A power loss may take
the transactions since the last checkpoint, but leaves the file whole.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from outthink.core.errors import BadInput
from outthink.core.paths import private_file, private_folder
from outthink.serving.ledger.database import ConnectionLost, Fetched, QueryResult, SqlValue
from outthink.session.store import use_log

# Moves SQLite's write-ahead log into its file, beside the thread that writes.
# Knows: the log and the disk's pace. By itself SQLite does this within some commit, which then waits for the
# disk, and every request in it. Here a thread does the bulk of it every few seconds, and the writer only what
# was written meanwhile: that empties the log, so that it does not grow under steady load.

FALLBACK = 16_384
"""Pages (64 MB) of log at which a commit does it all the same."""
_EVERY = 5.0
_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"
"""Waits for nobody: pages that a reader still needs stay for the next time."""
_EMPTY = "PRAGMA wal_checkpoint(TRUNCATE)"
"""Leaves nothing in the log, so that what was deleted is gone; refused while somebody reads."""
_SHORT = 8 << 20
"""Bytes of a log that is emptied while somebody waits for the writer."""
_AGAIN = 0.5
"""Seconds between two attempts to empty the log."""


class Checkpoints:
    """Of one writer's connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = time.monotonic() + _EVERY
        self._moved = False
        self._ended = False
        self._emptying, self._begun = True, False
        self._due = -math.inf  # when the log may be emptied again: whoever writes meanwhile waits for the disk
        self._requested = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, connection: sqlite3.Connection, patience: float) -> None:
        """The writer begins. An earlier one may have been lost before the log was empty, and nobody waits yet."""
        if self._begun:
            return
        self._begun = True
        if os.stat(f"{self._path}-wal").st_size <= _SHORT:
            connection.execute("PRAGMA busy_timeout=0")  # unless another process writes or reads
            self._emptying = not _emptied(connection)
            connection.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")

    def committed(self, connection: sqlite3.Connection) -> None:
        """The writer has committed."""
        if self._moved:
            self._moved, self._next = False, time.monotonic() + _EVERY
            connection.execute(_MOVE)
        elif time.monotonic() >= self._next:
            self._next = math.inf
            self._request()

    def empty(self) -> None:
        """Move the log, and leave nothing in it: at once, or soon if that was just done."""
        self._emptying = True
        self._request()

    def _request(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outthink-ledger-checkpoint", daemon=True)
            self._thread.start()
        self._requested.set()

    def _run(self) -> None:
        # Without patience: whoever waits to empty the log keeps the writer waiting, too.
        connection = sqlite3.connect(self._path, 0.0, isolation_level=None)
        try:
            while True:
                requested = self._requested.wait(_AGAIN if self._emptying else None)
                self._requested.clear()
                if self._ended:
                    return
                due = self._emptying and time.monotonic() >= self._due
                if not (requested or due):
                    continue
                with suppress(sqlite3.Error):  # the writer meets the same and says so
                    connection.execute(_MOVE)
                if due:
                    self._emptying = False  # before the attempt: what is deleted meanwhile asks for another
                    if _emptied(connection):
                        self._due = time.monotonic() + _EVERY
                    else:
                        self._emptying = True
                self._moved = True
        finally:
            connection.close()

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._requested.set()
        if self._thread is not None:
            self._thread.join()


def _emptied(connection: sqlite3.Connection) -> bool:
    try:
        ((busy, _, _),) = connection.execute(_EMPTY).fetchall()
    except sqlite3.Error:
        return False
    return not busy


_SCHEMA = "SELECT 1 FROM sqlite_master WHERE name = 'reservations'"
_LOOK = 0.2  # seconds between two looks at whose file it is: each lets go of the interpreter's lock
_STATEMENTS = 256  # whose compiled form is kept


class SqliteDatabase:
    """One connection to a file that any number of processes share.

    Args:
        patience: seconds to wait for another writer.
        absent: what to do where there is no ledger; left out, the file is made.
        read_only: nothing is written, neither in the file nor beside it; with `absent`.
    """

    def __init__(self, path: Path, *, patience: float = 1.5, absent: str = "", read_only: bool = False) -> None:
        self.name, self._path, self._look_at = f"sqlite:///{path}", str(path), 0.0
        self._patience = patience
        self._checkpoints = Checkpoints(path)
        if absent and not path.exists():
            raise BadInput("ledger", self.name, "does not exist", absent)
        if path.exists() and not path.is_file():
            raise BadInput("ledger", self.name, "is no file", "give another one")
        try:
            if not absent:
                private_file(private_folder(path.parent) / path.name)
            uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw' if absent else 'rwc'}"
            if self.unshared(path) and read_only:
                uri += "&immutable=1"  # else SQLite would make a log beside the file
            self._connection = sqlite3.connect(
                uri, patience, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS, uri=True
            )
        except (OSError, sqlite3.OperationalError) as error:
            raise ConnectionLost(f"{self.name}: {error}") from error
        try:
            # Before anything is changed: the file may be another program's.
            if absent and not self._connection.execute(_SCHEMA).fetchall():
                self._connection.close()
                raise BadInput("ledger", self.name, "holds no ledger", absent)
            if not read_only:
                use_log(self._connection, patience)
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten with zeros
                self._connection.execute(f"PRAGMA wal_autocheckpoint={FALLBACK}")
            self._file = os.stat(path)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise ConnectionLost(f"{self.name}: {error}") from error
            raise BadInput("ledger", self.name, f"is no ledger ({error})", "give another file") from None

    @staticmethod
    def unshared(path: Path) -> bool:
        """Whether no log lies beside a file, so that nobody has it open to write."""
        return not path.with_name(f"{path.name}-wal").exists()

    def begin(self, locks: Sequence[str]) -> None:
        """Begin to write; SQLite has one writer at a time, whatever the names."""
        with suppress(sqlite3.Error, OSError):  # there is no log yet, or the next statement meets the same
            self._checkpoints.begin(self._connection, self._patience)
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        self.execute("COMMIT")
        with suppress(sqlite3.Error):  # what was committed is safe in the log
            self._checkpoints.committed(self._connection)

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        with suppress(sqlite3.Error):  # it was undone by the error itself
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def execute(self, statement: str, values: Sequence[SqlValue] = ()) -> QueryResult:
        """Run a statement."""
        try:
            if not self._connection.in_transaction and time.monotonic() >= self._look_at:
                self._check_place()
            return Fetched(self._connection.execute(statement, values))
        except (sqlite3.OperationalError, sqlite3.InternalError) as error:
            raise ConnectionLost(f"{self.name}: {error}") from error
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:  # the file is damaged
                raise ConnectionLost(f"{self.name}: {error}") from error
            raise

    def _check_place(self) -> None:
        """Refuse to go on with a file that was removed or replaced: what it is told would be lost with it."""
        self._look_at = time.monotonic() + _LOOK
        with suppress(OSError):  # as below
            if os.path.samestat(os.stat(self._path), self._file):
                return
        raise ConnectionLost(f"{self.name} was removed or replaced", again=True)

    def erase(self) -> None:
        """Take what was deleted out of the log, too, as soon as nobody reads it any more."""
        self._checkpoints.empty()

    def interrupt(self) -> None:
        """Break off what another thread waits for."""
        with suppress(sqlite3.Error):  # it is closed already
            self._connection.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._checkpoints.close()
        with suppress(sqlite3.Error):  # what was committed is in the file, and the rest was to be undone
            self._connection.close()
