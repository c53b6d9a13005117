"""Moves SQLite's write-ahead log into its file, beside the thread that writes.

Knows: the log and the disk's pace. By itself SQLite does this within some commit, which then waits for the
disk, and every request in it. Here a thread does the bulk of it every few seconds, and the writer only what
was written meanwhile: that empties the log, so that it does not grow under steady load.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from pathlib import Path

FALLBACK = 16_384
"""Pages (64 MB) of log at which a commit does it all the same."""
_EVERY = 5.0
_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"
"""Waits for nobody: pages that a reader still needs stay for the next time."""


class Checkpoints:
    """Of one writer's connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = time.monotonic() + _EVERY
        self._moved = False
        self._ended = False
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def committed(self, connection: sqlite3.Connection) -> None:
        """The writer has committed."""
        if self._moved:
            self._moved, self._next = False, time.monotonic() + _EVERY
            connection.execute(_MOVE)
        elif time.monotonic() >= self._next:
            self._next = math.inf
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="outthink-ledger-checkpoint", daemon=True)
                self._thread.start()
            self._wanted.set()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._ended:
                    return
                try:
                    connection.execute(_MOVE)
                except sqlite3.Error:
                    pass  # the writer meets the same and says so
                self._moved = True
        finally:
            connection.close()

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
