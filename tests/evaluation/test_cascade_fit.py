"""Fitting a cascade to recorded samples: arrays, rules and real replay say the same."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cascade_controls import least_share, oracle, passing, quintiles, random_mix
from outthink import BadInput
from outthink.controller.cascade import Cascade, Stage
from outthink.controller.policy.rules import TERMS, LinearGain
from outthink.controller.routing_rules import Routing
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.calibration.cascade import (
    CascadeChoice,
    CascadeSettings,
    Fitter,
    StageExit,
    assemble,
    baseline,
    carried_votes,
    first_exits,
)
from outthink.evaluation.calibration.counts import VoteCounts
from outthink.evaluation.calibration.losses import Array, GuardedChoice
from outthink.evaluation.calibration.votes import Table, after, below, deal, walk
from outthink.evaluation.replay import MEASURES, rerun
from outthink.strategies import Spec
from pooled import POOLED, replay_pool
from support.pools import read_rule
from support.recorded import DEMO, needs_demo

pytestmark = needs_demo
MODELS = ("qwen2.5-coder-0.5b-instruct-q4", "qwen2.5-coder-1.5b-instruct-q4")
SMALL = CascadeSettings(firsts=(1, 2), depth=12, target=8, caps=(6, 10), prices=(0.01, 0.05), folds=3)
FIXED = read_rule({"kind": "fixed"})


@cache
def demo(problems: int = 40) -> tuple[Traces, Traces]:
    """The first problems of the demo files of both models."""
    whole = [load(DEMO / f"{model}--demo.parquet") for model in MODELS]
    names = list(whole[0].problems)[:problems]
    weak, strong = (Traces(item.path, {name: item.problems[name] for name in names}, item.scoring) for item in whole)
    return weak, strong


@cache
def table(orders: int = 2) -> Table:
    """The first 16 samples of both models."""
    return deal(demo(), orders=orders, depth=16)


@cache
def fitter() -> Fitter:
    """All candidates on the first two orders."""
    return Fitter(table(), SMALL)


@pytest.mark.parametrize(("tau", "place"), [(0.0, 0), (1.01, 1)])
def test_the_ends_of_the_threshold_reproduce_the_single_models_rows(tau: float, place: int) -> None:
    """Accuracy, tokens, time and FLOPs of self-consistency@8 with either model, to the last digit."""
    cascade = Cascade((Stage(None, 8, FIXED, tau), Stage(MODELS[1], 8, FIXED)))
    names = list(demo()[0].problems)
    values = dict(zip(POOLED, replay_pool(demo(), lambda name: cascade, names, orders=2, ahead=8), strict=True))
    spec = Spec.parse("self-consistency:n=8")
    row = dict(zip(MEASURES, rerun(ReplayEngine(demo()[place]), [spec], names, 2, 8)[0].values, strict=True))
    for measure in ("accuracy", "flops", "tokens", "samples", "seconds"):
        assert values[measure].tolist() == pytest.approx(row[measure].tolist(), rel=1e-12), measure


@pytest.mark.parametrize(("tau", "place"), [(0.0, 0), (1.01, 1)])
def test_routing_before_decoding_has_the_same_two_ends(tau: float, place: int) -> None:
    routing = Routing("smallest-likely", tau, MODELS, (1.0, 3.0))
    arms = {model: Cascade((Stage(None if model == MODELS[0] else model, 4, FIXED),)) for model in MODELS}
    names = list(demo()[0].problems)
    chances = {name: (k % 7 / 6, k % 5 / 4) for k, name in enumerate(names)}
    values = replay_pool(demo(), lambda name: arms[MODELS[routing.place(chances[name])]], names, orders=2)
    spec = Spec.parse("self-consistency:n=4")
    row = dict(zip(MEASURES, rerun(ReplayEngine(demo()[place]), [spec], names, 2, 1)[0].values, strict=True))
    assert values[0].tolist() == row["accuracy"].tolist()
    assert values[1].tolist() == pytest.approx(row["flops"].tolist(), rel=1e-12)


def test_arrays_count_as_the_strategies_do() -> None:
    dealt = table()
    names = list(dealt.names)
    for place in (0, 1):
        accuracy, flops = baseline(dealt, place, 4)
        spec = Spec.parse("self-consistency:n=4")
        row = dict(zip(MEASURES, rerun(ReplayEngine(demo()[place]), [spec], names, 2, 1)[0].values, strict=True))
        assert flops.tolist() == pytest.approx(row["flops"].tolist())
        assert accuracy.tolist() == row["accuracy"].tolist()


def in_arrays(
    dealt: Table, exit: StageExit, second: LinearGain, cap: int, carried: VoteCounts | None
) -> tuple[Array, Array]:
    """Accuracy and FLOPs of a cascade, computed from the arrays alone."""
    result = walk(dealt, 1, second.sway, depth=second.horizon, carried=carried, scale=second.scale)
    first, other = np.triu_indices(TERMS)
    terms = np.concatenate([result.terms, result.terms[..., first] * result.terms[..., other]], axis=-1)
    gains = second.coefficients[0] + terms @ np.array(second.coefficients[1:])
    stop = below(gains[..., : cap - 1], second.price)
    right, cost = after(result.right, stop), after(dealt.models[1].spent(), stop)
    spent = exit.spent + np.where(exit.left, 0, cost)
    return np.where(exit.left, exit.right, right).mean(axis=1), spent.mean(axis=1)


@pytest.mark.parametrize(("first", "keep"), [(1, 0.0), (2, 0.0), (4, 0.0), (1, 0.5), (4, 0.5)])
def test_fitted_rules_do_in_replay_what_the_arrays_say(first: int, keep: float) -> None:
    """Every threshold of a first stage: accuracy and FLOPs of the real session, problem by problem."""
    dealt = table()
    second = fitter().cascade(fitter().candidates.arms[0]).stages[-1].rule
    assert isinstance(second, LinearGain)
    exits = first_exits(dealt, first, keep)
    left = 0.0
    for item in exits:
        cascade = read_rule(assemble(dealt, CascadeChoice(first, item.tau, keep, second.price, 6), second).json())
        values = replay_pool(demo()[::-1], lambda name, rule=cascade: rule, list(dealt.names), orders=2)
        accuracy, flops = in_arrays(dealt, item, second, 6, carried_votes(dealt, first, keep))
        assert flops.tolist() == pytest.approx(values[1].tolist(), rel=1e-12)
        assert accuracy.tolist() == values[0].tolist()
        left += item.left.mean()
    assert left > 0


def test_every_cascade_reads_back_from_json() -> None:
    for choice in fitter().candidates.arms:
        cascade = fitter().cascade(choice)
        assert read_rule(cascade.json()).json() == cascade.json()


def test_no_cheaper_candidate_keeps_the_margin_as_surely() -> None:
    settings = replace(SMALL, margin=0.2)
    candidates = fitter().candidates
    choice = GuardedChoice(candidates, settings.allowed, None)
    place, promise = choice.promise()
    assert promise.level is not None
    bounds, cost = choice.bounds(promise.level), candidates.costs.mean(axis=1)
    assert bounds[place] <= 0.2 < bounds[cost < cost[place]].min(initial=1.0)


@pytest.mark.parametrize("margin", [0.0, 1e-9, 0.005])
def test_where_nothing_keeps_the_margin_the_least_loss_is_taken(margin: float) -> None:
    """Forty problems bound nothing so tightly."""
    settings, candidates = replace(SMALL, margin=margin), fitter().candidates
    place, promise = GuardedChoice(candidates, settings.allowed, None).promise()
    lost = candidates.losses.mean(axis=1)
    assert promise.level is None or lost[place] <= margin
    assert lost[place] <= max(margin, float(np.median(lost)))


def test_files_of_other_problems_are_refused() -> None:
    weak, strong = demo()
    fewer = Traces(strong.path, dict(list(strong.problems.items())[:5]), strong.scoring)
    with pytest.raises(BadInput, match="other problems"):
        deal([weak, fewer], orders=1)


def test_controls_know_their_ends() -> None:
    weak, strong = (np.array([0.0, 1.0, 0.0, 0.0]), np.full(4, 1.0)), (np.array([1.0, 1.0, 1.0, 0.0]), np.full(4, 3.0))
    assert random_mix(weak, strong, 0.0).ratio == pytest.approx(1.0)
    assert random_mix(weak, strong, 0.25).share == pytest.approx(0.5)
    perfect = least_share(np.array([2.0, 0.0, 1.0, -1.0]), weak, strong, 0.0)
    assert (perfect.share, perfect.accuracy, perfect.ratio) == pytest.approx((0.5, 0.75, 8 / 12))


def test_the_oracle_beats_both_and_bins_share_out_the_problems() -> None:
    dealt = table()
    accuracy, cost = oracle(dealt)
    for place in (0, 1):
        alone, spent = baseline(dealt, place, 16)
        assert accuracy.mean() >= alone.mean()
        assert cost.mean() < spent.mean()
    bins = quintiles(dealt, 4)
    assert sum(mask.sum() for _, mask in bins) == len(dealt.names)
    rows = passing(dealt, bins, 4)
    assert rows[0].single >= rows[-1].single
    assert all(row.perfect[n] >= row.perfect[1] for row in rows for n in row.perfect)
