"""Bulk scoring: what is written, what is kept as it was, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput
from outthink.core.errors import EngineError
from outthink.engines.traces import load
from outthink.evaluation.dataset import Problems
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import NO_TEXT, VerifyReport, verify
from support.judges import Judge, rows, write_problems, write_samples


def score(samples: Path, out: Path, judge: Judge, problems: Path | None = None, **options) -> VerifyReport:
    problems = problems or write_problems(samples.with_name("problems.parquet"))
    return asyncio.run(verify(SampleFile(samples), Problems.read(problems), judge, out, **options))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "toy--sums.parquet")


def test_original_columns_stay_to_the_bit_and_four_are_added(samples, tmp_path) -> None:
    out, judge = tmp_path / "scored.parquet", Judge()
    report = score(samples, out, judge)
    before, after = parquet.read_table(samples), parquet.read_table(out)
    assert after.column_names == [*before.column_names, "score", "steps", "verifier", "verifier_tokens"]
    assert after.select(before.column_names).equals(before)
    assert [after.schema.field(i) for i in range(before.num_columns)] == list(before.schema)
    assert after.schema.metadata[b"whose"] == b"mine"
    assert after["steps"].to_pylist()[:3] == [None, [0.5, 0.25], [0.5, 0.25, pytest.approx(1 / 6)]]
    assert after["score"].to_pylist()[:3] == [None, 0.25, pytest.approx(1 / 6)]  # the least step
    assert after["verifier"].to_pylist() == ["judge@1"] * 12
    assert after["verifier_tokens"].to_pylist() == [None] + [10] * 11
    assert json.loads(after.schema.metadata[b"outthink.verifier"]) == {
        "id": "judge@1", "kind": "process", "model": "judge", "parameters": 1000, "aggregation": "min",
    }  # fmt: skip
    assert (report.rows, report.unscored) == (12, {NO_TEXT: 1})
    assert sorted(judge.seen) == sorted(row["text"] for row in rows()[1:])
    assert set(judge.asked) == {"Say 0.", "Say 1.", "Say 2."}
    assert not list(tmp_path.glob("*.journal*"))


def test_a_verifier_of_whole_solutions_gives_a_score_and_no_steps(samples, tmp_path) -> None:
    out = tmp_path / "scored.parquet"
    score(samples, out, Judge(kind="outcome"))
    after = parquet.read_table(out)
    assert after["steps"].to_pylist() == [None] * 12
    assert after["score"].to_pylist() == [None] + [0.5] * 11


def test_json_lines_go_in_and_out_and_across(samples, tmp_path) -> None:
    plain = [{**row, "chunk_conf": [8.0, 9.5]} for row in rows()]
    lines = tmp_path / "samples.jsonl"
    lines.write_text("\n".join(map(json.dumps, plain)) + "\n\n")
    problems = tmp_path / "problems.jsonl"
    problems.write_text("\n".join(json.dumps({"problem_id": f"p{i}", "question": f"Say {i}."}) for i in range(3)))
    for name in ("out.jsonl", "out.parquet"):
        score(lines, tmp_path / name, Judge(), problems)
    score(samples, tmp_path / "crossed.jsonl", Judge())
    for name in ("out.jsonl", "crossed.jsonl"):
        result = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [{key: row[key] for key in plain[0]} for row in result] == plain
        assert [row["verifier_tokens"] for row in result] == [None] + [10] * 11
        assert result[1]["steps"] == [0.5, 0.25]
        assert result[1]["score"] == 0.25
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [{key: row[key] for key in plain[0]} for row in table] == plain
    assert table[1]["score"] == 0.25


def test_what_was_scored_is_read_as_traces(samples, tmp_path) -> None:
    out = tmp_path / "toy--scored.parquet"
    score(samples, out, Judge())
    traces = load(out)
    assert traces.verifier == "judge@1"
    assert traces.scoring is not None
    assert (traces.scoring.kind, traces.scoring.parameters, traces.scoring.aggregation) == ("process", 1000, "min")
    first = traces.problems["p0"]
    assert first.greedy is not None
    assert (first.greedy.scores, first.greedy.verifier_tokens) == ((), None)
    assert first.sampled[0].scores == (0.5, 0.25)
    assert first.sampled[0].verifier_tokens == 10
    assert load(samples).verifier is None
    assert load(samples).problems["p1"].sampled[0].scores == ()


def test_scores_of_two_verifiers_are_never_mixed(samples, tmp_path) -> None:
    out = tmp_path / "scored.parquet"
    score(samples, out, Judge())
    table = parquet.read_table(out)
    column = pa.array(["a", "b"] * 6)
    parquet.write_table(table.set_column(table.column_names.index("verifier"), "verifier", column), out)
    with pytest.raises(BadInput, match=r"\['a', 'b'\]"):
        load(out)


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_none_is_null_and_counted(samples, tmp_path, value) -> None:
    class Odd(Judge):
        async def score(self, request, candidates):
            self.value = value if request.problem == "p1" else 0.5
            return await super().score(request, candidates)

    out = tmp_path / "scored.parquet"
    report = score(samples, out, Odd())
    assert parquet.read_table(out)["score"].null_count == 5
    assert report.unscored["the verifier gave a score that is not between 0 and 1"] == 4


def test_one_refused_text_does_not_cost_the_others_their_scores(samples, tmp_path) -> None:
    out = tmp_path / "scored.parquet"
    report = score(samples, out, Judge(refuses="step\n1/1"))
    scores = parquet.read_table(out)["score"].to_pylist()
    assert [place for place, value in enumerate(scores) if value is None] == [0, 5]
    assert any("too long" in reason for reason in report.unscored)


def test_a_verifier_that_can_judge_nothing_is_misused(samples, tmp_path) -> None:
    class Refusing(Judge):
        async def score(self, request, candidates):
            raise BadInput("keys", None, "are missing", "give them")

    with pytest.raises(BadInput, match="keys"):
        score(samples, tmp_path / "scored.parquet", Refusing())
    assert not list(tmp_path.glob("scored.parquet*")), "the next run must not find these failures in a journal"


def test_a_wrong_number_of_scores_stops_the_run(samples, tmp_path) -> None:
    class Short(Judge):
        async def score(self, request, candidates):
            return (await super().score(request, candidates))[1:]

    with pytest.raises(EngineError, match="scores for"):
        score(samples, tmp_path / "scored.parquet", Short())


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "does not exist"),
        (b"PAR1 and then nothing", "not a readable Parquet"),
        ("no column", "problem_id, text"),
        ("no rows", "no rows"),
    ],
)
def test_samples_that_cannot_be_scored_are_named(tmp_path, content, word) -> None:
    path = tmp_path / "bad.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "no column":
        parquet.write_table(pa.table({"x": [1]}), path)
    elif content is not None:
        parquet.write_table(
            pa.table({"problem_id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), path
        )
    with pytest.raises(BadInput, match=word):
        SampleFile(path)


def test_a_sample_without_its_problem_names_it(samples, tmp_path) -> None:
    few = write_problems(tmp_path / "few.parquet", problems=2)
    with pytest.raises(BadInput, match="problem_id: 'p2'"):
        score(samples, tmp_path / "scored.parquet", Judge(), few)


def test_a_scored_file_is_not_scored_again(samples, tmp_path) -> None:
    out = tmp_path / "scored.parquet"
    score(samples, out, Judge())
    with pytest.raises(BadInput, match="score, steps, verifier, verifier_tokens"):
        SampleFile(out)
    assert SampleFile(out, rescore=True).names == SampleFile(samples).names


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["18", "-3", "1,000", "0.5", "1/3", "#### 70"], "number"),
        (["18", "x+1"], "math"),
        ([r"\frac12"], "math"),
    ],
)
def test_gold_answers_tell_their_kind(tmp_path, keys, kind) -> None:
    made = [{"problem_id": str(i), "question": "q", "answer": key} for i, key in enumerate(keys)]
    path = tmp_path / "problems.parquet"
    parquet.write_table(pa.Table.from_pylist(made), path)
    assert Problems.read(path).kind == kind


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"question": "x"}', "problem_id"),
        ("nonsense", "JSON"),
        ("[]", "object"),
        ('{"problem_id": "a", "question": "x"}\n{"problem_id": "a", "question": "y"}', "twice"),
        ("", "no rows"),
    ],
)
def test_problems_that_cannot_be_read_are_named(tmp_path, line, word) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(line)
    with pytest.raises(BadInput, match=word):
        Problems.read(path)


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("chunk_conf", "high", "chunk_conf is no list of numbers"),
        ("chunk_conf", ["high"], "chunk_conf is no number"),
        ("mean_logprob", {}, "mean_logprob is no number"),
        ("self_certainty", "much", "self_certainty is no number"),
        ("sample_idx", "first", "sample_idx is no whole number"),
        ("n_tokens", [1], "n_tokens is no whole number"),
        ("problem_id", 1.5, "problem_id is neither text nor a whole number"),
        ("text", 7, "text is no text"),
    ],
)
def test_cells_that_are_none_of_a_sample_name_row_and_column(tmp_path, column, value, word) -> None:
    path = tmp_path / "samples.jsonl"
    good = {"problem_id": "p0", "text": "It is 1."}
    path.write_text("\n".join(map(json.dumps, (good, {**good, column: value}))))
    with pytest.raises(BadInput, match=f"row 2: {word}"):
        SampleFile(path).samples()


def test_ids_and_numbers_may_be_written_either_way(tmp_path) -> None:
    path = tmp_path / "samples.jsonl"
    row = {"id": 7, "completion": "It is 1.", "sample_idx": "3", "n_tokens": 5.0, "answer": 0, "mean_logprob": None}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "n_tokens": float("nan"), "answer": float("nan")}))
    (first, sample), (_, other) = SampleFile(path).samples()
    assert (first, sample.index, sample.tokens, sample.answer, sample.text) == ("7", 3, 5, "0", "It is 1.")
    assert (other.tokens, other.answer) == (None, None)
