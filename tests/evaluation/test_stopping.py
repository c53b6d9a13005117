"""Stopping rules over arrays: the same as rule by rule, blind to what they are judged on, beside honest controls."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.controller.policy.rules import Lead, LinearGain, VoteShape, rule_from_json
from outthink.core.errors import BadInput
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.calibration.counts import VoteCounts
from outthink.evaluation.calibration.fit import certainty
from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.calibration.votes import (
    EQUAL,
    SWAY,
    Dealt,
    Ridge,
    Table,
    after,
    below,
    deal_one,
    reached,
    walk,
)
from outthink.evaluation.replay import MEASURES, rerun
from outthink.strategies import Spec, Votes
from outthink.strategies.voting import Rule
from stopping import Spent, Sweep, at_random, held_out, in_orders, nested_gains, oracle
from support.recorded import DEMO, needs_demo

pytestmark = needs_demo
ORDERS, DEPTH = 2, 16


@cache
def traces() -> Traces:
    return load(DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet")


@cache
def table() -> Table:
    return deal_one(traces(), orders=ORDERS, depth=DEPTH)


def spent() -> Spent:
    total = table().models[0].spent()
    return Spent(total, total)


def fed(rule: Rule, name: str, order: int) -> tuple[bool, int]:
    """Whether a rule is right on one problem, and after how many samples it stops."""
    problem = traces().problems[name]
    count = 0
    for sample in in_orders(problem, ORDERS)[order][:DEPTH]:
        count += 1
        if rule.add(sample, None):
            break
    return rule.verdict().answer in problem.right, count


SOMETIMES = st.floats(-3, 3) | st.none()
DRAWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 900), SOMETIMES, SOMETIMES), min_size=2, max_size=9)


@given(DRAWS, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_arrays_hold_what_one_request_sees(draws: list[Any], sway: tuple[float, float]) -> None:
    """The same votes, one by one and over arrays: the same lead and terms after every sample."""
    codes, tokens, logprobs, confidences = (np.array([[column]], dtype=float) for column in zip(*draws, strict=True))
    dealt = Dealt("m", codes.astype(int), tokens, np.zeros(1), logprobs, confidences, 1.0)
    result = walk(Table(("p",), np.ones((1, 4), dtype=bool), (dealt,)), 0, sway, depth=len(draws))
    shape = VoteShape(result.scale, len(draws), sway)
    for k, (code, length, logprob, confidence) in enumerate(draws):
        trace = None if confidence is None else ConfidenceTrace([confidence], 16, 1)
        answer = None if code < 0 else str(code)
        shape.add(Sample(k, "", answer, "none", length, mean_logprob=logprob, confidence=trace))
        assert shape.lead == pytest.approx(result.lead[0, 0, k + 1])
        if k + 1 < len(draws):
            assert shape.terms() == pytest.approx(result.terms[0, 0, k].tolist(), rel=1e-9, abs=1e-9)


FEW = st.sampled_from([0.1, 0.2, 0.3, -0.7]) | st.none()
LIKE = st.tuples(st.just(8) | st.integers(7, 9), FEW, FEW, st.just(1.0) | st.sampled_from([0.3, 0.6]))


@st.composite
def tied(draw: st.DrawFn) -> list[Any]:
    """Samples of two answers that are alike but for their order, among a few others."""
    like = draw(st.lists(LIKE, min_size=3, max_size=4))
    others = draw(st.lists(st.tuples(st.integers(-1, 3), LIKE), max_size=2))
    return draw(st.permutations([*((code, one) for code in (0, 1) for one in like), *others]))


@given(st.lists(tied(), min_size=1, max_size=3))
def test_arrays_break_ties_as_one_request_does(requests: list[list[Any]]) -> None:
    """Unknown confidences included: the same two largest weights, and the same winner."""
    votes = VoteCounts((len(requests), 1), 4)
    alone = [Votes() for _ in requests]
    for k in range(min(map(len, requests))):
        column = zip(*((request[k][0], *request[k][1]) for request in requests), strict=True)
        codes, tokens, logprobs, confidences, weights = (np.array(values, dtype=float)[:, None] for values in column)
        certain = np.where(np.isnan(confidences), logprobs, confidences)
        votes.add(codes.astype(int), weights, certain, tokens)
        for place, (request, one) in enumerate(zip(requests, alone, strict=True)):
            code, (length, logprob, confidence, weight) = request[k]
            trace = None if confidence is None else ConfidenceTrace([confidence], 16, 1)
            answer = None if code < 0 else str(code)
            one.add(Sample(k, "", answer, "none", length, mean_logprob=logprob, confidence=trace), weight)
            assert (votes.leader[place, 0], votes.second[place, 0]) == one.top()
            if one.weights:
                assert str(votes.winner()[place, 0]) == one.winner().answer


@pytest.mark.parametrize("sway", [(0.5, 0.0), SWAY])
def test_weighted_thresholds_stop_as_the_arrays_say(sway: tuple[float, float]) -> None:
    result = walk(table(), 0, sway, depth=DEPTH)
    for limit in (0.55, 1.05, 1.55):
        stop = reached(result.lead[..., 1:], limit)
        right = after(result.right, stop)
        rule = rule_from_json(Lead(result.scale, DEPTH, sway, limit).json())
        for row, name in enumerate(table().names):
            for order in range(ORDERS):
                assert fed(rule.start(DEPTH, None), name, order) == (right[row, order] == 1, stop[row, order])


def test_a_learned_rule_stops_as_the_arrays_say() -> None:
    everyone = np.ones(len(table().names), dtype=bool)
    result = walk(table(), 0, SWAY, depth=DEPTH)
    ridge = Ridge(result)
    coefficients = ridge.fit(everyone)
    stop = below(ridge.gains(coefficients, everyone), 0.02)
    rule = LinearGain(result.scale, DEPTH, SWAY, ridge.plain(coefficients), 0.02)
    same = [
        fed(rule.start(DEPTH, None), name, order)[1] == stop[row, order]
        for row, name in enumerate(table().names)
        for order in range(ORDERS)
    ]
    assert np.mean(same) > 0.98  # single precision in the arrays
    assert stop.min() < stop.max()


def test_equal_votes_are_as_sure_as_adaptive_consistency() -> None:
    plain = walk(table(), 0, EQUAL, depth=DEPTH)
    stop = reached(certainty(plain), 0.95)
    cost = after(table().models[0].spent(), stop)
    spec = Spec.parse(f"adaptive-consistency:n={DEPTH}")
    run = rerun(ReplayEngine(traces()), [spec], list(table().names), ORDERS, 1)[0].values
    row = dict(zip(MEASURES, run, strict=True))
    assert after(plain.right, stop).mean(axis=1).tolist() == row["accuracy"].tolist()
    prompts = row["tokens"] + row["prompt_tokens"]
    flops = table().models[0].flops
    assert (cost.mean(axis=1) / flops).tolist() == pytest.approx(prompts.tolist())


class Counting:
    """A regression that answers with the problems it was fitted on."""

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        assert not (train & problems).any()
        return np.full((int(problems.sum()), 1, 1), float((2.0 ** np.flatnonzero(train)).sum()))


def test_no_fold_takes_part_in_what_it_is_judged_by() -> None:
    fold = np.arange(12) % 4
    for outer, gains in enumerate(nested_gains(Counting(), fold)):
        for problem, value in enumerate(gains[:, 0, 0].astype(int).tolist()):
            fitted = {k for k in range(12) if value >> k & 1}
            assert {int(fold[k]) for k in fitted} == set(range(4)) - {outer, int(fold[problem])}


def test_the_operating_point_is_that_of_the_other_folds() -> None:
    """A point that is perfect and free on the held-out fold alone is never taken for it."""
    rng = np.random.default_rng(0)
    fold = np.arange(200) % 2
    aim = np.full(200, 0.5)
    lucky = np.where(fold == 0, 1.0, 0.0)
    accuracy = np.stack([aim, lucky])
    cost = np.stack([np.full(200, 10.0), np.full(200, 1.0)]) + rng.random((2, 200)) / 100
    sweep = Sweep(("dear", "lucky"), accuracy, cost, cost)
    result = held_out([sweep, sweep], fold, aim, 0.005)
    assert result.chosen == ("dear", "lucky")
    assert result.accuracy[fold == 0].mean() == 0.5
    assert result.accuracy[fold == 1].mean() == 0.0


def test_the_oracle_is_never_beaten_and_chance_costs_what_it_is_told() -> None:
    result = walk(table(), 0, EQUAL, depth=DEPTH)
    best = oracle(result.right, spent())
    whole = result.right[..., DEPTH].mean()
    assert best.accuracy[-1].mean() >= result.right.mean(axis=(0, 1)).max() >= whole
    for rising in (best.cost, best.accuracy):
        assert (np.diff(rising.mean(axis=1)) >= 0).all()
    assert best.cost[0].mean() == pytest.approx(spent().cost[..., 1].mean())
    middle = float(spent().cost[..., DEPTH].mean() / 3)
    accuracy, cost, _ = at_random(result.right, spent(), middle)
    assert cost.mean() == pytest.approx(middle, rel=1e-6)
    assert result.right[..., 1].mean() < accuracy.mean() < whole


def test_a_broken_weighted_rule_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^scale\.logprob: None is missing; calibrate again"):
        rule_from_json({"kind": "weighted-adaptive", "scale": {}, "horizon": 4, "sway": [0, 0], "limit": 1.0})
    with pytest.raises(BadInput, match=r"^threshold: None is missing"):
        rule_from_json({"kind": "adaptive"})
