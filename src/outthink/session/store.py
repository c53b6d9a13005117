"""Finished samples on disk, by key, and the two keys in use: a cache of responses and a run's journal.

Knows: SQLite, durability, how a sample becomes JSON, and what makes two calls, or two questions, the same. Does not
know strategies: a sample found here is a vote that costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from outthink.core.errors import BadInput
from outthink.core.paths import cache_dir, private_file, private_folder
from outthink.core.request import Request, Sampling
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.core.text import writable
from outthink.engines.protocol import Call

_PAUSE = 0.01
"""Seconds between two attempts to switch a file's log on."""
_PATIENCE = 30.0
"""Seconds to wait for another process."""
_BRIEF, _RESTS = 0.1, 10.0
"""Seconds that a request waits for another process to keep its answer; after those in vain, seconds without a try."""
_ROOM = "check the folder, make room there, and run the same command again: what is saved stays"
_FIELDS = {field.name for field in fields(Sample)}


class SampleStore:
    """One SQLite file in WAL mode; several processes may share it.

    Args:
        synchronous: FULL survives power loss after each commit (record's journal), NORMAL a kill -9.
        patience: seconds to wait, at each access, for another process that writes.

    Raises BadInput for a file that is not such a store.
    """

    def __init__(
        self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "NORMAL", patience: float = _PATIENCE
    ) -> None:
        self.path = path
        try:
            private_folder(path.parent)
            private_file(path)
            self._database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            use_log(self._database, _PATIENCE)
            self._database.execute(f"PRAGMA synchronous={synchronous}")
            self._database.execute("CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._database.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._database.execute(f"PRAGMA busy_timeout={patience * 1000:.0f}")
        except (OSError, sqlite3.OperationalError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadInput("store", str(path), f"cannot be written ({reason})", _ROOM) from None
        except sqlite3.DatabaseError as error:
            raise BadInput(
                "store", str(path), f"is no sample store ({error})", "give another name, or move the file away"
            ) from None

    def get(self, key: str) -> Sample | None:
        """The sample kept under a key, None if there is none."""
        value = next(self._read("SELECT value FROM samples WHERE key = ?", key), None)
        return None if value is None else self._sample(value)

    def drop(self, key: str) -> None:
        """Forget what is kept under a key."""
        self._write("DELETE FROM samples WHERE key = ?", (key,))

    def put(self, key: str, sample: Sample) -> None:
        """Keep a sample; it is saved when this returns. The first one under a key stays.

        Raises BadInput where it cannot be written; what was saved before stays.
        """
        self._write("INSERT OR IGNORE INTO samples VALUES (?, ?)", (key, json.dumps(_encode(sample), default=float)))

    def about(self, name: str, value: str | None = None) -> str | None:
        """Read a remark on the whole store, or keep one if there is none yet; returns what is kept."""
        if value is not None:
            self._write("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
        return next(self._read("SELECT value FROM about WHERE name = ?", name), None)

    def described(self, name: str) -> dict[str, Any]:
        """A remark that is a JSON object, empty if there is none."""
        with self._damage():
            known = json.loads(self.about(name) or "{}")
            if not isinstance(known, dict):
                raise ValueError(f"its {name} is no object")
            return known

    def kept(self, start: str = "") -> Iterator[str]:
        """All keys in the order of saving, or those that begin so."""
        # A range and not a pattern, so that the index of the keys is used.
        range_of_keys = "SELECT key FROM samples WHERE key >= ? AND key < ? ORDER BY rowid"
        return self._read(range_of_keys, start, start + "\U0010ffff")

    def rename(self, samples: Callable[[str], str], about: Callable[[str], str] = lambda name: name) -> None:
        """Give every sample, and every remark, another key at one stroke."""
        for table, column, change in (("samples", "key", samples), ("about", "name", about)):
            known = list(self._read(f"SELECT {column} FROM {table}"))  # noqa: S608
            changed = [(change(key), key) for key in known]
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {column} = ?", changed)  # noqa: S608

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise BadInput("store", str(self.path), f"cannot be written ({error})", _ROOM) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from None

    def _read(self, statement: str, *values: str) -> Iterator[str]:
        """A column of texts; BadInput where the file is damaged."""
        with self._damage():
            for (cell,) in self._database.execute(statement, values):
                yield str(cell)

    def _sample(self, value: str) -> Sample:
        with self._damage():
            return _decode(json.loads(value))

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """BadInput for whatever is raised where the file holds something else than we have written."""
        try:
            yield
        except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> BadInput:
        return BadInput("store", str(self.path), f"is damaged ({error})", "give another name, or move the file away")

    def __iter__(self) -> Iterator[tuple[str, Sample]]:
        for key in list(self.kept()):
            if (sample := self.get(key)) is not None:
                yield key, sample

    def __len__(self) -> int:
        return int(next(self._read("SELECT COUNT(*) FROM samples")))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _encode(sample: Sample) -> dict[str, Any]:
    value = asdict(sample)
    for name in ("text", "answer", "reasoning", "stop"):
        if value[name] is not None:
            value[name] = writable(value[name])
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
    numbers = [*known["logprobs"], *known["scores"]]
    if known.get("confidence") is not None:
        numbers += [*known["confidence"].values, known["confidence"].stride, known["confidence"].tokens]
    sample = Sample(**known)
    texts = (sample.text, sample.rule, sample.finish_reason, sample.reasoning)
    maybe = (sample.tokens, sample.prompt_tokens, sample.mean_logprob, sample.self_certainty, sample.verifier_tokens)
    numbers += [sample.index, *(number for number in maybe if number is not None)]
    good = all(isinstance(text, str) for text in texts) and all(isinstance(number, int | float) for number in numbers)
    if not good or not all(isinstance(text, str | None) for text in (sample.answer, sample.stop)):
        raise ValueError("a sample has values of other types")
    return sample


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
    """Samples of one engine in a store.

    Args:
        engine: names it by its whole address and its model; asked at each look-up, for models may be told late.
    """

    def __init__(self, store: SampleStore, engine: Callable[[], str]) -> None:
        self.store, self._engine = store, engine
        self._writes_from = 0.0

    @classmethod
    def default(cls, engine: Callable[[], str]) -> ResponseCache:
        """The cache in the user's cache folder."""
        return cls(SampleStore(default_path(), patience=_BRIEF), engine)

    def get(self, call: Call) -> Sample | None:
        """The sample this call gave before; None also where its entry is broken, which makes room for a new one."""
        key = call_key(self._engine(), call)
        try:
            sample = self.store.get(key)
        except BadInput:
            sample = None
        else:
            if sample is None or sample.index == call.index:
                return sample
        self._change(lambda: self.store.drop(key))  # a file that takes no changes is as good as an empty one
        return None

    def put(self, call: Call, sample: Sample) -> None:
        """Keep a finished sample, where there is room for it."""
        # An answer that cannot be kept is an answer all the same, and it is paid for.
        self._change(lambda: self.store.put(call_key(self._engine(), call), sample))

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change if the file takes it; the request that waits for it has a deadline."""
        if time.monotonic() < self._writes_from:
            return
        try:
            change()
        except BadInput:
            self._writes_from = time.monotonic() + _RESTS

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def default_path() -> Path:
    """Where the response cache lies."""
    return cache_dir() / "responses.sqlite"


class Questions:
    """Names of questions in a journal: by what is asked, wherever its row stands and whatever its problem is called.

    Questions with equal content share nothing: their place among equal ones is part of the name.
    """

    def __init__(self) -> None:
        # Hashes of 64 bits as numbers: a data set may hold a million questions.
        self._seen: set[int] = set()
        self._again: dict[int, int] = {}
        self._sampling: tuple[Sampling, str] | None = None

    def name(self, request: Request, prefix: str = "") -> str:
        """The next question's name: a hash of messages and sampling, and its place among equal ones.

        Args:
            prefix: what its completions go on from.
        """
        if self._sampling is None or self._sampling[0] is not request.sampling:
            self._sampling = request.sampling, json.dumps(asdict(request.sampling), sort_keys=True)
        messages = json.dumps([message.wire() for message in request.messages], sort_keys=True, default=str)
        content = "\0".join((messages, self._sampling[1], request.opening or "", prefix))
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass"))
        mark = int.from_bytes(digest.digest()[:8])
        place = 0
        if mark in self._seen:
            place = self._again[mark] = self._again.get(mark, 0) + 1
        self._seen.add(mark)
        return f"{digest.hexdigest()[:32]}.{place}"

    @classmethod
    def names_by_problem(cls, requests: Iterable[tuple[str, Request]]) -> dict[str, str]:
        """The name of each problem's question, in their order."""
        questions = cls()
        return {problem: questions.name(request) for problem, request in requests}


class Journal:
    """A session's cache for one question of a run: samples are saved, and counted as saved, one commit each.

    Args:
        question: its name among `Questions`.
        saved: called after each commit.
        first: number of the first sample where all are drawn at temperature 0; None: such a call is the greedy one.
    """

    def __init__(
        self, store: SampleStore, question: str, saved: Callable[[], None] = lambda: None, first: int | None = None
    ) -> None:
        self.store, self.question, self.saved, self.first = store, question, saved, first

    def get(self, call: Call) -> Sample | None:
        """The sample saved under this number."""
        return self.store.get(self._key(call))

    def put(self, call: Call, sample: Sample) -> None:
        """Save a sample."""
        self.store.put(self._key(call), sample)
        self.saved()

    def _key(self, call: Call) -> str:
        # As the rows of a recording: 0 is the greedy sample, the sampled ones begin at 1 (docs/contracts.md).
        if call.sampling.temperature == 0:
            return journal_key(self.question, 0 if self.first is None else self.first + call.index)
        return journal_key(self.question, call.index + 1)


def open_journal(
    field: str,
    journal: Path,
    run: str,
    described: Mapping[str, Any],
    free: Collection[str],
    adopt: Callable[[SampleStore], bool],
    synchronous: Literal["FULL", "NORMAL"] = "NORMAL",
) -> SampleStore:
    """The journal of a run; BadInput where it is that of another one.

    Args:
        field: what errors call what the journal belongs to.
        described: what the run is told by, as JSON; `free` are the parts that may differ between the runs of one
            journal.
        adopt: turns a journal of 0.1 into one by content, or says that its questions are not these.
    """
    store = SampleStore(journal, synchronous=synchronous)
    try:
        told = json.loads(json.dumps(described))
        store.about(run, json.dumps(described, sort_keys=True))
        kept = store.described(run)
        others = sorted(name for name in {*told, *kept} - {*free} if told.get(name) != kept.get(name))
        if others:
            what = f"is the journal of another {run} ({', '.join(others)})"
            raise BadInput(field, str(journal), what, f"run it as it was begun, or change {field}")
        if store.about("keys") is None:
            if len(store) and not adopt(store):
                what = f"is the journal of a {run} by version 0.1, and its questions are not these in number and order"
                raise BadInput(
                    field, str(journal), what, f"go on with the questions it was begun with, or change {field}"
                )
            store.about("keys", "content")
    except BaseException:
        store.close()
        raise
    return store


def journal_key(question: str, number: int) -> str:
    """Where a journal keeps sample `number` of a question."""
    return f"{question}:{number}"


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
