"""Heads learned from samples whose difficulty can be read off the question, and from noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from difficulty_figures import judged, judged_probe
from outthink.controller.router.artefact import load, of, prompt_hash
from outthink.controller.routing_rules import Routing
from outthink.core.errors import BadInput
from outthink.core.sample import Sample
from outthink.engines.traces import Recorded, Traces
from outthink.evaluation.dataset import SampleSet
from outthink.evaluation.routing.data import Floats, ModelOutcomes, groups
from outthink.evaluation.routing.figures import drawn, ordering, success_figures
from outthink.evaluation.routing.probes import fit_probe
from outthink.evaluation.routing.routes import route_row, routed
from outthink.evaluation.routing.samples import for_policy, outcomes, train
from outthink.evaluation.routing.training import SAMPLED


def made(count: int = 200, *, noise: bool = False) -> ModelOutcomes:
    """Questions with a topic word: `proof` is hard for both models and long, `sum` easy and short."""
    rng = np.random.default_rng(count)
    topics = rng.choice(["proof", "sum"], size=count)
    fillers = rng.choice(["red", "blue", "door", "lamp", "tree"], size=(count, 6))
    questions = tuple(
        f"A {t} about {' '.join(f)}, case {i}." for i, (t, f) in enumerate(zip(topics, fillers, strict=True))
    )
    hard = rng.random(count) < 0.5 if noise else topics == "proof"
    base = np.where(hard, 0.2, 0.8)[:, None] + np.array([0.0, 0.1])
    right = rng.binomial(32, base) / 32
    tokens = np.where(hard, 300.0, 100.0)[:, None] * np.exp(rng.normal(0, 0.1, (count, 2)))
    return ModelOutcomes(name="made", models=("small", "big"), prompts=questions, right=right, tokens=tokens)


def source(data: ModelOutcomes, place: int, questions: bool = True) -> SampleSet:
    """Samples with these outcomes."""
    problems, texts = {}, {}
    for row, text in enumerate(data.prompts):
        good = round(32 * data.right[row, place])
        length = int(data.tokens[row, place])
        drawn_ = [Sample(i, "", "1" if i < good else "2", "boxed", length, "stop", 10) for i in range(32)]
        problems[f"p{row}"] = Recorded(f"p{row}", drawn_, None, {"1"})
        texts[f"p{row}"] = text
    return SampleSet(
        Traces(Path(f"{data.models[place]}--made.parquet"), problems), texts if questions else None, "number", {}
    )


def test_outcomes_are_shares_and_mean_lengths() -> None:
    data = made(40)
    result = outcomes([source(data, 0), source(data, 1)])
    assert result.models == ("small", "big")
    assert result.right == pytest.approx(data.right)
    assert result.tokens == pytest.approx(data.tokens, abs=1)
    with pytest.raises(BadInput, match="no problems beside it"):
        outcomes([source(data, 0, questions=False)])
    never = replace(data, right=0 * data.right)
    with pytest.raises(BadInput, match="right in 0% of the samples"):
        outcomes([source(never, 0)])


def test_areas_and_ranks_are_those_worked_out_by_hand() -> None:
    right, counts = np.array([1.0, 0.0, 0.5]), np.ones((1, 3))
    # Right samples: question 1 (twice as many as question 3); wrong ones: question 2 (twice as many as 3).
    result = ordering(np.array([3.0, 1.0, 2.0]), right, counts, right)
    assert result.auc == pytest.approx((1 * 1 + 1 * 0.5 + 0.5 * 1 + 0.25 * 0.5) / (1.5 * 1.5))
    assert result.spearman == pytest.approx(1.0)
    assert ordering(-right, right, counts, right).spearman == pytest.approx(-1.0)
    constant = ordering(np.zeros(3), right, counts, right)
    assert (constant.auc, constant.spearman) == (0.5, None)


def test_the_chance_error_is_that_of_calibrated_predictions() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(400)
    result = [
        success_figures(truth, (rng.random(400) < truth) * 1.0, ordering(truth, truth, np.ones((1, 400))))
        for _ in range(30)
    ]
    mean = np.mean([item["ece"] for item in result])
    assert mean == pytest.approx(np.mean([item["ece_by_chance"] for item in result]), rel=0.2)


def test_bootstrap_samples_hold_whole_groups() -> None:
    counts = drawn(np.array([0, 0, 1, 2]), resamples=50)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 1:].sum(axis=1) == 3).all()


@pytest.mark.parametrize("noise", [False, True])
def test_heads_find_what_is_in_the_question_and_nothing_else(noise: bool) -> None:
    pytest.importorskip("sklearn")
    rows = judged(made(noise=noise), replace(SAMPLED, strengths=(1.0,)), folds=4, resamples=200)
    assert [(row["reads"], row["model"]) for row in rows][:2] == [("length", "small"), ("length", "big")]
    mine = next(row for row in rows if row["reads"] == "all" and row["model"] == "small")
    if noise:
        assert mine["right"]["auc_low"] < 0.5 < mine["right"]["auc_high"] + 0.05
        return
    assert mine["right"]["auc_low"] > 0.7
    assert mine["right"]["ece"] < 0.05
    assert mine["tokens"]["spearman"] > 0.7
    assert mine["tokens"]["total"] == pytest.approx(1.0, abs=0.05)
    assert mine["tokens"]["inside"] == pytest.approx(0.8, abs=0.12)


def test_trained_heads_are_the_loaded_ones(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    data = made(120)
    heads = train(data, tmp_path / "heads", replace(SAMPLED, strengths=(1.0,)))
    assert heads == load(tmp_path / "heads")
    assert heads.prompts == tuple(sorted({prompt_hash(text) for text in data.prompts}))
    hard, easy = (heads.predict(f"A {topic} about red door lamp tree blue red, case 7.") for topic in ("proof", "sum"))
    for model in data.models:
        assert hard.of(model).chance < 0.4 < 0.6 < easy.of(model).chance
        assert hard.of(model).tokens > 2 * easy.of(model).tokens


def test_a_policy_gets_heads_only_where_they_help() -> None:
    pytest.importorskip("sklearn")
    data = made(150)
    longer = tuple(text + " Show every step." * (i % 2) for i, text in enumerate(data.prompts))
    hard = np.where(np.arange(150) % 2, 0.1, 0.9)[:, None] * np.ones((1, 2))
    received = replace(data, prompts=longer, right=np.random.default_rng(5).binomial(32, hard) / 32)
    values = for_policy(source(received, 0))
    assert values is not None
    assert values["held_out"]["right"]["auc_low"] > 0.8
    heads = of(values)
    assert heads.predict(longer[1]).of("small").chance < heads.predict(longer[0]).of("small").chance
    assert for_policy(source(made(150, noise=True), 0)) is None
    assert for_policy(source(received, 0, questions=False)) is None
    assert for_policy(source(made(50), 0)) is None, "too few questions"


def states(share: Floats) -> np.ndarray:
    """Three layers: noise, the success rate in one direction, a fainter copy of it."""
    result = np.random.default_rng(6).normal(size=(len(share), 3, 8)).astype(np.float32)
    result[:, 1, 2] += 20 * share.astype(np.float32)
    result[:, 2, 5] += 3 * share.astype(np.float32)
    return result


def test_the_probe_chooses_the_layer_that_knows() -> None:
    share = np.random.default_rng(7).random(150)
    group, held = np.arange(150), states(share)
    result = judged_probe(held, np.stack([share, np.log(100 + share)], axis=1), group, [0, 1, 2])
    assert (result.layers == 1).all()
    counts = np.ones((1, 150))
    rho = [ordering(result.by_layer[layer, :, 0], share, counts).spearman or 0.0 for layer in range(3)]
    assert rho[0] < 0.3 < rho[2] < rho[1]
    probe = fit_probe(held, share, group, [0, 1, 2], {"model": "small", "reader": "made", "flops": lambda at: 1e6 * at})
    assert (probe.layer, probe.flops) == (1, 1e6)
    said = np.array([probe.right(row) for row in held[:, 1].tolist()])
    assert np.abs(said - share).mean() < 0.1
    with pytest.raises(BadInput, match="between 0 and 2"):
        judged_probe(held, share[:, None], group, [3])


def test_a_probe_finds_nothing_in_noise() -> None:
    share = np.random.default_rng(7).random(150)
    noise = np.random.default_rng(8).normal(size=(150, 2, 8)).astype(np.float32)
    result = judged_probe(noise, share[:, None], groups([str(i) for i in range(150)]), [0, 1])
    assert abs(ordering(result.chosen[:, 0], share, np.ones((1, 150))).spearman or 0.0) < 0.25


def test_the_ends_of_a_routing_are_the_single_models_cost_included() -> None:
    rng = np.random.default_rng(9)
    chances, right, costs = rng.random((3, 100, 3))
    for tau, place in ((0.0, 0), (1.0001, 2)):
        end = Routing("smallest-likely", tau, ("a", "b", "c"), (1.0, 2.0, 3.0))
        result = routed(end, chances, right, costs, router=0.5)
        assert (result.right == right[:, place]).all()
        assert (result.cost == costs[:, place]).all(), "no router has to run"
    looked = routed(Routing("penalised", 0.5, ("a", "b", "c"), (1.0, 2.0, 3.0)), chances, right, costs, router=0.5)
    assert looked.cost == pytest.approx(costs[np.arange(100), looked.model] + 0.5)


def test_a_route_is_compared_with_the_best_mix_at_its_cost() -> None:
    right, costs = np.tile([0.2, 0.5, 0.8], (60, 1)), np.tile([1.0, 4.0, 5.0], (60, 1))
    right[::2] += [0.2, 0.0, -0.2]
    chosen = Routing("penalised", 0.5, ("a", "b", "c"), (1.0, 4.0, 5.0))
    row = route_row(routed(chosen, right, right, costs), right, costs, drawn(np.arange(60), resamples=50))
    # Half of the questions are worth the dear model; the mix of the first and the last costs the same.
    assert row["shares"] == [0.5, 0.0, 0.5]
    assert (row["accuracy"], row["cost"], row["of_dearest"]) == pytest.approx((0.6, 3.0, 0.6))
    assert (row["mix"], row["gain"]) == pytest.approx((0.5, 0.1))
    assert row["gain_low"] <= 0.1 <= row["gain_high"]
    alone = routed(Routing("smallest-likely", 0.0, chosen.models, chosen.costs), right, right, costs)
    assert route_row(alone, right, costs, np.ones((2, 60)))["gain"] == pytest.approx(0)
