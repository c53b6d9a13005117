"""Questions with gold answers: data sets to record, the problems beside recorded samples, and both together.

Knows: JSONL and Parquet columns, reasoning-gym's generators, where the problems of a file of samples lie, and how
samples are graded anew. Does not know how anything is sampled, how an answer is read, or verifiers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl

from outthink.answers import grade_many, reader_for
from outthink.controller.router.folder import prompt_hash
from outthink.core.errors import BadInput
from outthink.core.plugins import load as load_plugin
from outthink.core.plugins import need_extra
from outthink.core.request import ANSWER_KINDS, AnswerKind, AnswerReader, answer_named
from outthink.engines.recorded import Recorded
from outthink.engines.traces import Traces, columns, load, metadata, missing
from outthink.evaluation.sample_file import JsonObject, is_jsonl, parse_rows, read_rows, read_table
from outthink.session.calls import reread

_IDS = ("problem_id", "id")
_GYM = "reasoning-gym:"
_FULL_MARKS = 0.999
_Grade = Callable[[str, list[str]], list[bool]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One question; `answer` is the gold answer as the data set writes it."""

    problem_id: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions with a grader: grade(problem_id, canonical answers) -> which are right."""

    name: str
    problems: tuple[Problem, ...]
    grade: _Grade

    def right(self, problem_id: str, answers: Iterable[str | None]) -> set[str]:
        """Which of these answers are right."""
        return _right(answers, lambda distinct: self.grade(problem_id, distinct))


def _right(answers: Iterable[str | None], grade: Callable[[list[str]], list[bool]]) -> set[str]:
    """Which answers are right; each is graded once, since grading is what takes the time."""
    distinct = sorted({answer for answer in answers if answer is not None})
    if not distinct:
        return set()
    return {answer for answer, right in zip(distinct, grade(distinct), strict=True) if right}


def open_dataset(source: str, kind: AnswerKind, *, limit: int | None = None) -> Dataset:
    """Read JSONL or Parquet with the columns `question` and `answer` (and `problem_id` or `id`), or generate
    `reasoning-gym:TASK?size=20&seed=1&key=value`.

    Raises BadInput for a missing file or column, an empty data set, or a repeated problem_id.
    """
    if source.startswith(_GYM):
        return _gym(source, limit)
    path = Path(source)
    if not path.is_file():
        raise BadInput("dataset", source, "does not exist", f"give a JSONL or Parquet file, or {_GYM}TASK")
    parquet = path.suffix == ".parquet"
    rows = read_table("dataset", path, "write it again").to_pylist() if parquet else _jsonl(path)
    problems = tuple(_problem(path, number, row) for number, row in enumerate(rows[:limit]))
    if not problems:
        raise BadInput("dataset", source, "has no rows", "give at least one question")
    keys = {problem.problem_id: problem.answer for problem in problems}
    if len(keys) < len(problems):
        raise BadInput("dataset", source, "repeats a problem_id", "make each one unique")

    def grade(problem_id: str, answers: list[str]) -> list[bool]:
        return grade_many(kind, [(answer, keys[problem_id]) for answer in answers])

    return Dataset(path.stem, problems, grade)


def _problem(path: Path, number: int, row: JsonObject) -> Problem:
    for column in ("question", "answer"):
        if row.get(column) is None:
            known = ", ".join(row) or "none"
            raise BadInput(f"dataset {path.name}", column, f"is no column of row {number + 1}", f"it has: {known}")
    name = next((str(row[key]) for key in _IDS if row.get(key) is not None), f"{path.stem}-{number:04d}")
    if not str(row["question"]).strip():
        raise BadInput(f"dataset {path.name}", name, "has an empty question", "remove the row")
    return Problem(name, str(row["question"]), str(row["answer"]))


def _jsonl(path: Path) -> list[JsonObject]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput("dataset", str(path), "is neither JSONL nor Parquet", "convert it first") from None
    return parse_rows("dataset", path, text, '{"question": ...}')


def _gym(source: str, limit: int | None) -> Dataset:
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
    return Dataset(task, problems, grade)


_CODE = ("prompt", "entry_point", "test")
_NUMBER = re.compile(r"[-+]?\$?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?%?")
_QUESTIONS = ("question", "prompt_used", "prompt")


@dataclass
class Problems:
    """Rows of a file of problems by `problem_id`.

    Raises BadInput for a file that cannot be read, an absent or repeated `problem_id`.
    """

    path: Path
    rows: dict[str, JsonObject]

    @classmethod
    def read(cls, path: Path) -> Problems:
        """Read Parquet or JSONL."""
        rows = read_rows("problems", path) if is_jsonl(path) else read_table("problems", path).to_pylist()
        if not rows:
            raise BadInput("problems", str(path), "has no rows", "give at least one problem")
        by_name: dict[str, JsonObject] = {}
        for number, row in enumerate(rows, start=1):
            key = row.get("problem_id")
            if not isinstance(key, str):
                raise BadInput("problems", str(path), f"row {number} has no problem_id", "name every problem")
            if key in by_name:
                raise BadInput("problems", key, f"stands twice in {path}", "make each problem_id unique")
            by_name[key] = row
        return cls(path, by_name)

    def __contains__(self, problem: str) -> bool:
        return problem in self.rows

    def question(self, problem: str) -> str:
        """What was asked: `question`, else `prompt_used`, else `prompt`; BadInput without any of them."""
        row = self.rows[problem]
        for name in _QUESTIONS:
            if isinstance(row.get(name), str) and row[name].strip():
                return str(row[name])
        raise BadInput("problems", problem, f"has no question in {self.path}", f"give one of {', '.join(_QUESTIONS)}")

    @cached_property
    def keys(self) -> dict[str, str] | None:
        """Gold answers by problem, None where the file has no column `answer`."""
        if not any("answer" in row for row in self.rows.values()):
            return None
        return {name: str(row["answer"]) for name, row in self.rows.items() if row.get("answer") is not None}

    @cached_property
    def code(self) -> dict[str, JsonObject] | None:
        """Rows of code problems, None where the columns `prompt`, `entry_point` and `test` are not all there."""
        first = next(iter(self.rows.values()))
        return dict(self.rows) if all(name in first for name in _CODE) else None

    @property
    def kind(self) -> AnswerKind:
        """The kind of the gold answers: `number` if each of them is a bare number, else `math`."""
        keys = self.keys or {}
        # GSM8K's gold answers stand behind `####`, after a worked solution.
        bare = all(_NUMBER.fullmatch(key.rpartition("####")[2].strip()) for key in keys.values())
        return "number" if keys and bare else "math"

    @property
    def digest(self) -> str:
        """Hash of what the problems say, whatever file holds them."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True, default=str).encode()).hexdigest()


def problem_file(traces: Traces, flag: str = "--regrade") -> Path:
    """The problems of a file of samples; BadInput, naming the flag that needs them, where there are none beside it."""
    folder = traces.path.parent
    for name in (f"problems-{traces.dataset}.parquet", "problems.parquet"):
        if (folder / name).exists():
            return folder / name
    raise BadInput(flag, str(traces.path), "has no problems file beside it", "put problems.parquet there")


def _read_keys(path: Path) -> dict[str, str]:
    """Gold answers by problem_id; BadInput without the columns problem_id and answer."""
    import pyarrow.parquet as parquet

    try:
        rows = parquet.read_table(path, columns=["problem_id", "answer"]).to_pydict()
    except Exception as error:  # noqa: BLE001 - pyarrow raises many kinds for damaged files and missing columns
        line = str(error).splitlines()[0]
        raise BadInput("problems", str(path), f"cannot be read ({line})", "it needs problem_id and answer") from None
    return dict(zip(rows["problem_id"], rows["answer"], strict=True))


def regrade(traces: Traces, kind: str) -> Traces:
    """The same samples with answers read anew as `kind` and graded against the gold answers."""
    if kind not in ANSWER_KINDS and load_plugin("answers", kind) is None:
        raise BadInput("--regrade", kind, "is no kind of answer", f"use one of {', '.join(ANSWER_KINDS)}")
    keys, reader = _read_keys(problem_file(traces)), answer_named(kind)
    problems = {
        name: _regraded(problem, reader, keys[name]) for name, problem in traces.problems.items() if name in keys
    }
    if not problems:
        raise BadInput("--regrade", str(traces.path), "shares no problem_id with its problems", "check the files")
    return replace(traces, problems=problems)


def _regraded(problem: Recorded, kind: AnswerKind | AnswerReader, key: str) -> Recorded:
    reader = reader_for(kind)  # one a problem: equivalent answers of its samples merge
    sampled = [reread(sample, reader) for sample in problem.sampled]
    greedy = reread(problem.greedy, reader) if problem.greedy is not None else None
    answers = [sample.answer for sample in (*sampled, greedy) if sample is not None]
    right = _right(answers, lambda distinct: grade_many(kind, [(answer, key) for answer in distinct]))
    return Recorded(problem.problem, sampled, greedy, right)


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

    def take(self, names: Sequence[str]) -> SampleSet:
        """Some of its problems."""
        part = Traces(self.traces.path, {name: self.traces.problems[name] for name in names}, self.traces.scoring)
        return SampleSet(part, self.questions, self.answer, self.about)


def open_source(path: Path, traces: Traces | None = None) -> SampleSet:
    """Read a file of samples with what lies beside it; BadInput as `load`, or for rows of more than one sampler."""
    traces = traces or load(path)
    _one_sampler(path)
    about = metadata(path, b"outthink")
    try:
        problems = Problems.read(problem_file(traces))
        known = all(name in problems for name in traces.problems)
        questions = {name: problems.question(name) for name in traces.problems} if known else None
    except BadInput:
        return SampleSet(traces, None, None, about)
    keys = problems.keys or {}
    graded = Problems(problems.path, {name: problems.rows[name] for name in traces.problems if name in keys})
    return SampleSet(traces, questions, graded.kind if graded.rows else None, about)


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
    rows = parquet.read_table(path, columns=["sample_idx", *present]).to_pylist()
    for name in present:
        # Row 0 is the greedy one, which is drawn in another way by intention.
        values = {json.dumps(row[name], sort_keys=True, default=str) for row in rows if row["sample_idx"] != 0}
        if len(values) > 1:
            shown = ", ".join(sorted(values)[:4])
            raise BadInput("traces", str(path), f"mixes samplers ({name}: {shown})", "give samples of one")
