"""One thread that writes: everything that waits is committed together, and between batches the ledger is kept in order.

Knows: batches, what becomes of them when the database is gone, leases that are renewed or charged, and what is deleted
when it is old. How a reservation or a settlement is written are functions of a database, in `reservations`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from outthink.serving.ledger.admitted import lost_record, record_orphans
from outthink.serving.ledger.database import ConnectionLost, Database, insert, migrate, row
from outthink.serving.ledger.outage import Abandoned, Link, Offline
from outthink.serving.ledger.queries import Future, answer, delete_piece, deliver, note_use
from outthink.serving.ledger.reservations import (
    INSERT,
    KEPT,
    ONCE,
    HeldReservation,
    ReservationRequest,
    Settlement,
    free_key,
    release,
    reserve,
    settle,
    take,
)
from outthink.serving.ledger.sums import Tally, dollars
from outthink.serving.protocols import AdmittedRequest, LedgerDown, OverBudget, Repeated, RequestRecord

_BATCH = 512
_RECENT = 1.0
"""Seconds for which what was written is remembered."""
_USED_EVERY = 60.0
"""Seconds between two times that it is written down when a key was last used."""

Work = Callable[[Database], Any]
Job = tuple[Settlement | ReservationRequest | Work, Future | None]


class Writer:
    """The thread. Jobs are put in the event loop.

    Args:
        owner: names this process in leases.
        clock: seconds since the epoch.
        folder: that processes on this machine leave their files in.
    """

    def __init__(
        self, link: Link, offline: Offline, owner: str, rules: Rules, clock: Callable[[], float], folder: Path
    ) -> None:
        self._link, self._offline, self._owner, self._rules, self._clock = link, offline, owner, rules, clock
        self.upkeep = Upkeep(link, offline, owner, rules, clock, folder)
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._gathered: list[Job] = []
        """Of this turn of the event loop: waking the thread costs more than a job, so it is woken once a turn."""
        self._thread: threading.Thread | None = None
        self._doing: Sequence[Job] = ()
        """What the thread is at; nobody has heard of it yet."""
        self._last_used: dict[str, float] = {}
        self._recent: deque[tuple[float, Sequence[Settlement]]] = deque()
        self._connection: Database | None = None
        """What they were written over."""
        self._ended = False

    def start(self) -> None:
        """Begin to take jobs."""
        # A daemon: one that hangs must not hold up the end of the program.
        self._thread = threading.Thread(target=self._run, name="outthink-ledger", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are taken."""
        return self._thread is not None and self._thread.is_alive()

    def doubt(self) -> None:
        """Somebody else has found that the database does not answer."""
        self._offline.begin("it does not answer")

    def look(self) -> None:
        """See at once whether the database can be used, which may have come back, or gone."""
        self.upkeep.look()
        self.put(lambda database: None)  # wakes the thread, which then finds the upkeep due

    def release(self, request: ReservationRequest) -> None:
        """Give back a reservation that nobody uses, now or when the database can be used again."""

        def failed(done: Future) -> None:
            if done.exception() is not None:
                self.upkeep.unclear.append(request)

        future: Future = asyncio.get_running_loop().create_future()
        future.add_done_callback(failed)
        self.put(lambda database: release(database, request), future)

    def give_up(self) -> None:
        """Leave a thread behind that hangs, if it does; another does what it was at once more, which counts once."""
        if self._link.deadline.give_up():
            self._link = self.upkeep.link = self._link.successor()
            if self._ended:
                self._jobs.put(None)  # the other one may have been told already
            self.start()

    def put(self, job: Settlement | ReservationRequest | Work, future: Future | None = None) -> None:
        """Do something soon; the future gets its result, or LedgerDown once `stop` has been called."""
        if not self._ended:
            if not self._gathered:
                asyncio.get_running_loop().call_soon(self._hand_over)
            self._gathered.append((job, future))
        elif future is not None:
            future.set_exception(LedgerDown("the ledger is closed"))

    def _hand_over(self) -> None:
        jobs, self._gathered = self._gathered, []
        if jobs:
            self._jobs.put(jobs)

    def stop(self) -> None:
        """Do what waits, disconnect and end; `alive` tells when that is done."""
        self._ended = True
        self._hand_over()
        self._jobs.put(None)

    def _run(self) -> None:
        link, going = self._link, True
        try:
            self._serve(self._doing)
            while going:
                jobs, going = self._waiting()
                if jobs:
                    self._serve(jobs)
                if going and not self.upkeep.due:
                    self.upkeep.run()
            with link.deadline:
                self._offline.close()
            link.close()
        except Abandoned:
            link.deadline.close()

    def _waiting(self) -> tuple[list[Job], bool]:
        """Everything that waits, or nothing when it is time for something else; and whether to go on."""
        jobs: list[Job] = []
        try:
            more = self._jobs.get(timeout=self.upkeep.due)
            while more is not None:
                jobs += more
                if len(jobs) >= _BATCH:  # a transaction that is too long keeps replicas waiting
                    return jobs, True
                more = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, True
        return jobs, False

    def _serve(self, jobs: Sequence[Job]) -> None:
        self._doing = jobs
        results: list[tuple[Future | None, Any]] = []
        for together, group in groupby(jobs, lambda job: isinstance(job[0], (Settlement, ReservationRequest))):
            if together:
                results += self._together(list(group))
            else:
                results += [(future, answer(self._link.do, work)) for work, future in group]  # type: ignore[arg-type]
        self._doing = ()
        deliver([(future, result) for future, result in results if future is not None])

    def _together(self, batch: Sequence[Job]) -> list[tuple[Future | None, Any]]:
        """Settlements and reservations in one transaction; one by one if any of them cannot be written."""
        settlements = [job for job, _ in batch if isinstance(job, Settlement)]
        requests = [job for job, _ in batch if isinstance(job, ReservationRequest)]
        kept = True
        try:
            granted = iter(self._link.do(lambda database: self._commit(database, settlements, requests)))
        except ConnectionLost:
            with self._link.deadline:  # the local disk may hang as well
                kept = self._offline.keep(settlements)
            self.upkeep.unclear += [request for request in requests if request.terms is not None]
            granted = iter([self._offline.refuse(request) for request in requests])
        except Exception as error:  # noqa: BLE001 - one record that no database takes must not sink the others
            if len(batch) == 1:
                return [(batch[0][1], error)]
            return [result for job in batch for result in self._together([job])]
        return [(future, kept if isinstance(job, Settlement) else next(granted)) for job, future in batch]

    def _commit(
        self, database: Database, settlements: Sequence[Settlement], requests: Sequence[ReservationRequest]
    ) -> list[Any]:
        now = self._clock()
        if database is not self._connection:
            # A file that was replaced, or a server whose replica took over, may lack them; they count once.
            settlements = [settlement for _, batch in self._recent for settlement in batch] + list(settlements)
        names = sorted(
            {settlement.record.key_id for settlement in settlements} | {request.key_id for request in requests}
        )
        database.begin(names)
        if settlements:
            settle(database, settlements, now, logs_content=self._rules.logs_content)
        granted: list[Any] = []
        for request in requests:
            try:
                granted.append(reserve(database, request, self._owner, now, self._rules.lease))
            except (OverBudget, Repeated) as error:
                granted.append(error)
        noted = [name for name in names if now - self._last_used.get(name, 0.0) >= _USED_EVERY]
        for name in noted:
            note_use(database, name, now)
        database.commit()
        if database is not self._connection:
            self._connection = database
            self._recent.clear()
        if settlements:
            moment = time.monotonic()
            self._recent.append((moment, settlements))
            while self._recent[0][0] < moment - _RECENT:
                self._recent.popleft()
        self._last_used.update(dict.fromkeys(noted, now))
        return granted


# What was reserved and never settled is charged: a process renews the leases of its requests, and those of one that was
# killed run out.

_LONGEST = 86_400.0
"""Seconds after which no lease is renewed: no request runs for a day."""
_PIECE = 1000


def renew(database: Database, owner: str, now: float, lease: float) -> None:
    """Keep the leases of one process for another while."""
    database.begin([])
    database.execute(
        "UPDATE reservations SET expires = ? WHERE owner = ? AND expires < ? AND created > ?",
        (now + lease, owner, now + lease, now - _LONGEST),
    )
    database.commit()


def sweep(database: Database, now: float) -> int:
    """Charge leases that have run out at their reservations; returns how many."""
    expired = database.execute(
        "SELECT id, key_id FROM reservations WHERE expires < ? LIMIT ?", (now, _PIECE)
    ).fetchall()
    if not expired:
        return 0
    database.begin(sorted({key_id for _, key_id in expired}))
    held = list(take(database, [number for number, _ in expired], expired_at=now).values())
    tally, rows = Tally(), []
    for reservation in held:
        record = _record(reservation)
        rows.append(row(record, swept=1))
        tally.spent(reservation.day, record, None)
        tally.released(reservation.day, reservation.key_id, reservation.amounts)
        free_key(database, reservation.id)
    insert(database, INSERT, rows, ONCE)
    tally.write(database)
    database.commit()
    return len(held)


def _record(held: HeldReservation) -> RequestRecord:
    usd = None if held.nanousd is None else dollars(held.nanousd)
    request = AdmittedRequest(held.id, held.key_id, "", "", "", False, held.created, held.tokens, usd)
    return lost_record(request, "charged as reserved")


_log = logging.getLogger("outthink.serving.ledger")
_HOUR, _DAY = 3600.0, 86_400.0
_OFTEN = 15.0
_TURN = 0.05
"""Seconds that upkeep takes at once, where more is to be done than that, and then leaves to requests."""


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
    """What the ledger of one process does unasked, in the writer's thread: leases, records on local disk, old rows.

    Args:
        owner: names the process in leases.
        clock: seconds since the epoch.
        folder: that processes on this machine leave their files in.
    """

    def __init__(
        self, link: Link, offline: Offline, owner: str, rules: Rules, clock: Callable[[], float], folder: Path
    ) -> None:
        self.link, self._offline, self._owner, self._rules, self._clock = link, offline, owner, rules, clock
        self._folder = folder
        self._next, self._tidied = time.monotonic() + _OFTEN, 0.0
        self._answers = False
        """The database was gone, and has answered somebody else."""
        self._loaded = 0
        self._old: list[tuple[str, str, float, str]] = []
        """What is to be deleted: table, column of times, moment, and column of ids."""
        self.unclear: list[ReservationRequest] = []
        """Reservations that nobody uses, and that may have been written."""

    @property
    def due(self) -> float:
        """Seconds until `run` is to be called."""
        if self._offline.problem is not None and not self._answers:
            return _OFTEN
        return max(0.0, self._next - time.monotonic())

    def look(self) -> None:
        """Run as soon as possible."""
        self._next, self._answers = 0.0, True

    def run(self) -> None:
        """Do what is due, for a moment: requests wait for it. Never raises."""
        self._answers = False
        self._next = time.monotonic() + min(self._rules.lease / 4, _OFTEN)
        if not self._offline.opened:  # who opens the ledger is told why it cannot be
            return
        try:
            self.link.probe(self._round)
        except ConnectionLost:
            pass  # it is known, and tried again
        except Exception:  # noqa: BLE001 - the thread must live on
            _log.exception("the ledger's upkeep failed; it is tried again")
            self._offline.end()

    def _round(self, database: Database) -> None:
        now, ends = self._clock(), time.monotonic() + _TURN
        self.renew(database)
        while self.unclear:
            request = self.unclear[-1]
            release(database, request)
            self.unclear.remove(request)  # another may stand behind it by now
        self.load(database, ends)
        self._offline.end()
        self._record_orphans(database)
        while (more := sweep(database, now)) and time.monotonic() < ends:
            pass
        if now - self._tidied >= _HOUR:
            self._tidied = now
            self._old = list(self._outdated(now))
        while self._old and time.monotonic() < ends:
            if not delete_piece(database, *self._old[-1]):
                self._old.pop()
        if more or self._old or self._offline.waiting:
            self._next = time.monotonic() + _TURN

    def _outdated(self, now: float) -> Iterator[tuple[str, str, float, str]]:
        if self._rules.keep is not None:
            yield "requests", "started", now - self._rules.keep, "id"
        kept = [age for age in (self._rules.keep_content, self._rules.keep) if age is not None]
        if kept:
            yield "contents", "stored", now - min(kept), "id"
        # Replies whose idempotency keys may be used anew.
        yield "idempotency", "created", now - KEPT, "request_id"

    def renew(self, database: Database) -> None:
        """Keep the leases of this process; a database that takes that takes everything else, too."""
        renew(database, self._owner, self._clock(), self._rules.lease)

    def prepare(self, database: Database) -> None:
        """Migrate, take over what ended processes left, and charge what they reserved."""
        migrate(database)
        self.load(database)
        self._record_orphans(database)
        while sweep(database, self._clock()):
            pass
        self._offline.opened = True
        self._next = 0.0  # what is old goes next

    def _record_orphans(self, database: Database) -> None:
        if count := record_orphans(database, self._folder):
            _log.warning("%d requests were being served by processes that ended; they are recorded as lost", count)

    def load(self, database: Database, ends: float = math.inf) -> None:
        """Settle what waits in memory and on local disk, or some of it where the moment comes before."""
        self._loaded += self._offline.load(lambda batch: self._settle(database, batch), self.link.deadline, ends)
        if self._loaded and not self._offline.waiting:
            _log.warning("%d records that waited for the ledger's database are now in it", self._loaded)
            self._loaded = 0

    def _settle(self, database: Database, settlements: Sequence[Settlement]) -> None:
        """Settle all, or each that can be: a record that no database takes must not hold up the others."""
        try:
            database.begin(sorted({settlement.record.key_id for settlement in settlements}))
            settle(database, settlements, self._clock(), logs_content=self._rules.logs_content)
            database.commit()
        except ConnectionLost:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the others go on
            database.rollback()
            if len(settlements) == 1:
                _log.exception("the record of %s cannot be written", settlements[0].record.id)
                return
            for settlement in settlements:
                self._settle(database, [settlement])
