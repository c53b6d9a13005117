"""Made-up routing data: the strong model fixes prompts about proofs, the weak one can add."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

_TOPICS = {"proof": (0.15, 0.9), "sum": (0.9, 0.92), "poem": (0.4, 0.45), "date": (0.7, 0.6)}
_WORDS = ["apple", "river", "seven", "window", "machine", "garden", "paper", "blue", "letter", "12", "40", "eighteen"]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Distinct prompts whose first word decides how likely each model is to be right."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        topic = rng.choice(list(_TOPICS))
        filler = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(3, 30)))
        weak, strong = _TOPICS[topic]
        result.append(
            {
                "prompt": f"Write a {topic} about {filler}, case {seed}-{number}.",
                "subject": topic,
                "weak_correct": rng.random() < weak,
                "strong_correct": rng.random() < strong,
                "contaminated": False,
            }
        )
    return result


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    """A Parquet file of rows."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path
