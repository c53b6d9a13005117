"""The problems that samples answer: questions, gold answers, and code to be completed.

Knows: Parquet and JSONL files of problems and their columns. Does not know samples or verifiers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind
from outthink.evaluation.sample_file import is_jsonl, read_rows, read_table

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
