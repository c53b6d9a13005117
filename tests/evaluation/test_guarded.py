"""The guarded choice: what it promises holds on problems that it has not seen, and where it cannot it says so."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.policy.promise import Promise, weakest
from outthink.core.errors import BadInput
from outthink.evaluation.calibration.losses import (
    GuardedChoice,
    LossLimit,
    LossMatrix,
    judge,
    quantile,
    share_at_least,
    typical_loss,
)

ALLOWED = LossLimit(0.005, 0.1, "self-consistency@32")


def matrix(losses: Any, costs: Any) -> LossMatrix[str]:
    losses = np.atleast_2d(losses)
    arms = tuple(f"arm {k}" for k in range(len(losses)))
    names = tuple(str(k) for k in range(losses.shape[1]))
    return LossMatrix(arms, names, losses, np.broadcast_to(np.array(costs, float)[:, None], losses.shape).copy())


def drawn(rng: np.random.Generator, problems: int, arms: int = 40) -> LossMatrix[str]:
    """Problems of a world in which arm k loses 0.02 x (1 - k / 20) on average: the first half loses more than half a
    point. Arms are correlated, as thresholds are: who stops early loses what a later one loses, too."""
    shares = np.linspace(0.02, 0.0, arms)
    luck, sign = rng.random(problems), np.where(rng.random(problems) < 0.25, -0.5, 0.5)
    hit = luck[None, :] < 5 * shares[:, None]  # mean of the sign x size is 0.25, so 5 x share x 0.2 = share
    sizes = np.where(sign > 0, 0.5, -0.7)[None, :]
    losses = np.where(hit, sizes, 0.0)
    reference = np.zeros((1, problems))
    return matrix(np.concatenate([reference, losses]), [1.0, *np.linspace(0.2, 0.9, arms)])


def world_losses(arms: int = 40) -> np.ndarray:
    """True mean losses of `drawn`."""
    return np.concatenate([[0.0], 5 * np.linspace(0.02, 0.0, arms) * (0.75 * 0.5 - 0.25 * 0.7)])


def test_numbers_of_the_bound() -> None:
    assert quantile(0.1) == pytest.approx(1.2816, abs=1e-4)
    assert ALLOWED.levels == pytest.approx((0.1, 0.05, 0.02, 0.01, 0.005))
    assert LossLimit(0.005, 0.2, "x").levels == pytest.approx((0.2, 0.1, 0.04, 0.02, 0.01))
    losses = np.array([[0.0] * 100, [0.2] * 5 + [0.0] * 95])
    choice = GuardedChoice(matrix(losses, [2.0, 1.0]), ALLOWED, 0)
    spread = ((5 * 0.04 - 100 * 0.01**2 + 0.2**2) / 101) ** 0.5
    assert choice.bounds(0.1).tolist() == pytest.approx([0.0, 0.01 + NormalDist().inv_cdf(0.9) * spread / 10])
    assert typical_loss(losses) == pytest.approx(0.2)


def test_the_lower_bound_of_a_share_is_the_score_interval() -> None:
    assert share_at_least(372, 400) == pytest.approx(0.9060, abs=1e-4)
    assert share_at_least(0, 400) == pytest.approx(0.0, abs=1e-12)
    assert share_at_least(400, 400) < 1


def test_the_point_choice_breaks_the_promise_and_the_guarded_one_keeps_it() -> None:
    """Fresh problems each time, true losses known: no bootstrap on either side."""
    rng = np.random.default_rng(3)
    true, kept, lucky, promised, runs = world_losses(), 0, 0, 0, 200
    for _ in range(runs):
        data = drawn(rng, 400)
        place, promise = GuardedChoice(data, ALLOWED, 0).promise()
        kept += true[place] <= ALLOWED.margin
        promised += promise.kept
        lucky += true[np.where(data.losses.mean(axis=1) <= ALLOWED.margin, data.costs[:, 0], np.inf).argmin()] <= 0.005
    assert kept / runs >= 0.9
    assert lucky / runs < 0.75
    assert promised / runs > 0.5  # it does not keep it by never choosing anything


def test_a_stricter_risk_is_never_cheaper_for_the_same_data() -> None:
    data = drawn(np.random.default_rng(5), 600)
    costs = []
    for risk in (0.3, 0.1, 0.03):
        place, _ = GuardedChoice(data, LossLimit(0.005, risk, "x"), 0).promise()
        costs.append(data.costs[place, 0])
    assert costs == sorted(costs)


def test_where_nothing_qualifies_self_consistency_is_taken_and_the_need_is_told() -> None:
    rng = np.random.default_rng(0)
    data = matrix(np.stack([np.zeros(60), np.where(rng.random(60) < 0.1, 0.3, 0.0) - 0.03]), [2.0, 1.0])
    place, promise = GuardedChoice(data, ALLOWED, 0).promise()
    assert place == 0
    assert not promise.kept
    loss, problems = float(data.losses[1].mean()), 60
    size = typical_loss(data.losses)
    spread = ((problems * data.losses[1].var() + size**2) / (problems + 1)) ** 0.5
    room = 0.005 - loss
    if promise.needed is not None and promise.needed > 61:
        z = quantile(ALLOWED.levels[0])
        strict = quantile(ALLOWED.levels[-1])
        assert promise.needed in {int(np.ceil((factor * spread / room) ** 2)) for factor in (z, strict)}
    assert "nothing is lost, nothing saved" in promise.words()[0]


def test_the_need_is_a_formula() -> None:
    """An arm that loses 0.2 on 1 of 50 problems, of which 60 are known."""
    losses = np.zeros((2, 100))
    losses[1, :2] = 0.2
    place, promise = GuardedChoice(matrix(losses, [2.0, 1.0]), ALLOWED, 0).promise()
    assert place == 0
    mean = 0.004
    spread = ((100 * (2 * 0.04 / 100 - mean**2) + 0.04) / 101) ** 0.5
    z = {quantile(level) for level in ALLOWED.levels}
    assert promise.needed in {int(np.ceil((each * spread / (0.005 - mean)) ** 2)) for each in z}


def test_a_handful_of_problems_promises_nothing_however_well_they_went() -> None:
    losses = np.zeros((3, 8))
    losses[2, 0] = 0.25
    place, promise = GuardedChoice(matrix(losses, [3.0, 1.0, 0.5]), ALLOWED, 0).promise()
    assert place == 0
    assert promise.needed is not None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 80), st.floats(0, 0.2), st.floats(0.01, 0.49))
def test_what_is_chosen_is_within_its_bound_or_is_what_is_matched(
    seed: int, problems: int, margin: float, risk: float
) -> None:
    rng = np.random.default_rng(seed)
    data = matrix(
        np.concatenate([np.zeros((1, problems)), rng.normal(0, 0.1, (6, problems)).round(1)]), [9, *rng.random(6)]
    )
    choice = GuardedChoice(data, LossLimit(margin, risk, "x"), 0)
    place, promise = choice.promise()
    assert (place, promise) == GuardedChoice(data, LossLimit(margin, risk, "x"), 0).promise()
    if promise.level is None:
        assert place == 0
        return
    bounds, costs = choice.bounds(promise.level), data.costs[:, 0]
    assert bounds[place] == pytest.approx(promise.bound)
    assert bounds[place] <= margin + 1e-9
    assert not [k for k in range(7) if costs[k] < costs[place] and bounds[k] <= margin]
    assert share_at_least(round((promise.reliability or 0) * choice.allowed.trials), choice.allowed.trials) >= 1 - risk


@pytest.mark.parametrize("risk", [0.0, 0.5, -0.1, 1.0, float("nan")])
def test_a_risk_outside_of_what_makes_sense_is_refused(risk: float) -> None:
    with pytest.raises(BadInput, match=r"--risk.*between 0 and 0\.5"):
        LossLimit(0.005, risk, "x")


def promise(**more: Any) -> Promise:
    known = {"margin": 0.01, "risk": 0.1, "bound": 0.008, "level": 0.05, "reliability": 0.95, "problems": 500}
    return Promise(**{**known, "against": "self-consistency@8", **more})


def test_three_verdicts_on_new_problems() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 1000)
    noise -= noise.mean()
    assert judge(noise, promise()).state == "confirmed"
    assert judge(noise + 0.05, promise()).state == "broken"
    unsure = judge(noise + 0.009, promise())
    assert unsure.state == "open"
    assert unsure.needed is not None
    assert unsure.needed == pytest.approx((quantile(0.1) * noise.std() / 0.001) ** 2, rel=0.01)
    assert unsure.loss == pytest.approx(0.009)
    assert unsure.low < unsure.loss < unsure.high


def test_ten_problems_without_a_loss_confirm_nothing() -> None:
    assert judge(np.zeros(10), promise()).state == "open"
    assert judge(np.zeros(2000), promise()).state == "confirmed"
    assert judge(np.zeros(10), promise(level=None)).state == "confirmed"  # self-consistency itself


def test_a_policy_promises_what_its_weakest_task_does() -> None:
    sure, unsure, fallen = promise(), promise(reliability=0.91), promise(level=None, reliability=None)
    assert weakest([sure, unsure]) == unsure
    assert weakest([sure, fallen, unsure]) == fallen
    assert weakest([]) is None


def test_a_promise_is_said_without_formulas() -> None:
    first, second = promise().words()
    assert first == (
        "at most 1 points of accuracy are lost against self-consistency@8, in at least 90% of calibrations like this "
        "one; 95% of resampled calibrations kept it"
    )
    assert second == "on 500 problems the loss is at most 0.80 points, 95.0% sure"
    assert promise(bound=-0.0003).words()[1] == (
        "on 500 problems nothing is lost, and at least 0.03 points are won, 95.0% sure"
    )
