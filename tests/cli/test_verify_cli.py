"""`outthink verify`: the command, its answers and its refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from outthink.core.errors import Unsupported
from outthink.verifiers.code.walls import bubblewrap
from support.chat_server import ChatServer, chat
from support.judges import write_problems, write_samples


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    samples = write_samples(tmp_path / "toy--sums.parquet")
    return samples, write_problems(tmp_path / "problems.parquet"), tmp_path / "scored.parquet"


def verify(cli, files, *more: object, verifier: object = "exact"):
    samples, problems, out = files
    return cli("verify", samples, "--problems", problems, "--verifier", verifier, "--out", out, *more)


def test_exact_gives_0_and_1_and_says_how_often_the_file_agrees(cli, files) -> None:
    done = verify(cli, files)
    assert done.code == 0, done.err
    table = parquet.read_table(files[2])
    # The text of sample i of problem p ends with p/i, which is p where i is 1; 0/0 has no text, 0/i is 0.
    assert table["score"].to_pylist() == [0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0]
    assert table["steps"].null_count == 12
    assert set(table["verifier"].to_pylist()) == {"exact-number"}
    assert "agrees with `correct` on 6 of 12" in done.out
    assert "scored 12 of 12" in done.err


def test_a_schema_file_is_a_verifier(cli, files, tmp_path) -> None:
    pytest.importorskip("jsonschema")
    samples = tmp_path / "samples.jsonl"
    texts = ['{"age": 3}', '{"age": "old"}', "nothing"]
    samples.write_text("\n".join(json.dumps({"problem_id": "p0", "text": text}) for text in texts))
    schema = tmp_path / "person.json"
    schema.write_text('{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}')
    out = tmp_path / "scored.jsonl"
    done = verify(cli, (samples, files[1], out), verifier=f"schema:{schema}")
    assert done.code == 0, done.err
    assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == [1, 0, 0]


@pytest.mark.parametrize(
    ("verifier", "word"),
    [
        ("no-such-verifier", "exact, schema:FILE, code, confidence"),
        ("schema:no-such.json", "no-such.json"),
        ("code", "entry_point"),
    ],
)
def test_a_verifier_that_cannot_be_opened_is_one_line(cli, files, verifier, word) -> None:
    done = verify(cli, files, verifier=verifier)
    assert done.code == 2
    assert word in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not files[2].exists()
    assert not list(files[2].parent.glob("*.journal*"))


def test_bad_files_are_one_line(cli, files, tmp_path) -> None:
    few = write_problems(tmp_path / "few.parquet", problems=1)
    done = verify(cli, (files[0], few, files[2]))
    assert (done.code, "problem_id: 'p1'" in done.err) == (2, True)
    files[2].write_text("mine")
    done = verify(cli, files)
    assert (done.code, "exists already" in done.err) == (2, True)
    done = verify(cli, (tmp_path / "absent.parquet", *files[1:]))
    assert (done.code, "absent.parquet" in done.err) == (2, True)
    done = verify(cli, (*files[:2], tmp_path / "scored.csv"))
    assert (done.code, ".parquet or .jsonl" in done.err) == (2, True)
    assert not (tmp_path / "scored.csv").exists()


def test_code_without_a_word_fails_its_test(cli, tmp_path) -> None:
    try:
        bubblewrap()
    except Unsupported as why:
        pytest.skip(str(why))
    test = "def check(candidate):\n    assert candidate() == 3\n"
    problem = {"problem_id": "p0", "prompt": "def f():\n    'Three.'\n", "entry_point": "f", "test": test}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem))
    texts = ["    return 3\n", "", " \n"]
    samples = [{"problem_id": "p0", "sample_idx": place, "text": text} for place, text in enumerate(texts)]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    names = (tmp_path / "samples.jsonl", tmp_path / "problems.jsonl", tmp_path / "scored.jsonl")
    done = verify(cli, names, verifier="code")
    assert done.code == 0, done.err
    scored = [json.loads(line) for line in names[2].read_text().splitlines()]
    assert [row["score"] for row in scored] == [1, 0, 0]


def test_a_server_that_was_never_there_leaves_no_journal_in_the_way(cli, files) -> None:
    done = verify(cli, files, verifier="judge:http://127.0.0.1:9")
    assert (done.code, "127.0.0.1:9" in done.err) == (1, True)
    done = verify(cli, files)  # another verifier, the same --out
    assert done.code == 0, done.err


def test_gold_answers_are_needed_for_exact(cli, files, tmp_path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(json.dumps({"problem_id": f"p{i}", "question": "?"}) for i in range(3)))
    done = verify(cli, (files[0], questions, files[2]))
    assert (done.code, "gold answers" in done.err) == (2, True)


def test_compare_takes_a_verifier_and_says_what_it_lacks(cli, files) -> None:
    done = cli("compare", files[0], "--strategy", "weighted-vote:n=3", "--seeds", 1)
    assert (done.code, "--verifier" in done.err) == (2, True)
    rows = files[2].with_suffix(".json")
    scored = ("--verifier", "exact", "--problems", files[1])
    done = cli("compare", files[0], "--strategy", "weighted-vote:n=3", "--seeds", 1, *scored, "--json", rows)
    assert done.code == 0, done.err
    row = next(row for row in json.loads(rows.read_text()) if row["strategy"] == "weighted-vote")
    assert row["verifier"] == "exact-number"
    assert "have no score" not in done.err


@pytest.fixture
def costly() -> Iterator[ChatServer]:
    """Every sample takes 100 tokens and says 41."""
    with ChatServer(lambda seen: chat(["The ", "answer ", "is ", "41", "."], counts=(60, 40))) as running:
        yield running


def test_compare_live_runs_writes_and_refuses(cli, costly, tmp_path) -> None:
    questions = tmp_path / "sums.jsonl"
    lines = [{"problem_id": f"p{i}", "question": f"40 + {i}?", "answer": str(40 + i)} for i in range(3)]
    questions.write_text("\n".join(map(json.dumps, lines)))
    live = ("compare", "--live", questions, "--model", costly.url, "--answer", "number", "--strategy", "esc")
    rows = tmp_path / "rows.json"
    done = cli(*live, "--budgets", "300,600", "--out", tmp_path, "--json", rows)
    assert done.code == 0, done.err
    result = json.loads(rows.read_text())
    assert [(row["strategy"], row["budget_tokens"]) for row in result] == [
        ("self-consistency", 300), ("self-consistency", 600), ("esc", 300), ("esc", 600),
    ]  # fmt: skip
    (traces,) = tmp_path.glob("*--sums.parquet")
    assert parquet.read_table(traces).num_rows > 6
    assert cli("compare", traces, "--strategy", "self-consistency:n=2").code == 0
    for more, word in (
        (("--budgets", "300,x"), "--budgets"),
        (("--regrade", "number"), "--regrade"),
        (("--budgets", "300", "--out", tmp_path), "exists already"),
    ):
        done = cli(*live, *more)
        assert (done.code, word in done.err) == (2, True), done.err
    done = cli("compare", traces, "--budgets", "300")
    assert (done.code, "--live" in done.err) == (2, True)


def test_compare_live_reads_a_data_set_as_record_does(cli, costly, tmp_path) -> None:
    questions = tmp_path / "own.jsonl"
    rows = [{"ask": f"40 + {i}?", "gold": str(40 + i)} for i in range(2)] + [{"ask": "?", "gold": None}]
    questions.write_text("\n".join(map(json.dumps, rows)))
    live = ("compare", "--live", questions, "--model", costly.url, "--answer", "number", "--strategy", "esc")
    live += ("--question", "ask", "--gold", "gold", "--budgets", "300", "--out", tmp_path)
    refused = cli(*live)
    assert (refused.code, refused.out) == (2, "")
    assert "row 3: gold is null; mend the row, or leave such rows out with --skip-bad" in refused.err
    assert not [seen for seen in costly.seen if seen.path.endswith("completions")]
    done = cli(*live, "--skip-bad")
    assert (done.code, "left out row 3" in done.err) == (0, True), done.err
    unused = cli("compare", *tmp_path.glob("*--own.parquet"), "--skip-bad")
    assert (unused.code, "--skip-bad: True goes with --live" in unused.err) == (2, True), unused.err
