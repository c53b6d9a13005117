"""Policies that carry a verifier: chosen where its scores pay, replayed with it, and left alone without it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink.controller.policy.artefact import Policy, canonical
from outthink.controller.policy.rules import LinearGain
from outthink.core.errors import BadInput
from outthink.engines.traces import load
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings, compare
from outthink.strategies import Spec
from support.samples import write_samples

TARGET = Target.parse("match=self-consistency@8", margin=0.05, risk=0.2)
JUDGE = "wise-1"


def scored(folder: Path, problems: range, *, skill: float = 0.97, verifier: str = JUDGE) -> Path:
    """Samples that a verifier has judged: right ones score high, the more so the greater its skill."""
    path = write_samples(folder, problems=problems, samples=8)
    rows = parquet.read_table(path).to_pylist()
    for row in rows:
        draw = random.Random(f"{row['problem_id']}:{row['sample_idx']}")
        good = row["correct"] if draw.random() < skill else not row["correct"]
        row |= {"score": draw.uniform(0.6, 0.99) if good else draw.uniform(0.01, 0.4), "steps": None}
        row |= {"verifier": verifier, "verifier_tokens": 4 + row["n_tokens"] // 20}
    about = {"id": verifier, "kind": "outcome", "model": "wise", "parameters": 1000, "aggregation": "last"}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"outthink.verifier": json.dumps(about)})
    parquet.write_table(table, path)
    return path


def made(path: Path, verifier: str | None, monkeypatch: pytest.MonkeyPatch) -> Policy:
    monkeypatch.setattr("outthink.evaluation.calibration.scored_votes.verifier_id", lambda text: text)
    return calibrate([path], CalibrationRecipe(target=TARGET, folds=3, orders=2, workers=1, verifier=verifier))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored(tmp_path_factory.mktemp("seen"), range(150))


@pytest.fixture(scope="module")
def policy(seen: Path) -> Policy:
    with pytest.MonkeyPatch.context() as patch:
        return made(seen, JUDGE, patch)


def test_a_verifier_that_pays_is_named_with_all_that_matters(policy: Policy) -> None:
    (task,) = policy.tasks
    told = policy.content["tasks"][0]["verifier"]
    assert (told["id"], told["model"], told["parameters"], told["aggregation"]) == (JUDGE, "wise", 1000, "last")
    assert told["temperature"] > 0
    assert told["exponent"] in (0.5, 1.0)
    assert 0.05 < told["tokens"] < 0.15
    assert task.judged is not None
    rule = task.judged.arm.rule
    assert isinstance(rule, LinearGain)
    assert rule.judging is not None
    assert rule.judging.exponent == told["exponent"]
    assert task.judged.arm.held_out.verifier_tokens > 0
    assert (task.judged.arm.held_out.cost("tokens") or 0) < (task.arm(task.chosen).held_out.cost("tokens") or 0)
    assert policy.verifiers == {JUDGE}


def test_it_reads_back_as_it_was_written(policy: Policy) -> None:
    again = Policy.read(policy.text)
    assert again == policy
    broken = json.loads(canonical(policy.content))
    broken["tasks"][0]["verifier"]["temperature"] = 0
    with pytest.raises(BadInput, match=r"verifier\.arm.*temperature.*calibrate again"):
        Policy.of(broken)


def row_of(path: Path, policy: Policy, **settings: Any) -> dict[str, Any]:
    compared = CompareSettings(seeds=2, workers=1, policy=policy, **settings)
    rows = compare([path], [Spec.parse("self-consistency")], compared)
    (row,) = (row for row in rows if row["strategy"] == "auto" and row["n"] == 8)
    return row


def test_new_samples_with_its_scores_are_judged_and_charged(policy: Policy, tmp_path: Path) -> None:
    judged = row_of(scored(tmp_path, range(200, 300)), policy)
    assert judged["verifier"] == JUDGE
    assert judged["verifier_tokens"] > 0
    assert judged["promise_state"] == "confirmed"


@pytest.mark.parametrize("verifier", [None, "other-2"])
def test_without_the_very_verifier_the_arm_without_it_runs(
    policy: Policy, verifier: str | None, tmp_path: Path
) -> None:
    problems = range(200, 300)
    path = scored(tmp_path, problems, verifier=verifier) if verifier else write_samples(tmp_path, problems=problems)
    row = row_of(path, policy)
    assert row["verifier"] is None
    assert row["verifier_tokens"] == 0
    assert row["fallback_rate"] == 0


def test_a_verifier_that_knows_nothing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made(scored(tmp_path, range(150), skill=0.5), JUDGE, monkeypatch)
    assert policy.tasks[0].judged is None
    assert policy.content["tasks"][0]["verifier"] is None
    assert any("does not pay here" in note for note in policy.tasks[0].other["notes"])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: write_samples(folder), r"carries no scores, not those of wise-1; outthink verify .*tokens\)"),
        (lambda folder: scored(folder, range(20), verifier="other-2"), "carries the scores of other-2"),
    ],
)
def test_samples_without_its_scores_are_refused(
    make: Callable[[Path], Path], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=part) as refusal:
        made(make(tmp_path), JUDGE, monkeypatch)
    assert "\n" not in str(refusal.value)


def test_the_models_own_confidence_is_a_verifier_at_no_tokens(tmp_path: Path) -> None:
    path = write_samples(tmp_path, problems=range(150), samples=8, more={"text": lambda index: f"text {index}"})
    policy = calibrate([path], CalibrationRecipe(target=TARGET, folds=3, orders=1, workers=1, verifier="logprob"))
    (task,) = policy.tasks
    assert load(path).verifier is None
    if task.judged is not None:
        assert task.judged.verifier == "logprob"
        assert task.judged.arm.held_out.verifier_tokens == 0
    else:
        assert any("does not pay here" in note for note in task.other["notes"])
