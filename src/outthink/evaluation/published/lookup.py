"""Problems looked up by name: for verifying, regrading and questions of recorded samples.

Knows where the problems of a file of samples lie, from which columns the samples were recorded, and how questions
without ids are known again. Does not know how samples are judged or graded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS, AnswerKind, AnswerReader
from outthink.engines.cells import BadCell
from outthink.engines.traces import Traces, metadata, reading_parquet
from outthink.evaluation.published.cells import Question, question_text, readable
from outthink.evaluation.published.columns import Columns, Taken
from outthink.evaluation.published.problem_list import MARK, mark
from outthink.evaluation.published.problems import ProblemRow, RowFault, open_problems
from outthink.evaluation.published.rows import JSONL, PARQUET, JsonObject, suffix

_NUMBER = re.compile(r"[-+]?\$?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?%?")


@dataclass
class Problems:
    """Problems of a file by `problem_id`, for whoever looks them up: a row that cannot be used is refused when it is
    asked for."""

    path: Path
    rows: dict[str, ProblemRow]
    taken: Taken
    read_as: AnswerKind | None = None
    """The kind of answer that the samples were recorded with, None where it is not known or was but text."""

    @classmethod
    def read(
        cls, path: Path, *, samples: Path | None = None, columns: Columns | None = None, beside: bool = False
    ) -> Problems:
        """Read a data file of any published form, or with a column `problem_id`.

        Args:
            samples: the recorded samples that it is for; their metadata say which columns were taken.
            columns: those that the user names, above what the samples say.
            beside: the file was found beside them, perhaps under another name than the one it was recorded from.

        Raises BadInput for a file that cannot be read or has no usable row.
        """
        recorded = _metadata(samples).get("dataset") if beside and samples is not None else None
        taken = columns_for(samples, columns)
        file = open_problems("problems", path, taken, name=str(recorded) if recorded else None, lenient=True)
        if file.taken.name is None and file.taken.gold is None and not file.taken.tests:
            raise BadInput("problems", str(path), "has no problem_id, gold answer or test", "name every problem")
        rows: dict[str, ProblemRow] = {}
        fault = None
        for row in file.read(None):
            fault = fault or row.fault
            if row.name is None:
                continue
            first = rows.setdefault(row.name, row)
            if first.number != row.number and first.said != row.said:
                fault = fault or row.twice(file.taken.name)
                rows[row.name] = replace(first, question=None, gold=None, code=None, fault=row.twice(file.taken.name))
        if not rows and fault is None:
            raise BadInput("problems", str(path), "has no rows", "give at least one problem")
        if fault is not None and all(row.fault and row.question is None for row in rows.values()):
            raise fault.refusal("problems", path)
        about = {} if samples is None else _metadata(samples)
        kind = next((kind for kind in ANSWER_KINDS if kind == about.get("answer") != "text"), None)
        return cls(path, _as_recorded(rows, about), file.taken, kind)

    def __contains__(self, problem: str) -> bool:
        return problem in self.rows

    def asked(self, problem: str) -> Question:
        """What was asked: a text or messages. BadInput where the file does not tell."""
        row = self.rows[problem]
        if row.question is not None:
            return row.question
        if row.fault is not None:
            raise row.fault.refusal("problems", self.path)
        raise BadInput("problems", problem, f"has no question in {self.path}", "give a file with a column question")

    def question(self, problem: str) -> str:
        """What was asked, as text. BadInput where the file does not tell."""
        return question_text(self.asked(problem))

    def only(self, names: Iterable[str]) -> Problems:
        """Those of these problems that the file has."""
        return replace(self, rows={name: self.rows[name] for name in names if name in self.rows})

    @cached_property
    def keys(self) -> dict[str, str] | None:
        """Gold answers by problem, None where the file has no column of them."""
        if self.taken.gold is None:
            return None
        return {name: row.gold for name, row in self.rows.items() if row.gold is not None}

    def graded(self, kind: AnswerKind | AnswerReader, names: Iterable[str]) -> dict[str, str]:
        """Gold answers of these problems that the kind can read. BadInput, naming the row, for one that it cannot."""
        known = {}
        for name in names:
            if (row := self.rows.get(name)) is None:
                continue
            fault = row.fault
            if fault is None and row.gold is not None:
                try:
                    readable(row.gold, kind)
                except BadCell as error:
                    fault = RowFault(row.number, self.taken.gold or "", str(error))
                known[name] = row.gold
            if fault is not None:
                raise fault.refusal("problems", self.path)
        return known

    @cached_property
    def code(self) -> dict[str, JsonObject] | None:
        """Prompt, entry point and test of code problems; None for questions."""
        if not self.taken.tests:
            return None
        return {name: asdict(row.code) for name, row in self.rows.items() if row.code is not None}

    @property
    def kind(self) -> AnswerKind:
        """The kind of the gold answers: the one the samples were recorded with, the form's, else `number` if each of
        them is a bare number, else `math`."""
        if (known := self.read_as or self.taken.kind) is not None:
            return known
        keys = self.keys or {}
        bare = all(_NUMBER.fullmatch(key.strip()) for key in keys.values())
        return "number" if keys and bare else "math"

    @property
    def digest(self) -> str:
        """Hash of what the problems say, whatever file holds them."""
        said = {name: row.said for name, row in self.rows.items()}
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=asdict).encode()).hexdigest()


def _as_recorded(rows: dict[str, ProblemRow], about: JsonObject) -> dict[str, ProblemRow]:
    """Rows under the names that record gave them by their places; it has kept a mark of each question.

    A file that was edited since then has other questions at these places.

    Args:
        about: what the samples' metadata say of their recording.
    """
    kept = about.get("questions")
    if not isinstance(kept, str):
        return rows
    waiting: dict[str, list[ProblemRow]] = {}
    for row in rows.values():
        if row.question is not None:
            waiting.setdefault(mark(row.question), []).append(row)
    known = {}
    for place in range(len(kept) // MARK):
        same = waiting.get(kept[place * MARK : (place + 1) * MARK])
        if same:  # of equal questions each stands for itself, as long as there are some
            known[f"{about['dataset']}-{place:04d}"] = same.pop(0) if len(same) > 1 else same[0]
    return {name: replace(row, name=name) for name, row in known.items()}


def problems_of(traces: Traces, given: Path | None = None, flag: str = "--regrade") -> Problems:
    """The problems of a file of samples: those of the given file, else of one beside it.

    Raises BadInput, naming the flag that needs them, where there is none.
    """
    if given is not None:
        return Problems.read(given, samples=traces.path)
    return Problems.read(_beside(traces, flag), samples=traces.path, beside=True)


def columns_for(samples: Path | None, named: Columns | None = None) -> Columns:
    """The columns that were named when these samples were recorded, and above them those named now."""
    kept = None if samples is None else _metadata(samples).get("columns")
    told = Columns.of(kept if isinstance(kept, dict) else None)
    return told if named is None else replace(told, **named.named)


def _beside(traces: Traces, flag: str) -> Path:
    """A file of problems beside the samples: `problems-DATASET`, `problems`, or the one that was recorded."""
    recorded = _metadata(traces.path).get("dataset")
    for name in (f"problems-{traces.dataset}", "problems", *([str(recorded)] if recorded else [])):
        for ending in _ENDINGS:
            if (path := traces.path.parent / f"{name}{ending}").is_file():
                return path
    raise BadInput(
        flag, str(traces.path), "has no problems file beside it", "put problems.parquet there, or give --problems"
    )


_ENDINGS = tuple(f"{ending}{gz}" for ending in (*PARQUET, *JSONL, ".json", ".csv") for gz in ("", ".gz"))


def _metadata(samples: Path) -> JsonObject:
    """What a recorded Parquet file says of its recording, empty for others."""
    if suffix(samples) not in PARQUET:
        return {}
    with reading_parquet("samples", samples, "record it again"):
        return metadata(samples, b"outthink")
