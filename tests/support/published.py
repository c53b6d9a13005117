"""Five rows of each published form, written for these tests in the published columns and types, and where they lie.

Knows the forms' columns. Does not know how anything reads them.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

Rows = list[dict[str, Any]]

GSM8K: Rows = [
    {"question": f"Ann has {n} apples and buys {n + 1} more. How many are there?",
     "answer": f"She has {n} + {n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1} apples.\n#### {2 * n + 1:,}"}
    for n in (3, 10, 25, 99, 4000)
]  # fmt: skip
MATH: Rows = [
    {"problem": rf"Compute ${n}^2$.", "level": "Level 2", "type": "Algebra",
     "solution": rf"We have ${n} \cdot {n} = {n * n}$, so the answer is $\boxed{{{n * n}}}$."}
    for n in range(2, 6)
] + [
    {"problem": "Solve $x^2 = 4$.", "level": "Level 1", "type": "Algebra",
     "solution": r"The roots are $\boxed{-2}$ and $\boxed{2}$."}
]  # fmt: skip
MATH500: Rows = [
    {"problem": rf"What is $\frac{{1}}{{{n}}} + \frac{{1}}{{{n}}}$?", "solution": "They add up.",
     "answer": rf"\frac{{2}}{{{n}}}", "subject": "Prealgebra", "level": 2, "unique_id": f"test/prealgebra/{n}.json"}
    for n in (3, 5, 7, 9, 11)
]  # fmt: skip
MMLU: Rows = [
    {"question": f"Which is the number {n}?", "subject": "elementary_mathematics",
     "choices": [f"{word} is one" for word in ("zero", "one", "two", "three")], "answer": n}
    for n in (0, 1, 2, 3)
] + [
    {"question": "Which planet is red?\u2028(By its dust.)", "subject": "astronomy",
     "choices": ["Venus", "Earth", "Mars", "Saturn"], "answer": 2}
]  # fmt: skip
HUMANEVAL: Rows = [
    {"task_id": f"HumanEval/{n}", "entry_point": f"add_{n}",
     "prompt": f'def add_{n}(x):\n    """Add {n}.\n    >>> add_{n}(1)\n    {n + 1}\n    """\n',
     "canonical_solution": f"    return x + {n}\n",
     "test": f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n    assert candidate(1) == {n + 1}\n"
             f"    assert candidate(-1) == {n - 1}\n"}
    for n in range(1, 6)
]  # fmt: skip


def _mbpp(n: int) -> dict[str, Any]:
    return {
        "task_id": n,
        "code": f"def times_{n}(x):\r\n  return x * {n}",
        "test_list": [f"assert times_{n}({x}) == {x * n}" for x in (1, 2, 3)],
    }


MBPP: Rows = [
    {"text": f"Write a function to multiply a number by {n}.", **_mbpp(n), "test_setup_code": "",
     "challenge_test_list": []}
    for n in range(2, 7)
]  # fmt: skip
SANITIZED: Rows = [
    {"source_file": "Benchmark Questions.ipynb", "prompt": f"Multiply a number by {n}.", **_mbpp(n),
     "test_imports": ["import math"] if n == 3 else []}
    for n in range(2, 7)
]  # fmt: skip


def _lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _packed(rows: Rows) -> bytes:
    return gzip.compress(_lines(rows))


def _array(rows: Rows) -> bytes:
    return b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode()


def _table(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def _headerless(rows: Rows) -> bytes:
    class Sink(list[str]):
        write = list.append

    sink = Sink()
    writer = csv.writer(sink)
    for row in rows:
        writer.writerow([row["question"], *row["choices"], "ABCD"[row["answer"]]])
    return "".join(sink).encode()


FILES: dict[str, tuple[Rows, Callable[[Rows], bytes], str, str | None]] = {
    "gsm8k.jsonl": (GSM8K, _lines, "GSM8K", "number"),
    "gsm8k.parquet": (GSM8K, _table, "GSM8K", "number"),
    "math.jsonl": (MATH, _lines, "MATH", "math"),
    "math500.jsonl": (MATH500, _lines, "MATH-500", "math"),
    "math500.parquet": (MATH500, _table, "MATH-500", "math"),
    "mmlu.jsonl": (MMLU, _lines, "MMLU", "choice"),
    "mmlu.parquet": (MMLU, _table, "MMLU", "choice"),
    "mmlu_test.csv": (MMLU, _headerless, "MMLU", "choice"),
    "HumanEval.jsonl": (HUMANEVAL, _lines, "HumanEval", None),
    "HumanEval.jsonl.gz": (HUMANEVAL, _packed, "HumanEval", None),
    "humaneval.parquet": (HUMANEVAL, _table, "HumanEval", None),
    "mbpp.jsonl": (MBPP, _lines, "MBPP", None),
    "mbpp.parquet": (MBPP, _table, "MBPP", None),
    "sanitized-mbpp.json": (SANITIZED, _array, "MBPP, sanitized", None),
}
"""By file name: its rows, its container, its form, and the kind of its answers."""


def write(folder: Path, name: str) -> Path:
    """Write one of FILES."""
    rows, pack, _, _ = FILES[name]
    path = folder / name
    path.write_bytes(pack(rows))
    return path


def right_text(name: str, place: int) -> str:
    """A completion that answers a row rightly."""
    rows, _, form, _ = FILES[name]
    row = rows[place]
    if form == "GSM8K":
        return f"The answer is {row['answer'].rpartition('#### ')[2]}."
    if form == "MATH":
        return row["solution"]
    if form == "MATH-500":
        return rf"So \boxed{{{row['answer']}}}."
    if form == "MMLU":
        return f"The answer is ({'ABCD'[row['answer']]})."
    if form == "HumanEval":
        return f"```python\n{row['prompt']}{row['canonical_solution']}```"
    return f"```python\n{row['code']}\n```"
