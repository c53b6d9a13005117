"""Scores on their way into a file: one journal a file, safe against being killed.

Knows: SQLite, durability, and which run a journal belongs to. Does not know verifiers or samples.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from outthink.core.errors import BadInput
from outthink.evaluation.sample_file import Judged
from outthink.session.write_ahead import use_log

_PATIENCE = 30.0
"""Seconds to wait for another process."""


def journal_of(out: Path) -> Path:
    """Where the journal of an output file lies."""
    return out.with_name(out.name + ".journal")


def remove_journal(out: Path) -> None:
    """Delete the journal of a finished file."""
    journal = journal_of(out)
    for suffix in ("", "-wal", "-shm"):
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)


class ScoreJournal:
    """Scores by row; a commit each batch, after which nothing of it can be lost.

    Args:
        out: the file that will be written; the journal lies beside it.
        run: fingerprint of everything that decides the scores.

    Raises BadInput for a file that is no journal, or the journal of another run.
    """

    def __init__(self, out: Path, run: str) -> None:
        self.path = journal_of(out)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise BadInput("--out", str(out), f"cannot be written ({error})", "check the folder") from None
        try:
            execute = self._database.execute
            use_log(self._database, _PATIENCE)
            execute("PRAGMA synchronous=FULL")
            execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            execute("CREATE TABLE IF NOT EXISTS scores (row INTEGER PRIMARY KEY, value TEXT NOT NULL)")
            execute("INSERT OR IGNORE INTO about VALUES ('run', ?)", (run,))
            (kept,) = execute("SELECT value FROM about WHERE name = 'run'").fetchone()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise BadInput("--out", str(self.path), f"is no journal ({error})", "remove the file") from None
        if kept != run:
            self._database.close()
            raise BadInput("--out", str(self.path), "is the journal of another run", "remove it or change --out")

    def read(self) -> dict[int, Judged]:
        """All that is saved, by row."""
        found = {}
        for row, value in self._database.execute("SELECT row, value FROM scores"):
            score, steps, tokens, reason = json.loads(value)
            found[int(row)] = Judged(score, None if steps is None else tuple(steps), tokens, reason)
        return found

    def save(self, judged: Iterable[tuple[int, Judged]]) -> None:
        """Save a batch; it is safe when this returns. What was saved before stays as it is."""
        rows = [(row, json.dumps([one.score, one.steps, one.tokens, one.reason])) for row, one in judged]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._database.close()
