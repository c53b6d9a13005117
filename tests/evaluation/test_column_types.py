"""Columns of every Arrow type, in every place: what cannot be used is refused in one line, by its row."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, open_dataset
from outthink.engines.cells import cells_of
from outthink.engines.traces import load
from outthink.evaluation.dataset import regrade
from outthink.evaluation.published.lookup import Problems
from outthink.evaluation.sample_file import JudgedSample, SampleFile
from outthink.training.examples import read_samples

TYPES = [
    pa.nulls(3),
    pa.array([True, False, None]),
    pa.array([0, 1, None], pa.int8()),
    pa.array([-1, 1, 1 << 62]),
    pa.array([1, (1 << 64) - 1, None], pa.uint64()),
    pa.array([1, 0.1, None], pa.float32()),
    pa.array([1e300, float("nan"), float("inf")]),
    pa.array([Decimal("1.0"), Decimal("0.5"), None]),
    pa.array(["1", "x", None]),
    pa.array(["", " ", "\t"], pa.large_string()),
    pa.array(["1", "0" * 20, None], pa.string_view()),
    pa.array(["1", "x", None]).dictionary_encode(),
    pa.array([0.1, 0, None], pa.float32()).dictionary_encode(),
    pa.array([b"1", b"\xff", None]),
    pa.array([b"12", b"\xff\xfe", None], pa.binary(2)),
    pa.array([datetime.date(2026, 11, 29)] * 3),
    pa.array([1] * 3, pa.timestamp("ns")),
    pa.array([1 << 50] * 3, pa.timestamp("s")),
    pa.array([1] * 3, pa.timestamp("us", "No/Where")),
    pa.array([1] * 3, pa.time64("ns")),
    pa.array([1] * 3, pa.duration("ns")),
    pa.array([[1], [None, 2], None]),
    pa.array([["a"], [], None]),
    pa.array([[1.0, 2.0], None, [2.0, 3.0]], pa.list_(pa.float32(), 2)),
    pa.array([[1.0], None, []], pa.list_view(pa.float32())),
    pa.array([[[1]], None, []]),
    pa.array([{"role": "user", "content": "x"}, None, {"role": "a", "content": None}]),
    pa.array([[{"role": "user", "content": "x"}], None, []]),
    pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())),
]
SAMPLES = {
    "problem_id": ["p", "p", "p"],
    "sample_idx": [0, 1, 2],
    "text": ["It is 1.", "2", "3"],
    "n_tokens": [3, 3, 3],
    "answer": ["1", "2", "3"],
    "correct": [True, False, False],
    "verifier": ["v", "v", "v"],
    "score": [0.5, 0.5, 0.5],
}
FORMS = [
    {"question": ["a?"] * 3, "answer": ["1"] * 3},
    {"question": ["a?"] * 3, "choices": [["a", "b"]] * 3, "answer": [0] * 3},
    {"prompt": ["def f(x):"] * 3, "entry_point": ["f"] * 3, "test": ["def check(c):\n  assert c(1)"] * 3},
    {"text": ["Write f."] * 3, "test_list": [["assert f(1)"]] * 3},
    {"problem": ["a?"] * 3, "solution": [r"\boxed{1}"] * 3},
]
MORE = ["prompt_tokens", "finish_reason", "mean_logprob", "chunk_conf", "steps", "verifier_tokens", "other"]


def tables(columns: dict[str, Any], name: str, path: Path) -> Iterator[pa.DataType]:
    """Writes one file after the other, with a column of every type."""
    for cells in TYPES:
        parquet.write_table(pa.table(columns | {name: cells}), path)
        yield cells.type


def refusal(use: Callable[[], object]) -> str:
    """What is said of columns that cannot be used, empty where they can."""
    try:
        use()
    except BadInput as error:
        return str(error)
    return ""


def wrong(said: str) -> bool:
    """Whether that is more than a line, or one that names no row."""
    return "\n" in said or "readable Parquet" in said


@pytest.mark.parametrize("name", [*SAMPLES, *MORE])
def test_no_type_of_a_samples_column_gives_a_traceback(tmp_path, name) -> None:
    path, problems = tmp_path / "toy--d.parquet", tmp_path / "problems.jsonl"
    problems.write_text('{"problem_id": "p", "question": "1?", "answer": "1"}\n')

    def replay() -> None:
        traces = regrade(load(path, text=True), "number", problems)
        assert traces.hits()

    def write(out: Path) -> None:
        samples = SampleFile(path, rescore=True)
        samples.samples()
        samples.write(out, [JudgedSample(1.0)] * 3, {"id": "exact-number", "kind": "exact"})

    uses = [
        replay,
        lambda: write(tmp_path / "out.jsonl"),
        lambda: write(tmp_path / "out.parquet"),
        lambda: read_samples(path, {"p": "1?"}),
    ]
    said = {kind: [refusal(use) for use in uses] for kind in tables(SAMPLES, name, path)}
    assert not {kind: lines for kind, lines in said.items() if any(map(wrong, lines))}


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_no_type_of_a_problems_column_gives_a_traceback(tmp_path, form) -> None:
    path = tmp_path / "d.parquet"
    uses = [lambda: open_dataset(str(path), skip_bad=True).remembered, lambda: Problems.read(path).digest]
    for name in [*form, "id", "other"]:
        said = {kind: [refusal(use) for use in uses] for kind in tables(form, name, path)}
        assert not {kind: lines for kind, lines in said.items() if any(map(wrong, lines))}


@pytest.mark.parametrize("cells", [cells for cells in TYPES if not pa.types.is_temporal(cells.type)], ids=str)
def test_any_part_of_a_column_has_the_cells_that_arrow_has(cells) -> None:
    twice = pa.concat_arrays([cells, cells])
    for start in range(7):
        part = twice[start : start + 2]
        # As text, since NaN does not equal itself; 0.1 is what a short float is read as.
        assert str(cells_of(part)) == str(part.to_pylist()).replace("0.10000000149011612", "0.1")
