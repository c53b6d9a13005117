"""One thread that writes: everything that waits is committed together.

Knows: batches, and what becomes of them when the database is gone. Does not know what is written: the
rules are functions of a database.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from outthink.serving.ledger.database import Database, Gone
from outthink.serving.ledger.key_table import used
from outthink.serving.ledger.link import Link
from outthink.serving.ledger.offline import Offline
from outthink.serving.ledger.reserving import Wanted, reserve
from outthink.serving.ledger.settling import Settlement, settle
from outthink.serving.ledger.upkeep import Rules, Upkeep
from outthink.serving.protocols import LedgerDown, OverBudget, Repeated

_BATCH = 512
_USED = 60.0
"""Seconds between notes of when a key was last used."""

Work = Callable[[Database], Any]
Future = asyncio.Future[Any]
Job = tuple[Settlement | Wanted | Work, Future | None]


class Writer:
    """The thread.

    Args:
        owner: names this process in leases.
        clock: seconds since the epoch.
    """

    def __init__(self, link: Link, offline: Offline, owner: str, rules: Rules, clock: Callable[[], float]) -> None:
        self._link, self._offline, self._owner, self._rules, self._clock = link, offline, owner, rules, clock
        self.upkeep = Upkeep(link, offline, owner, rules, clock)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outthink-ledger", daemon=True)
        self._used: dict[str, float] = {}
        self._ended = False

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def put(self, job: Settlement | Wanted | Work, future: Future | None = None) -> None:
        """Do something soon; the future gets its result, or LedgerDown once `stop` has been called."""
        if not self._ended:
            self._jobs.put((job, future))
        elif future is not None:
            future.set_exception(LedgerDown("the ledger is closed"))

    def stop(self) -> None:
        """Do what waits, disconnect and end; returns when that is done."""
        self._ended = True
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._waiting()
            if jobs:
                self._serve(jobs)
            if going and not self.upkeep.due:
                self.upkeep.run()
        self._offline.close()
        self._link.close()

    def _waiting(self) -> tuple[list[Job], bool]:
        """Everything that waits, or nothing when it is time for something else; and whether to go on."""
        jobs: list[Job] = []
        try:
            job = self._jobs.get(timeout=self.upkeep.due)
            while job is not None:
                jobs.append(job)
                if len(jobs) == _BATCH:
                    return jobs, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, True
        return jobs, False

    def _serve(self, jobs: Sequence[Job]) -> None:
        results: list[tuple[Future | None, Any]] = []
        for together, some in groupby(jobs, lambda job: isinstance(job[0], (Settlement, Wanted))):
            if together:
                results += self._together(list(some))
            else:
                results += [(future, self._alone(work)) for work, future in some]  # type: ignore[arg-type]
        _deliver([(future, result) for future, result in results if future is not None])

    def _together(self, batch: Sequence[Job]) -> list[tuple[Future | None, Any]]:
        """Settlements and reservations in one transaction; one by one if any of them cannot be written."""
        if not batch:
            return []
        settlements = [job for job, _ in batch if isinstance(job, Settlement)]
        wanted = [job for job, _ in batch if isinstance(job, Wanted)]
        try:
            granted = iter(self._link.do(lambda database: self._commit(database, settlements, wanted)))
        except Gone:
            self._offline.keep(settlements)
            self.upkeep.unclear += [one for one in wanted if one.terms is not None]
            granted = iter([self._offline.refuse(one) for one in wanted])
        except Exception as error:  # noqa: BLE001 - one record that no database takes must not sink the others
            if len(batch) == 1:
                return [(batch[0][1], error)]
            return [result for one in batch for result in self._together([one])]
        return [(future, None if isinstance(job, Settlement) else next(granted)) for job, future in batch]

    def _commit(self, database: Database, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> list[Any]:
        now = self._clock()
        names = sorted({one.record.key_id for one in settlements} | {one.key_id for one in wanted})
        database.begin(names)
        if settlements:
            settle(database, settlements, now, logs_content=self._rules.logs_content)
        granted: list[Any] = []
        for one in wanted:
            try:
                granted.append(reserve(database, one, self._owner, now, self._rules.lease))
            except (OverBudget, Repeated) as error:
                granted.append(error)
        noted = [name for name in names if now - self._used.get(name, 0.0) >= _USED]
        for name in noted:
            used(database, name, now)
        database.commit()
        self._used.update(dict.fromkeys(noted, now))
        return granted

    def _alone(self, work: Work) -> Any:
        try:
            return self._link.do(work)
        except Gone as error:
            return LedgerDown("the ledger's database cannot be used now", str(error))
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            return error


def _deliver(told: Sequence[tuple[Future, Any]]) -> None:
    """Hand results to the event loop, all in one step."""
    if told:
        try:
            told[0][0].get_loop().call_soon_threadsafe(_resolve, told)
        except RuntimeError:
            pass  # the loop has ended, and nobody waits


def _resolve(told: Sequence[tuple[Future, Any]]) -> None:
    for future, result in told:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
