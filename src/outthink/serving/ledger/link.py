"""The writer's connection: opened when it is needed, opened again when it was lost.

Knows: when another attempt is worth it. While the database is gone only `probe` tries it, so that no
request waits for a connection that does not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from outthink.core.errors import BadInput
from outthink.serving.ledger.database import Connect, Database, Gone
from outthink.serving.ledger.offline import Offline

T = TypeVar("T")
_FIRST, _LONGEST = 0.5, 10.0
"""Seconds between attempts to reach a database that is gone."""


class Link:
    """One connection; not for several threads at once."""

    def __init__(self, connect: Connect, offline: Offline) -> None:
        self._connect, self._offline = connect, offline
        self._database: Database | None = None
        self._pause = _FIRST
        self.retry_at = 0.0
        """When to probe again, by the monotonic clock."""

    @property
    def up(self) -> bool:
        """Whether the database worked the last time."""
        return self._offline.problem is None

    def do(self, work: Callable[[Database], T]) -> T:
        """Do some work. Raises Gone, at once where the database is known to be gone; else what the work raises."""
        if (problem := self._offline.problem) is not None:
            raise Gone(problem)
        return self.probe(work)

    def probe(self, work: Callable[[Database], T]) -> T:
        """Do some work even if the database was gone the last time."""
        for last in (False, True):
            try:
                if self._database is None:
                    self._database = self._opened()
                result = work(self._database)
            except Gone as error:
                self.close()
                if error.again and not last:
                    continue
                self.retry_at = time.monotonic() + self._pause
                self._pause = min(self._pause * 2, _LONGEST)
                self._offline.begin(str(error))
                raise
            except BaseException:
                if self._database is not None:
                    self._database.rollback()
                raise
            self._pause = _FIRST
            return result
        raise AssertionError

    def _opened(self) -> Database:
        try:
            return self._connect()
        except BadInput as error:
            if not self._offline.opened:
                raise
            raise Gone(str(error)) from error  # it was a ledger before: damaged or replaced, and perhaps mended

    def close(self) -> None:
        """Disconnect."""
        if self._database is not None:
            self._database.rollback()
            self._database.close()
            self._database = None
