"""Live comparison: equal budgets, rows, resumption, and traces that can be replayed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, ScriptedEngine
from outthink.core.errors import EngineError
from outthink.engines.protocol import Fault, Speed
from outthink.engines.scripted import Completion
from outthink.evaluation.arena import ArenaPlan
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.dataset import open_dataset
from outthink.evaluation.live import live
from outthink.strategies import Spec
from outthink.verifiers import ConfidenceVerifier, FunctionVerifier
from support.judges import Judge

FAST = Speed(stream=100_000, total=1_000_000, prefill=1_000_000, concurrency=8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"problem_id": f"p{i}", "question": f"How much is {i} + 1?", "answer": str(i + 1)} for i in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def script(call) -> Completion:
    """Two of three samples are right; 80 tokens each."""
    right = int(call.messages[0].text.split()[3]) + 1
    draw = (call.seed or 0) % 3
    return Completion(answer=str(right if draw else 99), text=f"The answer is {right if draw else 99}.", tokens=80)


def engine(scripted=script, **options) -> ScriptedEngine:
    return ScriptedEngine(scripted, model="toy", prompt_tokens=20, speed=FAST, **options)


def run(source: Path, folder: Path, *names: str, on=None, verifier=None, **plan) -> list[dict]:
    plan = ArenaPlan(answer="number", **{"budgets": (250, 900), **plan})
    specs = [Spec.parse(name) for name in names or ("adaptive-consistency",)]
    folder.mkdir(exist_ok=True)
    datasets = [open_dataset(str(source), "number")]
    return asyncio.run(live(datasets, on or engine(), specs, plan, folder, lambda dataset: verifier))


def test_rows_stand_under_equal_budgets_and_keep_to_them(source, tmp_path) -> None:
    rows = run(source, tmp_path / "out")
    fields = [(row["strategy"], row["budget_tokens"], row["n"]) for row in rows]
    # A sample takes 100 tokens, so the budgets pay for 2 and 9.
    assert fields == [
        ("self-consistency", 250, 2), ("self-consistency", 900, 9),
        ("adaptive-consistency", 250, 2), ("adaptive-consistency", 900, 9),
    ]  # fmt: skip
    for row in rows:
        assert row["tokens"] + row["prompt_tokens"] <= row["budget_tokens"]
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert (row["traces"], row["model"], row["problems"], row["seeds"]) == ("toy--sums", "toy", 5, 1)
        assert row["flops"] is None  # nobody knows the toy's weights
        assert row["verifier"] is None
        assert row["verifier_tokens"] == 0
        assert row["seconds"] > 0
    majority = {row["budget_tokens"]: row["accuracy"] for row in rows[:2]}
    for row in rows:
        assert row["difference"] == pytest.approx(row["accuracy"] - majority[row["budget_tokens"]])
    assert rows[2]["tokens"] <= rows[0]["tokens"]


def test_the_default_budgets_come_from_what_a_sample_takes(source, tmp_path) -> None:
    rows = run(source, tmp_path / "out", "self-consistency", budgets=())
    assert [row["budget_tokens"] for row in rows] == [200, 400, 800, 1600]
    assert [row["n"] for row in rows] == [2, 4, 8, 16]


def test_every_sample_is_kept_and_can_be_replayed(source, tmp_path) -> None:
    played = engine()
    run(source, tmp_path / "out", on=played)
    path = tmp_path / "out" / "toy--sums.parquet"
    table = parquet.read_table(path).to_pylist()
    assert all(row["correct"] == (row["answer"] != "99") for row in table)
    assert {row["n_tokens"] for row in table} == {80}
    for problem in {row["problem_id"] for row in table}:
        numbers = [row["sample_idx"] for row in table if row["problem_id"] == problem]
        assert numbers == list(range(1, len(numbers) + 1))
    parts = path.with_suffix(".parts.jsonl")
    received = len(parts.read_text().splitlines()) if parts.exists() else 0
    assert len(table) + received <= len(played.calls)  # some calls were cancelled
    assert len(table) >= 5 * 6
    assert list((tmp_path / "out").glob("*.journal*")) == []
    rows = compare([path], [Spec.parse("self-consistency:n=4")], CompareSettings(seeds=1))
    assert any(row["strategy"] == "self-consistency" and row["n"] == 4 for row in rows)


def test_what_a_budget_has_cut_is_no_sample(source, tmp_path) -> None:
    run(source, tmp_path / "out", "self-consistency:n=3", budgets=(185,))  # pays for one, and a part of another
    table = parquet.read_table(tmp_path / "out" / "toy--sums.parquet").to_pylist()
    assert {row["finish_reason"] for row in table} == {"stop"}
    parts = [json.loads(line) for line in (tmp_path / "out" / "toy--sums.parts.jsonl").read_text().splitlines()]
    assert parts
    assert all(part["n_tokens"] < 80 and part["budget_tokens"] == 185 for part in parts)


def test_a_run_that_stops_goes_on_without_asking_again(source, tmp_path) -> None:
    calls = 0

    def breaking(call) -> Completion:
        nonlocal calls
        calls += 1
        return Completion(fault=Fault(fatal=True)) if calls > 30 else script(call)

    with pytest.raises(EngineError):
        run(source, tmp_path / "out", on=engine(breaking))
    assert list((tmp_path / "out").glob("*.journal"))
    rest = engine()
    rows = run(source, tmp_path / "out", on=rest)
    whole = engine()
    assert rows == run(source, tmp_path / "undisturbed", on=whole)
    assert len(rest.calls) < len(whole.calls)
    assert len(rest.calls) + 30 <= len(whole.calls) + 10  # at most the one request that was broken off
    again, undisturbed = (parquet.read_table(tmp_path / name / "toy--sums.parquet") for name in ("out", "undisturbed"))
    assert sorted(again["text"].to_pylist()) == sorted(undisturbed["text"].to_pylist())


def test_questions_keep_their_requests_when_others_go_and_ids_change(source, tmp_path) -> None:
    out = tmp_path / "out" / "toy--sums.parquet"
    blocked = out.with_name(f".{out.name}.{os.getpid()}")
    blocked.mkdir(parents=True)  # where the draft of OUT would stand
    with pytest.raises(BadInput, match="run the same command again"):
        run(source, tmp_path / "out")
    blocked.rmdir()
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    kept = [row | {"problem_id": f"q{row['answer']}"} for row in (rows[4], rows[0], rows[3])]
    source.write_text("\n".join(map(json.dumps, kept)))
    rest = engine()
    assert {row["problems"] for row in run(source, tmp_path / "out", on=rest)} == {3}
    assert rest.calls == []
    texts = {row["problem_id"]: row["text"] for row in parquet.read_table(out).to_pylist() if row["correct"]}
    assert texts == {f"q{n}": f"The answer is {n}." for n in (5, 1, 4)}


@pytest.mark.parametrize("damage", ["null", "{", "[1]", '{"answer": 1}', '{"answer": null, "seconds": "2"}'])
@pytest.mark.parametrize("what", ["pilot%", "[%"])
def test_a_damaged_remark_of_the_journal_is_refused_in_one_line(source, tmp_path, what: str, damage: str) -> None:
    calls = itertools.count()

    def breaking(call) -> Completion:
        return Completion(fault=Fault(fatal=True)) if next(calls) > 30 else script(call)

    with pytest.raises(EngineError):
        run(source, tmp_path / "out", on=engine(breaking))
    (journal,) = (tmp_path / "out").glob("*.journal")
    with closing(sqlite3.connect(journal)) as database, database:
        assert database.execute("UPDATE about SET value = ? WHERE name LIKE ?", (damage, what)).rowcount > 0
    with pytest.raises(BadInput, match=r"^[^\n]*\.journal: [^\n]*; give another name, or move the file away$"):
        run(source, tmp_path / "out")


def test_another_plan_does_not_go_on_with_this_journal_and_files_are_not_overwritten(source, tmp_path) -> None:
    with pytest.raises(EngineError):
        run(source, tmp_path / "out", on=engine(lambda call: Completion(fault=Fault(fatal=True))))
    with pytest.raises(BadInput, match="journal of another run"):
        run(source, tmp_path / "out", seed=1)
    run(source, tmp_path / "out")
    with pytest.raises(BadInput, match="exists already"):
        run(source, tmp_path / "out")


def test_a_verifier_decides_live_and_is_named(source, tmp_path) -> None:
    check = FunctionVerifier(lambda request, text: "99" not in text, name="not-99")
    rows = run(source, tmp_path / "out", "weighted-vote", verifier=check, budgets=(900,))
    vote = next(row for row in rows if row["strategy"] == "weighted-vote")
    assert (vote["verifier"], vote["accuracy"]) == ("not-99", 1.0)
    assert vote["samples"] == vote["n"]
    assert rows[0]["verifier"] is None


def test_a_budget_pays_for_judging_what_it_has_drawn(source, tmp_path) -> None:
    judge = Judge(kind="outcome")  # ten tokens a sample, reserved and taken
    names = ("weighted-vote", "best-of-n", "best-of-n:score=logprob", "self-consistency")
    for row in run(source, tmp_path / "out", *names, verifier=judge, budgets=(450, 900)):
        judged = row["strategy"] in ("weighted-vote", "best-of-n")
        # A sample takes 100 tokens, with judging 110.
        assert row["n"] == int(row["budget_tokens"] / (110 if judged else 100))
        assert row["verifier_tokens"] == (10 * row["n"] if judged else 0)
        assert not any("no score" in note for note in row["notes"])


def test_strategies_that_continue_texts_run_live_and_their_pieces_are_no_samples(source, tmp_path) -> None:
    def stepwise(call) -> Completion:
        return Completion(text="step\n\n" if not call.prefix else "The answer is 1.", tokens=10)

    check = FunctionVerifier(lambda request, text: 0.5, name="even")
    rows = run(source, tmp_path / "out", "beam:n=2", on=engine(stepwise), verifier=check, budgets=(600,))
    assert [row["strategy"] for row in rows] == ["self-consistency", "beam"]
    parts = [json.loads(line) for line in (tmp_path / "out" / "toy--sums.parts.jsonl").read_text().splitlines()]
    assert {part["strategy"] for part in parts} == {"beam:n=2"}
    assert any(part["prefix"] for part in parts)


def test_an_unfit_verifier_is_refused_before_other_strategies_are_paid(source, tmp_path) -> None:
    on = engine()
    with pytest.raises(BadInput, match="judges finished samples, and beam scores unfinished ones"):
        run(source, tmp_path / "out", "beam:n=2", on=on, verifier=ConfidenceVerifier("logprob"), budgets=(600,))
    assert on.calls == []


def test_requests_run_on_a_real_clock_too(source, tmp_path) -> None:
    rows = run(source, tmp_path / "out", on=engine().live(), jobs=3)
    virtual = run(source, tmp_path / "virtual")
    assert [row["accuracy"] for row in rows] == [row["accuracy"] for row in virtual]
