"""What a piece of code is tested against. Knows the columns of HumanEval; does not know how tests are run."""

from __future__ import annotations

import keyword
from dataclasses import dataclass

from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """One problem.

    Args:
        prompt: Python that stands in front of the code: imports, helpers, the head of the function.
        entry_point: the function that is tested.
        test: Python that defines `check(candidate)`, which raises where the candidate is wrong.

    Raises BadInput for an entry point that is no name, or a blank test.
    """

    prompt: str
    entry_point: str
    test: str

    def __post_init__(self) -> None:
        if not self.entry_point.isidentifier() or keyword.iskeyword(self.entry_point):
            raise BadInput("entry_point", self.entry_point, "is not the name of a function", "name the tested function")
        if not self.test.strip():
            raise BadInput("test", self.test, "is empty", "give code that defines check(candidate)")

    def program(self, code: str) -> str:
        """The tested program: the prompt, then the code. The test is no part of it."""
        return self.prompt + code + "\n"
