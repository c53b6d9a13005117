"""Questions to the ledger. Knows how records and sums are found; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from outthink.core.errors import BadInput
from outthink.serving.ledger.database import Database
from outthink.serving.ledger.periods import day_of
from outthink.serving.ledger.rows import clean, read
from outthink.serving.ledger.sums import SumsRow
from outthink.serving.protocols import GroupBy, RequestRecord, Spend

_GROUPS: dict[GroupBy, str] = {"key": "key_id", "model": "model", "strategy": "strategy", "day": "day"}
_SUMS = ", ".join(
    f"CAST(SUM({name}) AS {'DOUBLE PRECISION' if name in ('seconds', 'joules') else 'BIGINT'})"
    for name in SumsRow._fields
)
_FIELDS = {"key": "key_id = ?", "model": "model = ?", "strategy": "strategy = ?", "stopped": "stopped = ?"}
_BOUNDS = {"since": "started >= ?", "until": "started < ?"}
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


class Search(NamedTuple):
    """What is looked for; None for whatever there is."""

    text: str | None = None
    key: str | None = None
    model: str | None = None
    strategy: str | None = None
    stopped: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int = 100
    before: str | None = None


def search(database: Database, asked: Search) -> Sequence[RequestRecord]:
    """Records that fit, newest first. Raises BadInput for a limit out of range."""
    if not 1 <= asked.limit <= _MOST:
        raise BadInput("limit", asked.limit, "is out of range", f"give 1 to {_MOST}")
    where, values = ["1 = 1"], list[Any]()
    for name, condition in (*_FIELDS.items(), *_BOUNDS.items()):
        if (value := getattr(asked, name)) is not None:
            where.append(condition)
            values.append(value)
    if text := asked.text:
        where.append(_TEXT)
        for mark in "!%_":
            text = text.replace(mark, "!" + mark)
        values += [f"%{clean(text)}%"] * _TEXT.count("?")
    if asked.before is not None:
        where.append("(started, id) < (SELECT started, id FROM requests WHERE id = ?)")
        values.append(asked.before)
    statement = f"SELECT record FROM requests WHERE {' AND '.join(where)} ORDER BY started DESC, id DESC LIMIT ?"  # noqa: S608
    return [read(record) for (record,) in database.execute(statement, [*values, asked.limit]).fetchall()]


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
    found = [SumsRow(*sums).spend(group) for group, *sums in rows]
    return sorted(found, key=lambda row: row.group if group_by == "day" else (-row.known_tokens, row.group))
