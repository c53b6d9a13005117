"""`auto` with a log of outcomes: what is drawn, what is written, and when nothing is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outthink import BadInput, Result, ask_sync
from outthink.controller.online import Arm, Learner
from outthink.controller.online.feedback import price_of
from outthink.engines.scripted import Completion, ScriptedEngine
from support.policies import policy
from support.samples import question

TEXT = question(3)


def answered(log: Path, **more: Any) -> Result:
    engine = ScriptedEngine(lambda call: Completion(answer="7", tokens=100), model="tiny", prompt_tokens=20)
    options: dict[str, Any] = {"answer": "number", "policy": policy(), "strategy": "auto", "learn": log} | more
    return ask_sync(TEXT, model=engine, **options)


def test_a_request_draws_an_arm_and_its_cost_and_outcome_are_learned(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(12):
        result = answered(log)
        received = next(note for note in result.receipt.notes if " drew " in note)
        request, _, arm = received.split()[:3]
        learner = Learner(log)
        assert learner.choices[request].arm == arm
        assert learner.costs[request] == result.receipt.tokens
        assert len(result.receipt.entries) == int(arm.partition("@")[2])
        learner.learn(request, right=arm == "fixed@2")
        learner.close()
    learner = Learner(log)
    chances = {belief.arm.name: belief.propensity for belief in learner.beliefs()}
    learner.close()
    assert set(chances) == {"fixed@2", "fixed@4", "fixed@8"}  # what reaches the 60 % of fixed@4
    assert sum(chances.values()) == pytest.approx(1)


def test_a_budget_that_excludes_an_arm_teaches_nothing(tmp_path: Path) -> None:
    result = answered(tmp_path / "log.jsonl", budget="tokens=600")
    assert any("the budget does not allow every arm" in note for note in result.receipt.notes)
    assert not (tmp_path / "log.jsonl").exists()


def test_another_model_teaches_nothing(tmp_path: Path) -> None:
    result = answered(tmp_path / "log.jsonl", answer="text")
    assert any("nothing is learned" in note for note in result.receipt.notes)


def test_a_log_needs_auto(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="learn"):
        answered(tmp_path / "log.jsonl", strategy="single", policy=None)


def test_at_the_price_calibration_prefers_the_policys_own_arm() -> None:
    arms = [Arm("a", 0.5, 0.4, 0.6, 1), Arm("b", 0.6, 0.5, 0.7, 2), Arm("c", 0.65, 0.6, 0.7, 4)]
    price = price_of(arms, "b")
    assert price == pytest.approx((0.1 + 0.025) / 2)
    assert max(arms, key=lambda arm: arm.mean - price * arm.cost).name == "b"
    assert price_of(arms[1:], "b") == pytest.approx(0.025)
