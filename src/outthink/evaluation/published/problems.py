"""The problems of a data file: one reader for everything that asks, grades or looks up questions.

Knows how a row of any form becomes a question, a gold answer and tests, and what is wrong with a row that cannot.
Does not know what becomes of such a row, nor how anything is asked or graded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader
from outthink.engines.cells import BadCell, name_of
from outthink.evaluation.published.cells import (
    Question,
    behind_hashes,
    boxes,
    choice_of,
    choices_of,
    extended,
    gold_of,
    is_hashed,
    question_of,
    shown,
)
from outthink.evaluation.published.code_tests import (
    CodeTest,
    assertions,
    calls,
    function_name,
    human_eval,
    mbpp,
    with_tests,
)
from outthink.evaluation.published.columns import KNOWN, OWN, Columns, Taken, take
from outthink.evaluation.published.rows import BadRow, JsonObject, ReadRow, open_rows, stem

Kind = AnswerKind | AnswerReader | None


@dataclass(frozen=True, slots=True)
class RowFault:
    """Why a row cannot be used: its number (from 1), the column, and what is wrong there.

    Args:
        column: empty where the row as a whole cannot be read.
    """

    row: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.column} {self.problem}" if self.column else self.problem

    def refusal(self, field: str, path: Path, more: int = 0, remedy: str = "mend the row") -> BadInput:
        """The error; `more` rows have faults, too."""
        also = f" (and {more:,} more)" if more else ""
        return BadInput(field, str(path), f"{self}{also}", remedy)


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """A row as a problem; what cannot be read is None, and the first `fault` says why.

    Args:
        name: the problem's id; None where it cannot be read.
        gold: the gold answer as text: a letter for choices.
        code: tests of a code problem.
    """

    number: int
    name: str | None
    question: Question | None = None
    gold: str | None = None
    code: CodeTest | None = None
    fault: RowFault | None = None

    @property
    def said(self) -> tuple[Question | None, str | None, CodeTest | None]:
        """What it says, wherever it stands."""
        return self.question, self.gold, self.code

    def twice(self, column: str | None) -> RowFault:
        """Why it cannot be told from an earlier row; `column` is that of the names."""
        return RowFault(
            self.number,
            column or "id",
            f"is problem_id {self.name!r}, which stands twice; an earlier row has it, too",
        )


@dataclass(frozen=True, slots=True)
class ProblemFile:
    """A data file that is open, what is taken from it, and its problems, read as they are asked for."""

    taken: Taken
    numbered: str
    """Stem of the names of problems without one: `numbered-0000` is the first row."""
    read: Callable[[Kind], Iterator[ProblemRow]]
    """The problems, once; gold answers must be readable as the kind, unless it is None."""


def open_problems(
    field: str, path: Path, columns: Columns | None = None, *, name: str | None = None, lenient: bool = False
) -> ProblemFile:
    """Open a data file.

    Args:
        field: what errors call the file.
        columns: those that the user names.
        name: stem of the names of problems without one; None for the file's.
        lenient: True lets the columns of question and gold answer be absent.

    Raises BadInput for a file that cannot be read and for missing columns.
    """
    own = columns or Columns()
    file = open_rows(field, path, KNOWN | {*own.named.values()})
    if not file.columns:
        if file.broken:
            raise BadInput(field, str(path), file.broken.problem, "mend the file")
        raise BadInput(field, str(path), "has no rows", "give one problem a row")
    hashes = any(is_hashed(row.get(own.gold or OWN.gold)) for row in file.head)
    taken = take(field, path, file.columns, own, hashes=hashes, lenient=lenient)
    numbered = name or stem(path)

    def read(kind: Kind) -> Iterator[ProblemRow]:
        for number, row in enumerate(file.rows(taken.cells)):
            yield _problem(row, number, f"{numbered}-{number:04d}", taken, kind)

    return ProblemFile(taken, numbered, read)


class _Faulty(Exception):
    """A cell that cannot be used, with its column."""

    def __init__(self, column: str, problem: str) -> None:
        self.column, self.problem = column, problem


@contextmanager
def _cell(column: str) -> Iterator[None]:
    """Says in which column a cell cannot be used."""
    try:
        yield
    except BadCell as error:
        raise _Faulty(column, str(error)) from None


def _problem(row: ReadRow, place: int, numbered: str, taken: Taken, kind: Kind) -> ProblemRow:
    if isinstance(row, BadRow):
        return ProblemRow(place + 1, None, fault=RowFault(place + 1, "", row.problem))
    name, question, gold, code, fault = None, None, None, None, None
    try:
        with _cell(taken.name or ""):
            name = (name_of(row.get(taken.name)) if taken.name else None) or numbered
        choices = _choices(row, taken)
        question = _question(row, taken, choices)
        code = _code(row, taken)
        gold = _gold(row, taken, kind, choices)
        _look_at(row, taken)
    except _Faulty as error:
        fault = RowFault(place + 1, error.column, error.problem)
    return ProblemRow(place + 1, name, question, gold, code, fault)


def _choices(row: JsonObject, taken: Taken) -> list[str] | None:
    if not taken.choices:
        return None
    if len(taken.choices) == 1:
        with _cell(taken.choices[0]):
            return choices_of(row.get(taken.choices[0]))
    texts = []
    for name in taken.choices:
        with _cell(name):
            texts.append(choice_of(row.get(name)))
    return texts


def _question(row: JsonObject, taken: Taken, choices: Sequence[str] | None) -> Question | None:
    """The question as it is asked: with its choices, or its tests, where it has some."""
    if taken.question is None:
        return None
    with _cell(taken.question):
        question = question_of(row.get(taken.question))
    if choices is not None:
        return extended(question, shown(choices))
    if taken.tests and taken.tests[0] == _ASSERTS:
        with _cell(_ASSERTS):
            return extended(question, with_tests(assertions(row.get(_ASSERTS))))
    return question


def _gold(row: JsonObject, taken: Taken, kind: Kind, choices: Sequence[str] | None) -> str | None:
    if taken.gold is None:
        return None
    with _cell(taken.gold):
        value = row.get(taken.gold)
        mark = taken.form.mark
        return gold_of(behind_hashes(value) if mark == "####" else boxes(value) if mark else value, kind, choices)


def _code(row: JsonObject, taken: Taken) -> CodeTest | None:
    if not taken.tests:
        return None
    if taken.tests[0] == _ASSERTS:
        with _cell(_ASSERTS):
            return mbpp(*(row.get(name) for name in (_ASSERTS, "test_setup_code", "test_imports", "code")))
    return human_eval(row.get("prompt"), row.get("entry_point"), row.get("test"))


def _look_at(row: JsonObject, taken: Taken) -> None:
    """Says what is wrong with a test that cannot be made better than it is."""
    if taken.tests and taken.tests[0] != _ASSERTS:
        with _cell("entry_point"):
            name = function_name(row.get("entry_point"))
        with _cell("test"):
            calls(row.get("test"), name)


_ASSERTS = "test_list"
