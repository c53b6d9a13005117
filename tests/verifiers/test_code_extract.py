"""Where the code of a chat answer is, and how it stands behind its prompt."""

# ruff: noqa: E501 - programs stand in one line

from __future__ import annotations

import gc
import time

import pytest

from outthink.core.errors import BadInput
from outthink.core.text import visible
from outthink.verifiers.code import CodeProblem
from outthink.verifiers.code.blocks import find_code
from outthink.verifiers.code.inside.program import needed

RIGHT = "def f(x):\n    return x\n"


def extracted(text: str, entry_point: str) -> str:
    found = find_code(visible(text) or "", entry_point)
    return needed(found.code, found.others) + found.code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Sure:\n```python\ndef f():\n    return 1\n```\nDone.", "def f():\n    return 1\n"),
        ("```\ng()\n```\n```py\ndef f(): pass\n```", "def f(): pass\n"),
        ("```\nfirst\n```\n```\nsecond\n```", "first\n"),
        ("```\ndef f2(): pass\n```\n```\nasync def f(): pass\n```", "async def f(): pass\n"),
        ("```\ndef f(): wrong\n```\nFixed:\n```\ndef f(): right\n```\nUse:\n```\nf()\n```", "def f(): right\n"),
        ("    return 1\n", "    return 1\n"),
        ("    return 1\n```\nIt returns one.", "    return 1\n"),
        ("```python\ndef f():\n    return 'cut", "def f():\n    return 'cut"),
        ("- item:\n  ```python\n  def f(): pass\n  ```\n", "def f(): pass\n"),
        ("1. ```py\n   def f(): pass\n   ```\n", "def f(): pass\n"),
        ("> ```py\n> def f():\n>     pass\n> ```\n", "def f():\n    pass\n"),
        ("~~~\ndef f(): pass\n~~~\n", "def f(): pass\n"),
        ("````md\ndef f(): '''\n```\n'''\n````\n", "def f(): '''\n```\n'''\n"),
        ("```Python3 title='a.py'\r\ndef f(): pass\r\n```\r\n", "def f(): pass\n"),
        ("```\ndef f(): wrong\n\nAgain:\n```python\ndef f(): right\n```", "def f(): right\n"),
        ("```python\ndef f():\n    '''\n    ```\n    f()\n    ```\n    '''\n```", "def f():\n    '''\n    ```\n    f()\n    ```\n    '''\n"),
        ("```python def f(x): return x```", "def f(x): return x\n"),
        ("```\nf = lambda: 1\n```\n```\nf == 1\n```", "f = lambda: 1\n"),
        ("```\nprint(1)\n```\n```\n    return 1\n```", "    return 1\n"),
        ("```\n    def f(): pass\n```\n```\n    f = 1\n```", "    def f(): pass\n"),
        ("\ufeff```\n\ufeffdef f():\n\xa0\xa0\xa0\xa0return '\xa0'\n```", "def f():\n    return '\xa0'\n"),
        ("<think>\n```\ndef f(): thought\n```\n</think>\n```\ndef f(): said\n```", "def f(): said\n"),
        ("<think>\n```\ndef f(): thought\n```", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_extraction(text: str, code: str) -> None:
    assert extracted(text, "f") == code


@pytest.mark.parametrize(
    ("others", "code", "taken"),
    [
        ("import math\n", "def f(x):\n    return math.sqrt(x)\n", "import math\n"),
        ("N = 2\nprint(N)\nassert N == 3\n", "def f(x):\n    return x * N\n", "N = 2\n"),
        ("def g(x):\n    return h(x)\ndef h(x):\n    return x\n", "def f(x):\n    return g(x)\n", "def g(x):\n    return h(x)\ndef h(x):\n    return x\n"),
        ("@cache\ndef g(x):\n    return x\nfrom functools import cache\n", "f = g\n", "@cache\ndef g(x):\n    return x\nfrom functools import cache\n"),
        ("def g(): pass\n", RIGHT, ""),
        ("pip install numpy\n", "def f(x):\n    return pip\n", ""),
    ],
)  # fmt: skip
def test_what_a_block_needs_of_others_is_taken_along(others: str, code: str, taken: str) -> None:
    for text in (f"```\n{others}```\n```\n{code}```\n", f"```\n{code}```\nwith\n```\n{others}```\n"):
        assert extracted(text, "f") == taken + code


@pytest.mark.timing
@pytest.mark.parametrize("piece", ["```\n", "~~~x\n", "- ", "> ", "`", " ", "def f(): pass\n```\n", "\t```\n", "f = "])
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        start = time.process_time()
        extracted(text, "g")
        return time.process_time() - start

    gc.disable()  # how long a collection takes depends on what other tests have left
    try:
        seconds(1000)
        few, many = (min(seconds(length) for _ in range(3)) for length in (20_000, 200_000))
    finally:
        gc.enable()
    assert many < 40 * max(few, 0.005)


@pytest.mark.parametrize(
    ("entry", "test", "field"), [("f(", "x", "entry_point"), ("def", "x", "entry_point"), ("f", " ", "test")]
)
def test_a_problem_without_function_or_test_is_refused(entry: str, test: str, field: str) -> None:
    with pytest.raises(BadInput) as error:
        CodeProblem("", entry, test)
    assert error.value.field == field
