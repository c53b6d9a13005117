"""Math-Shepherd labels: how often a completion of each step's prefix comes right (arXiv 2312.08935).

Knows: prefixes, the journal, and the columns of the data card's process labels. Does not know any
engine; a whole solution is graded, never completed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outthink.answers import Reading, reader_for
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import AnswerKind, Request, Sampling
from outthink.core.sample import Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, complete
from outthink.evaluation.dataset import Dataset, Problem
from outthink.session.open import Source, open_session
from outthink.session.runner import Places
from outthink.session.session import Session
from outthink.session.store import Journal, SampleStore
from outthink.strategies.prompts import apply_style
from outthink.training.solutions import Solution

# Process labels on disk. Knows the data card's columns and our further ones; writes the file whole.


def write_labels(out: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a Parquet file at once. BadInput where it cannot be written.

    Beyond the data card's columns: `n_unparsed` (completions without a readable answer, counted wrong),
    `n_completions`, and `prefix_hash`, the same for equal prefixes of a problem. Completer, temperature
    and seed are in the file's metadata under `outthink`.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema(
        [
            ("problem_id", pa.string()),
            ("sample_idx", pa.uint16()),
            ("step_idx", pa.uint16()),
            ("prefix_end", pa.uint32()),
            ("prefix_tokens", pa.uint32()),
            ("is_final", pa.bool_()),
            ("n_correct", pa.uint16()),
            ("n_correct_boxed", pa.uint16()),
            ("n_stop", pa.uint16()),
            ("mean_tokens", pa.float32()),
            ("n_unparsed", pa.uint16()),
            ("n_completions", pa.uint16()),
            ("prefix_hash", pa.string()),
        ],
        metadata={"outthink": json.dumps({**about, "version": version("outthink")})},
    )
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft, compression="zstd")
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput("--out", str(out), f"cannot be written ({error.strerror})", "check the folder") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """How to label: `completions` of each prefix, of the first `steps` steps of a solution.

    `style`, `system` and `instruction` (a line after the question) are those the samples were drawn with.
    """

    completions: int = 8
    steps: int = 24
    answer: AnswerKind = "number"
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, max_tokens=256))
    seed: int = 0
    style: str | None = None
    system: str | None = None
    instruction: str | None = None

    def about(self, engine: Engine, dataset: Dataset, solutions: Sequence[Solution]) -> dict[str, Any]:
        """Everything that makes two labellings the same; kept in the journal and the file's metadata."""
        digest = hashlib.sha256()
        for solution in solutions:
            digest.update(f"{solution.problem_id}:{solution.sample_idx}:{''.join(solution.steps)}\0".encode())
        return {
            "completer": engine.model,
            "dataset": dataset.name,
            "solutions": digest.hexdigest()[:16],
            "completions": self.completions,
            "steps": self.steps,
            "answer": self.answer,
            "temperature": self.sampling.temperature,
            "sampling": {name: getattr(self.sampling, name) for name in self.sampling.__slots__},
            "seed": self.seed,
            "style": self.style,
            "system": self.system,
            "instruction": self.instruction,
        }


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a solution, up to the end of a step. Equal texts of one problem are one prefix."""

    problem_id: str
    text: str

    @property
    def key(self) -> str:
        """Its hash: problem and text."""
        return hashlib.sha256(f"{self.problem_id}\0{self.text}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Place:
    """A step of a solution and its prefix; `final` where the prefix is the whole, finished solution."""

    solution: Solution
    step: int
    prefix: Prefix
    final: bool


def places(solutions: Iterable[Solution], steps: int) -> list[Place]:
    """The steps to label. Of a solution cut at its length limit the last, broken step is left out."""
    found: list[Place] = []
    for solution in solutions:
        text = ""
        for number, piece in enumerate(solution.steps):
            text += piece
            last = number == len(solution.steps) - 1
            if number < steps and not (last and solution.cut):
                found.append(Place(solution, number, Prefix(solution.problem_id, text), last))
    return found


async def label(
    dataset: Dataset,
    solutions: Sequence[Solution],
    engine: Engine,
    out: Path,
    plan: Labelling,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Complete the prefixes that are missing, then write OUT at once; returns the number of rows.

    Args:
        dataset: the problems with their gold answers.
        progress: called with (completions saved, completions in all) after each commit.

    Raises BadInput if OUT exists, its journal is of another labelling or a solution has no problem,
    EngineError if completions are missing at the end (what is saved stays saved: run again).
    """
    engine = complete(engine)
    if out.exists():  # noqa: ASYNC240 - one stat before anything runs
        raise BadInput("--out", str(out), "exists already", "give another name or remove it")
    problems = {problem.problem_id: problem for problem in dataset.problems}
    wanted = places(solutions, plan.steps)
    strangers = sorted({place.solution.problem_id for place in wanted} - set(problems))
    if strangers or not wanted:
        raise BadInput("--problems", (strangers or ["no solution"])[0], "is not among them", "give their problems")
    prefixes = list(dict.fromkeys(place.prefix for place in wanted if not place.final))
    await engine.prepare(Call(_request(next(iter(problems.values())), plan, 0).messages, plan.sampling))
    journal = out.with_name(out.name + ".journal")
    store = SampleStore(journal)  # survives a kill; what a power cut loses is sampled again
    about = plan.about(engine, dataset, solutions)
    try:
        described = json.dumps(about, sort_keys=True)
        if store.about("labelling", described) != described:
            raise BadInput("--out", str(journal), "is the journal of another labelling", "remove it or change --out")
        await _complete(prefixes, problems, engine, store, plan, progress)
        rows = await _rows(wanted, dataset, engine, store, plan)
    finally:
        store.close()
    write_labels(out, rows, about)
    for suffix in ("", "-wal", "-shm"):
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)
    return len(rows)


def _request(problem: Problem, plan: Labelling, seed: int) -> Request:
    request = Request.of(
        problem.question + (f"\n{plan.instruction}" if plan.instruction else ""),
        system=plan.system,
        answer=plan.answer,
        sampling=plan.sampling,
        seed=seed,
        problem=problem.problem_id,
    )
    return apply_style(plan.style, request) if plan.style else request


def _seed(prefix: Prefix, plan: Labelling) -> int:
    """Each prefix has random numbers of its own, whatever else is labelled with it."""
    return (plan.seed * 1_000_003 + int(prefix.key[:7], 16)) % 2**31


async def _complete(
    prefixes: Sequence[Prefix],
    problems: dict[str, Problem],
    engine: Engine,
    store: SampleStore,
    plan: Labelling,
    progress: Callable[[int, int], None],
) -> None:
    """Work on as many prefixes side by side as keep the engine busy."""
    total, saved = len(prefixes) * plan.completions, len(store)
    done = {key for key, _ in store}
    shared, tariff = Places(lambda: max(1, engine.concurrency)), Tariff.of(engine.model)
    waiting = iter([prefix for prefix in prefixes if not _keys(prefix, plan) <= done])
    progress(saved, total)

    def one_more() -> None:
        nonlocal saved
        saved += 1
        progress(saved, total)

    async def work() -> None:
        for prefix in waiting:
            opened = open_session([Source(engine, tariff, Journal(store, prefix.key, one_more), shared)])
            request = _request(problems[prefix.problem_id], plan, _seed(prefix, plan))
            await opened.run(_draw(opened.session, request, prefix.text, plan.completions))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(2 + max(1, engine.concurrency) // plan.completions):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # they all say the same: the engine is down


async def _draw(session: Session, request: Request, prefix: str, n: int) -> None:
    async for _ in session.extend(request, prefix, n=n, ahead=n, top_logprobs=None):
        pass


def _keys(prefix: Prefix, plan: Labelling) -> set[str]:
    return {_key(prefix, plan, number) for number in range(plan.completions)}


def _key(prefix: Prefix, plan: Labelling, index: int) -> str:
    """As `Journal` writes them."""
    return f"{0 if plan.sampling.temperature == 0 else index + 1}:{prefix.key}"


async def _rows(
    wanted: Sequence[Place], dataset: Dataset, engine: Engine, store: SampleStore, plan: Labelling
) -> list[dict[str, Any]]:
    reader = reader_for(plan.answer)
    known: dict[Prefix, dict[str, Any]] = {}
    missing = 0
    rows = []
    for place in wanted:
        prefix = place.prefix
        if place.final:
            reading = await reader.read(prefix.text)
            counts = _whole(reading, _right(dataset, prefix, [reading.answer])[0], plan.completions)
        else:
            if prefix not in known:
                found = [store.get(key) for key in sorted(_keys(prefix, plan))]
                samples = [sample for sample in found if sample is not None]
                missing += len(found) - len(samples)
                known[prefix] = _completed(dataset, prefix, samples)
            counts = known[prefix]
        rows.append(
            {
                "problem_id": prefix.problem_id,
                "sample_idx": place.solution.sample_idx,
                "step_idx": place.step,
                "prefix_end": len(prefix.text),
                "prefix_tokens": await _tokens(engine, prefix.text),
                "is_final": place.final,
                "prefix_hash": prefix.key,
                "n_completions": plan.completions,
                **counts,
            }
        )
    if missing:
        raise EngineError(f"{missing} completions are missing; run the same command again")
    return rows


def _right(dataset: Dataset, prefix: Prefix, answers: Sequence[str | None]) -> list[bool]:
    """Which answers are right; none is wrong."""
    distinct = sorted({answer for answer in answers if answer is not None})
    grades = dict(zip(distinct, dataset.grade(prefix.problem_id, distinct), strict=True)) if distinct else {}
    return [answer is not None and grades[answer] for answer in answers]


def _completed(dataset: Dataset, prefix: Prefix, samples: Sequence[Sample]) -> dict[str, Any]:
    right = _right(dataset, prefix, [sample.answer for sample in samples])
    lengths = [sample.tokens for sample in samples]
    told = [length for length in lengths if length is not None]
    return {
        "n_correct": sum(right),
        "n_correct_boxed": sum(ok and one.rule == "boxed" for ok, one in zip(right, samples, strict=True)),
        "n_stop": sum(sample.finish_reason == "stop" for sample in samples),
        "n_unparsed": sum(sample.answer is None for sample in samples),
        "mean_tokens": sum(told) / len(told) if told and len(told) == len(lengths) else None,
    }


def _whole(reading: Reading, right: bool, completions: int) -> dict[str, Any]:
    """A finished solution: its own grade in place of completions, nothing sampled."""
    return {
        "n_correct": completions * right,
        "n_correct_boxed": completions * (right and reading.rule == "boxed"),
        "n_stop": completions,
        "n_unparsed": completions * (reading.answer is None),
        "mean_tokens": 0.0,
    }


async def _tokens(engine: Engine, text: str) -> int | None:
    """Tokens of a prefix by the engine's own tokeniser, None where it has none."""
    try:
        return await engine.count_text(text)
    except EngineError:
        return None
