"""The seam between the ledger's rules and a database: one connection, used by one thread.

Knows: what both databases have in common. Statements are written with `?`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Gone(Exception):
    """The database cannot be used now: locked, full, stopped or out of reach.

    Nothing of the transaction stays, unless it was lost while it was being committed.

    Args:
        again: a second attempt at once may succeed (the connection was closed, two writers met).
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Result(Protocol):
    """Of one statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    def fetchall(self) -> list[Any]:
        """Rows that were found."""
        ...


class Database(Protocol):
    """A connection. Every method raises Gone; errors of the statement itself pass."""

    @property
    def name(self) -> str:
        """The address, without passwords."""
        ...

    def begin(self, locks: Sequence[str]) -> None:
        """Begin to write: nobody else writes under any of these names until the end of the transaction."""
        ...

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        ...

    def rollback(self) -> None:
        """Undo everything since `begin`; never raises."""
        ...

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Result:
        """Run a statement."""
        ...

    def close(self) -> None:
        """Disconnect; never raises."""
        ...


Connect = Callable[[], Database]
"""Opens a connection. Raises Gone, or BadInput where there never can be one."""


def insert(database: Database, head: str, rows: Sequence[Sequence[Any]], tail: str = "") -> int:
    """Insert many rows with few statements; returns how many were inserted.

    One statement for every row would take and leave the interpreter's lock for each of them, and stall
    the thread that serves requests. Powers of two keep the number of different statements small.
    """
    done, at, left = 0, 0, len(rows)
    while left:
        size = min(64, 1 << (left.bit_length() - 1))
        marks = "(" + ", ".join("?" * len(rows[0])) + ")"
        values = [value for row in rows[at : at + size] for value in row]
        done += database.execute(f"{head} VALUES {', '.join([marks] * size)} {tail}", values).rowcount
        at, left = at + size, left - size
    return done


def marks(values: Sequence[Any]) -> str:
    """`(?, ?, ?)` for a list of values."""
    return "(" + ", ".join("?" * len(values)) + ")"
