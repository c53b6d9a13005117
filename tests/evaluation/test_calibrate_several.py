"""Samples of two models: a cascade takes an arm's place only where it pays, and it is replayed from the policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from outthink.controller.policy.artefact import Policy
from outthink.evaluation.calibration.cascade import offers
from outthink.evaluation.calibration.contenders import fit_source
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings, compare
from outthink.evaluation.dataset import open_source
from outthink.strategies import Spec
from support.samples import write_samples

WEAK, STRONG = "smollm2-135m", "qwen2.5-coder-1.5b"


def files(folder: Path, problems: range) -> list[Path]:
    """A model of a tenth of the size that is as good."""
    return [write_samples(folder, model=model, problems=problems, samples=8) for model in (WEAK, STRONG)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    target = Target.parse("match=self-consistency@8", by="flops")
    paths = files(tmp_path_factory.mktemp("several"), range(100))
    return calibrate(paths, CalibrationRecipe(target=target, folds=2, orders=1, workers=1))


def test_a_cascade_that_pays_is_chosen_and_read_back(policy: Policy) -> None:
    weak, strong = policy.tasks
    assert weak.arm(weak.chosen).rule.kind != "cascade"  # nothing smaller stands before it
    arm = strong.arm(strong.chosen)
    assert arm.rule.kind == "cascade"
    assert arm.rule.models == (WEAK,)
    alone = min(arm.held_out.flops or 0 for arm in strong.arms if arm.rule.kind != "cascade" and arm.n >= 8)
    assert (arm.held_out.flops or 0) < alone
    assert any("is chosen" in note for note in strong.other["notes"])
    assert Policy.read(policy.text) == policy


def test_the_cascade_is_replayed_on_new_problems(policy: Policy, tmp_path: Path) -> None:
    paths = files(tmp_path, range(200, 260))
    rows = compare(paths, [Spec.parse("self-consistency:n=8")], CompareSettings(seeds=1, workers=1, policy=policy))
    mine = {(row["model"], row["strategy"], row["n"]): row for row in rows}
    strong = policy.tasks[1]
    cascade, whole = mine[STRONG, "auto", strong.chosen], mine[STRONG, "self-consistency", 8]
    assert cascade["flops"] < whole["flops"]
    assert cascade["fallback_rate"] == 0


def test_a_smaller_model_that_is_always_wrong_is_left_out(tmp_path: Path) -> None:
    """Rules of one model and of two are charged in the same unit."""
    target = Target.parse("match=self-consistency@8", by="flops", margin=0.05)
    weak = write_samples(tmp_path, model=WEAK, problems=range(100), samples=8, right=False)
    sources = [
        open_source(path) for path in (weak, write_samples(tmp_path, model=STRONG, problems=range(100), samples=8))
    ]
    fits = [fit_source(source, target, 2, 0, (8,)) for source in sources]
    _, offer = offers(sources, fits, target, 2, 0, print)
    assert offer is not None
    assert offer.rule is None
    assert "did not pay" in offer.note


def test_models_are_compared_in_flops_only(tmp_path: Path) -> None:
    said: list[str] = []
    target = Target.parse("match=self-consistency@4")
    sources = [open_source(path) for path in files(tmp_path, range(100))]
    fits = [fit_source(source, target, 2, 0, (4,)) for source in sources]
    assert offers(sources, fits, target, 2, 0, said.append) == [None, None]
    assert len(said) == 1  # of the larger model
    assert "--by flops" in said[0]
