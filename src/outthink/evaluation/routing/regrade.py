"""Labels read again from the responses: how much of a figure is noise of the grading.

Knows: responses in a routing file and gold answers in a problem file, matched by the question's text.
Does not know routers. The last number of a response counts as its answer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from outthink.answers import canonical_key, grade_many
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import Ints, RoutingData

_RESPONSES = ("weak_response", "strong_response")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def regraded(data: RoutingData, source: Path, gold: Path) -> tuple[RoutingData, Ints]:
    """Rows of `data` whose gold answer is known, with labels from the text, and their places in `data`.

    Args:
        source: the file that `data` was read from; it needs `weak_response` and `strong_response`.
        gold: Parquet with `question` and `answer`.

    Raises BadInput for missing columns or where no question is in both.
    """
    responses = _columns(source, ("prompt", *_RESPONSES))
    problems = _columns(gold, ("question", "answer"))
    keys = dict(zip(problems["question"], problems["answer"], strict=True))
    texts = dict(zip(responses["prompt"], zip(*(responses[name] for name in _RESPONSES), strict=True), strict=True))
    rows = np.array([row for row, prompt in enumerate(data.prompts) if prompt in keys], dtype=np.int64)
    if not len(rows):
        raise BadInput("--gold", str(gold), "holds none of the prompts as `question`", "give the problems of this data")
    part = data.take(rows)
    labels = []
    for side in range(len(_RESPONSES)):
        pairs = [(last_number(texts[prompt][side]), keys[prompt]) for prompt in part.prompts]
        labels.append(np.array(grade_many("number", pairs), dtype=np.float64))
    return replace(part, weak=labels[0], strong=labels[1]), rows


def last_number(text: str) -> str | None:
    """Canonical form of the last number in a text, None without one."""
    found = _NUMBER.findall(text)
    return canonical_key("number", found[-1]) if found else None


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise BadInput("data", str(path), "does not exist", "give a Parquet file")
    have = parquet.read_schema(path).names
    missing = [name for name in names if name not in have]
    if missing:
        raise BadInput(f"data {path.name}", ", ".join(missing), "is no column", f"it has: {', '.join(have)}")
    table: dict[str, list[str]] = parquet.read_table(path, columns=list(names)).to_pydict()
    return table
