"""From samples to a policy and back: what it states, what is refused, and what new samples say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outthink.controller.policy.artefact import Policy, canonical
from outthink.core.errors import BadInput
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings, check, compare
from outthink.strategies import Spec
from support.samples import question, write_samples

AIM = Target.parse("match=self-consistency@16", margin=0.05)
"""Forty problems cannot show less."""
FIXED = Spec.parse("self-consistency")


def recipe(aim: Target = AIM, **more: Any) -> CalibrationRecipe:
    return CalibrationRecipe(target=aim, orders=2, workers=1, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def seen(folder: Path) -> Path:
    return write_samples(folder / "seen")


@pytest.fixture(scope="module")
def unseen(folder: Path) -> Path:
    return write_samples(folder / "unseen", problems=range(100, 140), seed=1)


@pytest.fixture(scope="module")
def policy(seen: Path) -> Policy:
    return calibrate([seen], recipe())


def rows_of(paths: list[Path], policy: Policy, **settings: Any) -> list[dict[str, Any]]:
    rows = compare(paths, [FIXED], CompareSettings(seeds=2, workers=1, policy=policy, **settings))
    return [row for row in rows if row["strategy"] == "auto"]


def test_it_says_what_it_was_made_of(policy: Policy, seen: Path) -> None:
    content = policy.content
    assert content["models"] == 1
    assert content["target"]["text"] == "match=self-consistency@16"
    (task,) = content["tasks"]
    assert task["traces"]["file"] == seen.name
    assert task["traces"]["fingerprint"].startswith("sha256:")
    assert task["answer"] == "number"
    assert [arm["n"] for arm in task["arms"]] == [1, 2, 4, 8, 16]
    assert len(task["problems"]) == len(task["questions"]) == 40
    assert 0 < task["coverage"]["covered"] <= task["coverage"]["splits"]


def test_the_same_samples_give_the_same_policy(policy: Policy, seen: Path) -> None:
    again = calibrate([seen], recipe())
    assert again.content["tasks"] == policy.content["tasks"]
    assert again.id == policy.id or again.created != policy.created  # the date is part of it


def test_held_out_figures_are_those_of_the_cross_fitted_rows(policy: Policy, seen: Path) -> None:
    rows = rows_of([seen], policy, cross_fit=True)
    (task,) = policy.tasks
    for row in rows:
        held = task.arm(row["n"]).held_out
        assert row["accuracy"] == pytest.approx(held.accuracy, abs=1e-5)
        assert row["tokens"] == pytest.approx(held.tokens, rel=1e-5)


def test_rows_on_new_problems(policy: Policy, unseen: Path) -> None:
    rows = rows_of([unseen], policy)
    assert [row["n"] for row in rows] == [1, 2, 4, 8, 16]
    for row in rows:
        assert row["policy"] == policy.id
        assert row["fallback_rate"] <= 0.1
        assert row["predicted_problems"] == row["problems"] == 40
        assert row["predicted_low"] < row["predicted_accuracy"] < row["predicted_high"]
        assert row["tokens_ratio"] is None  # nothing was recorded at 32
    assert rows[-1]["samples"] < 16


def test_processes_change_nothing(policy: Policy, unseen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = compare([unseen], [FIXED], CompareSettings(seeds=2, workers=1, policy=policy))
    monkeypatch.setattr("outthink.evaluation.replay._SMALL", 0)
    assert compare([unseen], [FIXED], CompareSettings(seeds=2, workers=2, policy=policy)) == alone


def test_evaluating_on_the_problems_of_the_calibration_is_refused(policy: Policy, seen: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"40 of the problems that the policy was calibrated on.*--cross-fit"):
        rows_of([seen], policy)
    renamed = write_samples(tmp_path, dataset="other", problems=range(39, 60))
    with pytest.raises(BadInput, match="1 of the problems"):
        rows_of([renamed], policy)


def test_without_questions_the_names_of_problems_are_compared(policy: Policy, tmp_path: Path) -> None:
    bare = write_samples(tmp_path, problems=range(39, 60), questions=False)
    with pytest.raises(BadInput, match="1 of the problems"):
        rows_of([bare], policy)


def test_without_questions_it_still_works_and_says_so(unseen: Path, tmp_path: Path) -> None:
    bare = write_samples(tmp_path, questions=False)
    received: list[str] = []
    policy = calibrate([bare], recipe(), say=received.append)
    assert any("no problems file" in line for line in received)
    assert any("no problems file" in note for note in policy.tasks[0].other["notes"])
    assert policy.tasks[0].answer is None
    assert rows_of([unseen], policy)[-1]["fallback_rate"] <= 0.1


def test_another_domain_falls_back_as_a_whole(policy: Policy, tmp_path: Path) -> None:
    strange = write_samples(
        tmp_path, problems=range(200, 230), ask=lambda i: rf"Find $\int_0^{{{i}}} x^2 \, dx$ and $\sqrt{{{i}}}$."
    )
    row = rows_of([strange], policy)[-1]
    adaptive = compare([strange], [Spec.parse("adaptive-consistency:n=16")], CompareSettings(seeds=2, workers=1))[0]
    assert row["fallback_rate"] == 1
    assert row["predicted_accuracy"] is None
    assert (row["accuracy"], row["tokens"]) == (adaptive["accuracy"], adaptive["tokens"])
    assert "another domain" in row["notes"][0]


def test_an_unknown_model_falls_back(policy: Policy, tmp_path: Path) -> None:
    row = rows_of([write_samples(tmp_path, model="stranger", problems=range(300, 330))], policy)[-1]
    assert row["fallback_rate"] == 1
    assert "stranger is not among the calibrated ones" in row["notes"][0]


def test_longer_samples_are_left_while_decoding(policy: Policy, tmp_path: Path) -> None:
    longer = write_samples(tmp_path, problems=range(400, 430), tokens=600)
    row = rows_of([longer], policy)[-1]
    assert row["fallback_rate"] > 0.5
    assert "tokens on average" in row["notes"][-1]
    assert row["samples"] > 4  # what was drawn before still votes


def one_problem(folder: Path) -> list[Path]:
    return [write_samples(folder, problems=range(1))]


def nothing_right(folder: Path) -> list[Path]:
    return [write_samples(folder, right=False)]


def two_samplers_by_column(folder: Path) -> list[Path]:
    return [write_samples(folder, more={"temperature": lambda index: 0.8 if index % 2 else 1.0})]


def two_samplers_by_file(folder: Path) -> list[Path]:
    hot, cold = ({"model": "tiny", "sampling": {"temperature": heat, "max_tokens": 512}} for heat in (1.0, 0.5))
    return [
        write_samples(folder / "a", about=hot),
        write_samples(folder / "b", dataset="more", problems=range(50, 80), about=cold),
    ]


def one_question_twice(folder: Path) -> list[Path]:
    return [write_samples(folder, ask=lambda number: question(number % 39))]


def one_problem_in_two_files(folder: Path) -> list[Path]:
    return [write_samples(folder / "a"), write_samples(folder / "b", dataset="more", problems=range(39, 70))]


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (one_problem, "one problem only"),
        (nothing_right, "no correct answer anywhere"),
        (two_samplers_by_column, "mixes samplers"),
        (two_samplers_by_file, "was sampled in 2 ways"),
        (one_question_twice, "both sides of a split"),
        (one_problem_in_two_files, "give it once"),
    ],
)
def test_unusable_samples_are_refused(make: Callable[[Path], list[Path]], part: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=part) as refusal:
        calibrate(make(tmp_path), recipe())
    assert "\n" not in str(refusal.value)


def test_two_models_make_one_policy(seen: Path, folder: Path) -> None:
    other = write_samples(folder / "seen", model="small", seed=3)
    policy = calibrate([seen, other], recipe())
    assert policy.content["models"] == 2
    assert [task.model for task in policy.tasks] == ["tiny", "small"]


def cascaded(policy: Policy, model: str) -> Policy:
    """The same, but every arm asks `model` where its own two samples disagree."""
    content = json.loads(canonical(policy.content))
    stages = [
        {"model": None, "n": 2, "tau": 1.0, "signal": "agreement", "keep": 0.0, "rule": {"kind": "fixed"}},
        {"model": model, "n": 4, "tau": 0.0, "signal": "agreement", "keep": 0.0, "rule": {"kind": "fixed"}},
    ]
    for arm in content["tasks"][0]["arms"]:
        arm["rule"] = {"kind": "cascade", "stages": stages}
    return Policy.of(content)


def test_a_cascade_draws_from_the_other_file(policy: Policy, unseen: Path, folder: Path) -> None:
    other = write_samples(folder / "unseen", model="small", problems=range(100, 140), seed=3)
    both = cascaded(policy, "small")
    row = rows_of([unseen, other], both)[4]
    assert (row["model"], row["n"]) == ("tiny", 16)
    assert 2 < row["samples"] < 6
    with pytest.raises(BadInput, match="has no samples of tiny--sums"):
        rows_of([unseen], both)


def test_operating_points(seen: Path) -> None:
    aims = {"accuracy=0.01": 1, "tokens=900": 8}
    for text, size in aims.items():
        (task,) = calibrate([seen], recipe(Target.parse(text, margin=0))).tasks
        assert task.chosen == size, text
        assert task.arm(size).held_out.accuracy > 0
    with pytest.raises(BadInput, match=r"is met by no arm \(the cheapest needs .* tokens\)"):
        calibrate([seen], recipe(Target.parse("tokens=3")))
    with pytest.raises(BadInput, match="is reached by no size"):
        calibrate([seen], recipe(Target.parse("accuracy=1.0", margin=0)))
    with pytest.raises(BadInput, match="is more than the 16 samples"):
        calibrate([seen], recipe(Target.parse("match=self-consistency@32")))


@pytest.mark.parametrize("text", ["", "match=esc@4", "match=self-consistency@", "accuracy=2", "tokens=-1", "love=3"])
def test_targets_that_make_no_sense(text: str) -> None:
    with pytest.raises(BadInput):
        Target.parse(text)


def test_check_holds_on_problems_of_the_same_kind(policy: Policy, unseen: Path) -> None:
    looser = promising(policy, policy.tasks[0].arm(16).rule.json(), margin=0.2)
    report = check(looser, [unseen], orders=2)
    assert report["holds"]
    assert report["state"] == "confirmed"
    (row,) = (row for row in report["rows"] if row["n"] == policy.tasks[0].chosen)
    assert row["loss_low"] < row["loss"] < row["loss_high"] <= row["promise"] == 0.2
    assert row["promise_needed"] is None


def promising(policy: Policy, rule: dict[str, Any], **promise: Any) -> Policy:
    """The same policy, but with a rule of somebody else's for the chosen arm, and another promise."""
    content = json.loads(canonical(policy.content))
    task = content["tasks"][0]
    (arm,) = (arm for arm in task["arms"] if arm["n"] == task["chosen"])
    arm["rule"] = rule
    arm["promise"] |= promise
    return Policy.of(content)


def test_a_broken_promise_is_found(policy: Policy, unseen: Path) -> None:
    hasty = promising(policy, {"kind": "adaptive", "threshold": 0.6}, margin=0.02)
    report = check(hasty, [unseen], orders=4)
    assert not report["holds"]
    assert report["state"] == "broken"
    (row,) = (row for row in report["rows"] if row["n"] == policy.tasks[0].chosen)
    assert row["loss_low"] > row["promise"] == 0.02


def test_too_few_problems_leave_a_promise_open(policy: Policy, unseen: Path) -> None:
    report = check(promising(policy, {"kind": "adaptive", "threshold": 0.97}, margin=0.001), [unseen], orders=2)
    assert report["holds"]
    assert report["state"] == "open"
    (row,) = (row for row in report["rows"] if row["n"] == policy.tasks[0].chosen)
    assert row["promise_needed"] > row["problems"]


def test_harder_problems_are_told_and_break_no_promise(policy: Policy, unseen: Path, tmp_path: Path) -> None:
    table = parquet.read_table(unseen).to_pylist()
    for row in table:
        if row["correct"] and int(row["problem_id"][1:]) % 2:
            row |= {"correct": False}
    worse = tmp_path / unseen.name
    parquet.write_table(pa.Table.from_pylist(table), worse)
    report = check(policy, [worse], orders=2)
    assert report["holds"]
    assert any("not as hard" in reason for reason in report["reasons"])


def test_drift_is_that_from_the_same_data_set(seen: Path, unseen: Path, tmp_path: Path) -> None:
    longer = write_samples(tmp_path / "seen", dataset="essays", problems=range(700, 740), tokens=600)
    both = calibrate([seen, longer], recipe())
    assert not [line for line in check(both, [unseen], orders=1)["reasons"] if "drifted" in line]


def test_samples_drawn_otherwise_are_told(seen: Path, unseen: Path, tmp_path: Path) -> None:
    def told(folder: str, problems: range, temperature: float) -> Path:
        about = {"sampling": {"temperature": temperature}}
        return write_samples(tmp_path / folder, problems=problems, about=about)

    made = calibrate([told("seen", range(40), 0.8)], recipe())
    rows = rows_of([told("unseen", range(500, 540), 0.2)], made)
    assert all("temperature 0.2 instead of 0.8" in row["notes"][0] for row in rows)
    assert not any(row["notes"] for row in rows_of([told("alike", range(500, 540), 0.8)], made))


def test_check_finds_fallbacks_and_drift(policy: Policy, tmp_path: Path) -> None:
    longer = write_samples(tmp_path, problems=range(500, 540), tokens=600)
    report = check(policy, [longer], orders=2)
    assert not report["holds"]
    assert any("fell back" in reason for reason in report["reasons"])
    assert any("sample tokens drifted" in reason for reason in report["reasons"])
