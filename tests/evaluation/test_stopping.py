"""Stopping rules over arrays: the same as rule by rule, blind to what they are judged on, beside honest controls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.controller.policy.judging import Judging, log_odds
from outthink.controller.policy.rules import Sway, VoteShape
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.traces import ReplayEngine
from outthink.evaluation.calibration.losses import Array, Mask
from outthink.evaluation.calibration.votes import (
    EQUAL,
    Dealt,
    Table,
    after,
    certainty,
    reached,
    walk,
)
from outthink.evaluation.replay import MEASURES, rerun
from outthink.strategies import Spec
from stopping import Totals, at_random, crossed, esc_after, first_right
from support.recorded import demo_table, demo_traces, needs_demo

pytestmark = needs_demo
ORDERS, DEPTH = 2, 16


def table() -> Table:
    return demo_table(ORDERS, DEPTH)


SOMETIMES = st.floats(-3, 3) | st.none()
SCORE = st.floats(0, 1) | st.none()
DRAW = st.tuples(st.integers(-1, 3), st.integers(0, 900), SOMETIMES, SOMETIMES, st.booleans(), SCORE)
DRAWS = st.lists(DRAW, min_size=2, max_size=9)
JUDGING = st.builds(Judging, st.just("last"), st.floats(0.5, 3), st.floats(0, 1.5), st.just(1.0)) | st.none()


@given(DRAWS, st.builds(Sway, st.floats(0, 1), st.floats(0, 1), st.floats(-2, 0)), JUDGING)
def test_arrays_hold_what_one_request_sees(draws: list[Any], sway: Sway, judging: Judging | None) -> None:
    """The same votes, one by one and over arrays: the same lead and terms after every sample."""
    *columns, scores = zip(*draws, strict=True)
    codes, tokens, logprobs, confidences, cut = (np.array([[column]], dtype=float) for column in columns)
    odds = np.array([[[math.nan if score is None else log_odds((score,), "last") for score in scores]]])
    dealt = Dealt("m", codes.astype(int), tokens, np.zeros(1), logprobs, confidences, cut, odds, 0 * cut, 1.0)
    result = walk(Table(("p",), np.ones((1, 4), dtype=bool), (dealt,)), 0, sway, depth=len(draws), judging=judging)
    shape = VoteShape(result.scale, len(draws), sway, judging)
    for k, (code, length, logprob, confidence, ended, score) in enumerate(draws):
        trace = None if confidence is None else ConfidenceTrace([confidence], 16, 1)
        answer = None if code < 0 else str(code)
        why = "length" if ended else "stop"
        judged = () if score is None else (score,)
        sample = Sample(k, "", answer, "none", length, why, mean_logprob=logprob, confidence=trace, scores=judged)
        shape.add(sample)
        assert shape.lead == pytest.approx(result.lead[0, 0, k + 1])
        if k + 1 < len(draws):
            assert shape.terms() == pytest.approx(result.terms[0, 0, k].tolist(), rel=1e-9, abs=1e-9)


def test_equal_votes_are_as_sure_as_adaptive_consistency() -> None:
    plain = walk(table(), 0, EQUAL, depth=DEPTH)
    stop = reached(certainty(plain), 0.95)
    cost = after(table().models[0].spent(), stop)
    spec = Spec.parse(f"adaptive-consistency:n={DEPTH}")
    run = rerun(ReplayEngine(demo_traces()), [spec], list(table().names), ORDERS, 1)[0].values
    row = dict(zip(MEASURES, run, strict=True))
    assert after(plain.right, stop).mean(axis=1).tolist() == row["accuracy"].tolist()
    prompts = row["tokens"] + row["prompt_tokens"]
    flops = table().models[0].flops
    assert (cost.mean(axis=1) / flops).tolist() == pytest.approx(prompts.tolist())


def test_early_stopping_over_arrays_is_that_of_the_strategy() -> None:
    stop = esc_after(table().models[0].codes)
    spec = Spec.parse(f"esc:n={DEPTH},window=5")
    run = rerun(ReplayEngine(demo_traces()), [spec], list(table().names), ORDERS, 1)[0].values
    row = dict(zip(MEASURES, run, strict=True))
    assert after(Totals.of(table()).tokens, stop).mean(axis=1).tolist() == row["tokens"].tolist()
    assert 5 < stop.mean() < DEPTH


class Counting:
    """A regression that answers with the problems it was fitted on."""

    def gains_without(self, train: Mask, problems: Mask) -> Array:
        assert not (train & problems).any()
        return np.full((int(problems.sum()), 1, 1), float((2.0 ** np.flatnonzero(train)).sum()))


def test_no_fold_takes_part_in_what_it_is_judged_by() -> None:
    fold = np.arange(12) % 4
    for problem, value in enumerate(crossed(Counting(), fold)[:, 0, 0].astype(int).tolist()):
        fitted = {k for k in range(12) if value >> k & 1}
        assert {int(fold[k]) for k in fitted} == set(range(4)) - {int(fold[problem])}


def test_the_oracle_is_never_beaten_and_chance_costs_what_it_is_told() -> None:
    result = walk(table(), 0, EQUAL, depth=DEPTH)
    stop = first_right(result.right)
    best = after(result.right, stop).mean()
    whole = result.right[..., DEPTH].mean()
    assert best >= result.right.mean(axis=(0, 1)).max() >= whole
    assert stop.min() == 1
    tokens = Totals.of(table()).tokens
    middle = float(tokens[..., DEPTH].mean() / 3)
    accuracy, spent = at_random(result.right, tokens, middle)
    assert spent.mean() == pytest.approx(middle, rel=1e-6)
    assert result.right[..., 1].mean() < accuracy.mean() < whole
