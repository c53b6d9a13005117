"""APGR, CPT, area over cost, calibration error: against values that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outthink.controller.routing_rules import Routing
from outthink.core.errors import BadInput
from outthink.evaluation.routing.data import CORE_HOUR, PAIR, ModelOutcomes, fold_of, groups
from outthink.evaluation.routing.figures import auc, curves, ece, platt, reliability
from outthink.evaluation.routing.report import evaluate

RNG = np.random.default_rng(5)


def data(weak: np.ndarray, strong: np.ndarray, extra: np.ndarray | None = None) -> ModelOutcomes:
    size = len(weak)
    prompts = tuple("p" * (1 + i % 7) + str(i) for i in range(size))
    return ModelOutcomes(
        name="made-up",
        prompts=prompts,
        models=PAIR,
        columns=PAIR,
        right=np.stack([weak * 1.0, strong * 1.0], axis=1),
        costs=np.stack([np.zeros(size), np.ones(size) if extra is None else extra], axis=1),
    )


def fixable(size: int = 1000, share: float = 0.2) -> tuple[ModelOutcomes, np.ndarray]:
    """No reversals; the strong model fixes exactly the prompts with the highest scores."""
    score = RNG.permutation(size) / size
    fixed = score >= 1 - share
    return data(~fixed, np.ones(size)), score


def test_a_perfect_router_needs_q_times_the_fixable_share() -> None:
    rows, score = fixable()
    for q in (0.2, 0.5, 0.8):
        assert curves(score, rows).cpt(q)[0] == pytest.approx(20 * q, abs=0.2)
    # One triangle to x = 0.2, then the full gap.
    assert curves(score, rows).apgr()[0] == pytest.approx(0.9, abs=0.005)


def test_cpt_is_the_first_crossing() -> None:
    # Accuracy rises to the strong model's, falls again, and rises: the first time counts. (Points 1 and 2,
    # the two highest deciles, are the same of ten rows.)
    weak = np.array([0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    strong = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 0])
    curve = curves(np.arange(10, 0, -1.0), data(weak, strong))
    assert curve.accuracy[[0, 1, 3, 4, 5], 0] == pytest.approx([0.2, 0.3, 0.4, 0.3, 0.2])
    assert curve.cpt(0.5)[0] == pytest.approx(10)
    assert curve.cpt(1.0)[0] == pytest.approx(20)


def test_ends_are_the_two_models() -> None:
    rows, score = fixable()
    curve = curves(score, rows)
    assert (curve.share[0, 0], curve.cost[0, 0], curve.accuracy[0, 0]) == (0, 0, rows.right[:, 0].mean())
    assert (curve.share[-1, 0], curve.cost[-1, 0], curve.accuracy[-1, 0]) == (1, 1, rows.right[:, 1].mean())
    assert len(curve.share) == 13


def test_ties_go_together() -> None:
    rows, score = fixable()
    result = set(np.round(curves((score >= 0.5) * 1.0, rows).share[:, 0], 6))
    assert result == {0.0, 0.5, 1.0}


def test_area_over_cost_is_not_area_over_calls() -> None:
    weak, strong = np.array([0, 0, 1, 1]), np.array([1, 1, 1, 1])
    even = curves(np.array([4.0, 3, 2, 1]), data(weak, strong))
    dear = curves(np.array([4.0, 3, 2, 1]), data(weak, strong, np.array([10.0, 10, 1, 1])))
    assert even.auc_cost()[0] == pytest.approx(0.875)
    assert dear.auc_cost()[0] == pytest.approx(1 - 0.25 * 20 / 22)
    assert even.apgr()[0] == dear.apgr()[0]


def test_the_routers_own_cost_is_charged() -> None:
    weak, strong = np.array([0, 0, 1, 1]), np.array([1, 1, 1, 1])
    curve = curves(np.array([4.0, 3, 2, 1]), data(weak, strong))
    # Free: up to 1 at half the cost. At a tenth: the same points a tenth later, the two models where they were.
    assert curve.auc_cost()[0] == pytest.approx(0.875)
    assert curve.charged(0.1)[[0, 1, -2, -1], 0] == pytest.approx([0.0, 0.35, 1.1, 1.0])
    assert curve.auc_cost(0.1)[0] == pytest.approx(0.35 * 0.625 + 0.25 * 0.875 + 0.4)
    # Dearer than the strong model: only the two models are left, and mixes of them.
    assert curve.auc_cost(2.0)[0] == pytest.approx(0.75)


def test_processor_time_becomes_a_share_of_the_cost() -> None:
    rows, score = fixable(200)
    priced = replace(rows, costs=rows.costs * 0.001)
    assert priced.share_of_cost(3.6) == pytest.approx(3.6 / 3.6e6 * CORE_HOUR / 0.001)
    beliefs = np.stack([np.zeros(200), score], axis=1)
    free, slow = (evaluate(priced, beliefs, router_ms=ms, resamples=20) for ms in (0.0, 720.0))
    assert slow["router_cost_share"] == pytest.approx(0.01)
    assert slow["apgr"] == free["apgr"]
    assert slow["auc_cost"] < free["auc_cost"]
    ends = [(point["cost_share"], point["accuracy"]) for point in (slow["curve"][0], slow["curve"][-1])]
    assert ends == [(0.0, slow["weak"]), (1.0, slow["strong"])]


@pytest.mark.parametrize("way", ["smallest-likely", "strong-weak"])
def test_the_ends_of_a_threshold_are_the_single_models_cost_included(way: str) -> None:
    weak, strong = RNG.random(300) < 0.5, RNG.random(300) < 0.8
    costs = RNG.random((300, 2)) * (1.0, 9.0) + (0.0, 1.0)
    chances = RNG.random((300, 2))
    for tau, column, right in ((0.0, 0, weak), (1.0001, 1, strong)):
        # A router of strong and weak sends to the strong model from tau on: its ends are the other way round.
        limit = tau if way == "smallest-likely" else {0: 1.0001, 1: -1.0}[column]
        routing = Routing(way, limit, ("weak", "strong"), (1.0, 9.0))  # type: ignore[arg-type]
        chosen = np.array([routing.place(row) for row in chances.tolist()])
        every = np.arange(300)
        assert (np.stack([weak, strong], axis=1)[every, chosen] == right).all()
        assert (costs[every, chosen] == costs[:, column]).all()


def test_a_constant_score_is_undefined() -> None:
    rows, _ = fixable(200)
    report = evaluate(rows, np.full((200, 2), 0.5), router_ms=1.0, resamples=20)
    for name in ("apgr", "apgr_low", "cpt50", "cpt80_high", "auc_cost", "paired_low"):
        assert report[name] is None


def test_no_gap_is_undefined_and_cpt_never() -> None:
    rows = data(np.array([1, 0, 1, 0]), np.array([0, 1, 0, 1]))
    beliefs = np.array([[0.5, 0.6], [0.5, 0.7], [0.4, 0.1], [0.3, 0.9]])
    report = evaluate(rows, beliefs, router_ms=None, resamples=20)
    assert report["apgr"] is report["cpt50"] is report["cpt80"] is report["controls"]["random"]["apgr"] is None


def test_controls_of_a_random_router() -> None:
    rows, _ = fixable(600)
    beliefs = np.stack([np.zeros(600), RNG.random(600)], axis=1)
    report = evaluate(rows, beliefs, router_ms=None, resamples=200)
    control = report["controls"]
    assert abs(report["apgr"] - 0.5) < 3 * control["random"]["apgr_sd"]
    assert control["random"]["apgr_sd"] < 0.1
    assert control["random"]["apgr"] == pytest.approx(0.5, abs=0.02)
    assert (control["weak"]["apgr"], control["strong"]["apgr"]) == (0.0, 1.0)
    assert control["oracle"]["apgr"] == pytest.approx(0.9, abs=0.005)
    assert report["apgr_low"] < report["apgr"] < report["apgr_high"]
    assert report["paired_low"] < report["paired_high"]


def test_intervals_resample_whole_groups() -> None:
    """Ten copies of each prompt hold no more evidence than one."""
    rows, score = fixable(100)
    ten = rows.take(np.tile(np.arange(100), 10))
    once = curves(score, rows, resamples=300).apgr()
    copied = curves(np.tile(score, 10), ten, resamples=300).apgr()
    assert copied.std() == pytest.approx(once.std(), rel=0.25)
    apart = replace(ten, prompts=tuple(map(str, range(1000))))
    loose = curves(np.tile(score, 10), apart, resamples=300).apgr()
    assert loose.std() < 0.5 * once.std()


def test_calibration_error_and_ranks() -> None:
    right = np.array([0.0, 0, 1, 1] * 50)
    assert ece(np.full(200, 0.5), right, bins=1) == 0
    assert ece(np.full(200, 0.8), right, bins=1) == pytest.approx(0.3)
    assert auc(right, right) == 1
    assert auc(np.zeros(200), right) == 0.5
    assert auc(np.array([1.0, 2, 3]), np.ones(3)) is None
    assert sum(row["n"] for row in reliability(RNG.random(203), np.ones(203))) == 203


def test_platt_mends_logits_that_are_too_sure() -> None:
    truth = RNG.normal(size=20_000)
    right = (RNG.random(20_000) < 1 / (1 + np.exp(-(0.5 * truth + 1)))) * 1.0
    slope, shift = platt(4 * truth, right)
    assert slope == pytest.approx(0.125, rel=0.1)
    assert shift == pytest.approx(1, rel=0.1)
    assert platt(-4 * truth, right)[0] == 0.0


def test_equal_prompts_share_a_fold() -> None:
    prompts = [f"prompt {i % 40}" for i in range(100)] + ["PROMPT  3"]
    group = groups(prompts)
    assert group.max() == 39
    fold = fold_of(group, 5, seed=1)
    assert all(len(set(fold[group == index])) == 1 for index in range(40))
    assert fold[3] == fold[100]
    assert sorted(np.bincount(fold_of(np.arange(40), 5, 0))) == [8] * 5
    with pytest.raises(BadInput, match="different prompts cannot fill"):
        fold_of(group[:3], 5, 0)
