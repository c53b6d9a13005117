"""Problems of a data set, many of them in little memory.

Knows what a problem is, and how a list of them is packed. Does not know where they come from.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from outthink.evaluation.published.cells import Question, extended, question_text


@dataclass(frozen=True, slots=True)
class Problem:
    """One question: its text, or the messages of a chat; `answer` is the gold answer, None for code."""

    problem_id: str
    question: Question
    answer: str | None

    @property
    def text(self) -> str:
        """The question as text."""
        return question_text(self.question)

    def asking(self, line: str) -> Problem:
        """The same problem with one more line behind its question."""
        return replace(self, question=extended(self.question, f"\n{line}"))


MARK = 12
"""Characters of a question's mark."""


def mark(question: Question) -> str:
    """A short hash of a question, by which it is known wherever it stands."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode()).hexdigest()[:MARK]


def marks(problems: Iterable[Problem]) -> str:
    """Marks of problems that are named by their rows' places, one behind the other; blanks where a row is left out."""
    found: list[str] = []
    for problem in problems:
        place = int(problem.problem_id.rpartition("-")[2])
        found += [" " * MARK] * (place - len(found))
        found.append(mark(problem.question))
    return "".join(found)


class ProblemList(Sequence[Problem]):
    """Problems with different names. Each is made anew when it is asked for: a hundred thousand of them take about
    as much memory as their text."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._packed, self._ends = bytearray(), array("Q", [0])
        self._places: dict[str, int] = {}
        for problem in problems:
            self.append(problem)

    def append(self, problem: Problem) -> None:
        """Take in one more, whose name is new."""
        self._places[problem.problem_id] = len(self)
        question = problem.question if isinstance(problem.question, str) else list(map(dict, problem.question))
        row = json.dumps([problem.problem_id, question, problem.answer], ensure_ascii=False, default=str)
        self._packed += row.encode()
        self._ends.append(len(self._packed))

    def named(self, name: str) -> Problem:
        """The problem of this name. KeyError where there is none."""
        return self._at(self._places[name])

    def without(self, names: set[str]) -> ProblemList:
        """All others."""
        return ProblemList(problem for problem in self if problem.problem_id not in names) if names else self

    def _at(self, place: int) -> Problem:
        name, question, answer = json.loads(self._packed[self._ends[place] : self._ends[place + 1]])
        return Problem(name, question if isinstance(question, str) else tuple(question), answer)

    def has(self, name: str) -> bool:
        """Whether there is a problem of this name."""
        return name in self._places

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Problem]:
        return (self._at(place) for place in range(len(self)))

    @overload
    def __getitem__(self, place: int) -> Problem: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, place: int | slice) -> Problem | tuple[Problem, ...]:
        places = range(len(self))[place]
        return self._at(places) if isinstance(places, int) else tuple(self._at(one) for one in places)
