"""The ledger that lasts: what every request may spend and has spent, across restarts and replicas.

Knows: which thread does what, and what callers get when the database is gone. The rules are functions of a database in
the modules around it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, Unpack

from outthink.serving.ledger import queries
from outthink.serving.ledger.admitted import AdmissionNotes
from outthink.serving.ledger.database import Connect, Database
from outthink.serving.ledger.outage import PATIENCE, Link, Offline, Spool
from outthink.serving.ledger.queries import KeyCache, ReaderThread
from outthink.serving.ledger.reservations import ReservationRequest, Settlement, check_bounds
from outthink.serving.ledger.writer import Rules, Writer
from outthink.serving.protocols import (
    PREFIX,
    AdmittedRequest,
    GroupBy,
    Idempotency,
    Key,
    LedgerDown,
    RequestRecord,
    Reservation,
    SearchTerms,
    Spend,
    StoredKey,
    Terms,
    digest,
    new_secret,
)

T = TypeVar("T")
_log = logging.getLogger("outthink.serving.ledger")
_WRITTEN = 10.0
"""Seconds within which a record is surely written that nobody waits for."""
_AT_MOST = 0.25
"""Seconds between looks for a key that is not known, however many ask with wrong ones."""
_WATCH_EVERY = 0.1
_FIRST, _LONGEST = 0.5, 2.0
"""Seconds between attempts to reach a database that is gone."""
_NAMED = 1000
"""Lost requests that are told by their ids."""
_SOON = 0.005
_LOOK_SECONDS = 1.0
"""What a look at the table of keys may take: with one a second, a database that hangs is noticed within two."""
_PAGE_SECONDS = 8.0
"""What a search through everything may take: nobody's request waits for it."""


class DurableLedger:
    """Keys, budgets and records in a database. Used from one event loop.

    Args:
        spool: folder for records that wait for the database.
        refresh: seconds after which new and revoked keys are known.
        clock: seconds since the epoch; replicas' clocks must agree to within a fraction of the lease.
    """

    def __init__(
        self,
        connect: Connect,
        spool: Path,
        rules: Rules,
        *,
        refresh: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules, self._refresh, self._clock = rules, refresh, clock
        owner = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._offline = Offline(Spool(spool, owner))
        self._notes = AdmissionNotes(spool, owner)
        self._writer = Writer(Link(connect, self._offline), self._offline, owner, rules, clock, spool)
        self._reader, self._pages = ReaderThread(connect, _LOOK_SECONDS), ReaderThread(connect, _PAGE_SECONDS)
        self._keys = KeyCache(clock)
        self._loop: asyncio.AbstractEventLoop
        self._looked = 0.0
        self._known_version = (-1, -1, 0.0)
        self._prober = ReaderThread(connect)
        self._unsafe: list[str] = []
        """Requests whose records were in memory alone: their notes stay until that has changed."""
        self._looking: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and migrate. Raises LedgerDown, or BadInput for what is no ledger of this version."""
        self._loop = asyncio.get_running_loop()
        self._watching = asyncio.create_task(self._watch())
        prepared = self._loop.create_future()
        self._writer.put(self._writer.upkeep.prepare, prepared)
        self._writer.start()
        try:
            await prepared
            await self._look()
        except BaseException:
            await self.close()
            raise
        self._looking = asyncio.create_task(self._look_again())

    async def close(self) -> None:
        """Write what is queued and disconnect. Raises LedgerDown where records are lost, with their requests' ids."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._writer.stop()
        while self._writer.alive:  # noqa: ASYNC110 - of a thread, not of ours
            await asyncio.sleep(_SOON)
        for thread in (self._reader, self._pages, self._prober):
            thread.give_up(0.0)  # nobody waits for an answer any more
            await thread.close()
        self._forget_notes()
        self._notes.close()
        if self._watching is not None:  # until here: what is written last may hang as well
            self._watching.cancel()
            self._watching = None
        if lost := self._offline.lost:
            more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            why = f"{self.problem}; requests: {', '.join(lost[:_NAMED])}{more}"
            raise LedgerDown(f"{len(lost)} records are lost, neither the database nor the local disk takes them", why)

    async def _watch(self) -> None:
        """Give up threads that hang, and try a database that is gone beside the thread that serves requests."""
        pause, due = _FIRST, 0.0
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            self._writer.give_up()
            if self._reader.give_up():
                self._writer.doubt()
            self._pages.give_up(None if self.problem is None else PATIENCE)
            self._prober.give_up()
            self._forget_notes()
            if self.problem is None:
                pause, due = _FIRST, 0.0
            elif self._probing is None or self._probing.done():
                due = due or time.monotonic() + pause
                if self._looking is not None and time.monotonic() >= due:
                    self._probing = asyncio.create_task(self._probe())
                    pause, due = min(pause * 2, _LONGEST), 0.0

    async def _probe(self) -> None:
        try:
            await self._prober.ask(self._writer.upkeep.renew)
        except LedgerDown:
            pass  # it is known
        else:
            self._writer.look()
        finally:
            self._prober.leave()

    @property
    def guarded(self) -> bool:
        """Whether a request needs a key: once there has been one."""
        return self._keys.guarded

    @property
    def logs_content(self) -> bool:
        """Whether requests and replies are stored."""
        return self._rules.logs_content

    @property
    def problem(self) -> str | None:
        """What keeps records from the database now."""
        return self._offline.problem

    async def authorise(self, bearer: str | None) -> Key | None:
        """The key of a bearer token, from memory; one that is not known is looked up, a few times a second.

        So is one that may be the first of a ledger that was open to everyone until now.
        """
        key = self._keys.find(bearer)
        if not bearer or (key is not None and (self.guarded or not bearer.startswith(PREFIX))):
            return key
        if time.monotonic() - self._looked > _AT_MOST:
            await self._look_once()
            key = self._keys.find(bearer)
        return key

    def owner(self, bearer: str | None) -> str:
        """The id of the key that a bearer token was, revoked or not; empty where it was none."""
        return self._keys.owner(bearer)

    async def _look_once(self) -> None:
        try:
            await self._look()
        except LedgerDown as error:
            _log.warning("keys cannot be looked up: %s", error)
            if self.problem is None:
                self._writer.look()

    async def _look(self) -> None:
        self._looked = time.monotonic()
        known = self._known_version

        def read(database: Database) -> tuple[tuple[int, int, float], Mapping[str, StoredKey] | None]:
            now = queries.changes(database)
            return now, None if now == known else queries.stored(database)

        version, keys = await self._reader.ask(read)
        if keys is not None:
            self._keys.put(keys)
            self._known_version = version

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._refresh)
            await self._look_once()

    async def reserve(
        self,
        key: Key,
        tokens: int | None,
        usd: float | None,
        request_id: str,
        idempotency: Idempotency | None = None,
    ) -> Reservation:
        """Set upper bounds aside, until `settle` or until the lease runs out.

        Raises OverBudget, LedgerDown (limited keys only), Repeated or Unsupported.
        """
        terms = self._keys.terms(key.id) if key.limited else None
        if key.limited and terms is None:
            raise LedgerDown("this key's budget is not known now; try again")
        request = ReservationRequest(request_id, key.id, tokens, usd, terms, idempotency)
        check_bounds(request)
        future: asyncio.Future[Reservation] = self._loop.create_future()
        self._writer.put(request, future)
        try:
            return await asyncio.shield(future)  # a reservation that is written must be known, or it is never released
        except asyncio.CancelledError:  # the client has left, and the thread may be writing it just now
            self._writer.release(request)
            raise

    def note(self, request: AdmittedRequest) -> None:
        """Note a request that is served without a reservation in the database."""
        self._notes.add(request)

    async def settle(self, reservation: Reservation, record: RequestRecord) -> None:
        """Count a request, once; returns when that is durable, on local disk if the database is gone."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._writer.put(Settlement(reservation, record), future)
        try:
            safe = await future
        except asyncio.CancelledError:  # the client has left; the record is written all the same, a moment later
            self._loop.call_later(_WRITTEN, self._unsafe.append, record.id)
            raise
        if safe:
            self._notes.remove(record.id)
        else:
            self._unsafe.append(record.id)

    def _forget_notes(self) -> None:
        if self._unsafe and not self._offline.lost:
            for request_id in self._unsafe:
                self._notes.remove(request_id)
            self._unsafe.clear()

    async def receipt(self, request_id: str) -> RequestRecord | None:
        """A request's record."""
        return await self._pages.ask(lambda database: queries.receipt(database, request_id))

    async def content(self, request_id: str) -> tuple[str | None, str | None] | None:
        """A request as it was sent, and its reply, where they were stored."""
        return await self._pages.ask(lambda database: queries.content(database, request_id))

    async def search(self, **terms: Unpack[SearchTerms]) -> Sequence[RequestRecord]:
        """Records that fit, newest first."""
        return await self._pages.ask(lambda database: queries.search(database, terms))

    async def spend(self, group_by: GroupBy, since: float | None = None, until: float | None = None) -> Sequence[Spend]:
        """Sums over whole days (UTC)."""
        return await self._pages.ask(lambda database: queries.spend(database, group_by, since, until))

    async def add_key(self, name: str, terms: Terms) -> tuple[StoredKey, str]:
        """Make a key; returns it and its secret."""
        secret = new_secret()
        now = self._clock()
        key = await self._write(lambda database: queries.add(database, name, terms, digest(secret), now))
        await self._look()
        return key, secret

    async def revoke_key(self, name: str) -> StoredKey:
        """Revoke a key by its id or name."""
        now = self._clock()
        key = await self._write(lambda database: queries.revoke(database, name, now))
        await self._look()
        return key

    async def list_keys(self) -> Sequence[StoredKey]:
        """All keys, oldest first."""
        return list((await self._reader.ask(queries.stored)).values())

    async def forget(self, request_id: str) -> bool:
        """Delete the content that is stored of a request; its receipt stays."""
        return await self._write(lambda database: queries.forget(database, request_id))

    async def _write(self, work: Callable[[Database], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.put(work, future)
        return await future
