"""Replay with verifiers: recorded scores, scores made on the way, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink import BadInput, Speed
from outthink.economics.tariff import Tariff
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.verify import Prescoring
from outthink.strategies import Spec

POLICY = "qwen2.5-coder-0.5b-instruct-q4"
WEIGHTS = 494_032_768
VERIFIER = {"id": "prm@1", "kind": "process", "model": "prm", "parameters": 1000, "aggregation": "min"}


def write(path: Path, *, scored: bool = True, told: bool = True, described: bool = True, samples: int = 4) -> Path:
    """Three of four samples say 2, the fourth the right 1; only a verifier can tell. Ten tokens each, prompt 5."""
    rows = []
    for problem in range(5):
        for index in range(1, samples + 1):
            right = index % 4 == 0
            row = {
                "problem_id": f"p{problem}",
                "sample_idx": index,
                "text": f"The answer is {1 if right else 2}.",
                "n_tokens": 10,
                "prompt_tokens": 5,
                "answer": "1" if right else "2",
                "correct": right,
            }
            if scored:
                row |= {"steps": [0.9, 0.8] if right else [0.9, 0.1], "score": 0.8 if right else 0.1}
                row |= {"verifier": "prm@1", "verifier_tokens": 20 if told else None}
            rows.append(row)
    table = pa.Table.from_pylist(rows)
    if scored and described:
        table = table.replace_schema_metadata({"outthink.verifier": json.dumps(VERIFIER)})
    parquet.write_table(table, path)
    keys = [{"problem_id": f"p{i}", "question": f"question {i}", "answer": "1"} for i in range(5)]
    parquet.write_table(pa.Table.from_pylist(keys), path.with_name("problems-toy.parquet"))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{POLICY}--toy.parquet"


def replay(path: Path, *names: str, **settings) -> dict[tuple[str, int], dict]:
    rows = compare([path], [Spec.parse(name) for name in names], CompareSettings(seeds=2, **settings))
    return {(row["strategy"], row["n"]): row for row in rows}


def test_recorded_step_scores_decide_the_vote(path) -> None:
    rows = replay(write(path), "weighted-vote:n=4", "weighted-vote:n=4,aggregation=last", "best-of-n:n=4")
    vote, majority = rows["weighted-vote", 4], rows["self-consistency", 4]
    assert (vote["accuracy"], majority["accuracy"]) == (1.0, 0.0)  # 0.8 against 0.3
    assert rows["weighted-vote:aggregation=last", 4]["accuracy"] == 1.0
    assert rows["best-of-n", 4]["accuracy"] == 1.0
    assert (vote["verifier"], vote["verifier_tokens"]) == ("prm@1", 80.0)
    assert (majority["verifier"], majority["verifier_tokens"]) == (None, 0.0)


def test_the_verifiers_tokens_are_charged_by_its_own_parameters_and_kept_apart(path) -> None:
    rows = replay(write(path), "weighted-vote:n=4")
    vote, majority = rows["weighted-vote", 4], rows["self-consistency", 4]
    assert Tariff.of(POLICY).parameters == WEIGHTS
    assert majority["flops"] == 2 * WEIGHTS * 60
    assert vote["flops"] == 2 * WEIGHTS * 60 + 2 * 1000 * 80
    for name in ("tokens", "prompt_tokens", "samples"):
        assert vote[name] == majority[name]
    assert (vote["tokens"], vote["prompt_tokens"], vote["samples"]) == (40, 20, 4)


def test_judging_takes_time_on_the_virtual_clock(path) -> None:
    for speed, reading in ((Speed(), 80 / 5000), (Speed(judge=100), 80 / 100)):
        rows = replay(write(path), "weighted-vote:n=4", speed=speed)
        assert rows["self-consistency", 4]["seconds"] == pytest.approx(5 / 5000 + 10 / 50)
        assert rows["weighted-vote", 4]["seconds"] == pytest.approx(5 / 5000 + 10 / 50 + reading)


def test_equal_flops_is_another_question_than_equal_tokens(path) -> None:
    rows = replay(write(path, samples=8), "weighted-vote:n=4", "weighted-vote:n=8")
    four, eight = rows["weighted-vote", 4], rows["weighted-vote", 8]
    assert four["difference"] == four["accuracy"] - rows["self-consistency", 4]["accuracy"]
    assert four["flops_difference"] is not None
    assert four["flops_difference_low"] <= four["flops_difference"] <= four["flops_difference_high"]
    # As many tokens as the last rung of self-consistency, but more FLOPs than any of them.
    assert eight["difference"] is not None
    assert (eight["flops_difference"], eight["flops_difference_low"], eight["flops_difference_high"]) == (None,) * 3
    assert all(rows["self-consistency", n]["flops_difference"] == 0 for n in (1, 2, 4, 8))


@pytest.mark.parametrize(("told", "described"), [(False, True), (True, False)])
def test_what_is_not_known_is_null(path, told, described) -> None:
    vote = replay(write(path, told=told, described=described), "weighted-vote:n=4")["weighted-vote", 4]
    assert vote["accuracy"] == 1.0
    assert vote["flops"] is None
    assert vote["flops_difference"] is None
    assert vote["verifier_tokens"] == (80 if told else None)
    assert (vote["seconds"] is None) == (not told)
    assert vote["difference"] is not None


def test_strategies_that_the_samples_cannot_serve_are_refused(path) -> None:
    with pytest.raises(BadInput, match="--live"):
        replay(write(path), "beam:n=4")
    with pytest.raises(BadInput, match="outthink verify"):
        replay(write(path, scored=False), "weighted-vote:n=4")


def test_samples_are_scored_once_and_the_scores_are_kept(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    write(path, scored=False)
    before, received = path.read_bytes(), []
    scoring = Prescoring(verifier="exact", progress=lambda done, total: received.append((done, total)))
    rows = replay(path, "weighted-vote:n=4", scoring=scoring)
    vote = rows["weighted-vote", 4]
    assert (vote["accuracy"], vote["verifier"], vote["verifier_tokens"]) == (1.0, "exact-number", 0.0)
    assert vote["flops"] == rows["self-consistency", 4]["flops"]  # no model has judged
    assert vote["traces"] == path.stem
    assert received[-1] == (20, 20)
    received.clear()
    assert replay(path, "weighted-vote:n=4", scoring=scoring)["weighted-vote", 4] == vote
    assert received == []
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.journal*")) == []


def test_scores_of_the_same_verifier_are_not_made_again_and_those_of_another_give_way(
    path, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    rows = replay(write(path), "weighted-vote:n=4", scoring=Prescoring(verifier="exact"))
    assert rows["weighted-vote", 4]["verifier"] == "exact-number"
    table = parquet.read_table(path)
    names = pa.array(["exact-number"] * table.num_rows)
    parquet.write_table(table.set_column(table.column_names.index("verifier"), "verifier", names), path)
    received: list[object] = []
    replay(
        path, "weighted-vote:n=4", scoring=Prescoring(verifier="exact", progress=lambda *seen: received.append(seen))
    )
    assert received == []


def test_an_exact_verifier_stops_at_its_first_pass(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    rows = replay(write(path, scored=False), "best-of-n:n=4", scoring=Prescoring(verifier="exact"))
    best = rows["best-of-n", 4]
    assert best["accuracy"] == 1.0
    assert best["samples"] < 4


def test_problems_are_needed_where_none_lie_beside(path, tmp_path) -> None:
    write(path, scored=False)
    path.with_name("problems-toy.parquet").unlink()
    with pytest.raises(BadInput, match="--verifier"):
        replay(path, "weighted-vote:n=4", scoring=Prescoring(verifier="exact"))
