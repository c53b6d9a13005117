"""What happens while the database is gone or hangs: records go to local disk, requests of limited keys are refused.

Knows: that nothing that was served is forgotten while there is any place for it, when the database is tried again, and
that every use of a connection has a deadline on our side. Does not know what a settlement does in the database.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

from outthink.core.errors import BadInput
from outthink.core.paths import private_file, private_folder
from outthink.serving.ledger.database import Connect, ConnectionLost, Database, QueryResult, SqlValue
from outthink.serving.ledger.reservations import ReservationRequest, Settlement, line_of, settlement_of
from outthink.serving.protocols import LedgerDown, Reservation

try:
    import fcntl
except ImportError:  # Windows does not delete files that are open, so nobody takes a living process's away
    fcntl = None  # type: ignore[assignment]


_log = logging.getLogger("outthink.serving.ledger")
_PIECE = 500


class Spool:
    """Settlements on local disk: the file of one process, and those that ended processes left in the same folder.

    A file of JSON lines is appended to and forced to disk with every batch. Loading a line twice does no harm, because
    each request is settled once; a line is only lost with its disk.

    Args:
        owner: names the process.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder, self._path = folder, folder / f"{owner}.jsonl"
        self._file: IO[bytes] | None = None
        self._appending = False

    @property
    def waiting(self) -> bool:
        """Whether this process has lines there."""
        return self._file is not None

    def append(self, settlements: Sequence[Settlement]) -> None:
        """Keep settlements; they are on disk when this returns. Raises OSError, and then keeps none of them."""
        if self._appending:  # by a thread that was given up: it may end that some day
            raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
        text = b"".join(map(line_of, settlements))
        self._appending = True
        try:
            file = self._file or self._opened()
            before = file.tell()
            try:
                file.write(text)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                file.seek(before)
                raise
        finally:
            self._appending = False

    def _opened(self) -> IO[bytes]:
        self._file = file = claimed(self._path)
        file.seek(0, os.SEEK_END)
        return file

    def pieces(self) -> Iterator[list[Settlement]]:
        """What is in our file and in those of ended processes; each file is deleted after its last piece."""
        if self._file is not None:
            yield from _pieces(self._path)
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        for file in left_behind(self._folder, "*.jsonl", self._path):
            yield from _pieces(Path(file.name))
            Path(file.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def claimed(path: Path) -> IO[bytes]:
    """A file that belongs to this process while it lives, made with its folder if it is not there. Raises OSError."""
    private_folder(path.parent)
    while True:
        private_file(path)
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # as below
            continue
        if _lock(file) and _there(path, file):
            return file
        file.close()  # it was empty, and a process that looked for orphans had just taken it


def left_behind(folder: Path, pattern: str, own: Path | None = None) -> Iterator[IO[bytes]]:
    """Files of a folder that belong to no living process; each is ours until the next one is asked for."""
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else ():
        if path == own:
            continue
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:
            continue  # another process was faster
        with file:
            if _lock(file):
                yield file


def _lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _there(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _pieces(path: Path) -> Iterator[list[Settlement]]:
    """What a file holds; where some of it cannot be read, the file stays under another name."""
    piece: list[Settlement] = []
    unread = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):  # it was being written when its process ended
                break
            try:
                piece.append(settlement_of(line))
            except (ValueError, TypeError, LookupError, AttributeError):  # damaged, or another version's
                unread += 1
            if len(piece) >= _PIECE:
                yield piece
                piece = []
    if piece:
        yield piece
    if unread:
        kept = path.replace(path.with_name(f"{path.name}.damaged"))
        _log.error("%d records cannot be read, so the ledger lacks them; their file is kept: %s", unread, kept)


_MOST = 100_000
"""Records kept in memory where the local disk is full as well."""


class Offline:
    """Where records wait for the database."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._memory: list[Settlement] = []
        self._loading: Iterator[list[Settlement]] | None = None
        self._reason: str | None = None
        self._full: str | None = None
        self.dropped = 0
        self.opened = False
        """The database has been there once; until then its absence is the opener's error and no outage."""

    @property
    def problem(self) -> str | None:
        """Why records wait, None while the database works."""
        return self._reason if self._full is None else f"{self._reason}; local disk: {self._full}"

    def begin(self, reason: str) -> None:
        """The database has gone."""
        if self._reason is None and self.opened:
            _log.error("the ledger's database cannot be used, records are kept on local disk: %s", reason)
        self._reason = reason

    def end(self) -> None:
        """The database is back."""
        if self._reason is not None:
            _log.warning("the ledger's database is back")
        self._reason = self._full = None

    @property
    def waiting(self) -> bool:
        """Whether this process has records that are not in the database."""
        return bool(self._memory) or self._spool.waiting or self._loading is not None

    def keep(self, settlements: Sequence[Settlement]) -> bool:
        """Keep records for later; whether they are on local disk, and not only in memory. Never raises."""
        try:
            for waiting in (settlements, self._memory):
                if waiting:
                    self._spool.append(waiting)
            self._memory, self._full = [], None
            return True
        except OSError as error:
            if self._full is None:
                _log.error("records cannot be kept on local disk either, only in memory: %s", error)
            self._full = str(error)
            self._memory += settlements
            if (lost := len(self._memory) - _MOST) > 0:
                del self._memory[:lost]
                self.dropped += lost
                _log.error("memory is full too: %d records are lost, %d in all", lost, self.dropped)
            return False

    def refuse(self, request: ReservationRequest) -> Reservation | LedgerDown:
        """What a request gets that asks for a reservation now."""
        if request.terms is not None:
            return LedgerDown("the ledger's database cannot be used now, and this key has a budget; try again")
        return request.granted

    def load(self, settle: Callable[[Sequence[Settlement]], None], deadline: Deadline, ends: float = math.inf) -> int:
        """Settle what waits, of ended processes as well, until a moment (monotonic); returns how many records.

        Raises what `settle` raises, and then everything waits on.
        """
        count = 0
        while self._memory and (not count or time.monotonic() < ends):
            piece = self._memory[:_PIECE]
            settle(piece)
            del self._memory[: len(piece)]
            count += len(piece)
        pieces, self._loading = self._loading or self._spool.pieces(), None
        while not count or time.monotonic() < ends:
            with deadline:
                piece = next(pieces, [])
            if not piece:
                return count
            settle(piece)
            count += len(piece)
        self._loading = pieces
        return count

    @property
    def lost(self) -> Sequence[str]:
        """Ids of requests whose records are in memory alone."""
        return list(dict.fromkeys(settlement.record.id for settlement in self._memory))

    def close(self) -> None:
        """The process ends: what is in memory goes to disk if it can."""
        if self._memory:
            self.keep(())
        self._spool.close()


# A thread that hangs cannot be ended, so it is left behind: whatever it meets next ends it, and it changes nothing.

PATIENCE = 2.0
"""Seconds that a database has for one statement."""


class Abandoned(BaseException):
    """The thread that meets this was given up, and others do its work: it has nothing to do but to end."""


class Deadline:
    """Around every use of one connection by one thread: `with deadline: ...`."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self.seconds = seconds
        self.database: Database | None = None
        self._since: float | None = None
        self._abandoned = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._abandoned:
                raise Abandoned
            self._since = time.monotonic()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._since = None
            if self._abandoned:
                raise Abandoned

    def give_up(self, seconds: float | None = None) -> bool:
        """Whether the thread has waited for too long; it is given up then, and what it waits for broken off."""
        most = self.seconds if seconds is None else seconds
        with self._lock:
            if self._abandoned or self._since is None or time.monotonic() - self._since < most:
                return False
            self._abandoned = True
        if self.database is not None:
            self.database.interrupt()
        return True

    def close(self) -> None:
        """Disconnect what an abandoned thread has left."""
        if self.database is not None:
            self.database.close()


class Watched:
    """A connection whose every use has a deadline."""

    def __init__(self, connect: Connect, deadline: Deadline) -> None:
        self._deadline = deadline
        with deadline:
            self._database = deadline.database = connect()
        self.name = self._database.name

    def begin(self, locks: Sequence[str]) -> None:
        """Begin to write."""
        with self._deadline:
            self._database.begin(locks)

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        with self._deadline:
            self._database.commit()

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        with self._deadline:
            self._database.rollback()

    def execute(self, statement: str, values: Sequence[SqlValue] = ()) -> QueryResult:
        """Run a statement."""
        with self._deadline:
            return self._database.execute(statement, values)

    def erase(self) -> None:
        """Take what was deleted out of the database's log, too."""
        with self._deadline:
            self._database.erase()

    def interrupt(self) -> None:
        """Break off what another thread waits for."""
        self._database.interrupt()

    def close(self) -> None:
        """Disconnect."""
        with self._deadline:
            self._database.close()


T = TypeVar("T")


class LedgerConnection:
    """A connection that is opened when it is needed, and opened again when it was lost. Every use has a deadline."""

    def __init__(self, connect: Connect, seconds: float = PATIENCE) -> None:
        self._connect = connect
        self.deadline = Deadline(seconds)
        self._database: Watched | None = None

    def use(self, work: Callable[[Database], T]) -> T:
        """Do some work, once more where that may succeed at once. Raises ConnectionLost, or what the work raises."""
        for last in (False, True):
            try:
                if self._database is None:
                    self._database = self._opened()
                return work(self._database)
            except ConnectionLost as error:
                self.close()
                if last or not error.again:
                    raise
            except BaseException:
                if self._database is not None:
                    self._database.rollback()
                raise
        raise AssertionError

    def _opened(self) -> Watched:
        try:
            return Watched(self._connect, self.deadline)
        except BadInput as error:  # it was a ledger before: damaged or replaced, and perhaps mended
            raise ConnectionLost(str(error)) from error

    def close(self) -> None:
        """Disconnect; what is not committed is undone."""
        if self._database is not None:
            self._database.rollback()
            self._database.close()
            self._database = None


class Link(LedgerConnection):
    """The writer's connection.

    While the database is gone only `probe` uses it, so that no request waits for a connection that does not come.
    """

    def __init__(self, connect: Connect, offline: Offline) -> None:
        super().__init__(connect)
        self._offline = offline

    def successor(self) -> Link:
        """The link of the thread that takes over from one that was given up."""
        self._offline.begin("it does not answer")
        return Link(self._connect, self._offline)

    def do(self, work: Callable[[Database], T]) -> T:
        """Do some work. Raises ConnectionLost (at once where that is known already), or what the work raises."""
        if (problem := self._offline.problem) is not None:
            raise ConnectionLost(problem)
        return self.probe(work)

    def probe(self, work: Callable[[Database], T]) -> T:
        """Do some work even if the database was gone the last time."""
        try:
            return self.use(work)
        except ConnectionLost as error:
            self._offline.begin(str(error))
            raise

    def _opened(self) -> Watched:
        return super()._opened() if self._offline.opened else Watched(self._connect, self.deadline)
