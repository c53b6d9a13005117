"""Requests that are being served and hold no reservation, noted where a kill -9 of this process leaves the note.

Knows: one file of slots for each process, mapped into memory, so that a note costs no system call; and the records that
notes of ended processes become. What the kernel has not written survives the process, not a power loss. Does not know
the requests' replies, nor reservations, which are in the database.
"""

from __future__ import annotations

import logging
import mmap
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import IO

from outthink.http.fields import decode, encode
from outthink.serving.ledger.database import Database, insert, marks, row
from outthink.serving.ledger.outage import claimed, left_behind
from outthink.serving.ledger.reservations import INSERT, ONCE
from outthink.serving.ledger.sums import Tally, day_of
from outthink.serving.protocols import LOST, AdmittedRequest, RequestRecord

_SLOT, _SLOTS = 512, 1024
_BLOCK = _SLOT * _SLOTS
_HEAD = 2
"""Bytes of a slot that hold its note's length, zero for none; they are written last."""
_LETTERS = 100
_AGAIN = 30.0
"""Seconds until a folder that could not be written is tried again."""
_PIECE = 500
_noted = attrgetter(*(field.name for field in fields(AdmittedRequest) if field.name != "traceparent"))
_log = logging.getLogger("outthink.serving.ledger")


class AdmissionNotes:
    """The notes of one process. Used from one thread.

    Args:
        owner: names the process.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder, self._path = folder, folder / f"{owner}.admitted"
        self._file: IO[bytes] | None = None
        self._blocks: list[mmap.mmap] = []
        self._free: list[int] = []
        self._taken: dict[str, int] = {}
        self._tried_at = -_AGAIN

    def add(self, request: AdmittedRequest) -> None:
        """Note a request; where no file can be written, it is served without."""
        if not self._free and not self._grow():
            return
        slot = self._free.pop()
        self._taken[request.id] = slot
        note = encode(_noted(request))
        if len(note) > _SLOT - _HEAD:  # names are clients' texts
            short = replace(request, model=request.model[:_LETTERS], strategy=request.strategy[:_LETTERS])
            note = encode(_noted(short))
            if len(note) > _SLOT - _HEAD:
                note = encode(_noted(replace(request, model="", strategy="")))
        block, at = self._blocks[slot // _SLOTS], slot % _SLOTS * _SLOT
        block[at + _HEAD : at + _HEAD + len(note)] = note
        block[at : at + _HEAD] = len(note).to_bytes(_HEAD, "little")

    def remove(self, request_id: str) -> None:
        """Forget a request that is in the ledger, or was never noted."""
        slot = self._taken.pop(request_id, None)
        if slot is not None:
            at = slot % _SLOTS * _SLOT
            self._blocks[slot // _SLOTS][at : at + _HEAD] = bytes(_HEAD)
            self._free.append(slot)

    def _grow(self) -> bool:
        """Make room for more; whether there is any."""
        # Windows has no locks by which others could tell that this process lives.
        if sys.platform == "win32" or time.monotonic() < self._tried_at + _AGAIN:
            return False
        try:
            if self._file is None:
                self._file = claimed(self._path)
            size = len(self._blocks) * _BLOCK
            # Writing to a page for which the disk has no room would end the process.
            os.posix_fallocate(self._file.fileno(), size, _BLOCK)
            self._blocks.append(mmap.mmap(self._file.fileno(), _BLOCK, offset=size))
        except OSError as error:
            self._tried_at = time.monotonic()
            _log.warning("requests are not noted while they run, and a kill of this process would lose them: %s", error)
            return False
        self._free += range(len(self._blocks) * _SLOTS - 1, (len(self._blocks) - 1) * _SLOTS - 1, -1)
        return True

    def close(self) -> None:
        """Take the file away, unless it holds requests that were never settled: those are the next process's."""
        for block in self._blocks:
            block.close()
        if self._file is not None:
            if not self._taken:
                self._path.unlink(missing_ok=True)
                with suppress(OSError):  # others have files there
                    self._folder.rmdir()
            self._file.close()
        self._file, self._blocks, self._free = None, [], []
        self._tried_at = float("inf")


def record_orphans(database: Database, folder: Path) -> int:
    """Record what ended processes were serving, as lost; returns how many requests."""
    count = 0
    for file in left_behind(folder, "*.admitted"):
        requests = list(_read(file))
        for at in range(0, len(requests), _PIECE):
            count += _record(database, requests[at : at + _PIECE])
        Path(file.name).unlink(missing_ok=True)
    return count


def _read(file: IO[bytes]) -> Iterator[AdmittedRequest]:
    content = file.read()
    for at in range(0, len(content), _SLOT):
        length = int.from_bytes(content[at : at + _HEAD], "little")
        if length:
            with suppress(ValueError, TypeError):  # of another version, or damaged
                yield AdmittedRequest(*decode(content[at + _HEAD : at + _HEAD + length]))


def _record(database: Database, requests: Sequence[AdmittedRequest]) -> int:
    """One transaction; requests that are in the ledger already are left as they are."""
    database.begin(sorted({request.key_id for request in requests}))
    ids = [request.id for request in requests]
    found = database.execute(f"SELECT id FROM requests WHERE id IN {marks(ids)}", ids).fetchall()  # noqa: S608
    known = {str(number) for (number,) in found}
    why = "what it spent is not known"
    lost = [lost_record(request, why) for request in requests if request.id not in known]
    tally = Tally()
    for record in lost:
        tally.spent(day_of(record.started), record, None)
    # The true record may still lie in a file of the local disk, and takes its place.
    insert(database, INSERT, [row(record, swept=1) for record in lost], ONCE)
    tally.write(database)
    database.commit()
    return len(lost)


def lost_record(request: AdmittedRequest, charge: str) -> RequestRecord:
    """The record of a request whose process ended before it was settled; `charge` says what it costs."""
    return RequestRecord(
        request.id,
        request.key_id,
        request.endpoint,
        request.model,
        backend_model="",
        strategy=request.strategy,
        stopped=LOST,
        started=request.started,
        seconds=0.0,
        status=0,
        stream=request.stream,
        cancelled_tokens=None,
        at_most_tokens=request.tokens,
        at_most_usd=request.usd,
        samples=0,
        estimated=True,
        error=f"the process that served it ended before it was settled; {charge}",
    )
