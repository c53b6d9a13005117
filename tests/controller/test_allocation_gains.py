"""Marginal allocation: the exact cases, brute force, and gains measured on samples."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.allocation import Allocation, Checked, GainTable, Planned, State, Voted, assumed_gain, split
from outthink.core.errors import BadInput
from outthink.core.sample import Sample

Chances = st.lists(st.floats(0, 1), min_size=3, max_size=3)


def sample(answer: str | None, tokens: int = 10, logprob: float | None = -0.1) -> Sample:
    """A finished sample."""
    return Sample(0, str(answer), answer, "boxed", tokens, prompt_tokens=0, mean_logprob=logprob)


def solved(chances: list[float], shares: tuple[int, ...]) -> float:
    """Expected number of requests that at least one of their samples solves."""
    return sum(1 - (1 - p) ** n for p, n in zip(chances, shares, strict=True))


@pytest.mark.parametrize(("budget", "shares"), [(6, [3, 3]), (4, [3, 1])])
def test_the_exact_split(budget: int, shares: list[int]) -> None:
    assert split([Planned(0.5), Planned(0.1)], budget) == shares


@given(Chances)
@settings(max_examples=40, deadline=None)
def test_it_equals_brute_force(chances: list[float]) -> None:
    shares = split([Planned(p) for p in chances], 8)
    best = max(solved(chances, given) for given in product(range(9), repeat=3) if sum(given) <= 8)
    assert solved(chances, tuple(shares)) == pytest.approx(best, abs=1e-9)
    assert sum(shares) <= 8


def test_nothing_goes_to_the_hopeless() -> None:
    assert split([Planned(0.0), Planned(0.3)], 50) == [0, 50]
    assert split([Planned(0.0)], 5) == [0]
    assert Checked((0.0, 4.0)).gain == 0


def test_failures_lower_the_gain_and_a_pass_ends_it() -> None:
    belief = Checked((1.0, 1.0), at_most=3)
    assert belief.gain == pytest.approx(1 / 2)
    belief.add(sample("4"), passed=False)
    assert belief.gain == pytest.approx(1 / 3)
    belief.add(sample("5"), passed=True)
    assert belief.gain == 0
    assert belief.verdict(None).answer == "5"
    assert belief.verdict(None).stopped == "finished"


def test_a_check_that_never_passes_gives_up_at_its_limit() -> None:
    belief = Checked(at_most=2)
    for _ in range(2):
        belief.add(sample("4"), passed=False)
    assert belief.gain == 0
    assert (belief.verdict(None).answer, belief.verdict(None).stopped) == (None, "gave-up")


def test_cheap_requests_go_first_and_worth_closes_the_dear() -> None:
    def run(worth: float | None) -> list[int]:
        allocation = Allocation([Planned(0.5), Planned(0.5)], lambda i, one: float(one.tokens or 0), worth=worth)
        for _ in range(200):
            if (i := allocation.next()) is None:
                break
            allocation.add(i, sample("1", 10 if i == 0 else 1000))
        return allocation.drawn

    cheap, dear = run(2000.0)
    assert cheap > dear >= 1
    assert sum(run(20.0)) < sum(run(2000.0)) < 200
    with pytest.raises(BadInput, match="worth"):
        run(0.0)


def test_what_is_in_flight_counts() -> None:
    allocation = Allocation([Planned(0.9), Planned(0.4)])
    assert [allocation.next() for _ in range(4)] == [0, 0, 1, 0]  # 0.9, 0.45, 0.4, 0.3
    allocation.add(1, sample("1"))
    assert allocation.next() == 1  # 0.24 against 0.225
    allocation.add(0, None)  # nothing came, and nothing will
    assert [allocation.next() for _ in range(3)] == [1, 1, 1]


def test_nobody_gets_more_than_allowed_while_samples_are_in_flight() -> None:
    allocation = Allocation([Voted(at_most=2), Voted(at_most=3)])
    assert sorted(i for i in iter(allocation.next, None) if i is not None) == [0, 0, 1, 1, 1]


def test_assumed_gain_is_the_expected_rise_of_certainty() -> None:
    """One vote each: after one more, 2 to 1 is P(p > q | Beta(3, 2)) = 11/16, up from 1/2."""
    assert assumed_gain(State(2, 1, 1, None)) == pytest.approx(11 / 16 - 1 / 2)
    assert assumed_gain(State(8, 8, 0, None)) < assumed_gain(State(8, 5, 3, None)) < assumed_gain(State(8, 4, 4, None))
    diluted = assumed_gain(State(8, 1, 1, None))  # six others: few of the next samples vote for either
    assert 0 < diluted < assumed_gain(State(2, 1, 1, None))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_assumed_gain_is_never_negative(leader: int, second: int, others: int) -> None:
    leader, second = max(leader, second), min(leader, second)
    assert 0 <= assumed_gain(State(leader + second + others, leader, second, None)) <= 1


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_state_of_a_vote_is_its_counts(answers: list[str | None]) -> None:
    belief = Voted(at_most=40)
    for answer in answers:
        belief.add(sample(answer))
    counts = sorted((answers.count(name) for name in ("a", "b", "c")), reverse=True)
    assert belief.state[:3] == (len(answers), counts[0], counts[1])
    assert (belief.state.certainty is None) == (counts[0] == 0)


def test_a_table_answers_for_what_it_has_seen_and_assumes_the_rest() -> None:
    table = GainTable({(2, 1, 1): 0.2, (2, 1, 1, 0): 0.3}, (-0.5,), 0.5, 8)
    assert table.gain(State(2, 1, 1, -0.9)) == 0.3
    assert table.gain(State(2, 1, 1, -0.1)) == 0.2  # that class of certainty was never seen
    assert table.gain(State(2, 1, 1, None)) == 0.2
    assert table.gain(State(3, 2, 1, None)) == 0.5 * assumed_gain(State(3, 2, 1, None))
    assert table.gain(State(8, 4, 4, None)) == 0  # nothing is known beyond eight samples


def test_beta_binomial_is_a_distribution() -> None:
    from outthink.controller.allocation import _beta_binomial

    assert sum(_beta_binomial(k, 6, 3, 2) for k in range(7)) == pytest.approx(1)
    assert _beta_binomial(2, 4, 1, 1) == pytest.approx(1 / 5)
    assert _beta_binomial(1, 2, 4000, 4000) == pytest.approx(comb(2, 1) / 4, rel=1e-3)
