"""Finished samples on disk, by key.

Knows: SQLite, durability and how a sample becomes JSON. Does not know what a key means.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from outthink.core.errors import BadInput
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.session.write_ahead import use_log

_PATIENCE = 30.0
"""Seconds to wait for another process."""
_FIELDS = {field.name for field in fields(Sample)}


class SampleStore:
    """One SQLite file in WAL mode; several processes may share it.

    Args:
        synchronous: FULL survives power loss after each commit (record's journal), NORMAL a kill -9.

    Raises BadInput for a file that is not such a store.
    """

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "NORMAL") -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            use_log(self._database, _PATIENCE)
            self._database.execute(f"PRAGMA synchronous={synchronous}")
            self._database.execute("CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._database.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise BadInput("store", str(path), f"is no sample store ({error})", "remove the file") from None

    def get(self, key: str) -> Sample | None:
        """The sample kept under a key, None if there is none."""
        row = self._database.execute("SELECT value FROM samples WHERE key = ?", (key,)).fetchone()
        return None if row is None else _decode(json.loads(row[0]))

    def put(self, key: str, sample: Sample) -> None:
        """Keep a sample; it is saved when this returns. The first one under a key stays."""
        self._database.execute("INSERT OR IGNORE INTO samples VALUES (?, ?)", (key, json.dumps(_encode(sample))))

    def about(self, name: str, value: str | None = None) -> str | None:
        """Read a remark on the whole store, or keep one if there is none yet; returns what is kept."""
        if value is not None:
            self._database.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
        row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def __iter__(self) -> Iterator[tuple[str, Sample]]:
        for key, value in self._database.execute("SELECT key, value FROM samples"):
            yield key, _decode(json.loads(value))

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM samples").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _encode(sample: Sample) -> dict[str, Any]:
    value = asdict(sample)
    trace = sample.confidence
    value["confidence"] = None if trace is None else [list(trace.values), trace.stride, trace.tokens]
    return value


def _decode(value: dict[str, Any]) -> Sample:
    known = {name: item for name, item in value.items() if name in _FIELDS}
    if known.get("confidence") is not None:
        values, stride, tokens = known["confidence"]
        known["confidence"] = ConfidenceTrace(tuple(values), stride, tokens)
    for name in ("logprobs", "scores"):
        known[name] = tuple(known.get(name, ()))
    return Sample(**known)
