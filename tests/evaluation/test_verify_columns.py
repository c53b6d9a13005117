"""What `verify` writes: gaps of `correct` filled, and other columns as text where JSON needs it."""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput
from outthink.cli.main import main
from outthink.controller.verifier import open_verifier
from outthink.engines.traces import load
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.dataset import Problems, regrade
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import verify
from outthink.strategies import Spec
from outthink.verifiers import FunctionVerifier

TEXTS = ["It is 4.", "It is 5.", "Nothing.", "It is 4."]


def samples(path: Path, **columns: Any) -> Path:
    table = {
        "problem_id": ["p"] * 4,
        "sample_idx": [0, 1, 2, 3],
        "text": TEXTS,
        "n_tokens": [4] * 4,
        "answer": ["4", "5", "", "4"],
        "correct": pa.nulls(4),
    } | columns
    parquet.write_table(pa.table(table), path)
    return path


def judge(path: Path, out: Path, verifier: Any = None) -> Path:
    problems = out.with_name("problems.jsonl")
    problems.write_text('{"problem_id": "p", "question": "2 + 2?", "answer": "4"}\n')
    known = Problems.read(problems)
    verifier = verifier or open_verifier("exact", answer="number", keys=known.keys)
    asyncio.run(verify(SampleFile(path), known, verifier, out, kind="number"))
    return out


@pytest.mark.parametrize(
    ("told", "filled"),
    [
        (pa.nulls(4), [True, False, False, True]),
        (pa.array([None, True, None, False]), [True, True, False, False]),
        (pa.array([None, 1, None, 0], pa.int8()), [1, 1, 0, 0]),
        (pa.array([1.0, float("nan"), None, 0.0]), [1.0, 0.0, 0.0, 0.0]),
        (pa.array([None, "True", "", "False"]), ["True", "True", "False", "False"]),
        (pa.array([True, True, True, False]), [True, True, True, False]),
    ],
)
def test_exact_checks_fill_the_gaps_of_correct_and_nothing_else(tmp_path, told, filled) -> None:
    out = judge(samples(tmp_path / "a.parquet", correct=told), tmp_path / "b.parquet")
    assert parquet.read_table(out)["correct"].to_pylist() == filled
    assert load(out).ungraded() == []
    lines = judge(samples(tmp_path / "c.parquet", correct=told), tmp_path / "d.jsonl").read_text().splitlines()
    assert [json.loads(line)["correct"] for line in lines] == filled


def test_a_file_without_the_column_gets_it_and_can_be_compared(tmp_path) -> None:
    table = parquet.read_table(samples(tmp_path / "a.parquet")).drop_columns(["correct"])
    parquet.write_table(table, tmp_path / "a.parquet")
    out = judge(tmp_path / "a.parquet", tmp_path / "b.parquet")
    rows = compare([out], [Spec.parse("single")], CompareSettings(seeds=1))
    assert {row["accuracy"] for row in rows if row["strategy"] == "greedy"} == {1.0}


def test_other_verifiers_say_nothing_of_correct(tmp_path) -> None:
    verifier = FunctionVerifier(lambda request, text: 0.5)
    out = judge(samples(tmp_path / "a.parquet"), tmp_path / "b.parquet", verifier)
    assert parquet.read_table(out)["correct"].null_count == 4


def test_dates_decimals_and_bytes_pass_to_jsonl_as_text(tmp_path) -> None:
    moment = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)
    more = {
        "day": pa.array([datetime.date(2024, 5, 1)] * 4),
        "moment": pa.array([moment] * 4),
        "hour": pa.array([datetime.time(12, 30)] * 4),
        "took": pa.array([datetime.timedelta(seconds=90)] * 4),
        "price": pa.array([Decimal("1.50")] * 4),
        "raw": pa.array([b"\xc3\xa9"] * 4),
        "odd": pa.array([b"\xff\x00"] * 4),
        "measured": pa.array([float("nan"), float("inf"), 0.5, None]),
        "nested": pa.array([{"at": datetime.date(2024, 5, 1), "list": [Decimal("2.5")]}] * 4),
    }
    out = judge(samples(tmp_path / "a.parquet", **more), tmp_path / "b.jsonl")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in out.read_text().splitlines()]
    assert [rows[0][name] for name in more if name not in ("measured", "nested")] == [
        "2024-05-01", "2024-05-01T12:30:00+00:00", "12:30:00", "0:01:30", "1.50", "é", "ff00",
    ]  # fmt: skip
    assert rows[0]["nested"] == {"at": "2024-05-01", "list": ["2.5"]}
    assert [row["measured"] for row in rows] == [None, None, 0.5, None]


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        (pa.array([1] * 4, pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1] * 4, pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([1] * 4, pa.timestamp("us", "Nowhere/Here")), "1970-01-01 00:00:00.000001"),
        (pa.array([{"at": 1}] * 4, pa.struct([("at", pa.timestamp("ns"))])), {"at": "1970-01-01 00:00:00.000000001"}),
    ],
)
def test_times_that_python_cannot_hold_pass_to_jsonl_as_text(tmp_path, cells, text) -> None:
    out = judge(samples(tmp_path / "a.parquet", when=cells), tmp_path / "b.jsonl")
    assert [json.loads(line)["when"] for line in out.read_text().splitlines()] == [text] * 4


def test_texts_may_be_bytes_and_columns_that_stand_twice_are_refused(tmp_path) -> None:
    out = judge(samples(tmp_path / "a.parquet", text=[text.encode() for text in TEXTS]), tmp_path / "b.parquet")
    assert parquet.read_table(out)["score"].to_pylist() == [1, 0, 0, 1]
    table = parquet.read_table(tmp_path / "a.parquet").append_column("text", pa.array(TEXTS))
    parquet.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(BadInput, match="twice"):
        SampleFile(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (["True", "False", "", "1"], "agrees with `correct` on 3 of 3"),
        ([1.0, 0.0, 0.5, None], "agrees with `correct` on 2 of 2"),
        ([b"false", b"true", None, None], "agrees with `correct` on 0 of 2"),
    ],
)
def test_verify_says_how_often_the_file_agrees_whatever_it_writes_for_true(tmp_path, capsys, told, line) -> None:
    source = samples(tmp_path / "a.parquet", correct=told)
    (tmp_path / "problems.jsonl").write_text('{"problem_id": "p", "question": "2 + 2?", "answer": "4"}\n')
    arguments = [
        source,
        "--problems",
        tmp_path / "problems.jsonl",
        "--verifier",
        "exact",
        "--out",
        tmp_path / "b.jsonl",
    ]
    assert main(["verify", *map(str, arguments)]) == 0
    assert line in capsys.readouterr().out


def test_greedy_samples_alone_can_be_compared(tmp_path) -> None:
    columns = {"problem_id": list("pqrs"), "sample_idx": [0] * 4, "correct": [True, False, False, True]}
    rows = compare([samples(tmp_path / "a.parquet", **columns)], [Spec.parse("single")], CompareSettings(seeds=1))
    assert [(row["strategy"], row["accuracy"], row["difference"]) for row in rows] == [("greedy", 0.5, None)]
    columns["sample_idx"] = [0, 0, 1, 1]
    with pytest.raises(BadInput, match="neither a sampled nor a greedy"):
        compare([samples(tmp_path / "b.parquet", **columns)], [Spec.parse("single")], CompareSettings(seeds=1))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_regrading_columns_is_regrading_samples(tmp_path, order) -> None:
    golds = [{"problem_id": name, "question": "?", "answer": gold} for name, gold in (("q", "4"), ("p", "5"))]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, golds)))
    columns = {"problem_id": list("pqqr"), "sample_idx": [1, 0, 2, 0], "text": TEXTS, "answer": ["9", "", "", "9"]}
    columns |= {"correct": [True] * 4, "extraction": ["old"] * 4, "n_tokens": [4, 3, None, 1]}
    columns = {name: [cells[place] for place in order] for name, cells in columns.items()}
    traces = load(samples(tmp_path / "a.parquet", **columns), text=True)
    built = replace(traces, problems={name: traces.problems[name] for name in traces.problems})
    anew, known = (regrade(each, "number", tmp_path / "problems.jsonl") for each in (traces, built))
    assert {*anew.problems} == {*known.problems} == {"p", "q"}
    for name, problem in known.problems.items():
        without = [replace(sample, text="") for sample in problem.samples]
        assert (anew.problems[name].samples, anew.problems[name].right) == (without, problem.right)
        assert (anew.problems[name].lengths, anew.problems[name].ungraded) == (problem.lengths, 0)
    assert anew.hits() == known.hits()
    assert anew.ungraded() == []


@pytest.mark.parametrize("name", ["b.parquet", "b.jsonl"])
def test_half_a_surrogate_pair_in_jsonl_is_replaced(tmp_path, name) -> None:
    rows = [{"problem_id": "p", "text": "Smile \ud83d It is 4.", "more": ["\ud83d"]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = judge(tmp_path / "a.jsonl", tmp_path / name)
    if name.endswith("jsonl"):
        (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        (row,) = parquet.read_table(out).to_pylist()
    assert (row["text"], row["more"], row["score"]) == ("Smile \ufffd It is 4.", ["\ufffd"], 1)
