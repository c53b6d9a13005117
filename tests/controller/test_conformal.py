"""Conformal thresholds: the formula, and the risk on new problems."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink import BadInput
from outthink.controller.cascade import NEVER, least_threshold

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=60)


def risk(signals: list[float], losses: list[bool], threshold: float) -> float:
    """Share of all problems that are left at this threshold and lose by it."""
    return sum(loss for signal, loss in zip(signals, losses, strict=True) if signal >= threshold) / len(signals)


@given(PAIRS, st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.6]))
def test_it_is_the_least_threshold_within_the_bound(pairs: list[tuple[float, bool]], alpha: float) -> None:
    signals, losses = [signal for signal, _ in pairs], [loss for _, loss in pairs]
    n = len(pairs)
    meeting = [
        tau for tau in (0.0, *sorted(signals), NEVER) if (n * risk(signals, losses, tau) + 1) / (n + 1) <= alpha + 1e-9
    ]
    assert least_threshold(signals, losses, alpha) == (meeting[0] if meeting else NEVER)


def test_too_few_problems_bound_nothing() -> None:
    assert least_threshold([0.9] * 8, [False] * 8, 0.1) == NEVER
    assert least_threshold([0.9] * 9, [False] * 9, 0.1) == 0.0


def test_the_mean_risk_on_new_problems_stays_below_the_level() -> None:
    """200 draws of 60 problems whose loss becomes rarer as the signal grows; alpha 0.1."""
    rng = random.Random(0)

    def draw(count: int) -> tuple[list[float], list[bool]]:
        signals = [rng.random() for _ in range(count)]
        return signals, [rng.random() < 0.6 * (1 - signal) for signal in signals]

    new = draw(4000)
    risks = [risk(*new, least_threshold(*draw(60), 0.1)) for _ in range(200)]
    assert sum(risks) / len(risks) <= 0.1
    assert sum(risks) / len(risks) > 0.05  # else it would leave nobody


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(BadInput, match="alpha"):
        least_threshold([0.5], [True], alpha)


def test_signals_that_do_not_fit_are_refused() -> None:
    for signals, losses in (([], []), ([0.5], [True, False]), ([float("nan")], [True])):
        with pytest.raises(BadInput, match="signals"):
            least_threshold(signals, losses, 0.1)
