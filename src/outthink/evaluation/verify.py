"""Scores recorded samples in bulk, for `outthink verify` and before a replay that needs scores.

Knows: which samples are still to be judged, in what pieces, what becomes of one without a score, the journal that a
killed run goes on from, and where scored files are kept. Does not know how a verifier judges or what its scores are
used for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from time import monotonic

from outthink.controller.verifier import open_verifier
from outthink.core.errors import BadInput, EngineError, Unsupported
from outthink.core.paths import cache_dir, private_file, private_folder
from outthink.core.request import AnswerKind, Request
from outthink.core.sample import Candidate, Sample, split_steps
from outthink.engines.protocol import Engine
from outthink.engines.traces import Scoring, Traces, load
from outthink.evaluation.published.lookup import Problems, problems_of
from outthink.evaluation.record import side_by_side
from outthink.evaluation.sample_file import JsonObject, JudgedSample, SampleFile, journal_of, remove_journal
from outthink.session.store import use_log
from outthink.verifiers.protocol import Score, Verifier, complete

_BATCH = 16
"""Samples of one problem that are judged, and saved, together."""
_LARGE_BATCH = 256
"""Samples of any problems, for verifiers that judge many questions at a time (`score_many`)."""
_SIDE_BY_SIDE = 4
"""Batches under way at once, for verifiers that wait for a server. Checks here share out the cores themselves."""
_COMMIT = 0.2  # seconds between two commits
NO_TEXT = "no text to judge"


@dataclass(frozen=True, slots=True)
class Item:
    """One sample to be judged; `row` is its place in the file."""

    row: int
    request: Request
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a run has written.

    Args:
        rows: samples in the file.
        unscored: how many samples have no score, by reason.
        judged: every row's score, in the order of the file.
    """

    rows: int
    unscored: Counter[str]
    judged: tuple[JudgedSample, ...]


def _describe(verifier: Verifier) -> JsonObject:
    """What a replay must know of the verifier; kept in the metadata of the scored file."""
    return asdict(Scoring(verifier.id, verifier.kind, verifier.model, verifier.parameters, verifier.aggregation))


def fingerprint(samples: SampleFile, problems: Problems, verifier: Verifier, kind: AnswerKind) -> str:
    """One text for everything that decides the scores: inputs, verifier and kind of answer."""
    # Only checks go by the kind of answer: other scores stay valid whatever it is.
    parts = [samples.digest, problems.digest, _describe(verifier), kind if verifier.kind == "exact" else ""]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


async def verify(
    samples: SampleFile,
    problems: Problems,
    verifier: Verifier,
    out: Path,
    *,
    kind: AnswerKind = "text",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Judge what is not in the journal yet, then write OUT at once.

    Args:
        kind: kind of answer of the requests, for verifiers that read answers.
        progress: called with (samples saved, samples in all) after each commit.

    Raises BadInput for samples whose problem is missing, an OUT that exists, a journal of another
    run or a verifier that can judge none of them; EngineError where the verifier dies (what is
    scored stays: run again).
    """
    # With both there a run was killed after it had written the file: the same command just ends it.
    if out.exists() and not journal_of(out).exists():  # noqa: ASYNC240 - before anything runs
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    verifier = complete(verifier)
    rows = samples.samples()
    missing = next((key for key, _ in rows if key not in problems), None)
    if missing is not None:
        raise BadInput("problem_id", missing, f"is not in {problems.path}", "give the problems of these samples")
    await verifier.prepare()  # it then knows its model's name, which is part of its id
    journal = _ScoreJournal(out, fingerprint(samples, problems, verifier, kind), lambda n: progress(n, len(rows)))
    useless, saved = False, journal.saved
    try:
        progress(len(saved), len(rows))
        if verifier.kind != "exact":  # nothing is no right answer for a check; a model cannot judge it
            blank = [row for row, (_, sample) in enumerate(rows) if row not in saved and not sample.text.strip()]
            journal.waiting = {row: JudgedSample(None, reason=NO_TEXT) for row in blank}
        batches = _batches(_items(rows, problems, verifier, kind, {*saved, *journal.waiting}), verifier)
        try:
            await _judge_all(batches, verifier, journal.add)
        finally:
            journal.flush()
        judged = tuple(saved[row] for row in range(len(rows)))
        unscored = Counter(sample.reason for sample in judged if sample.score is None)
        if unscored.total() == len(rows) and set(unscored) != {NO_TEXT}:
            reason = unscored.most_common(1)[0][0]
            useless = True
            raise BadInput("verifier", verifier.id, f"scored no sample: {reason}", "give other samples or another one")
        samples.write(out, judged, _describe(verifier))
    finally:
        journal.close()
        if useless or not any(sample.score is not None or sample.tokens for sample in saved.values()):
            remove_journal(out)  # nothing to go on from; it would only stand in the way of another verifier
    remove_journal(out)
    return VerifyReport(len(rows), unscored, judged)


def candidate(sample: Sample, verifier: Verifier) -> Candidate:
    """A recorded sample cut into steps as the verifier wants them."""
    steps = split_steps(sample.text, verifier.separator) if verifier.kind == "process" else (sample.text,)
    return Candidate(steps, sample)


def _items(
    rows: Sequence[tuple[str, Sample]],
    problems: Problems,
    verifier: Verifier,
    kind: AnswerKind,
    done: Container[int],
) -> list[list[Item]]:
    """What is left, by problem in the order of the file."""
    waiting: dict[str, list[int]] = {}
    for row, (key, _) in enumerate(rows):
        if row not in done:
            waiting.setdefault(key, []).append(row)
    by_problem = []
    for key, places in waiting.items():
        request = Request.of(problems.asked(key), answer=kind, problem=key)
        by_problem.append([Item(row, request, candidate(rows[row][1], verifier)) for row in places])
    return by_problem


def _batches(by_problem: list[list[Item]], verifier: Verifier) -> Iterator[list[Item]]:
    """Pieces that are judged and saved together: of one problem, or many for a verifier that fills its own batches."""
    size = _BATCH if verifier.score_many is None else _LARGE_BATCH
    pools = [[item for items in by_problem for item in items]] if size == _LARGE_BATCH else by_problem
    for pool in pools:
        for start in range(0, len(pool), size):
            yield pool[start : start + size]


async def _judge_all(
    batches: Iterator[list[Item]], verifier: Verifier, saved: Callable[[Sequence[tuple[int, JudgedSample]]], None]
) -> None:
    """Some batches side by side; the first failure ends all, and what was saved stays."""

    async def work() -> None:
        for batch in batches:
            judged = await _judge(batch, verifier)
            saved([(item.row, sample) for item, sample in zip(batch, judged, strict=True)])

    await side_by_side(work, _SIDE_BY_SIDE if verifier.score_many is None and verifier.kind != "exact" else 1)


async def _judge(batch: list[Item], verifier: Verifier) -> list[JudgedSample]:
    """A batch; where it is refused, its halves, so that only the guilty samples have no score."""
    try:
        scores = await _scores(batch, verifier)
    except (BadInput, Unsupported) as error:
        if isinstance(error, Unsupported) and verifier.kind != "confidence":
            raise  # nothing else can be judged either: no sandbox, no server of the right kind
        if len(batch) == 1:
            reason = f"{error.field} {error.problem}" if isinstance(error, BadInput) else str(error)
            return [JudgedSample(None, reason=reason)]
        middle = len(batch) // 2
        return await _judge(batch[:middle], verifier) + await _judge(batch[middle:], verifier)
    if len(scores) != len(batch):
        raise EngineError(f"{verifier.id} gave {len(scores)} scores for {len(batch)} samples")
    return [_judged(score, verifier) for score in scores]


async def _scores(batch: list[Item], verifier: Verifier) -> list[Score]:
    if verifier.score_many is None:
        return await verifier.score(batch[0].request, [item.candidate for item in batch])
    by_request = groupby(batch, key=lambda item: item.request)
    groups = [(request, [item.candidate for item in items]) for request, items in by_request]
    by_group = await asyncio.to_thread(verifier.score_many, groups)
    return [score for scores in by_group for score in scores]


def _judged(score: Score, verifier: Verifier) -> JudgedSample:
    if not score.steps:
        return JudgedSample(None, None, score.tokens, score.message or "the verifier gave no score")
    if not all(0 <= step <= 1 for step in score.steps):
        return JudgedSample(None, None, score.tokens, "the verifier gave a score that is not between 0 and 1")
    steps = tuple(score.steps) if verifier.kind == "process" else None
    return JudgedSample(score.value(verifier.aggregation), steps, score.tokens)


# The journal of scores: one a file, a commit each batch.

_PATIENCE = 30.0
"""Seconds to wait for another process."""
_ROOM = "check the folder, make room there, and run the same command again: what is scored stays"
_ANOTHER = "run it as it was begun, or change --out"


class _ScoreJournal:
    """Scores by row; a commit each batch, after which nothing of it can be lost.

    Those of a quick check are committed a few times a second: a commit takes longer than the check.

    Args:
        out: the file that will be written; the journal lies beside it.
        run: fingerprint of everything that decides the scores.
        notify: receives the number of scores after each commit.

    Raises BadInput for a file that is no journal, or the journal of another run.
    """

    def __init__(self, out: Path, run: str, notify: Callable[[int], None]) -> None:
        self.path, self._notify = journal_of(out), notify
        try:
            private_folder(self.path.parent)
            private_file(self.path)
            self._database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise BadInput("--out", str(out), f"cannot be written ({error})", "check the folder") from None
        try:
            execute = self._database.execute
            use_log(self._database, _PATIENCE)
            execute("PRAGMA synchronous=FULL")  # progress shows a sample only when a power cut cannot lose it
            execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            execute("CREATE TABLE IF NOT EXISTS scores (row INTEGER PRIMARY KEY, value TEXT NOT NULL)")
            # Of two that start at once the second reads the first one's run.
            execute("INSERT OR IGNORE INTO about VALUES ('run', ?)", (run,))
            (kept,) = execute("SELECT value FROM about WHERE name = 'run'").fetchone()
            scores = {int(row): json.loads(value) for row, value in execute("SELECT row, value FROM scores")}
            self.saved = {
                row: JudgedSample(score, None if steps is None else tuple(steps), tokens, reason)
                for row, (score, steps, tokens, reason) in scores.items()
            }
        except sqlite3.OperationalError as error:
            self._database.close()
            raise BadInput("--out", str(self.path), f"cannot be written ({error})", _ROOM) from None
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            self._database.close()
            remedy = "give another name, or move the file away"
            raise BadInput("--out", str(self.path), f"is no journal ({error})", remedy) from None
        if kept != run:
            self._database.close()
            raise BadInput("--out", str(self.path), "is the journal of another run", _ANOTHER)
        self.waiting: dict[int, JudgedSample] = {}
        self._committed = 0.0

    def add(self, judged: Iterable[tuple[int, JudgedSample]]) -> None:
        """Take in a batch of rows without a score so far."""
        self.waiting.update(judged)
        if monotonic() - self._committed > _COMMIT:
            self.flush()

    def flush(self) -> None:
        """Commit what waits; it is safe when this returns."""
        rows = [
            (row, json.dumps([sample.score, sample.steps, sample.tokens, sample.reason]))
            for row, sample in self.waiting.items()
        ]
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise BadInput("--out", str(self.path), f"cannot be written ({error})", _ROOM) from None
        self.saved.update(self.waiting)
        self.waiting.clear()
        self._committed = monotonic()
        self._notify(len(self.saved))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


# Samples are scored before they are replayed, once for each file and verifier: the scored file is kept in the cache.


@dataclass(frozen=True, slots=True, kw_only=True)
class Prescoring:
    """How samples without scores get them.

    Args:
        verifier: NAME, PATH or URL.
        problems: file of the problems, None for the one beside the traces.
        answer: kind of answer, None to tell from the gold answers.
        engine: where a judge gets its tokens from.
        progress: called with (samples scored, samples in all).
        say: receives one line about samples without a score.
    """

    verifier: str
    problems: Path | None = None
    answer: AnswerKind | None = None
    engine: Engine | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    say: Callable[[str], None] = lambda line: None


def prescored(traces: Traces, scoring: Prescoring, *, text: bool = False) -> Traces:
    """The same samples with the scores of this verifier: recorded, kept from an earlier run, or new.

    Args:
        text: keep the completions, as in `load`.

    Raises BadInput and EngineError like `verify`; what is scored before a failure is kept.
    """
    problems = problems_of(traces, scoring.problems, "--verifier")
    kind = scoring.answer or problems.kind
    verifier = open_verifier(
        scoring.verifier, answer=kind, keys=problems.keys, code=problems.code, engine=scoring.engine
    )

    async def scored() -> Path | None:
        """The scored file, None where the samples carry these scores already."""
        async with aclosing(verifier):
            await verifier.prepare()  # it then knows its model's name, which is part of its id
            if traces.verifier == verifier.id:
                return None
            samples = SampleFile(traces.path, rescore=True)
            run = fingerprint(samples, problems, verifier, kind)
            out = cache_dir() / "scored" / run[:32] / traces.path.name
            if out.exists():
                remove_journal(out)  # of a run that was killed after it had written the file
                return out
            report = await verify(samples, problems, verifier, out, kind=kind, progress=scoring.progress)
            for reason, count in report.unscored.items():
                scoring.say(f"{traces.path.name}: {count} samples have no score: {reason}")
            return out

    out = asyncio.run(scored())
    if out is None:
        return traces
    return replace(load(out, text=text), path=traces.path)  # rows name the given file, not the one in the cache
