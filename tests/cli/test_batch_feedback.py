"""`outthink batch` and `outthink feedback`: results, budgets, resume and one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outthink.controller.online import Arm, Learner


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"id": "a", "question": "What is 40 + 2?"}, {"prompt": "What is 2 * 21?"}]
    rows.append({"problem_id": "c", "messages": [{"role": "user", "content": "What is 6 * 7?"}]})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_results_come_in_order_within_one_budget(cli, server, questions) -> None:
    done = cli("batch", questions, "--model", server.url, "--budget", "tokens=400", "--max-tokens", 64, "--seed", 1)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["id"] for row in rows] == ["a", "2", "c"]
    assert {row["answer"] for row in rows} == {"42"}
    assert sum(row["receipt"]["tokens"] for row in rows) <= 400
    assert "3 of 3 answered" in done.err


def test_it_learns_from_recorded_samples_and_writes_whole_files(cli, server, questions, tmp_path) -> None:
    recorded, out = tmp_path / "toy--sums.parquet", tmp_path / "out.jsonl"
    dataset = tmp_path / "sums.jsonl"
    dataset.write_text("\n".join(json.dumps({"question": f"{i} + {i}?", "answer": "42"}) for i in range(3)))
    done = cli(
        "record", dataset, "--model", server.url, "--answer", "number", "--samples", 4, "--out", recorded, "--seed", 1
    )
    assert done.code == 0, done.err
    more = ("--traces", recorded, "--out", out, "--n", 3, "--seed", 1)
    done = cli("batch", questions, "--model", server.url, *more)
    assert done.code == 0, done.err
    assert len(out.read_text().splitlines()) == 3
    assert not list(tmp_path.glob("*.journal*"))
    assert cli("batch", questions, "--model", server.url, *more).code == 2  # never overwrites


@pytest.mark.parametrize(
    ("content", "part"),
    [("", "no question"), ('{"id": 1}', "row 1 asks nothing"), ("not json", "line 1"), ('{"question": " "}', "prompt")],
)
def test_bad_questions_are_refused_in_one_line(cli, server, tmp_path, content: str, part: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    done = cli("batch", path, "--model", server.url)
    assert done.code == 2
    assert part in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.csv", 'id,question\n7,"a, b?"\n,c?\n'),
        ("q.json", '[{"id": 7, "question": "a, b?"}, {"question": "c?"}]'),
        ("q.jsonl", '\ufeff{"id": 7.0, "prompt": "a, b?"}\r\n{"id": null, "question": "c?"}\n'),
    ],
)
def test_questions_stand_in_any_data_file(cli, server, tmp_path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    done = cli("batch", tmp_path / name, "--model", server.url, "--n", 1)
    assert done.code == 0, done.err
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["7", "2"]


def test_a_name_that_is_none_is_refused_with_its_row(cli, server, tmp_path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "a"}\n{"question": "b", "id": true}\n')
    done = cli("batch", tmp_path / "q.jsonl", "--model", server.url)
    assert (done.code, "row 2: id is neither text nor a whole number" in done.err) == (2, True)
    assert not server.seen


def test_a_budget_too_small_for_anything_names_the_least(cli, server, questions) -> None:
    done = cli("batch", questions, "--model", server.url, "--budget", "tokens=10")
    assert done.err.splitlines()[1].startswith("note: budget tokens=10 is below the least that works here: ")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    one = Learner(path, "sha256:abc", [Arm("small", 0.6, 0.5, 0.7, 1.0), Arm("large", 0.8, 0.75, 0.85, 4.0)])
    for i in range(3):
        one.choose(f"r{i}")
    one.close()
    return path


def test_feedback_is_learned_shown_and_taken_back(cli, log) -> None:
    received = cli("feedback", log, "r1", "right", "--json")
    assert received.code == 0, received.err
    assert received.json["outcomes"] == {"r1": True}
    shown = cli("feedback", log)
    assert "1 outcomes" in shown.out
    assert "large" in shown.out
    assert cli("feedback", log, "--undo", 3, "--json").json["outcomes"] == {}
    assert cli("feedback", log, "r1", "wrong", "--json").json["outcomes"] == {"r1": False}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["r9", "right"], "r9"),
        (["r1"], "verdict"),
        (["r1", "right", "--undo", "1"], "--undo"),
        (["--undo", "99"], "undo"),
    ],
)
def test_feedback_refuses_in_one_line(cli, log, more: list[str], part: str) -> None:
    done = cli("feedback", log, *more)
    assert done.code == 2
    assert part in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert cli("feedback", log.with_name("none"), "r1", "right").code == 2


def test_a_torn_line_is_said(cli, log) -> None:
    with log.open("a") as file:
        file.write('{"n": 4, "ki')
    done = cli("feedback", log)
    assert done.code == 0
    assert "torn" in done.err
