"""Settlements that the database could not take, on local disk until it can.

Knows: an append-only file of JSON lines a process, forced to disk with every batch. Loading a line twice
does no harm, because each request is settled once; a line is only lost with its disk.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from outthink.serving.encoding import encode
from outthink.serving.ledger.rows import loaded, packed, unpacked
from outthink.serving.ledger.settling import Settlement
from outthink.serving.protocols import Idempotency, Reservation

try:
    import fcntl
except ImportError:  # Windows does not delete files that are open, so nobody takes a living process's away
    fcntl = None  # type: ignore[assignment]


class Spool:
    """The file of one process, and those that ended processes left in the same folder.

    Args:
        owner: names the process.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder, self._path = folder, folder / f"{owner}.jsonl"
        self._file: IO[bytes] | None = None

    @property
    def waiting(self) -> bool:
        """Whether this process has lines there."""
        return self._file is not None

    def append(self, settlements: Sequence[Settlement]) -> None:
        """Keep settlements; they are on disk when this returns. Raises OSError, and then keeps none of them."""
        text = b"".join(_line(one) for one in settlements)
        file = self._file or self._opened()
        before = file.tell()
        try:
            file.write(text)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            file.seek(before)
            raise

    def _opened(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            file = os.fdopen(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0)
            if _lock(file) and _there(self._path, file):
                file.seek(0, os.SEEK_END)
                self._file = file
                return file
            file.close()  # it was empty, and a process that looked for orphans had just taken it

    def load(self) -> Iterator[tuple[list[Settlement], IO[bytes]]]:
        """The settlements of each file that is ours or nobody's; `done` with a file deletes it."""
        if self._file is not None:
            yield _read(self._file), self._file
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else ():
            if path == self._path:
                continue
            try:
                file = path.open("r+b", buffering=0)
            except FileNotFoundError:
                continue  # another process was faster
            with file:
                if _lock(file):
                    yield _read(file), file

    def done(self, file: IO[bytes]) -> None:
        """Everything in a file is in the database."""
        if file is self._file:
            self._file = None
            self._path.unlink(missing_ok=True)
            file.close()
        else:
            Path(file.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _there(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _line(one: Settlement) -> bytes:
    reservation: dict[str, Any] = asdict(one.reservation)
    reservation.pop("replay")
    parts = {
        "reservation": reservation,
        "record": loaded(packed(one.record)),
        "body": _text(one.record.body),
        "content": _text(one.record.content),
    }
    return encode(parts) + b"\n"


def _read(file: IO[bytes]) -> list[Settlement]:
    file.seek(0)
    whole, mark, _ = file.read().rpartition(b"\n")  # what follows was being written when its process ended
    return [_settlement(loaded(line)) for line in whole.split(b"\n")] if mark else []


def _settlement(value: dict[str, Any]) -> Settlement:
    kept = value["reservation"]
    idempotency = None if kept["idempotency"] is None else Idempotency(*kept["idempotency"])
    record = unpacked(value["record"])
    record.body, record.content = _bytes(value["body"]), _bytes(value["content"])
    return Settlement(Reservation(**{**kept, "idempotency": idempotency}), record)


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
