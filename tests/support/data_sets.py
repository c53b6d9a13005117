"""Small data sets on disk, and what opening them gives: gold answers, or the one line of a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, open_dataset


def lines(folder: Path, *rows: Any, name: str = "own.jsonl") -> Path:
    path = folder / name
    path.write_bytes("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode())
    return path


def table(folder: Path, **columns: pa.Array) -> Path:
    path = folder / "own.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


def golds(path: Path, kind: str | None = None) -> list[str | None]:
    return [problem.answer for problem in open_dataset(str(path), kind).problems]


def refusal(path: Path, kind: str | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        open_dataset(str(path), kind)
    said = str(caught.value)
    assert "\n" not in said
    return said
