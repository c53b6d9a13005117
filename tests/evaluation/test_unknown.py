"""Unknown is never 0: tokens that no server told, and samples that nobody has graded."""

from __future__ import annotations

import asyncio
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from rich.console import Console

from outthink import BadInput, Recording, ScriptedEngine
from outthink.core.errors import Unsupported
from outthink.engines.protocol import Speed
from outthink.engines.scripted import Completion
from outthink.engines.traces import load
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.dataset import Dataset, Problem
from outthink.evaluation.gains import accuracy_by_cap, measure_gains
from outthink.evaluation.record import record
from outthink.evaluation.report.html import render
from outthink.evaluation.report.plot import draw
from outthink.evaluation.report.table import show
from outthink.evaluation.report.terminal import terminal_plot
from outthink.strategies import Spec
from support.samples import write_samples

FAST = Speed(stream=1e6, total=1e8, prefill=1e8, concurrency=8)
SPECS = [Spec.parse(name) for name in ("single", "self-consistency", "esc", "short-m-of-k", "best-of-n")]
COSTS = ("tokens", "prompt_tokens", "cancelled_tokens", "flops", "seconds")


def spoilt(path: Path, **columns: Any) -> Path:
    """The file with other cells in some columns: each a function of the row's number and the old cell."""
    table = parquet.read_table(path)
    for name, change in columns.items():
        cells = table[name].to_pylist()
        cells = [change(row, cell) for row, cell in enumerate(cells)]
        table = table.set_column(table.column_names.index(name), name, pa.array(cells))
    parquet.write_table(table, path)
    return path


def rows_of(path: Path, *specs: Spec, **settings: Any) -> tuple[list[dict[str, Any]], list[str]]:
    said: list[str] = []
    rows = compare([path], specs or SPECS, CompareSettings(seeds=2, **settings), say=said.append)
    return rows, said


def recipe() -> CalibrationRecipe:
    return CalibrationRecipe(target=Target.parse("match=self-consistency@8"), folds=2, orders=2)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path, model="qwen2.5-coder-0.5b-instruct", samples=8, problems=range(12))


def test_without_any_count_accuracy_stands_and_costs_are_unknown(samples) -> None:
    whole, _ = rows_of(samples)
    unknown, _ = rows_of(spoilt(samples, n_tokens=lambda row, cell: None, prompt_tokens=lambda row, cell: None))
    assert len(unknown) == len(whole)
    for row in unknown:
        assert [row[name] for name in COSTS if name != "cancelled_tokens"] == [None] * 4
        assert row["cancelled_tokens"] in (None, 0)  # where none was cancelled that is known
        assert row["difference"] is row["difference_low"] is row["flops_difference"] is None
    same = [(row["strategy"], row["n"], row["accuracy"], row["samples"]) for row in unknown]
    expected = [(row["strategy"], row["n"], row["accuracy"], row["samples"]) for row in whole]
    for mine, theirs in zip(same, expected, strict=True):
        if mine[0] not in ("short-m-of-k", "esc"):  # who is first, and ties by length, go by the texts' lengths now
            assert mine == theirs


def test_one_unknown_count_makes_the_rows_that_drew_it_unknown(samples) -> None:
    whole, _ = rows_of(samples)
    rows, _ = rows_of(spoilt(samples, n_tokens=lambda row, cell: None if row == 3 else cell))
    for row, before in zip(rows, whole, strict=True):
        assert row["accuracy"] == before["accuracy"] or row["strategy"] in ("short-m-of-k", "esc")
        assert row["prompt_tokens"] == before["prompt_tokens"] or row["strategy"] in ("short-m-of-k", "esc")
        if row["n"] == 8 and row["strategy"] in ("self-consistency", "best-of-n", "oracle"):
            assert (row["tokens"], row["seconds"], row["flops"], row["difference"]) == (None, None, None, None)
        if row["strategy"] == "greedy":
            assert [row[name] for name in COSTS] == [before[name] for name in COSTS]


def test_an_unknown_prompt_leaves_generated_tokens_known(samples) -> None:
    rows, _ = rows_of(spoilt(samples, prompt_tokens=lambda row, cell: None))
    for row in rows:
        assert (row["prompt_tokens"], row["flops"], row["seconds"], row["flops_difference"]) == (None,) * 4
        assert row["tokens"] > 0


def test_a_sample_of_unknown_length_comes_in_the_order_of_its_text(tmp_path) -> None:
    table = {
        "problem_id": ["p"] * 3,
        "sample_idx": [1, 2, 3],
        "text": ["x" * 400, "y" * 40, "z" * 4000],
        "n_tokens": pa.array([100, None, None], pa.uint16()),
        "prompt_tokens": [1, 1, 1],
        "answer": ["long", "short", "longest"],
        "correct": [False, True, False],
    }
    parquet.write_table(pa.table(table), tmp_path / "m.parquet")
    first = Spec.parse("short-m-of-k:m=1,n=3")
    (row, *_) = rows_of(tmp_path / "m.parquet", first)[0]
    assert (row["strategy"], row["n"], row["accuracy"]) == (first.canonical, 3, 1.0)


def test_reports_say_unknown(samples) -> None:
    rows, _ = rows_of(spoilt(samples, n_tokens=lambda row, cell: None, prompt_tokens=lambda row, cell: None))
    out = StringIO()
    show(rows, Console(file=out, width=200))
    assert "unknown" in out.getvalue()
    assert "generated tokens per problem: unknown" in terminal_plot(rows)
    assert "generated tokens per problem: unknown" in draw(rows)
    page = render(rows, {"title": "x"})
    assert ">unknown</td>" in page
    assert "nan" not in page.lower().replace("finance", "")
    assert page.count('class="chart"') == 2
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_partly_unknown_costs_leave_the_other_points_in_the_chart(samples) -> None:
    rows, _ = rows_of(spoilt(samples, n_tokens=lambda row, cell: None if row % 9 == 8 else cell))
    assert any(row["tokens"] is None for row in rows)
    assert any(row["tokens"] is not None for row in rows)
    assert "unknown" not in terminal_plot(rows)
    assert render(rows, {}).count('class="chart"') == 6


@pytest.mark.parametrize("column", ["n_tokens", "prompt_tokens"])
def test_calibrate_refuses_unknown_counts_and_says_of_how_many_rows(samples, column) -> None:
    spoilt(samples, **{column: lambda row, cell: None if row < 7 else cell})
    with pytest.raises(BadInput, match=f"lacks {column} in 7 of its 108 rows"):
        calibrate([samples], recipe())


def test_a_strategy_that_some_samples_cannot_serve_is_left_out(samples) -> None:
    spoilt(samples, mean_logprob=lambda row, cell: None if row == 100 else cell)
    rows, said = rows_of(samples, unserved="left out")
    assert "best-of-n" not in {row["strategy"] for row in rows}
    assert sum("left out best-of-n (needs log-probabilities, or a verifier)" in line for line in said) == 1
    with pytest.raises(Unsupported):
        rows_of(samples)


def test_lengths_are_needed_where_caps_cut(samples) -> None:
    spoilt(samples, n_tokens=lambda row, cell: None if row == 3 else cell)
    with pytest.raises(BadInput, match="lacks n_tokens in 1 of"):
        accuracy_by_cap(load(samples), [2], [64])
    assert measure_gains([load(samples)]).cells  # a vote's gain takes no lengths


def test_ungraded_files_are_skipped_in_one_line_that_names_verify(samples) -> None:
    spoilt(samples, correct=lambda row, cell: None)
    said: list[str] = []
    with pytest.raises(BadInput, match="outthink verify"):
        compare([samples], SPECS, CompareSettings(), say=said.append)
    assert len(said) == 1
    assert "outthink verify" in said[0]
    assert str(samples) in said[0]
    with pytest.raises(BadInput, match="which samples of 12 of its 12 problems"):
        calibrate([samples], recipe())
    with pytest.raises(BadInput, match="which samples of 12 of its 12 problems"):
        measure_gains([load(samples)])


def test_ungraded_samples_without_answers_can_be_read_anew(samples) -> None:
    text = [f"The answer is {cell}." for cell in parquet.read_table(samples)["answer"].to_pylist()]
    whole, _ = rows_of(samples)
    blank = lambda row, cell: None  # noqa: E731
    rows, _ = rows_of(spoilt(samples, correct=blank, answer=blank, text=lambda row, cell: text[row]), regrade="number")
    assert [(row["strategy"], row["n"], row["accuracy"]) for row in rows] == [
        (row["strategy"], row["n"], row["accuracy"]) for row in whole
    ]


def test_problems_with_ungraded_samples_are_left_out(samples) -> None:
    whole, _ = rows_of(samples)
    spoilt(samples, correct=lambda row, cell: None if row < 9 else cell)
    rows, said = rows_of(samples)
    assert {row["problems"] for row in rows} == {11}
    assert sum("left out 1 of 12 problems" in line for line in said) == 1
    assert {row["problems"] for row in whole} == {12}


# Code: samples without answers.


def code(call: Any) -> Completion:
    good = (call.seed or 0) % 2
    return Completion(text=f"def f():\n    return {good}\n", tokens=5)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two problems that only tests can grade: sample 1, 3, ... are right, as the greedy one."""
    problems = tuple(Problem(f"c/{number}", f"Write f, version {number}.", "") for number in range(2))
    dataset = Dataset("code", problems, None)  # type: ignore[arg-type]
    out = tmp_path / "toy--code.parquet"
    engine = ScriptedEngine(code, model="toy", prompt_tokens=9, speed=FAST)
    plan = Recording(samples=4, greedy=True, seed=1, answer="text")
    asyncio.run(record(dataset, engine, out, plan))
    return out


def test_code_is_recorded_without_answers_and_ungraded(recorded) -> None:
    rows = parquet.read_table(recorded).to_pylist()
    assert {(row["answer"], row["correct"], row["extraction"]) for row in rows} == {("", None, "none")}
    assert len(rows) == 10
    with pytest.raises(BadInput, match="outthink verify"):
        rows_of(recorded)


def graded(recorded: Path, *, scores: bool) -> Path:
    """What `verify` makes of it."""
    spoilt(recorded, correct=lambda row, cell: row % 5 % 2 == 1 or row % 5 == 0)
    if scores:
        table = parquet.read_table(recorded)
        known = table["correct"].to_pylist()
        table = table.append_column("score", pa.array([float(cell) for cell in known], pa.float32()))
        table = table.append_column("verifier", pa.array(["code"] * len(known)))
        about = {**(table.schema.metadata or {}), b"outthink.verifier": json.dumps({"id": "code", "kind": "exact"})}
        parquet.write_table(table.replace_schema_metadata(about), recorded)
    return recorded


def test_graded_code_gives_single_greedy_and_oracle_and_no_votes(recorded) -> None:
    rows, said = rows_of(graded(recorded, scores=False), unserved="left out")
    by_name = {(row["strategy"], row["n"]): row for row in rows}
    assert {name for name, _ in by_name} >= {"single", "greedy", "oracle"}
    assert not {name for name, _ in by_name} & {"self-consistency", "esc", "short-m-of-k"}
    assert sum("no answers to vote on" in line for line in said) == 1
    assert by_name["greedy", 1]["accuracy"] == 1
    assert by_name["oracle", 1]["accuracy"] == pytest.approx(0.5)
    assert by_name["oracle", 2]["accuracy"] == pytest.approx(1 - 1 / 6)
    assert by_name["oracle", 4]["accuracy"] == 1
    assert by_name["oracle", 4]["tokens"] == 20
    assert 0 <= by_name["single", 1]["accuracy"] <= 1
    assert {row["difference"] for row in rows} == {None}
    with pytest.raises(BadInput, match="no answers to vote on"):
        calibrate([recorded], recipe())


def test_graded_code_with_a_verifier_gives_best_of_n(recorded) -> None:
    rows, _ = rows_of(graded(recorded, scores=True), Spec.parse("best-of-n:score=verifier"), Spec.parse("single"))
    best = {row["n"]: row["accuracy"] for row in rows if row["strategy"].startswith("best-of-n")}
    assert best[4] == 1
    assert {row["verifier"] for row in rows if row["strategy"].startswith("best-of-n")} == {"code"}
