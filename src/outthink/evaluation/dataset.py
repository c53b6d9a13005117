"""Questions with gold answers: data sets to record, the problems beside recorded samples, and both together.

Knows reasoning-gym's generators, where the problems of a file of samples lie, which rows of a data set are usable, and
how samples are graded anew. Does not know columns, how anything is sampled, how an answer is read, or verifiers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl

from outthink.answers import grade_many, reader_for
from outthink.controller.router.artefact import prompt_hash
from outthink.core.errors import BadInput
from outthink.core.plugins import load as load_plugin
from outthink.core.plugins import need_extra
from outthink.core.request import ANSWER_KINDS, AnswerKind, AnswerReader, answer_named
from outthink.economics.tariff import active_parameters
from outthink.engines.cells import column_of, count_of
from outthink.engines.recorded import Recorded, RecordedProblems
from outthink.engines.traces import Traces, columns, load, metadata, missing, reading_parquet
from outthink.evaluation.published.cells import is_readable
from outthink.evaluation.published.columns import Columns
from outthink.evaluation.published.lookup import Problems, problems_of
from outthink.evaluation.published.problem_list import Problem, ProblemList, marks
from outthink.evaluation.published.problems import ProblemRow, RowFault, open_problems
from outthink.evaluation.published.rows import JsonObject
from outthink.session.calls import reread

_GYM = "reasoning-gym:"
_FULL_MARKS = 0.999
_SHOWN = 20
"""Unusable rows that are named one by one."""
_Grade = Callable[[str, list[str]], list[bool]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions with a grader.

    Args:
        grade: grade(problem_id, canonical answers) -> which are right; None where only tests tell.
        kind: how its answers are read; None for code.
        taken: what was taken from the file, in one line.
        unusable: rows that were left out.
        columns: those that the user has named.
        numbered: whether its problems are named by the places of their rows.
    """

    name: str
    problems: Sequence[Problem]
    grade: _Grade | None
    kind: AnswerKind | None = None
    taken: str = ""
    unusable: int = 0
    columns: Columns = field(default_factory=Columns)
    numbered: bool = False

    def right(self, problem_id: str, answers: Iterable[str | None]) -> set[str]:
        """Which of these answers are right; none where nothing can be graded."""
        grade = self.grade
        return set() if grade is None else _right(answers, lambda distinct: grade(problem_id, distinct))

    @property
    def remembered(self) -> JsonObject:
        """What a recorded file tells whoever looks its problems up again: named columns, and questions without ids."""
        columns = {"columns": self.columns.named} if self.columns.named else {}
        return columns | ({"questions": marks(self.problems)} if self.numbered else {})

    @property
    def keys(self) -> dict[str, str]:
        """Gold answers by problem."""
        return {problem.problem_id: problem.answer for problem in self.problems if problem.answer is not None}


def _right(answers: Iterable[str | None], grade: Callable[[list[str]], list[bool]]) -> set[str]:
    """Which answers are right; each is graded once, since grading is what takes the time."""
    distinct = sorted({answer for answer in answers if answer is not None})
    if not distinct:
        return set()
    return {answer for answer, right in zip(distinct, grade(distinct), strict=True) if right}


def open_dataset(
    source: str,
    kind: AnswerKind | None = None,
    *,
    limit: int | None = None,
    columns: Columns | Mapping[str, str] | None = None,
    skip_bad: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Read a data file in its published form (docs/record.md), or one with the columns `question` and `answer`, or
    generate `reasoning-gym:TASK?size=20&seed=1&key=value`.

    Args:
        kind: of the answers, None for what the form says, else text; code has none.
        limit: only the first so many problems.
        columns: those that the file has in place of the form's, by `question`, `gold` and `choices`.
        skip_bad: go on without rows that cannot be used.
        say: receives one line for each such row.

    Raises BadInput for a missing file or column, a data set without a usable row, or (unless `skip_bad`) a row that
    cannot be used: its question or gold answer is missing or unreadable, or another row has its name.
    """
    if source.startswith(_GYM):
        return _gym(source, kind, limit)
    path = Path(source)
    # Not those of Path, which raise for a name that is too long.
    if not os.path.isfile(path):
        problem = "is no file" if os.path.exists(path) else "does not exist"
        raise BadInput("dataset", source, problem, f"give a data file, or {_GYM}TASK")
    named = Columns.of(columns)
    file = open_problems("dataset", path, named)
    kind = kind or file.taken.kind or (None if file.taken.tests else "text")
    rows, faults = _usable(file.read(kind), file.taken.name, limit)
    if faults and (not skip_bad or not rows):
        raise faults[0].refusal("dataset", path, len(faults) - 1, "mend the row" if not rows else _MEND)
    if not rows:
        raise BadInput("dataset", source, "has no rows", "give at least one question")
    for fault in faults[:_SHOWN]:
        say(f"{path.name}: left out {fault}")
    if len(faults) > _SHOWN:
        say(f"{path.name}: left out {len(faults) - _SHOWN:,} more rows")
    taken = file.taken.line(path, f"{file.numbered}-0000 and on", kind)
    grade = None
    if file.taken.gold is not None and kind is not None:
        grade = _grader(kind, rows)
    return Dataset(file.numbered, rows, grade, kind, taken, len(faults), named, file.taken.name is None)


def looked_up(problems: Problems, kind: AnswerKind) -> Dataset:
    """Problems that can be asked and graded, of a file that was looked up for recorded samples."""
    graded = ProblemList(
        Problem(name, row.question, row.gold)
        for name, row in problems.rows.items()
        if row.question is not None and row.gold is not None and is_readable(row.gold, kind)
    )
    if not graded:
        raise BadInput("problems", str(problems.path), f"has no gold answer of kind {kind}", "give questions with one")
    return Dataset(problems.path.stem, graded, _grader(kind, graded), kind)


_MEND = "mend the row, or leave such rows out with --skip-bad"


def _usable(rows: Iterable[ProblemRow], named: str | None, limit: int | None) -> tuple[ProblemList, list[RowFault]]:
    """Problems of the rows that can be used, and what is wrong with the others; `named` is the column of names."""
    problems = ProblemList()
    faults: list[RowFault] = []
    doubtful: set[str] = set()
    for row in rows:
        if row.fault is not None or row.name is None or row.question is None:
            faults.append(row.fault or RowFault(row.number, "", f"row {row.number} asks nothing"))
        elif problems.has(row.name):
            faults.append(row.twice(named))
            # Which of two is meant by a name is not known: then neither can be used.
            if problems.named(row.name) != Problem(row.name, row.question, row.gold):
                doubtful.add(row.name)
        else:
            problems.append(Problem(row.name, row.question, row.gold))
        if limit is not None and len(problems) >= limit:
            break
    return problems.without(doubtful), faults


def _grader(kind: AnswerKind, problems: ProblemList) -> _Grade:
    def grade(problem_id: str, answers: list[str]) -> list[bool]:
        key = problems.named(problem_id).answer or ""
        return grade_many(kind, [(answer, key) for answer in answers])

    return grade


def _gym(source: str, kind: AnswerKind | None, limit: int | None) -> Dataset:
    """reasoning-gym's own problems and its own grader; full marks count as right."""
    need_extra("datasets", "dataset", source)
    import reasoning_gym

    task, _, query = source.removeprefix(_GYM).partition("?")
    options: JsonObject = {"size": 20, "seed": 0}
    for key, value in parse_qsl(query):
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    try:
        generated = reasoning_gym.create_dataset(task, **options)
        entries = [generated[i] for i in range(min(len(generated), limit or len(generated)))]
    except (ValueError, TypeError, AssertionError, KeyError) as error:
        raise BadInput("dataset", source, f"cannot be generated ({error})", "check task and options") from None
    names = [f"{task}-{options['seed']}-{i:04d}" for i in range(len(entries))]
    by_name = dict(zip(names, entries, strict=True))

    def grade(problem_id: str, answers: list[str]) -> list[bool]:
        entry = by_name[problem_id]
        # reasoning-gym gives marks for parts of an answer, too.
        return [float(generated.score_answer(answer, entry)) >= _FULL_MARKS for answer in answers]

    problems = tuple(
        Problem(name, str(entry["question"]).strip(), str(entry["answer"])) for name, entry in by_name.items()
    )
    kind = kind or "text"
    return Dataset(task, problems, grade, kind, f"{source}: graded by its own rules; kind of answer {kind}")


def regrade(traces: Traces, kind: str, problems: Path | None = None) -> Traces:
    """The same samples with answers read anew as `kind` and graded against the gold answers.

    Args:
        problems: their file, None for the one beside the samples.
    """
    if kind not in ANSWER_KINDS and load_plugin("answers", kind) is None:
        raise BadInput("--regrade", kind, "is no kind of answer", f"use one of {', '.join(ANSWER_KINDS)}")
    known: Problems = problems_of(traces, problems)
    reader = answer_named(kind)
    if known.keys is None:
        raise BadInput("--regrade", str(known.path), "has no gold answers", "give problems with a column answer")
    keys = known.graded(reader, traces.problems)
    names = [name for name in traces.problems if name in keys]
    if not names:
        raise BadInput("--regrade", str(traces.path), "shares no problem_id with its problems", "check the files")
    chosen = traces.take(names).problems
    if isinstance(chosen, RecordedProblems):
        graded: Mapping[str, Recorded] = chosen.reread(lambda one: _regraded(one, reader, keys[one.problem]))
    else:
        graded = {name: _regraded(problem, reader, keys[name]) for name, problem in chosen.items()}
    return replace(traces, problems=graded, answered=True)


def _regraded(problem: Recorded, kind: AnswerKind | AnswerReader, key: str) -> Recorded:
    reader = reader_for(kind)  # one a problem: equivalent answers of its samples merge
    sampled = [reread(sample, reader) for sample in problem.sampled]
    greedy = reread(problem.greedy, reader) if problem.greedy is not None else None
    answers = [sample.answer for sample in (*sampled, greedy) if sample is not None]
    right = _right(answers, lambda distinct: grade_many(kind, [(answer, key) for answer in distinct]))
    return replace(problem, sampled=sampled, greedy=greedy, right=right, ungraded=0)


_SAMPLERS = ("temperature", "top_p", "top_k", "min_p", "sampler", "sampling")
"""Columns that say how a row was sampled, where a file has them."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """One file of samples.

    Args:
        questions: text by problem, None where no problems file lies beside it.
        answer: kind of the gold answers, None without that file.
        about: what the file's metadata say of its recording, empty without them.
    """

    traces: Traces
    questions: Mapping[str, str] | None
    answer: str | None
    about: JsonObject

    @property
    def sampling(self) -> JsonObject | None:
        """How it was sampled, None where that was not recorded."""
        sampling = self.about.get("sampling")
        return sampling if isinstance(sampling, dict) else None

    @property
    def revision(self) -> str | None:
        """The model's revision, None where that was not recorded."""
        revision = self.about.get("revision")
        return None if revision is None else str(revision)

    @property
    def problem_marks(self) -> dict[str, str]:
        """A hash of each problem's name."""
        return {name: prompt_hash(name) for name in self.traces.problems}

    @property
    def question_marks(self) -> dict[str, str]:
        """A hash of each problem's question; empty where the questions are not at hand."""
        if self.questions is None:
            return {}
        return {name: prompt_hash(self.questions[name]) for name in self.traces.problems}


def open_source(path: Path, traces: Traces | None = None, *, problems: Path | None = None) -> SampleSet:
    """Read a file of samples with its problems: those given, else what lies beside it.

    Raises BadInput as `load`, for rows of more than one sampler, and for given problems that cannot be read or are not
    those of the samples.
    """
    traces = traces or load(path)
    _one_sampler(path)
    about = metadata(path, b"outthink")
    try:
        known = problems_of(traces, problems)
        stranger = next((name for name in traces.problems if name not in known), None)
        if stranger is not None and problems is not None:
            raise BadInput("problem_id", stranger, f"is not in {problems}", "give the problems of these samples")
        questions = {name: known.question(name) for name in traces.problems} if stranger is None else None
    except BadInput:
        if problems is not None:
            raise
        return SampleSet(traces, None, None, about)
    graded = known.only(name for name in traces.problems if name in (known.keys or {}))
    return SampleSet(traces, questions, graded.kind if graded.rows else None, about)


def weights_of(traces: Traces) -> int | None:
    """Weights read per token of the model of these samples, as they or its name say; None where neither does."""
    return traces.parameters or active_parameters(traces.model)


def replayable(paths: Sequence[Path], say: Callable[[str], None], problem: str) -> list[Path]:
    """The files with all columns that replay needs; `say` gets a line for each other, BadInput where none is left."""
    kept = []
    for path in paths:
        if absent := missing(path):
            say(f"skipped {path}: it lacks {', '.join(absent)}")
        else:
            kept.append(Path(path))
    if not kept:
        raise BadInput("traces", [str(path) for path in paths], problem, "give files made by record")
    return kept


def _one_sampler(path: Path) -> None:
    """BadInput where a column tells that sampled rows were drawn in different ways."""
    import pyarrow.parquet as parquet

    present = [name for name in _SAMPLERS if name in columns(path)]
    if not present:
        return
    with reading_parquet("traces", path, "record it again"):
        table = parquet.ParquetFile(path).read(columns=["sample_idx", *present])
    places = [count_of(cell) for cell in column_of(table, "sample_idx")]
    for name in present:
        # Row 0 is the greedy one, which is drawn in another way by intention.
        sampled = (cell for place, cell in zip(places, column_of(table, name), strict=True) if place != 0)
        values = {json.dumps(cell, sort_keys=True, default=str) for cell in sampled}
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:4])
            raise BadInput("traces", str(path), f"mixes samplers ({name}: {shown})", "give samples of one")
