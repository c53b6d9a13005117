"""What happens while the database is gone: records go to local disk, requests of limited keys are refused.

Knows: nothing that was served is forgotten while there is any place for it. Used by the writer's thread alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from outthink.serving.ledger.reserving import Wanted
from outthink.serving.ledger.settling import Settlement
from outthink.serving.ledger.spool import Spool
from outthink.serving.protocols import LedgerDown, Reservation

_log = logging.getLogger("outthink.serving.ledger")
_MOST = 100_000
"""Records kept in memory where the local disk is full as well."""
_PIECE = 500


class Offline:
    """Where records wait for the database."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._memory: list[Settlement] = []
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
        return bool(self._memory) or self._spool.waiting

    def keep(self, settlements: Sequence[Settlement]) -> None:
        """Keep records for later; never raises."""
        try:
            for some in (settlements, self._memory):
                if some:
                    self._spool.append(some)
            self._memory, self._full = [], None
        except OSError as error:
            if self._full is None:
                _log.error("records cannot be kept on local disk either, only in memory: %s", error)
            self._full = str(error)
            self._memory += settlements
            if (lost := len(self._memory) - _MOST) > 0:
                del self._memory[:lost]
                self.dropped += lost
                _log.error("memory is full too: %d records are lost, %d in all", lost, self.dropped)

    def refuse(self, wanted: Wanted) -> Reservation | LedgerDown:
        """What a request gets that asks for a reservation now."""
        if wanted.terms is not None:
            return LedgerDown("the ledger's database cannot be used now, and this key has a budget; try again")
        return Reservation(
            wanted.request_id, wanted.key_id, wanted.tokens, wanted.usd, held=True, idempotency=wanted.idempotency
        )

    def load(self, settle: Callable[[Sequence[Settlement]], None]) -> int:
        """Settle everything that waits, orphans of ended processes included; returns how many records.

        Raises what `settle` raises, and then everything waits on.
        """
        count = len(self._memory)
        for at in range(0, count, _PIECE):
            settle(self._memory[at : at + _PIECE])
        self._memory = []
        for settlements, file in self._spool.load():
            for at in range(0, len(settlements), _PIECE):
                settle(settlements[at : at + _PIECE])
            self._spool.done(file)
            count += len(settlements)
        return count

    def close(self) -> None:
        """The process ends: what is in memory goes to disk if it can."""
        if self._memory:
            self.keep(())
        if self._memory:
            _log.error("%d records are lost: neither the database nor the local disk takes them", len(self._memory))
        self._spool.close()
