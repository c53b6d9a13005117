"""Small files of recorded samples with known chances, and the problems beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "dates", "eggs", "forks")


def question(number: int) -> str:
    """A short word problem, different for every number."""
    draw = random.Random(number)
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    has, buys, gives = draw.randint(10, 99), draw.randint(2, 9), draw.randint(2, 9)
    return f"{name} has {has} {thing}, buys {buys} more and gives {gives} away. How many {thing} does {name} have now?"


def write_samples(
    folder: Path,
    *,
    model: str = "tiny",
    dataset: str = "sums",
    problems: range = range(40),
    samples: int = 16,
    seed: int = 0,
    questions: bool = True,
    ask: Any = question,
    right: bool = True,
    tokens: int = 60,
    about: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """Problem i is answered rightly with a chance of its own between 0.2 and 0.95, at surer log-probabilities.

    Args:
        about: the file's metadata.
        more: further columns; a function of the sample's number gives its value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, asked = [], []
    for number in problems:
        draw = random.Random(f"{seed}:{model}:{number}")
        chance = draw.uniform(0.2, 0.95)
        key = str(2 * number + 5)
        asked.append({"problem_id": f"p{number}", "question": ask(number), "answer": key})
        for index in range(samples + 1):
            hit = right and draw.random() < chance
            row = {
                "problem_id": f"p{number}",
                "sample_idx": index,
                "text": "",
                "n_tokens": max(8, int(draw.gauss(tokens if hit else 1.4 * tokens, tokens / 6))),
                "finish_reason": "stop",
                "prompt_tokens": 20 + number % 10,
                "mean_logprob": -abs(draw.gauss(0.2 if hit else 0.5, 0.15)),
                "answer": key if hit else str(draw.randint(1000, 1003)),
                "extraction": "boxed",
                "correct": hit,
            }
            row |= {name: value(index) for name, value in (more or {}).items()}
            rows.append(row)
    metadata = None if about is None else {"outthink": json.dumps(about)}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(metadata)
    path = folder / f"{model}--{dataset}.parquet"
    parquet.write_table(table, path)
    if questions:
        parquet.write_table(pa.Table.from_pylist(asked), folder / f"problems-{dataset}.parquet")
    return path
