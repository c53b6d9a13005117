"""Verifiers whose scores are known, and files of samples for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers import Score

STEP = "step\n"
"""A text of k such lines has k steps."""


class Judge:
    """Step k of a text scores value / k; ten tokens a candidate.

    Args:
        dies_after: candidates after which the verifier is dead.
        refuses: texts that it refuses as bad input.
        seconds: that it takes for each call.
    """

    def __init__(
        self,
        *,
        id: str = "judge@1",
        kind: str = "process",
        value: float = 0.5,
        dies_after: int | None = None,
        refuses: str | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.id, self.kind, self.model, self.parameters = id, kind, "judge", 1000
        self.separator, self.aggregation = "\n", "min"
        self.value, self.dies_after, self.refuses, self.seconds = value, dies_after, refuses, seconds
        self.seen: list[str] = []
        self.asked: list[str] = []

    def bound(self, request: Request, candidate: Candidate) -> int:
        return 10

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.refuses is not None and any(candidate.text == self.refuses for candidate in candidates):
            raise BadInput("text", self.refuses, "is too long", "shorten it")
        if self.dies_after is not None and len(self.seen) + len(candidates) > self.dies_after:
            raise EngineError("the judge has died")
        self.seen += [candidate.text for candidate in candidates]
        self.asked += [request.messages[0].text]
        return [
            Score(tuple(self.value / (k + 1) for k in range(len(candidate.steps))), 8, 2) for candidate in candidates
        ]


def rows(problems: int = 3, samples: int = 4) -> list[dict[str, Any]]:
    """Sample i of problem p has i lines and says which it is; sample 0 of problem 0 has no text."""
    return [
        {
            "problem_id": f"p{problem}",
            "sample_idx": index,
            "text": f"{STEP * index}{problem}/{index}" if problem or index else " ",
            "n_tokens": 10 * index + 1,
            "chunk_conf": np.array([8.0, 9.5], np.float16),
            "answer": str(index),
            "correct": index == problem,
            "mine": {"left": index},
        }
        for problem in range(problems)
        for index in range(samples)
    ]


def write_samples(path: Path, **sizes: int) -> Path:
    """The rows with the types of the data card, and a column of the user's own."""
    types = {
        "problem_id": pa.dictionary(pa.int32(), pa.string()),
        "sample_idx": pa.uint8(),
        "text": pa.string(),
        "n_tokens": pa.uint16(),
        "chunk_conf": pa.list_(pa.float16()),
        "answer": pa.string(),
        "correct": pa.bool_(),
        "mine": pa.struct([("left", pa.int8())]),
    }
    made = rows(**sizes)
    table = pa.table({name: pa.array([row[name] for row in made], kind) for name, kind in types.items()})
    parquet.write_table(table.replace_schema_metadata({"whose": "mine"}), path)
    return path


def write_problems(path: Path, problems: int = 3) -> Path:
    """Problem i asks for i."""
    made = [{"problem_id": f"p{i}", "question": f"Say {i}.", "answer": str(i)} for i in range(problems)]
    parquet.write_table(pa.Table.from_pylist(made), path)
    return path
