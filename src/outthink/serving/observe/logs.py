"""Structured logs: one line of JSON a request, readable text where a person looks, and never a secret.

Knows: which fields of a record may be written: no prompt, no answer, no key. The standard library's queue listener
makes and writes the lines a few times a second, so neither a slow disk nor JSON delays a request; where it falls far
behind, lines are dropped and counted. Does not know who reads them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from logging.handlers import QueueHandler, QueueListener
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote

from outthink.core.errors import BadInput
from outthink.core.paths import private_file
from outthink.http.errors import scrub, trace_of
from outthink.http.fields import JsonDict, encode
from outthink.serving.observe.refused import RefusalCount, RefusalLimit
from outthink.serving.protocols import RequestRecord
from outthink.serving.watch import RefusedRequest, Watcher

NAME = "outthink.serving"
_NAMES = (NAME, "outthink.verifiers", "opentelemetry")
"""Whose records are ours to write: a verifier's tell how its process ended; an exporter's quote the collector's
address, and whatever it answers."""
_IDS = ("id", "key_id")
_TEXTS = ("endpoint", "model", "backend_model", "strategy", "stopped", "error")
_NUMBERS = (
    *("status", "stream", "seconds", "first_seconds", "samples", "prompt_tokens", "completion_tokens"),
    *("cancelled_tokens", "tokens", "at_most_tokens", "usd", "joules", "estimated"),
)
_ids, _texts, _numbers = attrgetter(*_IDS), attrgetter(*_TEXTS), attrgetter(*_NUMBERS)
_LONGEST = 100_000
"""Lines that may wait to be written."""
_PAUSE = 0.2
"""Seconds between two writes."""
_AT_ONCE = 1000
"""Lines of one write at most."""
_LETTERS = 300

_TOLD = (RequestRecord, RefusedRequest, RefusalCount)
Told = RequestRecord | RefusedRequest | RefusalCount


def json_line(told: Told | logging.LogRecord) -> str:
    """A line of JSON: time (UTC), level, message, and of a request what it was and cost, or why it was refused.

    Unknown is null.
    """
    fields: JsonDict
    if isinstance(told, RequestRecord):
        fields = {"time": _moment(told.started + told.seconds), "level": _level(told), "message": "request"}
        fields |= zip(_IDS, _ids(told), strict=True)
        fields |= {
            name: None if text is None else _short(text) for name, text in zip(_TEXTS, _texts(told), strict=True)
        }
        fields |= zip(_NUMBERS, _numbers(told), strict=True)
    elif isinstance(told, RefusedRequest | RefusalCount):
        fields = {"time": _moment(told.at), "level": _level(told), "message": "refused"}
        fields |= told._asdict()
        del fields["at"]
        if isinstance(told, RefusedRequest):
            fields["path"] = _short(unquote(told.path))
    else:
        fields = {"time": _moment(told.created), "level": told.levelname.lower()}
        fields["message"] = _masked(told.getMessage())
        if told.exc_text:
            fields["trace"] = _masked(told.exc_text)
    return encode(fields).decode()


def text_line(told: Told | logging.LogRecord) -> str:
    """A line for a person."""
    if isinstance(told, RequestRecord):
        tokens = "unknown" if told.tokens is None else str(told.tokens)
        what = f"{told.status} {told.model[:80]}, {told.strategy[:80]}, {told.stopped}"
        why = f" ({told.error[:_LETTERS]})" if told.error else ""
        line = _masked(f"{what}{why}, {told.seconds:.3f} s, {tokens} tokens")
        # A model's name is a client's text: no control character of it may reach the terminal.
        return f"{_moment(told.started + told.seconds)[11:19]} {_level(told):7} {ascii(line)[1:-1]}"
    if isinstance(told, RefusedRequest | RefusalCount):
        what = f"{told.status} {told.code}, refused, "
        if isinstance(told, RefusedRequest):
            what += f"{told.method} {_short(unquote(told.path))}, key {told.key_id or 'unknown'}"
        else:
            what += f"{told.requests} more requests"
        return f"{_moment(told.at)[11:19]} {_level(told):7} {ascii(what)[1:-1]}"
    line = _masked(told.getMessage()) + (f"\n{_masked(told.exc_text)}" if told.exc_text else "")
    return f"{_moment(told.created)[11:19]} {told.levelname.lower():7} {line}"


class _LineFormatter(logging.Formatter):
    """Makes the line of what a log record holds; one that cannot be made says so."""

    def __init__(self, line: Callable[[Told | logging.LogRecord], str]) -> None:
        super().__init__()
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        told: Any = record.msg
        try:
            return self._line(told if isinstance(told, _TOLD) else record)
        except (ValueError, TypeError, OverflowError) as error:
            return encode({"level": "error", "message": f"a line could not be made ({type(error).__name__})"}).decode()


class _LineWriter(logging.Handler):
    """Writes the lines of many records at once. A disk that is full costs lines, and the log tells how many.

    It has no `flush`, which the interpreter would call as it ends, and wait for a disk that never answers.
    """

    def __init__(self, file: Path | None, refusals: RefusalLimit) -> None:
        super().__init__()
        self._file, self._refusals = file, refusals
        self.waiting: list[logging.LogRecord] = []
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.waiting.append(record)

    def write(self, *, ending: bool = False) -> None:
        """What waits, as one text."""
        records, self.waiting = self.waiting, []
        records += [_record(count) for count in self._refusals.counts(time.time(), now=ending)]
        new, dropped = len(records), self.dropped
        if dropped:
            records.append(_record(f"{dropped} lines were dropped"))
        if records:  # what cannot be told now is told later
            change = -dropped if self._written("\n".join(map(self.format, records)) + "\n") else new
            self.dropped += change

    def _written(self, text: str) -> bool:
        try:
            file = self._file
            with nullcontext(sys.stderr) if file is None else private_file(file).open("a", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):
            return False
        return True


class _LineQueue(QueueHandler):
    """Hands records over to the listener's thread, or drops them where too much waits."""

    def __init__(self, queue: SimpleQueue[logging.LogRecord], writer: _LineWriter) -> None:
        super().__init__(queue)
        self._records, self._writer = queue, writer

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Put exceptions into words here: their objects belong to this thread."""
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = trace_of(record.exc_info[1])
        record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._records.qsize() < _LONGEST:
            self._records.put(record)
        else:
            self._writer.dropped += 1


class _LineListener(QueueListener):
    """Looks into the queue a few times a second: waking for every line would delay the request that it tells of."""

    def __init__(self, queue: SimpleQueue[logging.LogRecord], writer: _LineWriter) -> None:
        super().__init__(queue, writer)
        self._records, self._writer, self._done = queue, writer, threading.Event()

    def dequeue(self, block: bool) -> logging.LogRecord:
        while True:
            if len(self._writer.waiting) >= _AT_ONCE:
                self._writer.write()
            try:
                return self._records.get_nowait()
            except Empty:
                self._writer.write()
                self._done.wait(_PAUSE)

    def stop(self) -> None:
        """Write what waits."""
        self._done.set()
        super().stop()
        self._writer.write(ending=True)


class Logs(Watcher):
    """A watcher that writes a line for every finished or refused request and every change of a backend.

    Args:
        level: debug, info, warning or error; requests are `info`, those that failed here are `warning`.
        file: to add to, standard error for None. It may be moved away under us, as logrotate does it.

    `close` it when the proxy has stopped. Raises BadInput for a file that cannot be written.
    """

    def __init__(self, level: str, file: Path | None) -> None:
        self._level, self._file = logging.getLevelName(level.upper()), file
        if file is not None:
            try:
                private_file(file).open("a", encoding="utf-8").close()
            except OSError as error:
                raise BadInput(
                    "logs.file", str(file), f"cannot be written ({error.strerror})", "choose another"
                ) from None
        self._refusals = RefusalLimit()
        self._writer = _LineWriter(file, self._refusals)
        self._writer.setFormatter(_LineFormatter(text_line if file is None and sys.stderr.isatty() else json_line))
        queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._handler, self._listener = _LineQueue(queue, self._writer), _LineListener(queue, self._writer)
        self._log = logging.getLogger(NAME)
        self._previous = [(log, log.level, log.propagate) for log in map(logging.getLogger, _NAMES)]
        for log, _, _ in self._previous:
            log.setLevel(self._level)
            log.propagate = False
            log.addHandler(self._handler)
        self._listener.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written, and of which the log does not tell yet."""
        return self._writer.dropped

    def finished(self, record: RequestRecord) -> None:
        """A request's line."""
        if self._level <= logging.INFO or _level(record) == "warning":
            self._handler.handle(_record(record))

    def refused(self, request: RefusedRequest) -> None:
        """A refused request's line, or one for many."""
        wanted = self._level <= logging.INFO or _level(request) == "warning"
        if wanted and self._refusals.take(request.status, request.code, request.at):
            self._handler.handle(_record(request))

    def backend(self, url: str, healthy: bool) -> None:
        """A backend's line."""
        if healthy:
            self._log.info("backend %s is healthy", url)
        else:
            self._log.warning("backend %s is down", url)

    def close(self) -> None:
        """Write what waits, and leave logging as it was."""
        for log, level, propagate in self._previous:
            log.removeHandler(self._handler)
            log.setLevel(level)
            log.propagate = propagate
        stopping = threading.Thread(target=self._listener.stop, daemon=True)  # a disk may never come back
        stopping.start()
        stopping.join(5.0)
        if self.dropped and self._file is not None:
            print(f"outthink serve: {self.dropped} lines of the log could not be written", file=sys.stderr)


def _record(told: Told | str) -> logging.LogRecord:
    """As logging takes it."""
    level = logging.WARNING if isinstance(told, str) or _level(told) == "warning" else logging.INFO
    return logging.LogRecord(NAME, level, "", 0, told, (), None)


def _masked(text: str) -> str:
    return scrub(text, labelled=True)


def _level(record: RequestRecord | RefusedRequest | RefusalCount) -> str:
    return "warning" if record.status >= 500 else "info"


def _moment(seconds: float) -> str:
    """UTC with milliseconds, 2026-11-24T10:00:00.123Z."""
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(16)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(4096)
def _short(text: str) -> str:
    """Names come again and again, and looking for secrets takes as long as the rest of a line."""
    return _masked(text[:_LETTERS])
