"""Questions to the ledger, what is deleted in it, and its keys.

Knows: how records and sums are found, which of them go, the table of keys, the thread that reads, and the keys in
memory by which requests are authorised. Does not know secrets, only their digests, nor how requests are settled.
"""

from __future__ import annotations

import asyncio
import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any, TypeVar

from outthink.core.errors import BadInput
from outthink.core.request import Budget
from outthink.http.fields import JsonDict
from outthink.serving.ledger.database import Connect, ConnectionLost, Database, SqlValue, clean, marks, packed, read
from outthink.serving.ledger.outage import PATIENCE, Abandoned, LedgerConnection
from outthink.serving.ledger.sums import SUMS, Sums, day_of, ranked
from outthink.serving.protocols import (
    ANYONE,
    GroupBy,
    Key,
    LedgerDown,
    RequestRecord,
    SearchTerms,
    Spend,
    StoredKey,
    Terms,
    check_name,
    digest,
)

_GROUPS: dict[GroupBy, str] = {"key": "key_id", "model": "model", "strategy": "strategy", "day": "day"}
_SUMS = ", ".join(
    f"CAST(SUM({name}) AS {'DOUBLE PRECISION' if name in ('seconds', 'joules') else 'BIGINT'})" for name in SUMS
)
_LIKE = "LIKE LOWER(?) ESCAPE '!'"
_TEXT = (
    f"(LOWER(id) {_LIKE} OR LOWER(model) {_LIKE} OR LOWER(strategy) {_LIKE} OR LOWER(error) {_LIKE} "  # noqa: S608
    f"OR id IN (SELECT id FROM contents WHERE LOWER(request) {_LIKE} OR LOWER(reply) {_LIKE}))"
)
_MOST = 1000


def receipt(database: Database, request_id: str) -> RequestRecord | None:
    """A request's record."""
    rows = database.execute("SELECT record FROM requests WHERE id = ?", (request_id,)).fetchall()
    return read(rows[0][0]) if rows else None


def search(database: Database, terms: SearchTerms) -> Sequence[RequestRecord]:
    """Records that fit, newest first. Raises BadInput for a limit out of range."""
    limit = terms.get("limit", 100)
    if not 1 <= limit <= _MOST:
        raise BadInput("limit", limit, "is out of range", f"give 1 to {_MOST}")
    conditions: dict[str, SqlValue] = {
        "key_id = ?": terms.get("key"),
        "model = ?": terms.get("model"),
        "strategy = ?": terms.get("strategy"),
        "stopped = ?": terms.get("stopped"),
        "started >= ?": terms.get("since"),
        "started < ?": terms.get("until"),
    }
    asked = {condition: value for condition, value in conditions.items() if value is not None}
    where, values = ["1 = 1", *asked], list(asked.values())
    if text := terms.get("text"):
        where.append(_TEXT)
        for mark in "!%_":
            text = text.replace(mark, "!" + mark)
        values += [f"%{clean(text)}%"] * _TEXT.count("?")
    if (before := terms.get("before")) is not None:
        where.append("(started, id) < (SELECT started, id FROM requests WHERE id = ?)")
        values.append(before)
    statement = f"SELECT record FROM requests WHERE {' AND '.join(where)} ORDER BY started DESC, id DESC LIMIT ?"  # noqa: S608
    return [read(record) for (record,) in database.execute(statement, [*values, limit]).fetchall()]


def requests_of(database: Database, since: float, until: float) -> Iterator[RequestRecord]:
    """All records of a span of time, newest first, read a piece at a time: no statement takes long."""
    terms: SearchTerms = {"since": since, "until": until, "limit": _MOST}
    while page := search(database, terms):
        yield from page
        terms["before"] = page[-1].id


def content(database: Database, request_id: str) -> tuple[str | None, str | None] | None:
    """A request as it was sent and its reply; None where nothing is stored."""
    rows = database.execute("SELECT request, reply FROM contents WHERE id = ?", (request_id,)).fetchall()
    return (rows[0][0], rows[0][1]) if rows else None


def spend(database: Database, group_by: GroupBy, since: float | None, until: float | None) -> Sequence[Spend]:
    """Sums over whole days."""
    column = _GROUPS.get(group_by)
    if column is None:
        raise BadInput("group_by", group_by, "is no group", f"use any of {', '.join(_GROUPS)}")
    rows = database.execute(
        f"SELECT {column}, {_SUMS} FROM spend WHERE day >= ? AND day <= ? GROUP BY {column} HAVING SUM(requests) > 0",  # noqa: S608
        ("0" if since is None else day_of(since), "9" if until is None else day_of(until)),
    ).fetchall()
    return ranked({group: Sums(*sums) for group, *sums in rows}, group_by)


# What is old is deleted, and what was stored of a request when that is asked for.

_ROWS = 1000


def forget(database: Database, request_id: str) -> bool:
    """Delete what is stored of a request's content, also within its receipt, and from the file; the receipt stays."""
    database.begin([])
    count = database.execute("DELETE FROM contents WHERE id = ?", (request_id,)).rowcount
    count += database.execute(
        "DELETE FROM idempotency WHERE request_id = ? AND status IS NOT NULL", (request_id,)
    ).rowcount
    count += _strip(database, [request_id])
    database.commit()
    database.erase()
    return count > 0


def _strip(database: Database, ids: Sequence[str]) -> int:
    """Take answers, notes and errors out of receipts; returns how many had any."""
    rows = database.execute(f"SELECT id, record FROM requests WHERE id IN {marks(ids)}", ids).fetchall()  # noqa: S608
    changed = 0
    for number, packed_record in rows:
        record = read(packed_record)
        receipt, before = record.receipt, packed(record)
        record.error = None
        if receipt is not None:
            entries = [{**entry, "error": None} for entry in receipt.get("entries", ())]
            record.receipt = {**receipt, "answer": None, "notes": [], "entries": entries}
        if packed(record) == before:
            continue
        database.execute("UPDATE requests SET error = NULL, record = ? WHERE id = ?", (packed(record).decode(), number))
        changed += 1
    return changed


def delete_piece(database: Database, table: str, column: str, before: float, number: str = "id") -> int:
    """Delete some of the rows that are older than a moment; returns how many."""
    rows = database.execute(
        f"SELECT {number} FROM {table} WHERE {column} < ? LIMIT ?",  # noqa: S608 - names of ours
        (before, _ROWS),
    ).fetchall()
    if not rows:
        return 0
    ids: Sequence[str] = [number for (number,) in rows]
    database.begin([])
    done = database.execute(f"DELETE FROM {table} WHERE {number} IN {marks(ids)}", ids).rowcount  # noqa: S608
    if table == "contents":
        _strip(database, ids)
    database.commit()
    database.erase()
    return done


T = TypeVar("T")
Future = asyncio.Future[Any]
Question = Callable[[Database], Any]
_SOON = 0.01
_MOST_LEFT = 4
"""Threads that hang, beyond which no other is sent after them."""
_DOWN = "the ledger's database cannot be used now"


class ReaderThread:
    """Reads on a connection of its own, so that no question holds up a settlement. A broken one is opened once more.

    Args:
        seconds: that a statement may take.
    """

    def __init__(self, connect: Connect, seconds: float = PATIENCE) -> None:
        self._connect, self._seconds = connect, seconds
        self._closed = False
        self._shift: _Shift | None = None
        self._left: list[threading.Thread] = []

    async def ask(self, question: Callable[[Database], T]) -> T:
        """The answer to a question. Raises LedgerDown, or what the question raises."""
        if self._closed:
            raise LedgerDown("the ledger is closed")
        if self._shift is None:
            self._left = [thread for thread in self._left if thread.is_alive()]
            if len(self._left) >= _MOST_LEFT:  # a disk that hangs holds each of them for good
                raise LedgerDown(_DOWN, "it does not answer")
            self._shift = _Shift(self._connect, self._seconds)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._shift.jobs.put((question, future))
        return await future

    def give_up(self, seconds: float | None = None) -> bool:
        """Leave a thread behind that hangs, if it does, and let nobody wait for it; `seconds` as of now."""
        shift = self._shift
        if shift is None or not shift.deadline.give_up(seconds):
            return False
        self.leave()
        self._left.append(shift.thread)
        shift.fail(LedgerDown(_DOWN, "it does not answer"))
        return True

    def leave(self) -> None:
        """Disconnect; the next question connects anew."""
        if self._shift is not None:
            self._shift.jobs.put(None)
            self._shift = None

    async def close(self) -> None:
        """Disconnect and end."""
        self._closed = True
        if self._shift is not None:
            self._shift.jobs.put(None)
        while self._shift is not None and self._shift.thread.is_alive():  # noqa: ASYNC110 - of a thread, not of ours
            await asyncio.sleep(_SOON)


class _Shift:
    """One thread, its connection and its questions."""

    def __init__(self, connect: Connect, seconds: float) -> None:
        self.jobs: queue.SimpleQueue[tuple[Question, Future] | None] = queue.SimpleQueue()
        self._connection = LedgerConnection(connect, seconds)
        self.deadline = self._connection.deadline
        self._asked: Future | None = None
        # A daemon: one that hangs must not hold up the end of the program.
        self.thread = threading.Thread(target=self._run, name="outthink-ledger-reader", daemon=True)
        self.thread.start()

    def fail(self, error: Exception) -> None:
        """Answer everything that waits with an error."""
        futures = [] if self._asked is None else [self._asked]
        with suppress(queue.Empty):
            while (job := self.jobs.get_nowait()) is not None:
                futures.append(job[1])
        resolve([(future, error) for future in futures])

    def _run(self) -> None:
        try:
            while (job := self.jobs.get()) is not None:
                question, self._asked = job
                result = answer(self._connection.use, question)
                future, self._asked = self._asked, None
                deliver([(future, result)])
            self._connection.close()
        except Abandoned:
            self.deadline.close()


def answer(use: Callable[[Question], Any], question: Question) -> Any:
    """The answer to a question, or the error that is raised where it was asked for."""
    try:
        return use(question)
    except ConnectionLost as error:
        return LedgerDown(_DOWN, str(error))
    except Exception as error:  # noqa: BLE001 - as above
        return error


def deliver(results: Sequence[tuple[Future, Any]]) -> None:
    """Hand results, or exceptions, to the event loop, all in one step."""
    if results:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            results[0][0].get_loop().call_soon_threadsafe(resolve, results)


def resolve(results: Sequence[tuple[Future, Any]]) -> None:
    """Give futures their results."""
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


_COLUMNS = "id, name, terms, created, revoked, last_used"
_BUDGETS = ("day", "month", "ceiling")


def add(database: Database, name: str, terms: Terms, digest: str, now: float) -> StoredKey:
    """Keep a new key. Raises BadInput where a key that is not revoked has the name."""
    key = StoredKey(id=f"key-{secrets.token_hex(6)}", name=check_name(name), terms=terms, created=now)
    database.begin(["keys"])
    if _named(database, name):
        database.rollback()
        raise BadInput("name", name, "belongs to another key", "choose another one, or revoke that key first")
    database.execute(
        "INSERT INTO keys (id, digest, name, terms, created) VALUES (?, ?, ?, ?, ?)",
        (key.id, digest, name, json.dumps(_kept(terms)), now),
    )
    database.commit()
    return key


def _kept(terms: Terms) -> JsonDict:
    """Terms as they are kept. A right that older versions do not know stands there only where it is given."""
    value: JsonDict = asdict(terms)
    if not terms.metrics:
        del value["metrics"]
    return value


def revoke(database: Database, name: str, now: float) -> StoredKey:
    """Revoke a key by its id or name. Raises BadInput where there is none, or it is revoked already."""
    database.begin(["keys"])
    keys = _named(database, name)
    if not keys:
        database.rollback()
        raise BadInput("key", name, "is no key that could be revoked", "see outthink keys list")
    database.execute("UPDATE keys SET revoked = ? WHERE id = ?", (now, keys[0].id))
    database.commit()
    return replace(keys[0], revoked=now)


def _named(database: Database, name: str) -> list[StoredKey]:
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE revoked IS NULL AND (name = ? OR id = ?) ORDER BY id = ? DESC",  # noqa: S608
        (name, name, name),
    ).fetchall()
    return [_key(*row) for row in rows]


def stored(database: Database) -> dict[str, StoredKey]:
    """All keys by the digest of their secret, oldest first."""
    rows = database.execute(f"SELECT digest, {_COLUMNS} FROM keys ORDER BY created, id").fetchall()  # noqa: S608
    return {digest: _key(*row) for digest, *row in rows}


def changes(database: Database) -> tuple[int, int, float]:
    """Differs whenever keys do: they are only added, and revoked once, but another ledger may take a ledger's place."""
    statement = "SELECT COUNT(*), COUNT(revoked), COALESCE(MAX(created), 0) FROM keys"
    ((keys, revoked, latest),) = database.execute(statement).fetchall()
    return int(keys), int(revoked), float(latest)


def note_use(database: Database, key_id: str, now: float) -> None:
    """Note when a key was last used."""
    database.execute("UPDATE keys SET last_used = ? WHERE id = ?", (now, key_id))


def _key(
    number: str, name: str, terms: str, created: float, revoked: float | None, last_used: float | None
) -> StoredKey:
    return StoredKey(
        id=number, name=name, terms=_terms(json.loads(terms)), created=created, revoked=revoked, last_used=last_used
    )


def _terms(value: JsonDict) -> Terms:
    budgets = {name: Budget(**value[name]) for name in _BUDGETS}
    return Terms(**{**value, **budgets, "models": tuple(value["models"])})


# A request is authorised without a look at the database. A look every few seconds makes a revoked key useless; while
# the database is gone, the keys that were known go on working.


class KeyCache:
    """Keys by the digest of their secret.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: dict[str, tuple[Key, float | None]] = {}
        self._stored: Mapping[str, StoredKey] = MappingProxyType({})
        self._terms: Mapping[str, Terms] = MappingProxyType({})
        self.guarded = False

    def put(self, stored: Mapping[str, StoredKey]) -> None:
        """Know these keys and no others. Once there has been a key, there is no way back to none."""
        self._keys = {
            digest: (_cached_key(key), key.terms.expires) for digest, key in stored.items() if key.revoked is None
        }
        self._stored = stored
        self._terms = {key.id: key.terms for key in stored.values()}
        self.guarded = self.guarded or bool(stored)

    def find(self, bearer: str | None) -> Key | None:
        """The key of a secret; None if there is none, or it has expired."""
        if not self.guarded:
            return ANYONE
        if not bearer:
            return None
        key, expires = self._keys.get(digest(bearer), (None, None))
        return None if expires is not None and self._clock() >= expires else key

    def owner(self, bearer: str | None) -> str:
        """The id of the key that a secret is or was; empty where it was none."""
        key = self._stored.get(digest(bearer)) if bearer else None
        return "" if key is None else key.id

    def terms(self, key_id: str) -> Terms | None:
        """What a key may do, revoked or not."""
        return self._terms.get(key_id)


def _cached_key(stored: StoredKey) -> Key:
    terms = stored.terms
    ceiling, strategy, models = terms.ceiling, terms.strategy, terms.models
    return Key(
        stored.id, stored.name, terms.admin, terms.limited, ceiling, strategy, models, terms.priced, terms.metrics
    )
