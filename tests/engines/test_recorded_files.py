"""Files of samples as people have them: what is read from odd columns, and what is refused in one line."""

from __future__ import annotations

import datetime
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput
from outthink.engines.traces import Traces, load
from outthink.evaluation.dataset import open_source

NAN = float("nan")


def write(path: Path, **columns: Any) -> Path:
    """A file of four samples of two problems, with these columns in place of the ordinary ones."""
    table = {
        "problem_id": ["p", "p", "q", "q"],
        "sample_idx": [1, 2, 1, 2],
        "text": ["The answer is 1.", "2", "3", ""],
        "n_tokens": [8, 1, 1, 1],
        "finish_reason": ["stop", None, "length", "stop"],
        "prompt_tokens": [3, 3, 3, 3],
        "answer": ["1", "2", "3", None],
        "correct": [True, False, True, False],
    }
    table |= columns
    parquet.write_table(pa.table({name: cells for name, cells in table.items() if cells is not None}), path)
    return path


def answers(traces: Traces) -> list[str | None]:
    return [sample.answer for problem in traces.problems.values() for sample in problem.sampled]


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (pa.array([0, 1, 2, 3]), ["0", "1", "2", "3"]),
        (pa.array([0.0, NAN, None, 1.5]), ["0", None, None, "1.5"]),
        (pa.array([0.1, 12.0, 1e22, -0.5], pa.float32()), ["0.1", "12", "10000000000000000000000", "-0.5"]),
        (pa.array([Decimal("1.50"), None, Decimal("0.00"), Decimal("-2.25")]), ["1.50", None, "0.00", "-2.25"]),
        (pa.array([-0.0, 0.0, None, 1.0]), ["0", "0", None, "1"]),
        (pa.array([1, 2, None, 3], pa.duration("ns")), ["1", "2", None, "3"]),
        (pa.array(["0", "", None, "x"]), ["0", None, None, "x"]),
        (pa.array(["0", " \t", None, "x"]), ["0", None, None, "x"]),
        (pa.array(["0", " ", None, "x"], pa.string_view()), ["0", None, None, "x"]),
        (pa.array(["0", "", None, "x"], pa.large_string()), ["0", None, None, "x"]),
        (pa.array(["é", "é", None, "x"]).dictionary_encode(), ["é", "é", None, "x"]),
        (pa.array([b"7", None, b"\xc3\xa9", b""]), ["7", None, "é", None]),
        (pa.array([True, False, None, True]), ["true", "false", None, "true"]),
        (pa.array([datetime.date(2024, 5, 1)] * 4), ["2024-05-01"] * 4),
    ],
)
def test_answers_of_other_types_are_read_as_text_would_be(tmp_path, cells, read) -> None:
    assert answers(load(write(tmp_path / "a.parquet", answer=cells))) == read


@pytest.mark.parametrize(
    "cells",
    [
        [True, False, True, None],
        [1, 0, 1, None],
        [1.0, 0.0, 1.0, NAN],
        ["True", "False", "true", None],
        ["1", "0", " TRUE ", ""],
        [b"true", b"0", b"1", None],
        [Decimal(1), Decimal(0), Decimal(1), None],
    ],
)
def test_correct_is_a_truth_value_zero_or_one_or_such_text(tmp_path, cells) -> None:
    traces = load(write(tmp_path / "a.parquet", correct=cells))
    assert [problem.right for problem in traces.problems.values()] == [{"1"}, {"3"}]
    assert traces.ungraded() == []  # the last row has no answer, which is never right


@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("correct", [True, None, None, None], "True"),
        ("answer", pa.array([["1"], ["2"], [], ["3"]]), "row 1: answer is a list"),
        ("answer", pa.array([{"a": 1}] * 4), "row 1: answer is an object"),
        ("answer", [b"1", b"2", b"\xff", b"4"], "row 3: answer is no UTF-8"),
        ("correct", [1.0, 0.0, 0.7, 1.0], "row 3: correct is no truth value"),
        ("correct", [1, 0, 2, 1], "row 3: correct is no truth value"),
        ("correct", ["yes", "no", "no", "no"], "row 1: correct is no truth value"),
        ("problem_id", ["p", None, "q", "q"], "row 2: problem_id is empty"),
        ("problem_id", [0.5, 1.0, 1.0, 1.0], "row 1: problem_id is neither text nor a whole number"),
        ("problem_id", [True, True, False, False], "row 1: problem_id is neither text nor a whole number"),
        ("sample_idx", [1, None, 1, 2], "row 2: sample_idx is no whole number"),
        ("sample_idx", ["1", "two", "1", "2"], "row 2: sample_idx is no whole number"),
        ("sample_idx", [1, -2, 1, 2], "row 2: sample_idx is no whole number"),
        ("sample_idx", pa.array([1, 1 << 63, 1, 2], pa.uint64()), "row 2: sample_idx is no whole number"),
        ("n_tokens", ["8", "9" * 5000, "1", "1"], "row 2: n_tokens is no whole number"),
        ("n_tokens", [8, 1, -1, 1], "row 3: n_tokens is no whole number"),
        ("n_tokens", [8.0, 1.5, 1.0, 1.0], "row 2: n_tokens is no whole number"),
        ("prompt_tokens", ["3", "many", "3", "3"], "row 2: prompt_tokens is no whole number"),
        ("mean_logprob", ["a"] * 4, "row 1: mean_logprob is no number"),
        ("chunk_conf", [1.0] * 4, "row 1: chunk_conf is no list of numbers"),
        ("chunk_conf", [["a"]] * 4, "row 1: chunk_conf is no list of numbers"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_file_row_and_column(tmp_path, column, cells, told) -> None:
    path = write(tmp_path / "a.parquet", **{column: cells})
    if told == "True":  # a row whose truth nobody told
        assert load(path).ungraded() == ["p", "q"]
        return
    with pytest.raises(BadInput) as refused:
        load(path)
    assert told in str(refused.value)
    assert str(path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 2), pa.list_view(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int8())]
)
def test_lists_of_numbers_may_have_any_layout(tmp_path, kind) -> None:
    confidences = pa.array([[1.0, 2.0], None, [2.0, 1.0], [2.0, 2.0]], kind)
    scores = [Decimal("-0.5")] * 4
    traces = load(write(tmp_path / "a.parquet", chunk_conf=confidences, mean_logprob=pa.array(scores)))
    samples = [sample for problem in traces.problems.values() for sample in problem.sampled]
    assert [trace and trace.values for trace in (sample.confidence for sample in samples)] == [
        (1, 2), None, (2, 1), (2, 2)
    ]  # fmt: skip
    assert {sample.mean_logprob for sample in samples} == {-0.5}


def test_ids_are_whole_numbers_and_places_are_text(tmp_path) -> None:
    traces = load(write(tmp_path / "a.parquet", problem_id=[7, 7, 8, 8], sample_idx=["0", "1", "0", "1"]))
    assert list(traces.problems) == ["7", "8"]
    assert [problem.greedy.index for problem in traces.problems.values() if problem.greedy] == [0, 0]
    assert traces.depth == 1
    assert list(load(write(tmp_path / "b.parquet", problem_id=[7.0, 7.0, 8.0, 8.0])).problems) == ["7", "8"]


def test_the_greedy_sample_may_be_drawn_in_another_way_whatever_names_its_place(tmp_path) -> None:
    temperature = [0.0, 0.7, 0.0, 0.7]
    path = write(tmp_path / "a.parquet", temperature=temperature, sample_idx=["0", "1", "0", "1"])
    assert len(open_source(path).traces.problems) == 2
    with pytest.raises(BadInput, match="mixes samplers"):
        open_source(write(tmp_path / "b.parquet", temperature=temperature, sample_idx=["1", "2", "1", "2"]))


@pytest.mark.parametrize("unknown", [[8, None, None, 1], [8.0, NAN, None, 1.0]])
def test_unknown_tokens_are_none_and_replay_at_the_files_characters_a_token(tmp_path, unknown) -> None:
    traces = load(write(tmp_path / "a.parquet", n_tokens=unknown))
    p, q = traces.problems.values()
    assert [sample.tokens for sample in (*p.sampled, *q.sampled)] == [8, None, None, 1]
    # The counted rows with text: 16 characters are 8 tokens; one character is then a token, rounded up.
    assert (p.lengths, q.lengths) == ({2: 1}, {1: 1})
    with pytest.raises(BadInput, match="lacks n_tokens in 2 of its 4 rows"):
        traces.need_counts()


def test_without_any_count_four_characters_are_a_token(tmp_path) -> None:
    p, q = load(write(tmp_path / "a.parquet", n_tokens=[None] * 4)).problems.values()
    assert (p.lengths, q.lengths) == ({1: 4, 2: 1}, {1: 1, 2: 0})
    p, q = load(write(tmp_path / "b.parquet", n_tokens=[None] * 4, text=None)).problems.values()
    assert (p.lengths, q.lengths) == ({1: 0, 2: 0}, {1: 0, 2: 0})


def test_samples_without_answers_are_right_by_themselves(tmp_path) -> None:
    traces = load(write(tmp_path / "a.parquet", answer=[None, "", None, None], correct=[True, False, False, None]))
    assert not traces.answered
    p, q = traces.problems.values()
    assert [sample.answer in p.right for sample in p.sampled] == [True, False]
    assert (p.ungraded, q.ungraded) == (0, 1)
    assert traces.ungraded() == ["q"]


def test_rows_in_any_order_make_the_same_problems(tmp_path) -> None:
    table = parquet.read_table(write(tmp_path / "a.parquet", chunk_conf=[[1.5], None, [2.0, 3.0], []]))
    parquet.write_table(table.take([2, 0, 3, 1]), tmp_path / "b.parquet")
    first, second = (load(tmp_path / name, text=True).problems for name in ("a.parquet", "b.parquet"))
    assert list(second) == ["q", "p"]
    assert dict(first) == dict(second)


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.sampled_from("abcde"), min_size=1, max_size=20), data=st.data())
def test_some_problems_keep_their_rows_here_and_in_another_process(tmp_path_factory, names, data) -> None:
    path = tmp_path_factory.mktemp("part") / "a.parquet"
    rows = range(len(names))
    columns = {"problem_id": names, "sample_idx": [row + 1 for row in rows], "n_tokens": list(rows)}
    columns |= {"answer": [str(row % 3) for row in rows], "correct": [row % 2 == 0 for row in rows]}
    columns |= {"chunk_conf": [[float(row)] * (row % 3) for row in rows]}
    parquet.write_table(pa.table(columns), path)
    traces = load(path)
    chosen = data.draw(st.lists(st.sampled_from(sorted(set(names))), min_size=1, unique=True))
    part = pickle.loads(pickle.dumps(traces.take(chosen)))
    assert list(part.problems) == chosen
    assert all(part.problems[name] == traces.problems[name] for name in chosen)
    assert part.sampled == [names.count(name) for name in chosen]


def test_a_large_file_does_not_stay_built(tmp_path) -> None:
    count = 40_000
    columns = {"problem_id": [f"p{row // 4}" for row in range(count)], "sample_idx": [row % 4 for row in range(count)]}
    columns |= {"n_tokens": [1] * count, "answer": ["1"] * count, "correct": [True] * count}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    traces = load(tmp_path / "a.parquet")
    assert sum(len(problem.samples) for problem in traces.problems.values()) == count
    assert traces.problems["p0"] is not traces.problems["p1"]
    kept = traces.problems["p9999"]
    assert kept is traces.problems["p9999"]
    again = traces.problems["p0"]
    assert again == traces.problems["p0"]
    assert traces.greedy
