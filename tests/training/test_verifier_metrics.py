"""Ranking, calibration, first errors and votes on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outthink import BadInput
from outthink.evaluation.routing.figures import auc
from outthink.training.metrics import (
    ScoredProblem,
    accuracies,
    auc_within,
    best_threshold,
    calibration,
    first_error_accuracy,
    number_answers,
    subsets,
)
from verifier_figures import affordable, flops


def data(answers: list[list[str]], right: str, scores: list[list[float]], **tokens: float) -> ScoredProblem:
    shape = np.ones((len(answers), len(answers[0])))
    return ScoredProblem(
        number_answers(answers),
        np.array([[answer == right for answer in row] for row in answers]),
        np.array(scores),
        shape * tokens.get("tokens", 300),
        shape * tokens.get("prompt", 100),
        shape * tokens.get("read", 400),
    )


def test_auc() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auc([0.5, 0.5, 0.5], [0, 1, 1]) == 0.5
    assert auc([1, 2, 3], [1, 1, 1]) is None
    # a soft label is that many right and wrong ones at the same score
    assert auc([0.2, 0.7], [0.25, 0.75]) == auc([0.2] * 4 + [0.7] * 4, [1, 0, 0, 0, 1, 1, 1, 0])
    with pytest.raises(BadInput):
        auc([math.nan], [1])


def test_auc_within_problems_ignores_how_hard_they_are() -> None:
    scores, labels = [0.9, 0.8, 0.2, 0.1, 0.5, 0.5], [1, 0, 1, 0, 1, 1]
    mean, each = auc_within(scores, labels, [0, 0, 1, 1, 2, 2])
    assert mean == 1.0
    assert len(each) == 2
    assert auc(scores[:4], labels[:4]) == 0.75


def test_calibration() -> None:
    error, rows = calibration([0.05, 0.05, 0.95, 0.95], [0, 0, 1, 0])
    assert [(row["low"], row["count"], row["label"]) for row in rows] == [(0.0, 2, 0.0), (0.9, 2, 0.5)]
    assert error == pytest.approx((2 * 0.05 + 2 * 0.45) / 4)
    assert calibration([1.0], [1])[0] == 0


def test_first_error() -> None:
    scores = [[0.9, 0.1, 0.9], [0.9, 0.8], [0.3, 0.9]]
    labels = [[0.5, 0.0, 0.0], [0.5, 0.5], [0.5, 0.0]]
    result = first_error_accuracy(scores, labels, 0.5)
    assert result == {"erroneous": 0.5, "clean": 1.0, "f1": pytest.approx(2 / 3), "count": 3}
    assert best_threshold([[0.4, 0.2], [0.4, 0.3]], [[1, 0], [1, 1]], (0.1, 0.25, 0.5)) == 0.25


def test_votes_on_a_known_problem() -> None:
    one = data([["7", "3", "3", ""]], "7", [[0.9, 0.2, 0.3, 1.0]])
    result = {name: float(value[0]) for name, value in accuracies(one, 4).items()}
    assert result == {"majority": 0.0, "best_of_n": 1.0, "weighted": 1.0, "oracle": 1.0}
    tied = data([["7", "3"]], "7", [[0.5, 0.5]])
    assert [float(value[0]) for value in accuracies(tied, 2).values()] == [0.5, 0.5, 0.5, 1.0]
    silent = data([["", ""]], "7", [[0.5, 0.5]])
    assert [float(value[0]) for value in accuracies(silent, 2).values()] == [0.0] * 4


def test_equal_scores_make_weighted_the_majority_and_exact_ones_the_oracle() -> None:
    rng = np.random.default_rng(0)
    answers = rng.choice(["1", "2", "3", "4", ""], size=(40, 16), p=[0.3, 0.3, 0.2, 0.1, 0.1]).tolist()
    equal = data(answers, "2", np.full((40, 16), 0.3).tolist())
    result = accuracies(equal, 8, count=50)
    np.testing.assert_allclose(result["weighted"], result["majority"])
    exact = data(answers, "2", [[float(answer == "2") for answer in row] for row in answers])
    result = accuracies(exact, 8, count=50)
    np.testing.assert_allclose(result["weighted"], result["oracle"])
    np.testing.assert_allclose(result["best_of_n"], result["oracle"])


def test_random_subsets_have_the_right_size() -> None:
    drawn = subsets(32, 8, 100, seed=1)
    assert drawn.shape == (100, 8)
    assert all(len(set(row)) == 8 for row in drawn.tolist())
    assert subsets(4, 4, 100, seed=1).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(BadInput):
        subsets(4, 5, 1, seed=0)


def test_flops_charge_the_verifier_for_what_it_reads() -> None:
    one = data([["7"] * 20], "7", [[0.5] * 20], tokens=300, prompt=100, read=400)
    assert flops(one, 2, 100, None) == 2 * 2 * 100 * 400
    assert flops(one, 2, 100, 25) == 2 * 2 * (100 * 400 + 25 * 400)
    assert affordable(one, 16, 100, 25) == 12  # 16 / 1.25 = 12.8, rounded down
    assert affordable(one, 10, 100, 25) == 8
