"""Fitted rules: never worse than told, learned only where it pays, and blind to the fold they are judged on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from outthink.controller.policy.artefact import Policy
from outthink.engines.traces import Recorded, Traces, load
from outthink.evaluation.calibration.fit import StoppingSettings, fit
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from support.samples import write_samples

SIZES = (1, 4, 16)
SETTINGS = StoppingSettings(sizes=SIZES)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("fit"), problems=range(150))


@pytest.fixture(scope="module")
def traces(path: Path) -> Traces:
    return load(path)


@pytest.fixture(scope="module")
def policy(path: Path) -> Policy:
    return calibrate([path], CalibrationRecipe(target=Target.parse("match=self-consistency@16"), orders=2, workers=1))


def test_folds_hold_every_problem_once(traces: Traces) -> None:
    result = fit(traces, SETTINGS)
    held = [name for names, _ in result.folds for name in names]
    assert sorted(held) == sorted(traces.problems)
    assert all(set(rules) == set(SIZES) for _, rules in [("", result.rules), *result.folds])
    assert result.rules[1].kind == "fixed"


def test_a_fitted_rule_saves_tokens_and_keeps_the_accuracy(policy: Policy) -> None:
    arm = policy.tasks[0].arm(16)
    controls = {(item["strategy"], item["n"]): item["held_out"] for item in policy.tasks[0].other["controls"]}
    whole, plain = controls["self-consistency", 16], controls["adaptive-consistency", 16]
    assert arm.rule.kind == "linear-gain"
    assert arm.held_out.tokens < 0.8 * plain["tokens"] < 0.8 * whole["tokens"]
    assert arm.held_out.accuracy >= whole["accuracy"] - 0.02
    assert Policy.read(policy.text) == policy


def test_few_problems_are_not_learned_from(traces: Traces) -> None:
    few = replace(traces, problems=dict(list(traces.problems.items())[:60]))
    result = fit(few, SETTINGS)
    assert result.rules[16].kind in ("adaptive", "fixed")
    assert "thresholds alone" in result.notes[0]


def test_the_answers_of_a_fold_do_not_reach_its_rules(traces: Traces) -> None:
    names, rules = fit(traces, SETTINGS).folds[0]
    changed = dict(traces.problems)
    for name in names:
        old = changed[name]
        changed[name] = Recorded(old.problem, old.sampled, old.greedy, {"never"})
    again = dict(fit(replace(traces, problems=changed), SETTINGS).folds)[names]
    assert {n: rule.json() for n, rule in again.items()} == {n: rule.json() for n, rule in rules.items()}
