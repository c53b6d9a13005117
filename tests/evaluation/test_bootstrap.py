"""Bootstrap intervals: coverage, pairing, memory; and the frontier built on them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from outthink.core.errors import BadInput
from outthink.evaluation import rows as bootstrap
from outthink.evaluation.rows import Frontier, columns, interval, intervals, resampled_means


def test_matches_the_normal_interval_of_a_large_sample() -> None:
    values = np.random.default_rng(1).random(2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = interval(values, resamples=4000)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(300):
        low, high = interval(rng.random(60) < 0.4, resamples=500, seed=trial)
        hits += low <= 0.4 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_equal_seeds_give_equal_resamples_for_every_row() -> None:
    table = np.random.default_rng(2).random((3, 50))
    together = resampled_means(table)
    assert together.shape == (3, bootstrap.RESAMPLES)
    for row, means in zip(table, together, strict=True):
        np.testing.assert_allclose(resampled_means(row[None])[0], means)
    assert interval(table[0]) == interval(table[0])
    assert interval(table[0]) != interval(table[0], seed=1)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(40)
    whole = interval(values)
    monkeypatch.setattr(bootstrap, "_CHUNK", 40 * 7)
    assert interval(values) == pytest.approx(whole)


def test_one_problem_or_a_constant_has_no_spread() -> None:
    assert interval([0.3]) == (0.3, 0.3)
    assert interval([0.1] * 7) == (0.1, 0.1)
    low, high = intervals([[1.0, 1.0], [0.0, 1.0]])
    assert (low[0], high[0]) == (1.0, 1.0)
    assert (low[1], high[1]) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_refuses_what_cannot_be_resampled(values: list[float]) -> None:
    with pytest.raises(BadInput):
        interval(values)


def test_pairing_removes_the_variance_of_the_problems() -> None:
    rng = np.random.default_rng(4)
    hard = rng.random(300)
    better = hard + 0.02 + 0.01 * rng.standard_normal(300)
    low, high = interval(better - hard)
    assert 0.018 < low < 0.02 < high < 0.022
    unpaired = interval(better)
    assert unpaired[1] - unpaired[0] > 10 * (high - low)


def test_a_thousand_problems_and_ten_thousand_resamples_stay_small() -> None:
    values = np.random.default_rng(5).random(1000)
    tracemalloc.start()
    interval(values, resamples=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


RUNGS = np.array([[0.0, 0.0, 1.0, 0.0], [0.5, 0.0, 1.0, 0.5], [1.0, 0.0, 1.0, 1.0]])


def test_the_frontier_is_linear_between_its_rungs_and_ends_with_them() -> None:
    frontier = Frontier([400, 100, 200], RUNGS[[2, 0, 1]])
    np.testing.assert_array_equal(frontier.at(100), RUNGS[0])
    np.testing.assert_array_equal(frontier.at(400), RUNGS[2])
    np.testing.assert_allclose(frontier.at(150), (RUNGS[0] + RUNGS[1]) / 2)
    np.testing.assert_allclose(frontier.at(250), 0.75 * RUNGS[1] + 0.25 * RUNGS[2])
    assert frontier.at(99) is None
    assert frontier.at(401) is None
    assert frontier.at(400 * (1 + 1e-12)) is not None, "rounding is not another budget"


def test_a_rung_differs_from_itself_by_nothing() -> None:
    frontier = Frontier([100, 200, 400], RUNGS)
    for tokens, row in zip([100, 200, 400], RUNGS, strict=True):
        (result,) = frontier.differences([tokens], [row])
        assert result is not None
        assert (result.value, result.low, result.high) == (0, 0, 0)


def test_differences_are_paired_over_problems() -> None:
    rng = np.random.default_rng(6)
    rungs = np.sort(rng.random((4, 200)), axis=0)
    frontier = Frontier([1, 2, 4, 8], rungs)
    row = (rungs[1] + rungs[2]) / 2 + 0.05
    outside, result, tied = frontier.differences([9, 3, 3], [row, row, row])
    assert outside is None
    assert result is not None
    assert result == tied
    assert result.value == pytest.approx(0.05)
    assert result.low == pytest.approx(0.05)
    assert columns("difference", result).keys() == {"difference", "difference_low", "difference_high"}


def test_one_rung_is_a_point() -> None:
    frontier = Frontier([100], RUNGS[:1])
    assert frontier.at(100) is not None
    assert frontier.at(101) is None
    with pytest.raises(BadInput):
        frontier.differences([100], [[1.0]])
    with pytest.raises(BadInput):
        Frontier([1, 2], RUNGS[:1])
