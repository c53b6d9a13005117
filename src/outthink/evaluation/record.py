"""Samples a data set into a file that `compare` can replay.

Knows: the journal, what is still missing, and the columns of the data card. Does not know any
engine: every sample comes through a session whose cache is the journal, so that a killed run goes
on without paying twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import AnswerKind, Request, Sampling
from outthink.core.sample import Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, complete
from outthink.evaluation.dataset import Dataset, Problem
from outthink.evaluation.sample_file import JsonObject, journal_of, remove_journal, write_table
from outthink.session.open import Source, open_session
from outthink.session.runner import Places
from outthink.session.session import Session
from outthink.session.store import Journal, SampleStore
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the problems of a data set are asked, and their samples drawn."""

    answer: AnswerKind = "text"
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    style: str | None = None
    system: str | None = None

    def request(self, problem: Problem, seed: int | None = None) -> Request:
        """What is asked of a problem; with the seed of all where it has none of its own."""
        request = Request.of(
            problem.question,
            system=self.system,
            answer=self.answer,
            sampling=self.sampling,
            seed=self.seed if seed is None else seed,
            problem=problem.problem_id,
        )
        return apply_style(self.style, request) if self.style else request


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording(Drawing):
    """What to record: `samples` sampled rows a problem (1...N), and row 0 where `greedy`."""

    samples: int
    greedy: bool = False
    top_logprobs: int = _TOP

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
    # `describe` names the model, which an engine may know only when it is prepared.
    await engine.prepare(Call(plan.request(dataset.problems[0]).messages, plan.sampling))
    store = open_journal(out, "recording", plan.describe(engine, dataset), synchronous="FULL")
    try:
        total = len(dataset.problems) * (plan.samples + plan.greedy)
        draws = []
        for problem in dataset.problems:
            keys = {f"{number}:{problem.problem_id}" for number in _numbers(plan)}
            draws.append(Draw(problem.problem_id, keys, partial(_sample, plan.request(problem), plan)))
        await fill(store, engine, draws, plan.samples, total, progress)
        rows = _rows(dataset, store, plan)
        if len(rows) < total:
            raise EngineError(f"{total - len(rows)} of {total} samples are missing; run the same command again")
        write_traces(out, rows, plan.describe(engine, dataset))
    finally:
        store.close()
    remove_journal(out)
    return len(rows)


def open_journal(
    out: Path, run: str, described: JsonObject, *, synchronous: Literal["FULL", "NORMAL"] = "NORMAL"
) -> SampleStore:
    """The journal of samples beside OUT; BadInput where it is that of another `run`."""
    journal = journal_of(out)
    store = SampleStore(journal, synchronous=synchronous)
    text = json.dumps(described, sort_keys=True)
    if store.about(run, text) != text:
        store.close()
        raise BadInput("--out", str(journal), f"is the journal of another {run}", "remove it or change --out")
    return store


class Draw(NamedTuple):
    """Samples that are drawn in one session: their name and keys in the journal, and how to draw them."""

    name: str
    keys: set[str]
    run: Callable[[Session], Coroutine[None, None, None]]


async def fill(
    store: SampleStore,
    engine: Engine,
    draws: Sequence[Draw],
    calls: int,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    """Draw what is not in the journal yet, as much side by side as keeps the engine busy.

    Args:
        calls: that each draw has in flight.
        total: samples that there will be.
    """
    saved, done = len(store), {key for key, _ in store}
    places, tariff = Places(lambda: max(1, engine.concurrency)), Tariff.of(engine.model)
    waiting = iter([draw for draw in draws if not draw.keys <= done])
    progress(saved, total)

    def one_more() -> None:
        nonlocal saved
        saved += 1
        progress(saved, total)

    async def work() -> None:
        for draw in waiting:
            opened = open_session([Source(engine, tariff, Journal(store, draw.name, one_more), places)])
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


async def _sample(request: Request, plan: Recording, session: Session) -> None:
    top = plan.top_logprobs
    if plan.greedy:
        async for _ in session.sample(request.greedy, n=1, top_logprobs=top):
            pass
    if plan.samples:
        async for _ in session.sample(request, n=plan.samples, ahead=plan.samples, top_logprobs=top):
            pass


def _numbers(plan: Recording) -> list[int]:
    return [*([0] if plan.greedy else []), *range(1, plan.samples + 1)]


def _rows(dataset: Dataset, store: SampleStore, plan: Recording) -> list[JsonObject]:
    rows = []
    for problem in dataset.problems:
        samples = [
            (number, sample)
            for number in _numbers(plan)
            if (sample := store.get(f"{number}:{problem.problem_id}")) is not None
        ]
        right = dataset.right(problem.problem_id, [sample.answer for _, sample in samples])
        rows += [trace_row(problem.problem_id, number, sample, sample.answer in right) for number, sample in samples]
    return rows


def trace_row(problem_id: str, number: int, sample: Sample, correct: bool) -> JsonObject:
    """One sample with the columns of the data card."""
    logprobs = list(sample.logprobs)
    values = list(sample.confidence.values) if sample.confidence is not None else []
    return {
        "problem_id": problem_id,
        "sample_idx": number,
        "text": sample.text,
        "n_tokens": sample.tokens,
        "finish_reason": sample.finish_reason,
        "logprob_sum": sum(logprobs) if logprobs else None,
        "mean_logprob": sample.mean_logprob,
        "chunk_logprob": _chunks(logprobs),
        "chunk_conf": _chunks(values),
        "prompt_tokens": sample.prompt_tokens,
        "answer": sample.answer or "",
        "extraction": sample.rule,
        "correct": correct,
    }


def _chunks(values: list[float]) -> list[float] | None:
    """Means of 16 values each, the last over what is left; None without values."""
    if not values:
        return None
    return [sum(part) / len(part) for i in range(0, len(values), _CHUNK) if (part := values[i : i + _CHUNK])]


def write_traces(out: Path, rows: list[JsonObject], about: JsonObject) -> None:
    """Write rows of `trace_row` whole or not at all; BadInput where OUT cannot be written."""
    write_table(out, rows, _COLUMNS, about)
