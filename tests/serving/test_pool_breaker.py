"""The circuit breaker on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.serving.pool.backend import Breaker, PoolSettings

pytestmark = pytest.mark.faults
SETTINGS = PoolSettings(failures=3, window=20, share=0.5, open_seconds=2.0)


def broken() -> Breaker:
    breaker = Breaker(SETTINGS)
    for _ in range(3):
        breaker.failed(0.0)
    return breaker


def test_failures_in_a_row_open_it_for_its_time() -> None:
    breaker = Breaker(SETTINGS)
    for outcome in (False, False, True, False, False):
        breaker.succeeded() if outcome else breaker.failed(0.0)
    assert breaker.opened_until is None
    breaker.failed(0.0)
    assert breaker.opened_until == 2.0
    assert (breaker.passes(1.9), breaker.passes(2.0)) == (False, True)


def test_one_call_tries_and_its_success_closes() -> None:
    breaker = broken()
    assert breaker.enter()
    assert not breaker.passes(2.0)
    assert not breaker.enter()
    breaker.succeeded(trial=True)
    assert breaker.opened_until is None
    breaker.failed(2.0)
    assert breaker.opened_until is None


def test_a_failed_trial_waits_twice_as_long_up_to_a_bound() -> None:
    breaker, now = broken(), 2.0
    waits = []
    for _ in range(6):
        assert breaker.enter()
        breaker.failed(now, trial=True)
        assert breaker.opened_until is not None
        waits.append(breaker.opened_until - now)
        now = breaker.opened_until
    assert waits == [4.0, 8.0, 16.0, 24.0, 24.0, 24.0]


def test_a_trial_without_a_verdict_lets_another_try() -> None:
    breaker = broken()
    breaker.enter()
    breaker.leave()
    assert breaker.passes(2.0)


def test_calls_from_before_it_opened_change_nothing() -> None:
    breaker = broken()
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.opened_until == 2.0


def test_the_share_opens_it_only_with_enough_calls() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(9):
        breaker.failed(0.0, certain=False)
    assert breaker.opened_until is None
    breaker.failed(0.0, certain=False)
    assert breaker.opened_until is not None


def test_news_ends_the_wait() -> None:
    breaker = broken()
    breaker.try_now(0.5)
    assert breaker.passes(0.5)


@given(st.lists(st.booleans(), max_size=200))
def test_it_opens_exactly_when_a_rule_says_so(outcomes: list[bool]) -> None:
    breaker = Breaker(SETTINGS)
    past: list[bool] = []
    for ok in outcomes:
        breaker.succeeded() if ok else breaker.failed(0.0)
        past.append(ok)
        last = past[-20:]
        row = not any(past[-3:]) and len(past) >= 3
        share = not ok and len(last) >= 10 and last.count(False) >= len(last) / 2
        assert (breaker.opened_until is not None) == (row or share)
        if row or share:
            break
