"""The latency planner and the exchange value: the exact cases, and what must hold for every plan."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.economics.gpus import H200
from outthink.economics.hardware import Hardware, Shape, exchange_value, free_branches, step_seconds
from outthink.economics.latency import DeadlineTooShort, Draft, Fit, Load, plan, shed

LOAD = Load(hardware=H200, shape=Shape(parameters=7e9, kv_bytes=57_344), prompt=500)


def accuracy(branches: int, cap: int) -> float:
    """More of either helps, with diminishing returns."""
    return 1 - 0.5 / math.sqrt(branches) - 30 / (cap + 60)


@pytest.mark.parametrize(("ratio", "value"), [(0.16, 257.75), (0.79, 63.37), (22, 15.77)])
def test_exchange_value(ratio: float, value: float) -> None:
    assert round(exchange_value(14, ratio), 2) == value
    assert exchange_value(1, ratio) == 1


@pytest.mark.parametrize(("larger", "ratio"), [(0.5, 1), (14, 0), (14, -1), (float("nan"), 1)])
def test_exchange_refuses_nonsense(larger: float, ratio: float) -> None:
    with pytest.raises(BadInput):
        exchange_value(larger, ratio)


def test_free_branches_of_dense_bf16() -> None:
    assert int(free_branches(Hardware(flops=989e12, bandwidth=4.8e12))) == 206
    assert free_branches(H200, 1.0) == pytest.approx(free_branches(H200) / 2)


def test_a_step_is_flat_up_to_there_and_linear_beyond() -> None:
    shape = Shape(parameters=7e9)
    one = step_seconds(H200, shape, 1)
    assert one == pytest.approx(14e9 / 4.8e12)
    assert step_seconds(H200, shape, 206) == one
    assert step_seconds(H200, shape, 412) == pytest.approx(2 * one, rel=0.01)
    cached = Shape(parameters=7e9, kv_bytes=57_344)
    assert step_seconds(H200, cached, 100, 1000, 100) == pytest.approx((14e9 + 57_344 * 1e5) / 4.8e12)


def test_tokens_a_step_of_a_draft() -> None:
    assert Draft(acceptance=0.8).tokens_a_step(0) == pytest.approx(1)
    assert Draft(acceptance=0.8).tokens_a_step(4) == pytest.approx(1 + 0.8 + 0.64 + 0.512 + 0.4096)
    assert Draft(acceptance=0.0).tokens_a_step(4) == 1


def test_a_deadline_shorter_than_a_prefill_is_refused() -> None:
    with pytest.raises(DeadlineTooShort) as refusal:
        plan(LOAD, LOAD.prefill * 0.99, accuracy)
    assert refusal.value.exit_code == 2
    assert refusal.value.needed > LOAD.prefill
    assert "budget seconds" in str(refusal.value)
    with pytest.raises(BadInput):
        plan(LOAD, 0, accuracy)


def test_a_deadline_shorter_than_the_smallest_cap_shortens_it() -> None:
    short = plan(LOAD, LOAD.seconds(1, 20), accuracy)
    assert short[:3] == (1, 0, 20)


def test_equal_accuracy_is_bought_with_branches_not_depth() -> None:
    either = plan(LOAD, 60, lambda branches, cap: min(1.0, branches * cap / 4096))
    assert (either.cap, either.branches) == (128, 32)


def test_no_branch_is_admitted_where_nothing_is_idle() -> None:
    full = replace(LOAD, busy=500, context=800)
    assert plan(full, 60, accuracy, drafting=Draft(acceptance=0.9)).branches == 1


def test_what_is_shed_first() -> None:
    fit, drafting = Fit(16, 4, 1024, 0.0, 0.9), Draft(acceptance=0.7)
    assert shed(fit, LOAD, 60, drafting=drafting)[:3] == (16, 4, 1024)
    busier = replace(LOAD, busy=206 - 16, context=100)
    assert shed(fit, busier, 60, drafting=drafting)[:3] == (16, 0, 1024)
    assert shed(fit, busier, 60, drafting=drafting).accuracy == 0.9  # drafts change the speed alone
    full = replace(LOAD, busy=206 - 4, context=100)
    assert shed(fit, full, 60, drafting=drafting)[:3] == (4, 0, 1024)
    tight = shed(fit, replace(LOAD, busy=206, context=100), 0.5)
    assert tight[:2] == (1, 0)
    assert tight.cap < 1024
    assert math.isnan(tight.accuracy)
    with pytest.raises(DeadlineTooShort):
        shed(fit, LOAD, 0.001)


@given(st.floats(0.02, 30), st.integers(0, 400), st.floats(0, 0.95), st.integers(1, 4000))
@settings(max_examples=80, deadline=None)
def test_every_plan_keeps_the_deadline_and_leaves_others_alone(
    deadline: float, busy: int, acceptance: float, prompt: int
) -> None:
    load, drafting = replace(LOAD, busy=busy, context=500, prompt=prompt), Draft(acceptance=acceptance, cost=0.05)
    if deadline < load.seconds(1, 1):
        with pytest.raises(DeadlineTooShort):
            plan(load, deadline, accuracy, drafting=drafting)
        return
    fit = plan(load, deadline, accuracy, drafting=drafting)
    assert fit.seconds <= deadline
    assert fit.branches * (1 + fit.draft) <= load.idle
    for left in (deadline, deadline / 2):
        if left < load.seconds(1, 1):
            continue
        smaller = shed(fit, load, left, drafting=drafting)
        assert smaller.seconds <= left
        assert smaller.branches <= fit.branches
        assert smaller.cap <= fit.cap
        if smaller.cap < fit.cap:
            assert (smaller.branches, smaller.draft) == (1, 0)
        elif smaller.branches < fit.branches:
            assert smaller.draft == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Hardware(flops=0, bandwidth=1),
        lambda: Shape(parameters=float("inf")),
        lambda: Draft(acceptance=1.0),
        lambda: replace(LOAD, busy=-1),
        lambda: plan(LOAD, 1, accuracy, branches=()),
    ],
)
def test_bad_input(wrong) -> None:
    with pytest.raises(BadInput):
        wrong()
