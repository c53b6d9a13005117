"""Data sets to record: questions with their gold answers.

Knows: JSONL and Parquet columns, and reasoning-gym's generators. Does not know how they are sampled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from outthink.answers import grade_many
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind

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
