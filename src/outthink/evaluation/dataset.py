"""Data sets to record: questions with their gold answers.

Knows: JSONL and Parquet columns, and reasoning-gym's generators. Does not know how they are sampled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from outthink.answers import grade_many, reader_for
from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS, AnswerKind
from outthink.core.sample import Sample
from outthink.engines.traces import Recorded, Traces
from outthink.evaluation.sample_file import is_jsonl, read_rows, read_table

_IDS = ("problem_id", "id")
_GYM = "reasoning-gym:"
_FULL_MARKS = 0.999
Grade = Callable[[str, list[str]], list[bool]]


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
    grade: Grade


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
    rows = _parquet(path) if path.suffix == ".parquet" else _jsonl(path)
    problems = tuple(_problem(path, number, row) for number, row in enumerate(rows[:limit]))
    if not problems:
        raise BadInput("dataset", source, "has no rows", "give at least one question")
    keys = {problem.problem_id: problem.answer for problem in problems}
    if len(keys) < len(problems):
        raise BadInput("dataset", source, "repeats a problem_id", "make each one unique")

    def grade(problem_id: str, answers: list[str]) -> list[bool]:
        return grade_many(kind, [(answer, keys[problem_id]) for answer in answers])

    return Dataset(path.stem, problems, grade)


def _problem(path: Path, number: int, row: Mapping[str, Any]) -> Problem:
    for column in ("question", "answer"):
        if row.get(column) is None:
            known = ", ".join(row) or "none"
            raise BadInput(f"dataset {path.name}", column, f"is no column of row {number + 1}", f"it has: {known}")
    name = next((str(row[key]) for key in _IDS if row.get(key) is not None), f"{path.stem}-{number:04d}")
    if not str(row["question"]).strip():
        raise BadInput(f"dataset {path.name}", name, "has an empty question", "remove the row")
    return Problem(name, str(row["question"]), str(row["answer"]))


def _jsonl(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise BadInput("dataset", str(path), "is neither JSONL nor Parquet", "convert it first") from None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput("dataset", str(path), f"line {number + 1} is not JSON ({error})", "mend the line") from None
        if not isinstance(row, dict):
            raise BadInput("dataset", str(path), f"line {number + 1} is no JSON object", 'use {"question": ...}')
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow.parquet as parquet

    try:
        rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
    except Exception as error:  # noqa: BLE001 - pyarrow raises many kinds for a damaged file
        line = str(error).splitlines()[0]
        raise BadInput("dataset", str(path), f"is not a readable Parquet file ({line})", "write it again") from None
    return rows


def _gym(source: str, limit: int | None) -> Dataset:
    """reasoning-gym's own problems and its own grader; full marks count as right."""
    try:
        import reasoning_gym
    except ImportError:
        raise BadInput("dataset", source, "needs reasoning-gym", "pip install 'outthink[datasets]'") from None
    task, _, query = source.removeprefix(_GYM).partition("?")
    options: dict[str, Any] = {"size": 20, "seed": 0}
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
        return [float(generated.score_answer(answer, entry)) >= _FULL_MARKS for answer in answers]

    problems = tuple(
        Problem(name, str(entry["question"]).strip(), str(entry["answer"])) for name, entry in by_name.items()
    )
    return Dataset(task, problems, grade)


# The problems that samples answer: questions, gold answers, and code to be completed.
#
# Knows: Parquet and JSONL files of problems and their columns. Does not know samples or verifiers.

CODE = ("prompt", "entry_point", "test")
_NUMBER = re.compile(r"[-+]?\$?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?%?")
_QUESTIONS = ("question", "prompt_used", "prompt")


@dataclass
class Problems:
    """Rows of a file of problems by `problem_id`.

    Raises BadInput for a file that cannot be read, an absent or repeated `problem_id`.
    """

    path: Path
    rows: dict[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Problems:
        """Read Parquet or JSONL."""
        rows = read_rows("problems", path) if is_jsonl(path) else read_table("problems", path).to_pylist()
        if not rows:
            raise BadInput("problems", str(path), "has no rows", "give at least one problem")
        found: dict[str, Mapping[str, Any]] = {}
        for number, row in enumerate(rows, start=1):
            key = row.get("problem_id")
            if not isinstance(key, str):
                raise BadInput("problems", str(path), f"row {number} has no problem_id", "name every problem")
            if key in found:
                raise BadInput("problems", key, f"stands twice in {path}", "make each problem_id unique")
            found[key] = row
        return cls(path, found)

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
    def code(self) -> dict[str, Mapping[str, Any]] | None:
        """Rows of code problems, None where the columns `prompt`, `entry_point` and `test` are not all there."""
        first = next(iter(self.rows.values()))
        return dict(self.rows) if all(name in first for name in CODE) else None

    @property
    def kind(self) -> AnswerKind:
        """The kind of the gold answers: `number` if each of them is a bare number, else `math`."""
        keys = self.keys or {}
        bare = all(_NUMBER.fullmatch(key.rpartition("####")[2].strip()) for key in keys.values())
        return "number" if keys and bare else "math"

    @property
    def digest(self) -> str:
        """Hash of what the problems say, whatever file holds them."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True, default=str).encode()).hexdigest()


# Extracts and grades recorded samples anew.
#
# Knows: where the gold answers of a file lie and how equal completions are graded once. Does not
# know how an answer is read.


def problem_file(traces: Traces, flag: str = "--regrade") -> Path:
    """The problems of a file of samples; BadInput, naming the flag that needs them, where there are none beside it."""
    folder = traces.path.parent
    for name in (f"problems-{traces.dataset}.parquet", "problems.parquet"):
        if (folder / name).exists():
            return folder / name
    raise BadInput(flag, str(traces.path), "has no problems file beside it", "put problems.parquet there")


def read_keys(path: Path) -> dict[str, str]:
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
    if kind not in ANSWER_KINDS:
        raise BadInput("--regrade", kind, "is no kind of answer", f"use one of {', '.join(ANSWER_KINDS)}")
    keys = read_keys(problem_file(traces))
    problems = {name: _regraded(problem, kind, keys[name]) for name, problem in traces.problems.items() if name in keys}
    if not problems:
        raise BadInput("--regrade", str(traces.path), "shares no problem_id with its problems", "check the files")
    return replace(traces, problems=problems)


def _regraded(problem: Recorded, kind: AnswerKind, key: str) -> Recorded:
    reader = reader_for(kind)  # one a problem: equivalent answers of its samples merge

    def read(sample: Sample) -> Sample:
        reading = reader.read_now(sample.text)
        return replace(sample, answer=reading.answer, rule=reading.rule)

    fresh = Recorded(problem.problem, [read(sample) for sample in problem.sampled])
    fresh.greedy = read(problem.greedy) if problem.greedy is not None else None
    answers = {sample.answer for sample in fresh.sampled if sample.answer is not None}
    if fresh.greedy is not None and fresh.greedy.answer is not None:
        answers.add(fresh.greedy.answer)
    ordered = sorted(answers)
    verdicts = grade_many(kind, [(answer, key) for answer in ordered])
    fresh.right = {answer for answer, right in zip(ordered, verdicts, strict=True) if right}
    return fresh
