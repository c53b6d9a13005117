"""What the ledger does unasked: leases, records that wait on local disk, old rows.

Knows: how often. Runs in the writer's thread, between batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outthink.serving.ledger.database import Database, Gone
from outthink.serving.ledger.link import Link
from outthink.serving.ledger.offline import Offline
from outthink.serving.ledger.reserving import Wanted, release
from outthink.serving.ledger.schema import migrate
from outthink.serving.ledger.settling import Settlement, settle
from outthink.serving.ledger.sweeping import prune, renew, sweep, tidy

_log = logging.getLogger("outthink.serving.ledger")
_HOUR, _DAY = 3600.0, 86_400.0
_OFTEN = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the ledger is kept; times in seconds.

    Args:
        lease: a reservation that has not been renewed for so long is charged.
        logs_content: whether requests and replies are stored.
        keep: age at which requests are deleted, None for never; their sums by day stay.
        keep_content: age at which stored requests and replies are deleted.
    """

    lease: float = 60.0
    logs_content: bool = False
    keep: float | None = None
    keep_content: float | None = 30 * _DAY


class Upkeep:
    """Of one process.

    Args:
        owner: names the process in leases.
        clock: seconds since the epoch.
    """

    def __init__(self, link: Link, offline: Offline, owner: str, rules: Rules, clock: Callable[[], float]) -> None:
        self._link, self._offline, self._owner, self._rules, self._clock = link, offline, owner, rules, clock
        self._next = self._tidied = 0.0
        self.unclear: list[Wanted] = []
        """Reservations that nobody uses, and that may have been written."""

    @property
    def due(self) -> float:
        """Seconds until `run` is to be called."""
        return max(0.0, (self._next if self._link.up else self._link.retry_at) - time.monotonic())

    def run(self) -> None:
        """Do what is due; never raises."""
        self._next = time.monotonic() + min(self._rules.lease / 4, _OFTEN)
        try:
            self._link.probe(self._round)
        except Gone:
            pass  # it is known, and tried again
        except Exception:  # noqa: BLE001 - the thread must live on
            _log.exception("the ledger's upkeep failed; it is tried again")
            self._offline.end()

    def _round(self, database: Database) -> None:
        now = self._clock()
        renew(database, self._owner, now, self._rules.lease)
        while self.unclear:
            release(database, self.unclear[-1])
            self.unclear.pop()
        if self._offline.waiting:
            self.load(database)
        self._offline.end()
        while sweep(database, now):
            pass
        if now - self._tidied >= _HOUR:
            self._tidied = now
            tidy(database, now)
            if self._rules.keep_content is not None:
                prune(database, now - self._rules.keep_content, content_only=True)
            if self._rules.keep is not None:
                prune(database, now - self._rules.keep)

    def prepare(self, database: Database) -> None:
        """Migrate, take over what ended processes left, and charge what they reserved."""
        migrate(database)
        self._offline.opened = True
        self.load(database)
        while sweep(database, self._clock()):
            pass

    def load(self, database: Database) -> None:
        """Settle what waits on local disk."""
        if count := self._offline.load(lambda some: self._settle(database, some)):
            _log.warning("%d records that waited for the ledger's database are now in it", count)

    def _settle(self, database: Database, settlements: Sequence[Settlement]) -> None:
        """Settle all, or each that can be: a record that no database takes must not hold up the others."""
        try:
            database.begin(sorted({one.record.key_id for one in settlements}))
            settle(database, settlements, self._clock(), logs_content=self._rules.logs_content)
            database.commit()
        except Gone:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the others go on
            database.rollback()
            if len(settlements) == 1:
                _log.exception("a record cannot be written: %s", settlements[0].record)
                return
            for one in settlements:
                self._settle(database, [one])
