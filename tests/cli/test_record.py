"""`outthink record`: rows, resume and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from outthink.evaluation.compare import compare
from support.chat_server import ChatServer, Drop, chunk, stream


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"What is 40 + {i}?", "answer": str(40 + i)} for i in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def record(cli, dataset: Path, server: ChatServer, out: Path, *more: object):
    return cli("record", dataset, "--model", server.url, "--answer", "number", "--samples", 5, "--out", out, *more)


def test_rows_are_complete_and_compare_replays_them(cli, server, dataset, tmp_path) -> None:
    out = tmp_path / "toy--sums.parquet"
    done = record(cli, dataset, server, out, "--greedy")
    assert done.code == 0, done.err
    rows = parquet.read_table(out).to_pylist()
    assert [(row["problem_id"], row["sample_idx"]) for row in rows] == [
        (f"sums-{problem:04d}", index) for problem in range(4) for index in range(6)
    ]
    assert {row["n_tokens"] for row in rows} == {5}
    assert {
        row["correct"] for row in rows if row["problem_id"] != "sums-0002" and row["problem_id"] != "sums-0001"
    } == {False}
    assert any(row["correct"] for row in rows if row["problem_id"] == "sums-0002")
    described = json.loads(parquet.read_schema(out).metadata[b"outthink"])
    assert described["sampling"]["temperature"] == 0.8
    assert not list(tmp_path.glob("*.journal*"))
    done = cli("compare", out, "--seeds", 1, "--strategy", "self-consistency:n=5")
    assert done.code == 0, done.err
    assert compare  # the public function behind the verb


def test_an_interrupted_recording_goes_on_without_paying_twice(cli, server, dataset, tmp_path) -> None:
    out = tmp_path / "toy--sums.parquet"
    whole = server.routes["/v1/chat/completions"]
    seen = []

    def failing(request):
        seen.append((request.body["messages"][0]["content"], request.body["seed"]))
        return stream(chunk("The"), Drop()) if len(seen) > 7 else whole(request)

    server.routes["/v1/chat/completions"] = failing
    assert record(cli, dataset, server, out).code == 1
    assert not out.exists()
    paid = set(seen[:7])
    server.routes["/v1/chat/completions"] = whole
    before = len(server.calls)
    assert record(cli, dataset, server, out).code == 0
    again = {(call.body["messages"][0]["content"], call.body["seed"]) for call in server.calls[before:]}
    assert not paid & again
    assert len(paid | again) == 20
    assert parquet.read_table(out).num_rows == 20


def test_another_recordings_journal_is_refused(cli, server, dataset, tmp_path) -> None:
    out = tmp_path / "toy--sums.parquet"
    server.routes["/v1/chat/completions"], whole = stream(chunk("The"), Drop()), server.routes["/v1/chat/completions"]
    assert record(cli, dataset, server, out).code == 1
    server.routes["/v1/chat/completions"] = whole
    done = record(cli, dataset, server, out, "--temperature", 0.5)
    assert done.code == 2
    assert "journal" in done.err


def test_an_existing_file_is_never_overwritten(cli, server, dataset, tmp_path) -> None:
    out = tmp_path / "toy--sums.parquet"
    out.write_text("mine")
    assert record(cli, dataset, server, out).code == 2
    assert out.read_text() == "mine"
    assert server.calls == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"question": "x"}', "answer"),
        ('{"answer": "x"}', "question"),
        ("not json", "JSON"),
        ("", "no rows"),
        ('{"question": "x", "answer": "1", "id": 1}\n{"question": "y", "answer": "1", "id": 1}', "problem_id"),
        ('{"question": " ", "answer": "1"}', "empty question"),
    ],
)
def test_bad_data_sets_are_one_line(cli, server, tmp_path, content, word) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    done = cli("record", path, "--model", server.url, "--out", tmp_path / "out.parquet")
    assert done.code == 2
    assert word in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out*"))


def test_reasoning_gym_problems_are_graded_by_their_own_rules(cli, server, tmp_path) -> None:
    pytest.importorskip("reasoning_gym")
    out = tmp_path / "toy--chain_sum.parquet"
    source = "reasoning-gym:chain_sum?size=3&seed=1&min_terms=2&max_terms=2"
    done = cli("record", source, "--model", server.url, "--answer", "number", "--samples", 2, "--out", out)
    assert done.code == 0, done.err
    assert parquet.read_table(out).num_rows == 6
    assert cli("record", "reasoning-gym:no_such_task", "--model", server.url, "--out", tmp_path / "b").code == 2


@pytest.mark.parametrize(("greedy", "numbers"), [((), [1, 2]), (("--greedy",), [0, 1, 2])])
def test_samples_at_temperature_0_are_as_many_as_were_asked_for(cli, server, tmp_path, greedy, numbers) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "6 * 7?", "answer": "42"}\n')
    out = tmp_path / "a.parquet"
    more = ("--model", server.url, "--answer", "number", "--temperature", 0, "--samples", 2, "--out", out, *greedy)
    done = cli("record", tmp_path / "q.jsonl", *more)
    assert done.code == 0, done.err
    assert parquet.read_table(out)["sample_idx"].to_pylist() == numbers
    assert sum(seen.method == "POST" for seen in server.seen) == len(numbers)
