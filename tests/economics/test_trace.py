"""Traces of requests: three formats, groups, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.economics.capacity.trace import read_trace

LONE = {"arrival": [3.0, 3.5, 7.0], "prompt_tokens": [10, 20, 30], "output_tokens": [1, 2, 3]}
GROUPED = {
    "arrival": [0.0, 0.5, 0.5, 1.0, 2.0],
    "prompt_tokens": [8, 5, 5, 8, 5],
    "output_tokens": [1, 2, 3, 4, 5],
    "group": ["a", "b", "b", "a", "b"],
    "order": [1, 2, 0, 0, 1],
    "stop_after": [1, 2, 2, 1, 2],
    "ahead": [2, 1, 1, 2, 1],
}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    table = pa.table(columns)
    match path.suffix:
        case ".csv":
            rows = [
                ",".join(columns),
                *(",".join(str(cell) for cell in row) for row in zip(*columns.values(), strict=True)),
            ]
            path.write_text("\n".join(rows) + "\n")
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        case _:
            pq.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_lone_requests(tmp_path: Path, suffix: str) -> None:
    trace = read_trace(write(tmp_path / f"trace{suffix}", LONE))
    assert trace.arrival.tolist() == [0.0, 0.5, 4.0]
    assert trace.prompt.tolist() == [10, 20, 30]
    assert trace.output.tolist() == [1, 2, 3]
    assert trace.shared.tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_groups_share_a_prompt_and_arrive_with_their_first_row(tmp_path: Path, suffix: str) -> None:
    trace = read_trace(write(tmp_path / f"trace{suffix}", GROUPED))
    assert trace.stage.tolist() == [0, 0, 1, 1, 1]
    assert trace.output.tolist() == [4, 1, 3, 5, 2]
    assert trace.arrival.tolist() == [0.0, 0.5]
    assert trace.need.tolist() == [1, 2]
    assert trace.ahead.tolist() == [2, 1]
    assert trace.shared.tolist() == [8, 8, 5, 5, 5]


def test_samples_repeat_a_row(tmp_path: Path) -> None:
    columns = {**LONE, "samples": [1, 4, 2], "stop_after": [1, 3, 2]}
    trace = read_trace(write(tmp_path / "trace.parquet", columns))
    assert trace.sizes.tolist() == [1, 4, 2]
    assert trace.need.tolist() == [1, 3, 2]
    assert trace.output.tolist() == [1, 2, 2, 2, 2, 3, 3]
    assert trace.shared.tolist() == [0, 20, 20, 20, 20, 30, 30]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrival": [3.0, 2.0, 7.0]}, r"row 2 arrival: 2.0 is earlier than the row before \(3\); sort"),
        ({"arrival": [3.0, None, 7.0]}, "row 2 arrival: None is missing"),
        ({"arrival": [3.0, float("nan"), 7.0]}, "row 2 arrival: nan is not finite"),
        ({"arrival": ["a", "b", "c"]}, "arrival: 'string' is no column of numbers"),
        ({"prompt_tokens": [10, 0, 30]}, "row 2 prompt_tokens: 0.0 is no whole number from 1"),
        ({"prompt_tokens": [10, -4, 30]}, "row 2 prompt_tokens: -4.0"),
        ({"output_tokens": [1, 2.5, 3]}, "row 2 output_tokens: 2.5"),
        ({"output_tokens": [1, 1e12, 3]}, "row 2 output_tokens"),
        ({"group": ["a", "a", "b"]}, "row 2 prompt_tokens: 20 differs within its group"),
        ({"group": [None, "a", "b"]}, "row 1 group: None is missing"),
        ({"group": ["a", "b", "c"], "ahead": [1, 0, 1]}, "row 2 ahead"),
        (
            {"prompt_tokens": [5, 5, 5], "group": ["a", "a", "b"], "stop_after": [1, 2, 1]},
            "row 2 stop_after: 2 differs",
        ),
        ({"prompt_tokens": [5, 5, 5], "group": ["a", "a", "b"], "samples": [2, 2, 2]}, "both samples and groups"),
    ],
)
def test_what_is_wrong_is_told_by_row_and_column(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_trace(write(tmp_path / "trace.parquet", {**LONE, **change}))


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no column output_tokens"):
        read_trace(write(tmp_path / "a.parquet", {name: LONE[name] for name in ("arrival", "prompt_tokens")}))
    with pytest.raises(BadInput, match="holds no requests"):
        read_trace(write(tmp_path / "b.parquet", {name: pa.array([], pa.float64()) for name in LONE}))
    with pytest.raises(BadInput, match="is no file"):
        read_trace(tmp_path / "none.parquet")
    for name in ("c.parquet", "c.csv", "c.jsonl"):
        (tmp_path / name).write_bytes(b"\x00\xff{{{")
        with pytest.raises(BadInput, match="trace"):
            read_trace(tmp_path / name)


@settings(deadline=None)  # files are written and read
@given(samples=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=9))
def test_samples_and_groups_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("same")
    short = {
        "arrival": [float(at) for at in range(len(samples))],
        "prompt_tokens": [prompt for prompt, _ in samples],
        "output_tokens": [7] * len(samples),
        "samples": [count for _, count in samples],
    }
    rows = [(at, prompt) for at, (prompt, count) in enumerate(samples) for _ in range(count)]
    long = {
        "arrival": [float(at) for at, _ in rows],
        "prompt_tokens": [prompt for _, prompt in rows],
        "output_tokens": [7] * len(rows),
        "group": [at for at, _ in rows],
    }
    one, other = (read_trace(write(folder / f"{name}.parquet", each)) for name, each in (("a", short), ("b", long)))
    assert one.stage.tolist() == other.stage.tolist()
    assert one.prompt.tolist() == other.prompt.tolist()
    assert one.shared.tolist() == other.shared.tolist()
    assert one.arrival.tolist() == other.arrival.tolist()
