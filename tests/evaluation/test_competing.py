"""Rules that compete: over arrays they stop, and answer, as they do on one request, and blind to what judges them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.controller.policy.rules import rule_from_json
from outthink.core.errors import BadInput
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.evaluation.calibration.competing import FEW, PRICES, THRESHOLDS, CompetingRules, RuleOutcome
from outthink.evaluation.calibration.counts import VoteCounts
from outthink.evaluation.calibration.losses import Mask
from outthink.evaluation.calibration.votes import SWAYS, Table
from outthink.strategies import Votes
from outthink.strategies.voting import Rule
from stopping import in_orders
from support.recorded import demo_table, demo_traces, needs_demo

pytestmark = needs_demo
ORDERS, DEPTH = 2, 12


def table() -> Table:
    return demo_table(ORDERS, DEPTH)


@cache
def competing() -> CompetingRules:
    return CompetingRules(table(), DEPTH)


def some(share: int, of: int) -> Mask:
    """Every problem whose place leaves this rest."""
    return np.arange(len(table().names)) % of == share


def fed(rule: Rule, name: str, order: int) -> tuple[bool, int]:
    """Whether a rule is right on one problem, and after how many samples it stops."""
    problem = demo_traces().problems[name]
    count = 0
    for sample in in_orders(problem, ORDERS)[order][:DEPTH]:
        count += 1
        if rule.add(sample, None):
            break
    return rule.verdict().answer in problem.right, count


KNOWN = st.sampled_from([0.1, 0.2, 0.3, -0.7]) | st.none()
LIKE = st.tuples(st.just(8) | st.integers(7, 9), KNOWN, KNOWN, st.just(1.0) | st.sampled_from([0.3, 0.6]))


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


def test_competing_rules_stop_and_answer_as_the_arrays_say() -> None:
    """Every tenth of them, fitted on half of the problems, on the others."""
    others = some(1, 2)
    names = np.array(table().names)[others].tolist()
    for outcome in [*competing().held_out(~others, others)][::10]:
        rule = rule_from_json(outcome.rule.json())
        for row, name in enumerate(names):
            for order in range(ORDERS):
                told = outcome.right[row, order] == 1, outcome.stop[row, order]
                assert fed(rule.start(DEPTH, None), name, order) == told


def test_every_part_of_the_problems_has_the_same_rules_in_the_same_order() -> None:
    half = some(0, 2)
    whole = [*competing().crossed(~some(9, 9), some(0, 3)[~some(9, 9)].astype(int))]
    part = [*competing().crossed(half, np.arange(half.sum()) % 3)]
    assert [shown(one) for one in whole] == [shown(one) for one in part]
    for here, there in zip(part, competing().held_out(half, ~half), strict=True):
        assert shown(here) == shown(there)
        assert coefficients(here) == pytest.approx(coefficients(there), rel=1e-6, abs=1e-9)
    kinds = [one.rule.kind for one in part]
    learned = len(SWAYS) * len(PRICES)
    assert kinds == ["fixed", *["adaptive"] * len(THRESHOLDS), *["linear-gain"] * learned]


def shown(outcome: RuleOutcome) -> Any:
    """A rule without what was fitted."""
    return {key: value for key, value in outcome.rule.json().items() if key != "coefficients"}


def coefficients(outcome: RuleOutcome) -> list[float]:
    """What was fitted, nothing where nothing is."""
    found: list[float] = outcome.rule.json().get("coefficients", [])
    return found


def test_a_problem_does_not_decide_where_it_stops() -> None:
    """With the answers of one fold turned round, no stop in that fold moves, and some of the others do."""
    everyone, fold = np.ones(len(table().names), dtype=bool), some(0, 3).astype(int)
    right = table().right.copy()
    right[fold == 1] = ~right[fold == 1]
    turned = CompetingRules(replace(table(), right=right), DEPTH).crossed(everyone, fold)
    moved = 0
    for here, there in zip(competing().crossed(everyone, fold), turned, strict=True):
        assert (here.stop[fold == 1] == there.stop[fold == 1]).all()
        moved += (here.stop != there.stop).sum()
    assert moved > 100


def test_a_higher_price_never_buys_more_and_learning_saves() -> None:
    everyone, fold = np.ones(len(table().names), dtype=bool), some(0, 2).astype(int)
    found = [*competing().crossed(everyone, fold)]
    aim = competing().aim.mean()
    assert (found[0].stop == DEPTH).all()
    assert found[0].right.mean() == aim
    priced = [one for one in found if one.rule.kind == "linear-gain"]
    for cheap, dear in pairwise(priced):
        if cheap.rule.sway == dear.rule.sway:  # type: ignore[attr-defined]
            assert (cheap.stop >= dear.stop).all()
    as_right = [one.stop.mean() for one in priced if one.right.mean() >= aim]
    plain = [one.stop.mean() for one in found if one.rule.kind == "adaptive" and one.right.mean() >= aim]
    assert min(as_right) < 0.8 * min(plain, default=DEPTH)


def test_few_problems_and_small_sizes_teach_nothing() -> None:
    few = table().take(np.arange(len(table().names)) < FEW - 1)
    everyone = np.ones(FEW - 1, dtype=bool)
    kinds = {one.rule.kind for one in CompetingRules(few, DEPTH).crossed(everyone, np.zeros(FEW - 1, dtype=int))}
    assert kinds == {"fixed", "adaptive"}
    everyone = np.ones(len(table().names), dtype=bool)
    (single,) = CompetingRules(table(), 1).crossed(everyone, some(0, 2).astype(int))
    assert (single.rule.kind, single.stop.max()) == ("fixed", 1)


def test_a_broken_learned_rule_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^scale\.logprob: None is missing; calibrate again"):
        rule_from_json({"kind": "linear-gain", "scale": {}, "horizon": 4, "sway": {}, "coefficients": [], "price": 1.0})
    with pytest.raises(BadInput, match=r"^threshold: None is missing"):
        rule_from_json({"kind": "adaptive"})
