"""Structured logs: one line of JSON a request, readable text where a person looks, and never a secret.

Knows: which fields of a record may be written: no prompt, no answer, no key. A thread makes and writes the lines a few
times a second, so neither a slow disk nor JSON delays a request; where it falls far behind, lines are dropped and
counted. Does not know who reads them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from contextlib import nullcontext
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from urllib.parse import unquote

from outthink.core.errors import BadInput
from outthink.core.paths import private_file
from outthink.http.errors import scrub, trace_of
from outthink.http.fields import JsonDict, encode
from outthink.serving.observe.refused import RefusalCount, RefusalLimit
from outthink.serving.protocols import RequestRecord
from outthink.serving.watch import RefusedRequest, Watcher

NAME = "outthink.serving"
_NAMES = (NAME, "opentelemetry")
"""Whose records are ours to write: an exporter's quote the collector's address, and whatever it answers."""
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
_LETTERS = 300

Waiting = RequestRecord | RefusedRequest | RefusalCount | logging.LogRecord


def json_line(waiting: Waiting) -> str:
    """A line of JSON: time (UTC), level, message, and of a request what it was and cost, or why it was refused.

    Unknown is null.
    """
    fields: JsonDict
    if isinstance(waiting, RequestRecord):
        fields = {"time": _moment(waiting.started + waiting.seconds), "level": _level(waiting), "message": "request"}
        fields |= zip(_IDS, _ids(waiting), strict=True)
        fields |= {
            name: None if text is None else _short(text) for name, text in zip(_TEXTS, _texts(waiting), strict=True)
        }
        fields |= zip(_NUMBERS, _numbers(waiting), strict=True)
    elif isinstance(waiting, RefusedRequest | RefusalCount):
        fields = {"time": _moment(waiting.at), "level": _level(waiting), "message": "refused"}
        fields |= waiting._asdict()
        del fields["at"]
        if isinstance(waiting, RefusedRequest):
            fields["path"] = _short(unquote(waiting.path))
    else:
        fields = {"time": _moment(waiting.created), "level": waiting.levelname.lower()}
        fields["message"] = _masked(waiting.getMessage())
        if waiting.exc_text:
            fields["trace"] = _masked(waiting.exc_text)
    return encode(fields).decode()


def text_line(waiting: Waiting) -> str:
    """A line for a person."""
    if isinstance(waiting, RequestRecord):
        tokens = "unknown" if waiting.tokens is None else str(waiting.tokens)
        what = f"{waiting.status} {waiting.model[:80]}, {waiting.strategy[:80]}, {waiting.stopped}"
        why = f" ({waiting.error[:_LETTERS]})" if waiting.error else ""
        line = _masked(f"{what}{why}, {waiting.seconds:.3f} s, {tokens} tokens")
        # A model's name is a client's text: no control character of it may reach the terminal.
        return f"{_moment(waiting.started + waiting.seconds)[11:19]} {_level(waiting):7} {ascii(line)[1:-1]}"
    if isinstance(waiting, RefusedRequest | RefusalCount):
        what = f"{waiting.status} {waiting.code}, refused, "
        if isinstance(waiting, RefusedRequest):
            what += f"{waiting.method} {_short(unquote(waiting.path))}, key {waiting.key_id or 'unknown'}"
        else:
            what += f"{waiting.requests} more requests"
        return f"{_moment(waiting.at)[11:19]} {_level(waiting):7} {ascii(what)[1:-1]}"
    line = _masked(waiting.getMessage()) + (f"\n{_masked(waiting.exc_text)}" if waiting.exc_text else "")
    return f"{_moment(waiting.created)[11:19]} {waiting.levelname.lower():7} {line}"


class _QueueHandler(logging.Handler):
    """Hands log records of other parts over to the thread."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Put exceptions into words here: their objects belong to this thread."""
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = trace_of(record.exc_info[1])
        record.exc_info = None
        self._logs.put(record)


class Logs(Watcher):
    """A watcher that writes a line for every finished or refused request and every change of a backend.

    Args:
        level: debug, info, warning or error; requests are `info`, those that failed here are `warning`.
        file: to add to, standard error for None. It may be moved away under us, as logrotate does it.

    `close` it when the proxy has stopped. Raises BadInput for a file that cannot be written.
    """

    def __init__(self, level: str, file: Path | None) -> None:
        self._level, self._file = logging.getLevelName(level.upper()), file
        self._line = text_line if file is None and sys.stderr.isatty() else json_line
        if file is not None:
            try:
                private_file(file).open("a", encoding="utf-8").close()
            except OSError as error:
                raise BadInput(
                    "logs.file", str(file), f"cannot be written ({error.strerror})", "choose another"
                ) from None
        self._waiting: deque[Waiting] = deque()
        self.dropped = 0
        """Lines that were not written, and of which the log does not tell yet."""
        self._refusals = RefusalLimit()
        self._done = threading.Event()
        self._log = logging.getLogger(NAME)
        self._handler = _QueueHandler(self)
        self._previous = [(log, log.level, log.propagate) for log in map(logging.getLogger, _NAMES)]
        for log, _, _ in self._previous:
            log.setLevel(self._level)
            log.propagate = False
            log.addHandler(self._handler)
        self._thread = threading.Thread(target=self._write, name="outthink-log", daemon=True)
        self._thread.start()

    def finished(self, record: RequestRecord) -> None:
        """A request's line."""
        if self._level <= logging.INFO or _level(record) == "warning":
            self.put(record)

    def refused(self, request: RefusedRequest) -> None:
        """A refused request's line, or one for many."""
        wanted = self._level <= logging.INFO or _level(request) == "warning"
        if wanted and self._refusals.take(request.status, request.code, request.at):
            self.put(request)

    def backend(self, url: str, healthy: bool) -> None:
        """A backend's line."""
        if healthy:
            self._log.info("backend %s is healthy", url)
        else:
            self._log.warning("backend %s is down", url)

    def put(self, line: Waiting) -> None:
        """Write soon, or drop it where too much waits."""
        if len(self._waiting) < _LONGEST:
            self._waiting.append(line)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, and leave logging as it was."""
        for log, level, propagate in self._previous:
            log.removeHandler(self._handler)
            log.setLevel(level)
            log.propagate = propagate
        self._done.set()
        self._thread.join(5.0)
        if self.dropped and self._file is not None:
            print(f"outthink serve: {self.dropped} lines of the log could not be written", file=sys.stderr)

    def _write(self) -> None:
        # The standard library's QueueListener wakes for every line, which costs each request 90 microseconds more.
        ending = False
        while not ending:
            ending = self._done.wait(_PAUSE)
            for count in self._refusals.counts(time.time(), now=ending):
                self.put(count)
            # As many as wait now: requests go on adding, and nothing locks the deque.
            lines = [self._format(self._waiting.popleft()) for _ in range(len(self._waiting))]
            new, dropped = len(lines), self.dropped
            if dropped:
                told = f"{dropped} lines were dropped"
                lines.append(self._format(self._log.makeRecord(NAME, logging.WARNING, "", 0, told, (), None)))
            if lines:  # what cannot be told now is told later
                change = -dropped if self._write_out("\n".join(lines) + "\n") else new
                self.dropped += change

    def _format(self, waiting: Waiting) -> str:
        """A line; one that cannot be made says so, and the thread goes on."""
        try:
            return self._line(waiting)
        except (ValueError, TypeError, OverflowError) as error:
            return encode({"level": "error", "message": f"a line could not be made ({type(error).__name__})"}).decode()

    def _write_out(self, text: str) -> bool:
        """One write, and whether it was; a disk that is full costs lines, not the thread."""
        try:
            file = self._file
            with nullcontext(sys.stderr) if file is None else private_file(file).open("a", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):
            return False
        return True


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
