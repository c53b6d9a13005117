"""Which columns of a data file hold question, gold answer, choices, tests and name: the published forms, in one table.

Knows the forms and the user's own choice of columns. Does not know what a cell may hold or how a file is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind

NAMES = ("problem_id", "task_id", "unique_id", "id")
"""Columns that name a problem; the first that a file has."""
Mark = Literal["", "####", "boxes"]
"""Where in its cell the gold answer stands: it is the whole cell, behind `####`, or in the boxes of a solution."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that the user names; None for what the form says.

    Args:
        choices: a column of lists, or the columns of the single choices with commas between them.
    """

    question: str | None = None
    gold: str | None = None
    choices: str | None = None

    @classmethod
    def of(cls, named: Columns | Mapping[str, str] | None) -> Columns:
        """As a mapping names them. BadInput for what is no column's part."""
        if named is None or isinstance(named, Columns):
            return named or cls()
        if unknown := {*named} - {"question", "gold", "choices"}:
            raise BadInput("columns", sorted(unknown)[0], "is not known", "use question, gold and choices")
        return cls(named.get("question"), named.get("gold"), named.get("choices"))

    @property
    def named(self) -> dict[str, str]:
        """Those that are named, for a file's metadata."""
        return {key: name for key, name in asdict(self).items() if name is not None}


@dataclass(frozen=True, slots=True)
class Form:
    """What the columns of a file mean.

    Args:
        needs: columns by which the form is known.
        question: its column; of several names the first that a file has.
        gold: column of the gold answer, empty for code.
        choices: the column of lists, or the columns of the single choices.
        kind: of the answers, None where the columns do not tell.
        tests: columns of the code's tests; the first is named in refusals.
    """

    name: str
    needs: tuple[str, ...] = ()
    question: tuple[str, ...] = ()
    gold: str = ""
    mark: Mark = ""
    choices: tuple[str, ...] = ()
    kind: AnswerKind | None = None
    tests: tuple[str, ...] = ()


_MBPP = ("test_list", "test_setup_code", "test_imports", "code")
_ABCD = ("A", "B", "C", "D")
_ANSWERS = ("answer_a", "answer_b", "answer_c", "answer_d")
OWN = Form("own columns", (), ("question", "prompt_used", "prompt", "problem", "messages"), "answer", "####")
"""A file of none of the forms, with GSM8K's mark perhaps."""
FORMS = (
    Form(
        "HumanEval",
        ("prompt", "entry_point", "test"),
        ("question", "prompt_used", "prompt"),
        tests=("test", "entry_point", "prompt"),
    ),
    Form("MBPP", ("text", "test_list"), ("text",), tests=_MBPP),
    Form("MBPP, sanitized", ("prompt", "test_list"), ("prompt",), tests=_MBPP),
    *(
        Form("MMLU", ("question", *choices, gold), ("question",), gold, choices=choices, kind="choice")
        for choices, gold in ((("choices",), "answer"), (_ABCD, "answer"), (_ANSWERS, "correct_answer"))
    ),
    Form("MATH-500", ("problem", "answer"), ("problem",), "answer", kind="math"),
    Form("MATH", ("problem", "solution"), ("problem",), "solution", "boxes", kind="math"),
)
GSM8K = Form("GSM8K", ("question", "answer"), ("question",), "answer", "####", kind="number")
"""Known by the mark in its gold answers: its columns are those of many files."""
KNOWN = frozenset({*OWN.question, OWN.gold})
"""Names by which the header of a table is told from a row."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken from a file.

    Args:
        question, gold, name: their columns; None where the file has none.
        choices: their column or columns.
        tests: columns of the code's tests, empty for questions with a gold answer.
        columns: all columns of the file.
    """

    form: Form
    question: str | None
    gold: str | None
    name: str | None
    choices: tuple[str, ...]
    tests: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def cells(self) -> frozenset[str]:
        """The columns that have to be read."""
        single = (self.question, self.gold, self.name)
        return frozenset(name for name in (*single, *self.choices, *self.tests) if name is not None)

    @property
    def kind(self) -> AnswerKind | None:
        """Kind of the answers, None for code and where the columns do not tell."""
        return "choice" if self.choices else self.form.kind

    def line(self, path: Path, numbered: str, kind: str | None) -> str:
        """What was taken, in one line.

        Args:
            numbered: how problems without a name are called.
            kind: of the answers, as they will be read; None for none.
        """
        mark = " (its boxes)" if self.form.mark == "boxes" else " behind ####" if self.form.kind == "number" else ""
        gold = f"gold answer {self.gold}{mark}" if self.gold else "no gold answer"
        parts = [f"question {self.question}", gold]
        parts.append(f"tests {self.tests[0]}" if self.tests else f"choices {', '.join(self.choices) or 'none'}")
        parts += [f"id {self.name or numbered}", f"kind of answer {kind or 'none'}"]
        return f"{path.name}: {self.form.name}; {'; '.join(parts)}"


def take(field: str, path: Path, present: Sequence[str], own: Columns, *, hashes: bool, lenient: bool) -> Taken:
    """Which columns of a file are taken for what: those of its form, or those that the user names.

    Args:
        field: what errors call the file.
        hashes: whether the gold answer of the first row has `####`.
        lenient: True lets question and gold answer be absent.

    Raises BadInput for a named column that is not there, or without a question and a gold answer.
    """
    form = next((form for form in FORMS if {*form.needs} <= {*present}), OWN)
    if own.gold is not None and form.tests:  # then it is a question with an answer, whatever tests stand beside
        form = replace(OWN, question=form.question)
    if form is OWN and hashes:
        form = GSM8K
    if own.gold not in (None, form.gold):
        form = replace(form, mark="####", kind="number" if hashes and form.kind is None else form.kind)
    question = own.question or next((name for name in form.question if name in present), None)
    # Whoever looks problems up may want the gold answers that stand beside tests.
    expected = form.gold or (OWN.gold if lenient else "")
    gold = own.gold or (expected if expected in present else None)
    choices = form.choices if own.choices is None else _choices(own.choices, present)
    for flag, names in (("--question", (question,)), ("--gold", (gold,)), ("--choices", choices)):
        for name in names:
            if name is not None and name not in present:
                raise BadInput(flag, name, f"is no column of {path.name}", f"it has: {_listed(present)}")
    if not lenient:
        for column, flag, found in (("question", "--question", question), ("answer", "--gold", gold or form.tests)):
            if not found:
                remedy = f"name it with {flag}; it has: {_listed(present)}"
                raise BadInput(f"{field} {path.name}", column, "is no column", remedy)
    name = next((name for name in NAMES if name in present), None)
    tests = tuple(test for test in form.tests if test in present)
    return Taken(form, question, gold, name, choices, tests, tuple(present))


def _choices(named: str, present: Collection[str]) -> tuple[str, ...]:
    """The columns that `--choices` names."""
    return (named,) if named in present else tuple(name.strip() for name in named.split(","))


def _listed(present: Sequence[str]) -> str:
    return ", ".join(present) or "none"
