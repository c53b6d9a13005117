"""Published data sets through every verb as they are: one file for `record`, `verify`, `compare` and `label`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from outthink.core.errors import Unsupported
from outthink.verifiers.code.walls import bubblewrap
from support.chat_server import ChatServer, Seen, chat
from support.published import FILES, GSM8K, MMLU, right_text, write

CODE = [name for name, (*_, kind) in FILES.items() if kind is None]
ANSWERED = [name for name in FILES if name not in CODE]


@pytest.fixture
def asked() -> list[str]:
    """Prompts as they arrived."""
    return []


@pytest.fixture
def published(asked: list[str]) -> Iterator[ChatServer]:
    """Answers every second sample rightly, by the place of the prompt among the distinct ones so far."""
    name = [""]

    def answering(seen: Seen):
        prompt = seen.body["messages"][-1]["content"]
        if prompt not in asked:
            asked.append(prompt)
        right = seen.body["seed"] % 2
        text = right_text(name[0], places[prompt]) if right else "I am not sure."
        return chat([text], counts=(20, 5))

    places: dict[str, int] = {}
    with ChatServer(answering) as running:
        running.about = name, places  # type: ignore[attr-defined]
        yield running


def recorded(cli: Callable[..., Any], server: ChatServer, path: Path, *more: object) -> Path:
    """Record four samples a problem; the server learns the prompts' places from the Python API."""
    from outthink import open_dataset

    name, places = server.about  # type: ignore[attr-defined]
    name[0] = path.name
    places |= {problem.text: place for place, problem in enumerate(open_dataset(str(path)).problems)}
    out = path.parent / f"toy--{path.name.partition('.')[0]}.parquet"
    done = cli("record", path, "--model", server.url, "--samples", 4, "--greedy", "--out", out, *more)
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if line.startswith(f"{path.name}: ")]
    assert len(said) == 1, done.err
    return out


@pytest.mark.parametrize("name", FILES)
def test_check_says_what_is_taken_and_asks_nothing(cli, tmp_path, name) -> None:
    _, _, form, kind = FILES[name]
    done = cli("record", write(tmp_path, name), "--check")
    assert done.code == 0, done.err
    assert f"{name}: {form}; question " in done.out
    assert f"kind of answer {kind or 'none'}" in done.out
    assert "5 rows: 5 can be used, 0 cannot" in done.out
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_file_with_answers_goes_through_all_verbs(cli, published, tmp_path, name) -> None:
    path = write(tmp_path, name)
    out = recorded(cli, published, path)
    rows = parquet.read_table(out).to_pylist()
    assert [row["correct"] for row in rows] == [row["text"] != "I am not sure." for row in rows]
    assert sum(row["correct"] for row in rows) == 10
    done = cli("verify", out, "--problems", path, "--verifier", "exact", "--out", tmp_path / "scored.parquet")
    assert done.code == 0, done.err
    assert "agrees with `correct` on 25 of 25" in done.out
    kind = FILES[name][3]
    for more in ((), ("--regrade", kind, "--problems", path), ("--regrade", kind)):
        report = tmp_path / "rows.json"
        assert cli("compare", out, "--seeds", 1, "--strategy", "single", "--json", report, *more).code == 0
        (row,) = [row for row in json.loads(report.read_text()) if row["strategy"] == "oracle" and row["n"] == 4]
        assert row["accuracy"] == 1


@pytest.mark.parametrize("name", CODE)
def test_code_is_recorded_without_a_kind_of_answer(cli, published, tmp_path, name) -> None:
    path = write(tmp_path, name)
    out = recorded(cli, published, path)
    table = parquet.read_table(out)
    assert table["correct"].null_count == 25
    assert set(table["answer"].to_pylist()) == {""}
    ids = [row.get("task_id") for row in FILES[name][0]]
    assert list(dict.fromkeys(table["problem_id"].to_pylist())) == [str(task) for task in ids]
    try:
        bubblewrap()
    except Unsupported as error:
        pytest.skip(str(error))
    done = cli("verify", out, "--problems", path, "--verifier", "code", "--out", tmp_path / "scored.parquet")
    assert done.code == 0, done.err
    scored = parquet.read_table(tmp_path / "scored.parquet").to_pylist()
    assert [row["score"] for row in scored] == [float(row["text"] != "I am not sure.") for row in scored]


def test_choices_and_tests_are_shown(cli, published, asked, tmp_path) -> None:
    recorded(cli, published, write(tmp_path, "mmlu_test.csv"))
    # In the order of arrival, which is any: problems are asked side by side.
    assert "Which planet is red?\u2028(By its dust.)\nA. Venus\nB. Earth\nC. Mars\nD. Saturn" in asked
    asked.clear()
    recorded(cli, published, write(tmp_path, "sanitized-mbpp.json"))
    (prompt,) = [prompt for prompt in asked if prompt.startswith("Multiply a number by 2.\n\n")]
    assert prompt.endswith("\nassert times_2(1) == 2\nassert times_2(2) == 4\nassert times_2(3) == 6")


def test_columns_that_are_named_once_are_known_to_later_commands(cli, server, tmp_path) -> None:
    path = tmp_path / "own.jsonl"
    lines = [{"ask": f"{n}?", "options": ["yes", "no"], "key": "no" if n else "yes"} for n in range(4)]
    path.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "toy--own.parquet"
    columns = ("--question", "ask", "--gold", "key", "--choices", "options")
    done = cli("record", path, *columns, "--model", server.url, "--samples", 2, "--out", out)
    assert done.code == 0, done.err
    assert "question ask; gold answer key; choices options; id own-0000 and on; kind of answer choice" in done.err
    assert server.calls[0].body["messages"][0]["content"] == "0?\nA. yes\nB. no"
    done = cli("verify", out, "--problems", path, "--verifier", "exact", "--out", tmp_path / "scored.parquet")
    assert done.code == 0, done.err
    assert cli("compare", out, "--regrade", "choice", "--strategy", "single", "--seeds", 1).code == 0


def test_the_kind_that_was_recorded_is_known_to_later_commands(cli, tmp_path) -> None:
    def answering(seen: Seen):
        return chat(["It is B, not A."], counts=(7, 5))

    path, out = tmp_path / "own.jsonl", tmp_path / "toy--own.parquet"
    path.write_text('{"question": "A or B?", "answer": "B"}\n')
    with ChatServer(answering) as server:
        assert cli("record", path, "--answer", "choice", "--model", server.url, "--samples", 2, "--out", out).code == 0
        done = cli("verify", out, "--problems", path, "--verifier", "exact", "--out", tmp_path / "scored.parquet")
        assert "scored by exact-choice" in done.out
        assert "agrees with `correct` on 2 of 2" in done.out
        steps = tmp_path / "steps.parquet"
        labelled = cli("label", out, "--problems", path, "--model", server.url, "--completions", 2, "--out", steps)
        assert labelled.code == 0, labelled.err
    assert {row["n_correct"] for row in parquet.read_table(steps).to_pylist()} == {2}


def test_gsm8k_is_labelled_from_its_own_file(cli, published, tmp_path) -> None:
    path = write(tmp_path, "gsm8k.jsonl")
    out = recorded(cli, published, path)
    arguments = ("--model", published.url, "--completions", 1, "--out", tmp_path / "steps.parquet")
    done = cli("label", out, "--problems", path, *arguments)
    assert done.code == 0, done.err
    finals = [row for row in parquet.read_table(tmp_path / "steps.parquet").to_pylist() if row["is_final"]]
    assert {row["n_correct"] for row in finals} == {0, 1}


def test_rows_that_cannot_be_used_are_named_before_anything_is_asked(cli, server, tmp_path) -> None:
    path = tmp_path / "gaps.jsonl"
    lines = [*map(json.dumps, GSM8K[:2]), "{broken", '{"question": null, "answer": "#### 1"}', json.dumps(GSM8K[2])]
    path.write_text("\n".join([*lines, '{"question": "How many?", "answer": "none #### "}']))
    out = tmp_path / "toy--gaps.parquet"
    arguments = ("record", path, "--model", server.url, "--samples", 1, "--out", out)
    done = cli(*arguments)
    assert done.code == 2
    assert "line 3 is not JSON" in done.err
    assert "2 more" in done.err
    assert "--skip-bad" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not server.calls
    checked = cli("record", path, "--check")
    assert checked.code == 0
    assert "6 rows: 3 can be used, 3 cannot" in checked.out
    done = cli(*arguments, "--skip-bad")
    assert done.code == 0, done.err
    assert "left out line 3 is not JSON" in done.err
    assert "left out row 4: question is null" in done.err
    assert "left out row 6: answer has nothing behind ####" in done.err
    assert parquet.read_table(out)["problem_id"].to_pylist() == ["gaps-0000", "gaps-0001", "gaps-0004"]
    done = cli("verify", out, "--problems", path, "--verifier", "exact", "--out", tmp_path / "scored.jsonl")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--question", "ask"), "--question: 'ask' is no column of mmlu.jsonl"),
        (("--gold", "key"), "--gold: 'key' is no column of mmlu.jsonl"),
        (("--choices", "A,B"), "--choices: 'A' is no column of mmlu.jsonl"),
        (("--gold", "subject"), "subject is neither a place nor a letter of the choices"),
        ((), "--out"),
    ],
)
def test_columns_that_are_not_there_are_refused_first(cli, server, tmp_path, arguments, word) -> None:
    out = ("--out", tmp_path / "out.parquet") if arguments else ()
    done = cli("record", write(tmp_path, "mmlu.jsonl"), "--model", server.url, *out, *arguments)
    assert done.code == 2
    assert word in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not server.calls


def test_problems_are_found_beside_the_samples_under_either_name(cli, published, tmp_path) -> None:
    path = write(tmp_path, "mmlu.jsonl")
    out = recorded(cli, published, path)
    for name in ("mmlu.jsonl", "problems.jsonl", "problems-mmlu.jsonl.gz"):
        renamed = tmp_path / name
        path.rename(renamed)
        done = cli("compare", out, "--regrade", "choice", "--strategy", "single", "--seeds", 1)
        assert done.code == 0, done.err
        path = renamed
    path.unlink()
    done = cli("compare", out, "--regrade", "choice")
    assert done.code == 2
    assert "--problems" in done.err


def test_samples_keep_their_questions_where_a_file_without_ids_is_edited(cli, published, tmp_path) -> None:
    path = write(tmp_path, "gsm8k.jsonl")
    out = recorded(cli, published, path)
    rows = [*GSM8K[3:], {"question": "New?", "answer": "#### 7"}, *reversed(GSM8K[:3])]
    edited = tmp_path / "edited.jsonl"
    edited.write_text("\n".join(map(json.dumps, rows)))
    done = cli("verify", out, "--problems", edited, "--verifier", "exact", "--out", tmp_path / "scored.parquet")
    assert done.code == 0, done.err
    assert "agrees with `correct` on 25 of 25" in done.out
    edited.write_text("\n".join(map(json.dumps, rows[:-1])))
    done = cli("verify", out, "--problems", edited, "--verifier", "exact", "--out", tmp_path / "again.parquet")
    assert done.code == 2
    assert "'gsm8k-0000' is not in" in done.err


def test_problems_of_other_samples_are_refused(cli, published, tmp_path) -> None:
    out = recorded(cli, published, write(tmp_path, "mmlu.jsonl"))
    other = write(tmp_path, "HumanEval.jsonl")
    done = cli("verify", out, "--problems", other, "--verifier", "logprob", "--out", tmp_path / "scored.parquet")
    assert done.code == 2
    assert "'mmlu-0000' is not in" in done.err


def test_human_evals_own_samples_are_verified(cli, tmp_path) -> None:
    try:
        bubblewrap()
    except Unsupported as error:
        pytest.skip(str(error))
    samples = tmp_path / "samples.jsonl"
    rows = FILES["HumanEval.jsonl"][0]
    lines = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in rows]
    samples.write_text("\n".join(map(json.dumps, lines)))
    problems = write(tmp_path, "HumanEval.jsonl.gz")
    done = cli("verify", samples, "--problems", problems, "--verifier", "code", "--out", tmp_path / "scored.jsonl")
    assert done.code == 0, done.err
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [row["score"] for row in scored] == [1] * 5
    assert {"task_id", "completion"} <= {*scored[0]}


def test_calibrate_takes_the_questions_from_the_published_file(cli, published, tmp_path) -> None:
    path = tmp_path / "many.jsonl"
    rows = [{**MMLU[0], "question": f"Which is the number {n}?", "answer": n % 4} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    FILES["many.jsonl"] = (rows, lambda rows: b"", "MMLU", "choice")
    try:
        out = recorded(cli, published, path, "--samples", 2)
    finally:
        del FILES["many.jsonl"]
    aim = ("--target", "match=self-consistency@2", "--margin", 0.3, "--orders", 1, "--folds", 2)
    done = cli("calibrate", out, "--problems", path, "--out", tmp_path / "policy.json", *aim)
    assert done.code == 0, done.err
    done = cli("calibrate", out, "--problems", write(tmp_path, "mmlu.jsonl"), "--out", tmp_path / "no.json", *aim)
    assert done.code == 2
    assert "give the problems of these samples" in done.err
