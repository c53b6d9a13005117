"""DeepConf: which traces vote, which are stopped, and when nothing more is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import Completion, ScriptedEngine, Speed
from outthink.strategies import Spec
from support.runs import Run, virtual

WIDE = Speed(total=1e9, concurrency=64)


def play(spec: str, completions: Sequence[Completion], **options: Any) -> Run:
    engine = ScriptedEngine(lambda call: completions[call.index % len(completions)], speed=WIDE)
    run = virtual(Spec.parse(spec), engine, **options)
    if run.error is not None:
        raise run.error
    return run


def trace(answer: str | None, confidence: float | Sequence[float], tokens: int = 160) -> Completion:
    return Completion(answer=answer, confidence=confidence, tokens=tokens)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=12))
def test_keeping_all_with_equal_confidences_is_the_majority(answers: list[str | None]) -> None:
    done = [trace(answer, 2.0) for answer in answers]
    n = len(answers)
    assert play(f"deepconf:n={n},keep=100", done).value.answer == play(f"self-consistency:n={n}", done).value.answer


def test_weights_are_confidences() -> None:
    done = [trace("1", 5.0), trace("2", 2.0), trace("2", 2.0)]
    assert play("deepconf:n=3,keep=100", done).value.answer == "1"
    done = [trace("1", 3.0), trace("2", 2.0), trace("2", 2.0)]
    assert play("deepconf:n=3,keep=100", done).value.answer == "2"


def test_weights_by_log_probability_are_positive_too() -> None:
    done = [Completion(answer=answer, logprob=-1.0) for answer in ("1", "2", "2")]
    assert play("deepconf:n=3,keep=100,score=logprob", done).value.answer == "2"


def test_the_least_confident_do_not_vote() -> None:
    done = [trace("1", 5.0), trace("1", 4.9), trace("2", 3.0), trace("2", 3.0), trace("2", 3.0), trace("2", 3.0)]
    assert play("deepconf:n=6,keep=100", done).value.answer == "2"
    assert play("deepconf:n=6,keep=34", done).value.answer == "1"  # ceil(0.34 x 6) = 3 traces


def test_a_trace_shorter_than_the_window_uses_its_whole_mean() -> None:
    """The tail of 2,048 tokens of a 160-token trace is its mean, not its confident end."""
    rising = [0.5] * 5 + [5.5] * 5
    done = [trace("1", rising), trace("2", 3.1)]
    assert play("deepconf:n=2,keep=50,score=tail,window=2048", done).value.answer == "2"
    assert play("deepconf:n=2,keep=50,score=tail,window=32", done).value.answer == "1"


# Online. Chunks hold 16 tokens, windows here two chunks.

ONLINE = "deepconf-online:n={n},warmup={warmup},keep={keep},window=32"


def online(completions: Sequence[Completion], n: int, warmup: int = 2, keep: float = 50, **options: Any) -> Run:
    return play(ONLINE.format(n=n, warmup=warmup, keep=keep), completions, **options)


def test_warm_up_consensus_launches_nothing_more() -> None:
    run = online([trace("1", 2.0)], n=10, warmup=4)
    assert len(run.calls) == 4
    assert (run.value.answer, run.value.stopped) == ("1", "consensus")


def test_a_warm_up_without_consensus_goes_on() -> None:
    run = online([trace("1", 2.0), trace("2", 2.0), trace("1", 2.0)], n=3)
    assert len(run.calls) == 3
    assert run.value.stopped == "finished"


def test_no_trace_stops_before_its_window_is_full() -> None:
    """The last trace is weak from its first token on; it is seen at 16 tokens and stopped at 32."""
    warm = [trace("1", 2.0), trace("2", 2.0)]
    run = online([*warm, trace("3", 0.1)], n=3)
    stopped = [entry for entry in run.entries if entry.status == "stopped"]
    assert [entry.completion_tokens for entry in stopped] == [32]
    assert run.receipt.tokens == 3 * 20 + 2 * 160 + 32


def test_a_weak_trace_that_ends_before_the_window_is_full_votes() -> None:
    run = online([trace("1", 2.0), trace("2", 2.0), trace("2", 0.1, tokens=31)], n=3)
    assert run.count("stopped") == 0
    assert run.value.answer == "2"


def test_a_stopped_trace_casts_no_vote() -> None:
    warm = [trace("1", 2.0), trace("2", 2.1)]
    weak = [trace("1", [2.0, 2.0, *[0.1] * 8]) for _ in range(3)]
    run = online([*warm, *weak], n=5, ahead=1)
    assert run.count("stopped") == 3
    assert run.value.answer == "2"
    assert run.value.stopped == "finished"


def test_a_trace_as_confident_as_the_threshold_is_kept() -> None:
    uneven = [2.0, 0.7, 0.1, 0.3, 1.1, 0.7, 0.1, 0.3, 1.1, 0.7]
    warm = [trace("1", uneven), trace("2", uneven)]
    run = online([*warm, trace("1", uneven)], n=3, keep=100)
    assert run.count("stopped") == 0
    assert run.value.answer == "1"


@pytest.mark.parametrize(("keep", "bar"), [(100, 1.0), (90, 1.4), (50, 3.0), (10, 4.6)])
def test_the_threshold_is_the_percentile_of_the_lowest_windows(keep: float, bar: float) -> None:
    """Five warm-ups at 1..5: the (100 - keep) percentile by linear interpolation."""
    warm = [trace(str(level), float(level)) for level in (4, 1, 5, 2, 3)]
    for level, stops in ((bar + 0.01, 0), (bar - 0.01, 1)):
        run = online([*warm, trace("9", level)], n=6, warmup=5, keep=keep)
        assert run.count("stopped") == stops


def test_consensus_stops_everything() -> None:
    sure = [trace("1", 60.0, tokens=160 + 16 * i) for i in range(6)]
    run = online([trace("1", 2.0), trace("2", 2.0), *sure], n=8, ahead=4)
    assert (run.value.answer, run.value.stopped) == ("1", "consensus")
    assert run.count("finished") == 3
    assert run.count("cancelled") == 3


def test_an_unreadable_warm_up_counts_for_the_threshold_and_not_as_a_vote() -> None:
    run = online([trace(None, 9.0), trace("1", 9.0), trace("2", 1.0)], n=3)
    assert run.value.stopped == "consensus"
    assert len(run.calls) == 2


def test_an_empty_warm_up_completion_is_passed_over() -> None:
    run = online(
        [trace("1", 2.0), Completion(answer=None, text="", tokens=0), trace("2", 2.0), trace("2", 2.0)], n=4, warmup=3
    )
    assert run.value.answer == "2"
    assert len(run.calls) == 4
