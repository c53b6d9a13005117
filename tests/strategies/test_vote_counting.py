"""Votes, ties and the certainty of a leader, without any session."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink import BadInput, Sample, Votes
from outthink.core.sample import ConfidenceTrace
from outthink.strategies import leader_probability


def sample(answer: str | None, *, tokens: int | None = 100, logprob: float | None = -0.5, text: str = "") -> Sample:
    return Sample(0, text or f"It is {answer}.", answer, "scripted", tokens, mean_logprob=logprob)


def decide(*samples: Sample, ties: str = "confidence", seed: int = 0) -> str | None:
    votes = Votes(ties, random.Random(seed))  # type: ignore[arg-type]
    for item in samples:
        votes.add(item)
    return votes.winner().answer


def test_stop_table_of_adaptive_consistency() -> None:
    """Smallest leading count a that is sure at 0.95 against b = 0..7 votes of the second."""
    table = [next(a for a in itertools.count(b) if leader_probability(a, b) >= 0.95) for b in range(8)]
    assert table == [4, 6, 8, 9, 11, 12, 14, 15]


@given(st.integers(0, 60), st.integers(0, 60))
def test_certainty_is_symmetric_about_a_half(a: int, b: int) -> None:
    assert leader_probability(a, b) + leader_probability(b, a) == pytest.approx(1.0)


def test_certainty_counts_the_top_two_only() -> None:
    votes = Votes()
    for answer in ["a"] * 4 + ["b", "c"]:
        votes.add(sample(answer))
    assert votes.leader_probability() == leader_probability(4, 1)


def test_without_votes_nobody_leads() -> None:
    votes = Votes()
    votes.add(sample(None))
    assert votes.leader_probability() == votes.share() == 0.0


def test_the_majority_wins_and_its_earliest_text_is_shown() -> None:
    votes = Votes()
    for answer, text in [("a", "first a"), ("b", "first b"), ("b", "second b")]:
        votes.add(sample(answer, text=text))
    verdict = votes.winner("consensus")
    assert (verdict.answer, verdict.text, verdict.stopped) == ("b", "first b", "consensus")


def test_unreadable_samples_never_vote_but_are_counted() -> None:
    votes = Votes()
    for answer in [None, None, None, "a"]:
        votes.add(sample(answer))
    assert votes.winner().answer == "a"
    assert votes.unreadable == 3
    assert votes.share() == 1.0


def test_only_unreadable_samples_give_the_first_text_and_no_answer() -> None:
    votes = Votes()
    votes.add(sample(None, text="hm"))
    votes.add(sample(None, text="well"))
    assert (votes.winner().answer, votes.winner().text) == (None, "hm")


def test_ties_go_to_the_higher_mean_confidence() -> None:
    weak, strong = sample("a", logprob=-2.0, tokens=10), sample("b", logprob=-0.1, tokens=900)
    assert decide(weak, strong) == decide(strong, weak) == "b"
    # the mean over the answer's samples counts, not its best one
    mixed = [sample("a", logprob=-0.01), sample("a", logprob=-3.0), sample("b", logprob=-1), sample("b", logprob=-1)]
    assert decide(*mixed) == "b"


def test_token_confidence_goes_before_log_probability() -> None:
    trace = ConfidenceTrace((9.0,), 16, 10)
    sure = Sample(0, "", "a", "scripted", 10, mean_logprob=-5.0, confidence=trace)
    unsure = Sample(1, "", "b", "scripted", 10, mean_logprob=-0.1, confidence=ConfidenceTrace((1.0,), 16, 10))
    assert decide(unsure, sure) == "a"


def test_equal_confidence_goes_to_the_smaller_mean_length() -> None:
    long, short = sample("a", tokens=300), sample("b", tokens=20)
    assert decide(long, short) == decide(short, long) == "b"


def test_unknown_confidence_never_wins_a_tie() -> None:
    assert decide(sample("a", logprob=None, tokens=1), sample("b", logprob=-9.0, tokens=500)) == "b"


def test_complete_ties_go_to_the_earlier() -> None:
    assert decide(sample("b"), sample("a")) == "b"


def test_random_ties_follow_the_seed_and_reach_every_tied_answer() -> None:
    tied = [sample("a"), sample("b"), sample("c"), sample("c"), sample("a")]
    picks = [decide(*tied, ties="random", seed=seed) for seed in range(40)]
    assert picks == [decide(*tied, ties="random", seed=seed) for seed in range(40)]
    assert set(picks) == {"a", "c"}


def test_an_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(BadInput, match="confidence or random"):
        Votes("coin")  # type: ignore[arg-type]


def test_negative_weights_still_have_a_winner() -> None:
    votes = Votes()
    votes.add(sample("a"), -1.0)
    votes.add(sample("b"), -0.5)
    assert votes.winner().answer == "b"


CAST = [("a", -1.0, 90), ("a", -0.2, 50), ("b", -0.3, 10), ("b", -0.9, 40), ("c", -0.1, 5), (None, 0, 1)]


@given(st.permutations(CAST))
def test_the_order_of_votes_does_not_matter(order: list[tuple[str | None, float, int]]) -> None:
    """Two votes each for a and b, -0.6 in the mean each; b is shorter."""
    assert decide(*(sample(a, logprob=p, tokens=t) for a, p, t in order)) == "b"
