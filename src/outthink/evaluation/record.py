"""Samples a data set into a file that `compare` can replay.

Knows: the journal, what is still missing, and the columns of the data card. Does not know any
engine: every sample comes through a session whose cache is the journal, so that a killed run goes
on without paying twice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from outthink.answers import reader_for
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import AnswerKind, AnswerReader, Request, Sampling
from outthink.core.sample import Sample
from outthink.core.text import writable
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, complete
from outthink.evaluation.dataset import Dataset
from outthink.evaluation.published.problem_list import Problem
from outthink.evaluation.sample_file import JsonObject, journal_of, remove_journal, write_table
from outthink.session.calls import reread
from outthink.session.open import Source, open_session
from outthink.session.runner import Places
from outthink.session.session import Session
from outthink.session.store import Journal, Questions, SampleStore, journal_key, open_journal
from outthink.strategies.prompts import apply_style

_CHUNK = 16
_COLUMNS = (
    ("problem_id", "string"),
    ("sample_idx", "uint16"),
    ("text", "string"),
    ("n_tokens", "uint32"),
    ("finish_reason", "string"),
    ("logprob_sum", "float32"),
    ("mean_logprob", "float32"),
    ("chunk_logprob", "halves"),
    ("chunk_conf", "halves"),
    ("prompt_tokens", "uint32"),
    ("answer", "string"),
    ("extraction", "string"),
    ("correct", "bool"),
)
"""Of the data card; `halves` are lists of 16-bit floats."""
_TOP = 20


def _unread(text: str) -> None:
    """An answer without a kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the problems of a data set are asked, and their samples drawn.

    Args:
        answer: None where answers cannot be read: of code, which only tests can judge.
    """

    answer: AnswerKind | None = "text"
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    style: str | None = None
    system: str | None = None

    @property
    def read_as(self) -> AnswerKind | AnswerReader:
        """What reads the answers; nothing is read where they have no kind."""
        return self.answer or _unread

    def request(self, problem: Problem, seed: int | None = None) -> Request:
        """What is asked of a problem; with the seed of all where it has none of its own."""
        request = Request.of(
            problem.question,
            system=self.system,
            answer=self.read_as,
            sampling=self.sampling,
            seed=self.seed if seed is None else seed,
            problem=problem.problem_id,
        )
        return apply_style(self.style, request) if self.style else request


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording(Drawing):
    """What to record: `samples` sampled rows a problem (1...N), and row 0 where `greedy`.

    Args:
        parameters: weights read per token, None for what the engine tells; kept with the samples.
    """

    samples: int
    greedy: bool = False
    top_logprobs: int = _TOP
    parameters: int | None = None

    def describe(self, engine: Engine, dataset: Dataset) -> JsonObject:
        """Everything that makes two recordings the same; kept in the journal and the file's metadata."""
        return {
            "model": engine.model,
            "dataset": dataset.name,
            "answer": self.answer,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "top_logprobs": self.top_logprobs,
            "style": self.style,
            "system": self.system,
        }


async def record(
    dataset: Dataset,
    engine: Engine,
    out: Path,
    plan: Recording,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Sample what is missing, then write OUT at once; returns the number of rows.

    Args:
        progress: called with (samples saved, samples in all) after each commit.

    Raises BadInput if OUT exists or its journal is of another recording, EngineError if samples
    are missing at the end (what is saved stays saved: run again).
    """
    engine = complete(engine)
    if out.exists():  # noqa: ASYNC240 - one stat before anything runs
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    if plan.samples > _MOST:
        raise BadInput("--samples", plan.samples, f"is more than {_MOST:,}", "record fewer")
    # `describe` names the model, which an engine may know only when it is prepared.
    await engine.prepare(Call(plan.request(dataset.problems[0]).messages, plan.sampling))
    about = plan.describe(engine, dataset)
    store = open_journal(
        "--out", journal_of(out), "recording", about, _FREE, lambda journal: _adopt(journal, dataset, plan), "FULL"
    )
    try:
        if store.described("recording").get("answer") != plan.answer:
            # From now on its samples were read as more than one kind of answer.
            store.about("read anew", str(plan.answer))
        total = len(dataset.problems) * (plan.samples + plan.greedy)
        numbers = _numbers(plan)
        first = numbers[0] if plan.sampling.temperature == 0 else None

        def draws() -> Iterator[Draw]:
            for problem, question in _questions(dataset, plan):
                yield Draw(question, numbers, partial(_sample, problem, plan), first)

        await fill(store, engine, draws, plan.samples, total, progress)
        weights = Tariff.of_engine(engine, parameters=plan.parameters).parameters
        kept = {**about, **dataset.remembered, **({} if weights is None else {"parameters": weights})}
        rows = write_traces(out, _rows(dataset, store, plan), kept)
    finally:
        store.close()
    remove_journal(out)
    return rows


_MOST = 0xFFFF
"""Samples a problem at most: what the column of their numbers holds."""
_FREE = ("dataset", "answer")
"""What may differ between the runs of one journal: a sample belongs to its question, and is read anew as another kind
of answer."""


def _questions(dataset: Dataset, plan: Drawing) -> Iterator[tuple[Problem, str]]:
    """Every problem with its name in a journal; one at a time, since a data set may be large."""
    names = Questions()
    return ((problem, names.name(plan.request(problem))) for problem in dataset.problems)


def _adopt(store: SampleStore, dataset: Dataset, plan: Recording) -> bool:
    """Read a journal of 0.1, whose samples stand under their problem's id: whether they still fit the data set.

    Ids that record gave are places of rows, and such a journal does not hold the questions themselves. So all its ids
    must be there, and if every problem that it holds is complete, it must hold as many as the data set.
    """
    held: dict[str, set[int]] = {}
    for key in store.kept():
        number, _, problem = key.partition(":")
        held.setdefault(problem, set()).add(int(number) if number.isdecimal() else -1)
    names = {problem.problem_id: question for problem, question in _questions(dataset, plan)}
    whole = all(set(_numbers(plan)) <= numbers for numbers in held.values())
    if not held.keys() <= names.keys() or (whole and held and len(held) != len(names)):
        return False
    store.rename(lambda key: journal_key(names[key.partition(":")[2]], int(key.partition(":")[0])))
    return True


class Draw(NamedTuple):
    """Samples that are drawn in one session: their question's name in the journal, their numbers, how to draw them.

    `first` is the `Journal`'s.
    """

    question: str
    numbers: Collection[int]
    run: Callable[[Session], Coroutine[None, None, None]]
    first: int | None = None


def _count_saved(store: SampleStore, draw: Draw) -> int:
    """How many of its samples are in the journal."""
    held = {int(key.rpartition(":")[2]) for key in store.kept(f"{draw.question}:")}
    return len(held.intersection(draw.numbers))


async def fill(
    store: SampleStore,
    engine: Engine,
    draws: Callable[[], Iterable[Draw]],
    calls: int,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    """Draw what is not in the journal yet, as much side by side as keeps the engine busy.

    Args:
        draws: gives them one at a time, so that a large data set need not be laid out.
        calls: that each draw has in flight.
        total: samples that there will be.
    """
    places, tariff = Places(lambda: max(1, engine.concurrency)), Tariff.of_engine(engine)
    begun = len(store) > 0
    saved = sum(_count_saved(store, draw) for draw in draws()) if begun else 0
    waiting = (draw for draw in draws() if not begun or _count_saved(store, draw) < len(draw.numbers))
    progress(saved, total)

    def one_more() -> None:
        nonlocal saved
        saved += 1
        progress(saved, total)

    async def work() -> None:
        for draw in waiting:
            opened = open_session([Source(engine, tariff, Journal(store, draw.question, one_more, draw.first), places)])
            await opened.run(draw.run(opened.session))

    # One draw more than the calls need, so that the engine does not idle while another ends.
    await side_by_side(work, 2 + max(1, engine.concurrency) // max(1, calls))


async def side_by_side(work: Callable[[], Coroutine[None, None, None]], count: int) -> None:
    """So many workers on one queue; the first failure ends them all, and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # they all say the same: the engine is down


async def _sample(problem: Problem, plan: Recording, session: Session) -> None:
    request, top = plan.request(problem), plan.top_logprobs
    if plan.greedy:
        async for _ in session.sample(request.greedy, n=1, top_logprobs=top):
            pass
    if plan.samples:
        async for _ in session.sample(request, n=plan.samples, ahead=plan.samples, top_logprobs=top):
            pass


def _numbers(plan: Recording) -> list[int]:
    return [*([0] if plan.greedy else []), *range(1, plan.samples + 1)]


def _rows(dataset: Dataset, store: SampleStore, plan: Recording) -> Iterator[JsonObject]:
    """Rows of OUT, problem by problem; EngineError at their end if samples are missing."""
    numbers, missing, total = _numbers(plan), 0, 0
    anew, graded = store.about("read anew") is not None, dataset.grade is not None
    for problem, question in _questions(dataset, plan):
        found = [(number, store.get(journal_key(question, number))) for number in numbers]
        samples = [(number, sample) for number, sample in found if sample is not None]
        missing, total = missing + len(found) - len(samples), total + len(found)
        if anew:
            reader = reader_for(plan.read_as)
            samples = [(number, reread(sample, reader)) for number, sample in samples]
        if not graded and dataset.kind is None:  # code: what a reader took for an answer is none
            samples = [(number, replace(sample, answer=None, rule="none")) for number, sample in samples]
        known = graded and problem.answer is not None
        right = dataset.right(problem.problem_id, [sample.answer for _, sample in samples]) if known else set()
        for number, sample in samples:
            yield trace_row(problem.problem_id, number, sample, sample.answer in right if known else None)
    if missing:
        raise EngineError(f"{missing} of {total} samples are missing; run the same command again")


def trace_row(problem_id: str, number: int, sample: Sample, correct: bool | None) -> JsonObject:
    """One sample with the columns of the data card; `correct` is None where nobody knows."""
    logprobs = list(sample.logprobs)
    values = list(sample.confidence.values) if sample.confidence is not None else []
    return {
        "problem_id": writable(problem_id),
        "sample_idx": number,
        "text": writable(sample.text),
        "n_tokens": _count(sample.tokens),
        "finish_reason": writable(str(sample.finish_reason or "unknown")),
        "logprob_sum": sum(logprobs) if logprobs else None,
        "mean_logprob": sample.mean_logprob,
        "chunk_logprob": _chunks(logprobs),
        "chunk_conf": _chunks(values),
        "prompt_tokens": _count(sample.prompt_tokens),
        "answer": writable(sample.answer or ""),
        "extraction": sample.rule,
        "correct": correct,
    }


def _count(tokens: int | None) -> int | None:
    """A count as the file holds it; None for what is none, since an engine's whim must not cost the samples."""
    if not isinstance(tokens, int | float) or not math.isfinite(tokens):
        return None
    return int(tokens) if 0 <= tokens < 1 << 32 else None


def _chunks(values: list[float]) -> list[float] | None:
    """Means of 16 values each, the last over what is left; None without values."""
    if not values:
        return None
    return [sum(part) / len(part) for i in range(0, len(values), _CHUNK) if (part := values[i : i + _CHUNK])]


def write_traces(out: Path, rows: Iterable[JsonObject], about: JsonObject) -> int:
    """Write rows of `trace_row` whole or not at all, and say how many; BadInput where OUT cannot be written."""
    return write_table(out, rows, _COLUMNS, about)
