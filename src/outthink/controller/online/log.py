"""The append-only log of choices and outcomes.

Knows: JSON lines, durability, and several writers. Nothing is ever deleted or changed: an undo is a
line, too. Does not know what a line teaches.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from outthink.core.errors import BadInput

Kind = Literal["policy", "choice", "cost", "outcome", "revert"]
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event.

    Args:
        n: its number, counted from 0 without gaps.
        kind: `policy` opens the log; `choice` precedes the request's first call; `cost` and `outcome`
            follow; `revert` forgets the outcomes after line `to`.
        time: seconds since 1970, UTC.
        request, policy: their identifiers.
        arm, propensity: what was taken and how likely that was, repeated on later lines of the request.
        outcome: whether the answer was right, None where that is not known (yet).
        cost: what the request cost, in the unit of the arms' costs; None where unknown.
        to: number of the last line whose outcome still counts (`revert` only).
        about: arms and settings (`policy` only).
    """

    n: int = -1
    kind: Kind
    time: float
    policy: str
    request: str | None = None
    arm: str | None = None
    propensity: float | None = None
    outcome: bool | None = None
    cost: float | None = None
    to: int | None = None
    about: dict[str, Any] | None = None

    def text(self) -> str:
        """The line as it is written, without its end."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if name not in ("to", "about") or value is not None}
        )


_NAMES = {field.name for field in fields(Line)}


class Log:
    """One file; several processes may append to it.

    `torn` holds what a crash has left of lines: they are ignored, kept in the file, and `notes` says so.
    Raises BadInput for a file that cannot be read or written, or that lacks a line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: list[str] = []
        self.count = 0
        self._offset = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise BadInput("log", str(path), f"cannot be opened ({error.strerror})", "check the path") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should be told."""
        if not self.torn:
            return ()
        return (f"{self.path}: {len(self.torn)} torn lines (a writer was killed) are ignored",)

    def read(self) -> Iterator[Line]:
        """Lines that have come since the last read."""
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size - self._offset, self._offset)
        whole, end, rest = content.rpartition(b"\n")
        self._offset += len(whole) + len(end)
        self.torn = [text for text in self.torn if text.endswith("\n")]
        for text in whole.split(b"\n") if end else ():
            if (line := self._parsed(text)) is not None:
                yield line
        if rest:
            self.torn.append(rest.decode(errors="replace"))  # or another writer is not finished yet

    def append(self, make: Callable[[], Line], apply: Callable[[Line], None]) -> Line:
        """Apply what others have written meanwhile, then write one line; it is on disk when this returns.

        Args:
            make: the line to write, made when no other writer can come between.
            apply: receives the lines of others, then this one.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            for line in self.read():
                apply(line)
            if os.fstat(self._file).st_size > self._offset:  # torn: under the lock, its writer is gone
                os.write(self._file, b"\n")
                for line in self.read():
                    apply(line)
            line = replace(make(), n=self.count)
            data = line.text().encode() + b"\n"
            if os.write(self._file, data) != len(data):
                raise BadInput("log", str(self.path), "is on a full disk", "make room; the torn line is ignored")
            os.fsync(self._file)
            for written in self.read():
                apply(written)
            return line
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _parsed(self, text: bytes) -> Line | None:
        """A line, None for a torn one."""
        try:
            value = json.loads(text)
        except ValueError:
            self.torn.append(text.decode(errors="replace") + "\n")
            return None
        fine = isinstance(value, dict) and set(value) <= _NAMES and {"n", "kind", "time", "policy"} <= set(value)
        if not fine or value["kind"] not in get_args(Kind):
            raise BadInput("log", str(self.path), f"line {self.count} is no line of a log", "give a file of --learn")
        if value["n"] != self.count:
            raise BadInput(
                "log", str(self.path), f"lacks line {self.count}", "restore it from a copy; lines are never deleted"
            )
        self.count += 1
        return Line(**value)
