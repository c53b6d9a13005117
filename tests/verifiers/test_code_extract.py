"""Where the code of a chat answer is."""

from __future__ import annotations

import pytest

from outthink.core.errors import BadInput
from outthink.verifiers.code import CodeProblem, extract_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Sure:\n```python\ndef f():\n    return 1\n```\nDone.", "def f():\n    return 1\n"),
        ("```\ng()\n```\n```py\ndef f(): pass\n```", "def f(): pass\n"),
        ("```\nfirst\n```\n```\nsecond\n```", "first\n"),
        ("```\ndef f2(): pass\n```\n```\nasync def f(): pass\n```", "async def f(): pass\n"),
        ("    return 1\n", "    return 1\n"),
        ("```python\ndef f():\n    return 'cut", "def f():\n    return 'cut"),
        ("- item:\n  ```python\n  def f(): pass\n  ```\n", "  def f(): pass\n"),
        ("", ""),
    ],
)
def test_extraction(text: str, code: str) -> None:
    assert extract_code(text, "f") == code


def test_the_prompt_stands_in_front() -> None:
    problem = CodeProblem("import math\n", "f", "def check(c): pass")
    assert problem.program("def f(): pass") == "import math\ndef f(): pass\n"


@pytest.mark.parametrize(
    ("entry", "test", "field"), [("f(", "x", "entry_point"), ("def", "x", "entry_point"), ("f", " ", "test")]
)
def test_a_problem_without_function_or_test_is_refused(entry: str, test: str, field: str) -> None:
    with pytest.raises(BadInput) as error:
        CodeProblem("", entry, test)
    assert error.value.field == field
