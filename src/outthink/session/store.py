"""Finished samples on disk, by key, and the two keys in use: a cache of responses and a run's journal.

Knows: SQLite, durability, how a sample becomes JSON, and what makes two calls the same. Does not know
strategies: a sample found here is a vote that costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from outthink.core.errors import BadInput
from outthink.core.paths import cache_dir
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.protocol import Call

_PAUSE = 0.01
"""Seconds between two attempts to switch a file's log on."""
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


def call_key(engine: str, call: Call) -> str:
    """Hash of engine and model, messages, prefix, sampling parameters, seed and sample number."""
    content = {
        "engine": engine,
        "messages": [message.wire() for message in call.messages],
        "prefix": call.prefix,
        "sampling": asdict(call.sampling),
        "seed": call.seed,
        "sample": call.index,
        "top_logprobs": call.top_logprobs,
        "problem": call.problem,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class ResponseCache:
    """Samples of one engine in a store; `engine` names it together with its model."""

    def __init__(self, store: SampleStore, engine: str) -> None:
        self.store, self.engine = store, engine

    @classmethod
    def default(cls, engine: str) -> ResponseCache:
        """The cache in the user's cache folder."""
        return cls(SampleStore(default_path()), engine)

    def get(self, call: Call) -> Sample | None:
        """The sample this call gave before."""
        return self.store.get(call_key(self.engine, call))

    def put(self, call: Call, sample: Sample) -> None:
        """Keep a finished sample."""
        self.store.put(call_key(self.engine, call), sample)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def default_path() -> Path:
    """Where the response cache lies."""
    return cache_dir() / "responses.sqlite"


class Journal:
    """A session's cache for one problem of a run: samples are saved, and counted as saved, one commit each.

    Args:
        saved: called after each commit.
    """

    def __init__(self, store: SampleStore, problem: str, saved: Callable[[], None] = lambda: None) -> None:
        self.store, self.problem, self.saved = store, problem, saved

    def get(self, call: Call) -> Sample | None:
        """The sample saved under this number."""
        return self.store.get(self._key(call))

    def put(self, call: Call, sample: Sample) -> None:
        """Save a sample."""
        self.store.put(self._key(call), sample)
        self.saved()

    def _key(self, call: Call) -> str:
        # As the rows of a recording: 0 is the greedy sample, the sampled ones begin at 1 (docs/contracts.md).
        number = 0 if call.sampling.temperature == 0 else call.index + 1
        return f"{number}:{self.problem}"


def use_log(connection: sqlite3.Connection, patience: float) -> None:
    """Switch a file to WAL, which it stays in.

    Where several connections switch a new file at once, SQLite refuses some without waiting for its timeout.

    Args:
        patience: seconds to try it.

    Raises sqlite3.DatabaseError for what is no database, OperationalError where it stays locked.
    """
    ends = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # An extended code keeps the primary one in its low byte.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
        time.sleep(_PAUSE)
