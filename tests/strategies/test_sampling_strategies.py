"""Strategies that vote on samples: exact results on scripted answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Completion, Request, ScriptedEngine, Speed, Unsupported, Verdict
from outthink.engines.protocol import Call, Features
from outthink.strategies import Spec, strategies
from support.runs import Run, question, virtual

WIDE = Speed(total=1e9, concurrency=64)
UNGUIDED = [name for name, found in strategies().items() if not found.needs_verifier]


def play(spec: str, answers: list[Any], *, tokens: Any = 100, request: Request | None = None, **options: Any) -> Run:
    engine = ScriptedEngine.sequence(answers, tokens=tokens, speed=WIDE)
    run = virtual(Spec.parse(spec), engine, request, **options)
    if run.error is not None:
        raise run.error
    return run


def scripted(*completions: Completion, **options: Any) -> ScriptedEngine:
    return ScriptedEngine(lambda call: completions[call.index % len(completions)], speed=WIDE, **options)


def decide(spec: str, engine: ScriptedEngine, **options: Any) -> Verdict:
    run = virtual(Spec.parse(spec), engine, **options)
    if run.error is not None:
        raise run.error
    return run.value


def test_self_consistency_is_the_plain_majority() -> None:
    run = play("self-consistency:n=5", ["1", "2", "2", None, "3", "1", "1"])
    assert (run.value.answer, run.value.stopped, len(run.entries)) == ("2", "finished", 5)


@settings(max_examples=60, deadline=None)
@given(st.permutations([100, 37, 290, 55, 180, 64, 120]))
def test_order_of_arrival_does_not_change_the_winner(lengths: list[int]) -> None:
    """Lengths decide who finishes first; with equal certainty and lengths by answer nothing else may change."""
    answers = ["1", "2", "2", "1", "3", "2", "1"]
    engine = scripted(*(Completion(answer=a, tokens=100, delay=t / 50) for a, t in zip(answers, lengths, strict=True)))
    assert decide("self-consistency:n=7", engine).answer == "1"


@pytest.mark.parametrize("name", [name for name in UNGUIDED if strategies()[name].sized])
def test_a_size_of_one_equals_single(name: str) -> None:
    done = Completion(answer="7", tokens=60, confidence=2.0, self_certainty=3.0)
    one = virtual(Spec.parse("single"), scripted(done))
    other = virtual(Spec.parse(f"{name}:n=1"), scripted(done))
    assert (other.value.answer, other.value.text) == (one.value.answer, one.value.text) == ("7", "The answer is 7.")
    assert other.receipt.tokens == one.receipt.tokens == 80
    assert other.receipt.seconds == one.receipt.seconds


def test_greedy_samples_once_at_temperature_zero() -> None:
    run = play("greedy", ["1"])
    assert [call.sampling.temperature for call in run.calls] == [0.0]


@pytest.mark.parametrize(("seconds", "needed"), [(0, 4), (1, 6), (2, 8), (3, 9)])
def test_adaptive_consistency_stops_where_the_table_says(seconds: int, needed: int) -> None:
    run = play("adaptive-consistency:n=40", ["2"] * seconds + ["1"] * 40, ahead=1)
    assert (run.value.answer, run.value.stopped) == ("1", "consensus")
    assert len(run.calls) == seconds + needed
    assert run.count("cancelled") == 0


def test_adaptive_consistency_pays_for_what_is_in_flight_when_it_stops() -> None:
    run = play("adaptive-consistency:n=40", ["1"], tokens=[100, 100, 100, 100, 300, 300, 300], ahead=4)
    assert run.count("finished") == 4
    assert run.count("cancelled") == 0
    run = play("adaptive-consistency:n=40", ["1"], tokens=[100, 120, 140, 160, 300, 300, 300], ahead=4)
    assert run.count("finished") == 4
    assert run.count("cancelled") == 3
    assert all(0 < (entry.cancelled_tokens or 0) < 300 for entry in run.entries if entry.status == "cancelled")


def test_adaptive_consistency_takes_unreadable_samples_for_no_votes() -> None:
    run = play("adaptive-consistency:n=40", [None, "1"], ahead=1)
    assert len(run.calls) == 8
    assert run.value.stopped == "consensus"
    assert play("adaptive-consistency:n=6,confidence=0.3", [None], ahead=1).value.stopped == "finished"


@pytest.mark.parametrize("window", [1, 3, 5])
def test_esc_stops_a_constant_answer_after_exactly_one_window(window: int) -> None:
    run = play(f"esc:n=40,window={window}", ["1"], ahead=1)
    assert (len(run.calls), run.value.stopped, run.value.answer) == (window, "consensus", "1")


def test_esc_runs_to_the_end_on_two_alternating_answers() -> None:
    run = play("esc:n=20", ["1", "2"], ahead=1)
    assert (len(run.calls), run.value.stopped) == (20, "finished")


def test_esc_looks_at_whole_windows_only() -> None:
    run = play("esc:n=20,window=5", ["1", "2", "2", "2", "2", "2", "1", "1", "1", "1", *"33333"], ahead=1)
    assert len(run.calls) == 15  # five twos in a row lie across two windows
    assert run.value.answer == "1"  # majority over all: five ones before the five threes and twos, and first


def test_esc_never_agrees_on_unreadable_samples() -> None:
    run = play("esc:n=10,window=2", [None], ahead=1)
    assert (len(run.calls), run.value.answer, run.value.stopped) == (10, None, "finished")


@pytest.mark.parametrize(("k", "m"), [(8, 3), (5, 1), (6, 5)])
def test_short_m_of_k_cancels_exactly_the_rest(k: int, m: int) -> None:
    run = play(f"short-m-of-k:n={k},m={m}", ["1"], tokens=[300, 80, 210, 40, 120, 500, 90, 170])
    assert (run.count("finished"), run.count("cancelled")) == (m, k - m)
    assert run.value.stopped == "first-m"
    last = max(entry.completion_tokens or 0 for entry in run.entries if entry.status == "finished")
    assert {entry.cancelled_tokens for entry in run.entries if entry.status == "cancelled"} == {last}
    assert run.receipt.seconds == pytest.approx(20 / 5000 + last / 50)


def test_unreadable_finishers_do_not_count_towards_m() -> None:
    run = play("short-m-of-k:n=6,m=2", [None, "1", None, "2", "2", "3"], tokens=[10, 40, 20, 300, 60, 400])
    assert run.count("finished") == 4
    assert run.count("cancelled") == 2
    assert run.value.answer in ("1", "2")


def test_short_m_of_k_with_too_few_readable_samples_takes_them_all() -> None:
    run = play("short-m-of-k:n=4,m=3", [None, "1", None, "1"], tokens=[10, 40, 20, 300])
    assert (run.value.answer, run.value.stopped, run.count("cancelled")) == ("1", "finished", 0)


def test_best_of_n_takes_the_most_confident_readable_sample() -> None:
    engine = scripted(
        Completion(answer="1", logprob=-0.9),
        Completion(answer="2", logprob=-0.2),
        Completion(answer="3", logprob=-0.4),
        Completion(answer=None, logprob=-0.01),
    )
    assert decide("best-of-n:n=4", engine).answer == "2"


@pytest.mark.parametrize(
    ("score", "winner"), [("confidence", "3"), ("tail", "1"), ("lowest", "2"), ("bottom", "2"), ("self-certainty", "1")]
)
def test_best_of_n_by_each_score(score: str, winner: str) -> None:
    engine = scripted(
        Completion(answer="1", tokens=64, confidence=(1.0, 1.0, 1.0, 9.0), self_certainty=5.0),
        Completion(answer="2", tokens=64, confidence=(2.9, 2.9, 2.9, 2.9), self_certainty=1.0),
        Completion(answer="3", tokens=64, confidence=(6.0, 6.0, 0.5, 0.5), self_certainty=2.0),
    )
    assert decide(f"best-of-n:n=3,score={score},window=16", engine).answer == winner


def test_best_of_n_without_a_readable_sample_gives_the_first_text() -> None:
    verdict = decide("best-of-n:n=2", scripted(Completion(text="well"), Completion(text="hm")))
    assert (verdict.answer, verdict.text) == (None, "well")


ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_borda_with_power_towards_zero_is_the_majority(answers: list[str | None]) -> None:
    done = [
        Completion(answer=answer, tokens=40 + i, confidence=1.0 + i, self_certainty=i / 10)
        for i, answer in enumerate(answers)
    ]
    votes = Counter(answer for answer in answers if answer is not None)
    leaders = [answer for answer, count in votes.items() if count == max(votes.values())]
    winner = decide(f"borda:n={len(answers)},power=1e-9", scripted(*done)).answer
    assert winner in (leaders or [None])
    if len(leaders) == 1:
        assert winner == leaders[0] == decide(f"self-consistency:n={len(answers)}", scripted(*done)).answer


def test_borda_gives_the_most_certain_the_largest_weight() -> None:
    """Ranks 1, 2, 3 weigh 3, 2, 1 at power 1: one sure vote beats the weaker, and 1 + 2 beats it at lower power."""
    done = (
        Completion(answer="1", self_certainty=1.0),
        Completion(answer="2", self_certainty=9.0),
        Completion(answer="1", self_certainty=2.0),
    )
    assert decide("borda:n=3,power=2", scripted(*done)).answer == "2"  # 9 against 4 + 1
    assert decide("borda:n=3,power=0.5", scripted(*done)).answer == "1"  # 1.73 against 1.41 + 1


def test_ranks_are_among_readable_samples() -> None:
    """Three readable ones weigh 9, 4 and 1 at power 2; three more unreadable ones must not make it 36, 25, 16."""
    done = [Completion(answer=answer, self_certainty=sure) for answer, sure in (("2", 3.0), ("1", 2.0), ("1", 1.0))]
    silent = [Completion(answer=None, self_certainty=9.0)] * 3
    assert decide("borda:n=6,power=2", scripted(*done, *silent)).answer == "2"


def test_token_confidence_stands_in_for_self_certainty_and_the_receipt_says_so() -> None:
    run = virtual(Spec.parse("borda:n=2"), scripted(Completion(answer="1", confidence=2.0)))
    assert any("stands in" in note for note in run.receipt.notes)


def test_confidence_vote_follows_confidence_only_as_far_as_it_differs() -> None:
    even = [Completion(answer=a, confidence=2.0) for a in ("1", "2", "2")]
    assert decide("confidence-vote:n=3", scripted(*even)).answer == "2"
    sure = [Completion(answer=a, confidence=c) for a, c in (("1", 9.0), ("2", 1.0), ("2", 1.0))]
    assert decide("confidence-vote:n=3", scripted(*sure)).answer == "1"
    assert decide("confidence-vote:n=3,temperature=1000", scripted(*sure)).answer == "2"


@pytest.mark.parametrize("name", ["best-of-n:score=tail", "borda", "confidence-vote", "deepconf", "deepconf-online"])
def test_missing_log_probabilities_are_named(name: str) -> None:
    run = virtual(Spec.parse(name), scripted(Completion(answer="1")))
    assert isinstance(run.error, Unsupported)
    assert "log-probabilities" in str(run.error)


@pytest.mark.parametrize("name", UNGUIDED)
def test_every_strategy_gives_no_answer_where_none_can_be_read(name: str) -> None:
    run = virtual(Spec.parse(name), scripted(Completion(answer=None, text="hm", confidence=1.0, self_certainty=1.0)))
    assert run.error is None
    assert (run.value.answer, run.value.text) == (None, "hm")


@pytest.mark.parametrize("name", UNGUIDED)
def test_every_strategy_survives_an_empty_completion(name: str) -> None:
    run = virtual(Spec.parse(name), scripted(Completion(answer=None, text="", tokens=0, confidence=1.0)))
    assert run.error is None
    assert run.value.answer is None


def test_random_ties_follow_the_request_seed() -> None:
    def pick(seed: int) -> str | None:
        engine = ScriptedEngine.sequence(["1", "2"], speed=WIDE)
        return virtual(
            Spec.parse("self-consistency:n=2,ties=random"), engine, question(seed=seed), seed=seed
        ).value.answer

    picks = [pick(seed) for seed in range(20)]
    assert set(picks) == {"1", "2"}
    assert picks == [pick(seed) for seed in range(20)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("self-consistancy", "self-consistency"),
        ("single:n=4", "style"),
        ("esc:n=0", "not positive"),
        ("esc:n=many", "default is 16"),
        ("borda:power=0", "not positive"),
        ("esc:style=poetic", "chain-of-draft"),
    ],
)
def test_a_strategy_that_cannot_be_read_says_what_can(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Spec.parse(text)


@pytest.mark.parametrize("bad", ["deepconf:keep=101", "deepconf-online:keep=1000", "borda:score=luck", "esc:ties=coin"])
def test_a_parameter_out_of_range_is_refused_before_any_call(bad: str) -> None:
    engine = ScriptedEngine.sequence(["1"])
    run = virtual(Spec.parse(bad), engine)
    assert isinstance(run.error, BadInput)
    assert not engine.calls


@given(st.floats(1e-6, 1, exclude_min=True), st.integers(1, 99))
def test_a_spec_reads_back_as_itself(confidence: float, n: int) -> None:
    spec = Spec.parse(f"adaptive-consistency:n={n},confidence={confidence!r},ties=random,style=no-thinking")
    again = Spec.parse(str(spec))
    assert (str(again), again.n, again.style) == (str(spec), n, "no-thinking")
    assert again.parameters.get("confidence", 0.95) == confidence


def test_canonical_names_leave_out_size_and_defaults() -> None:
    assert Spec.parse("esc:n=4,window=5").canonical == "esc"
    assert Spec.parse("esc:window=3,n=9").canonical == "esc:window=3"
    assert Spec.parse("esc:n=4").sized(9).n == 9


def test_features_do_not_matter_to_plain_votes() -> None:
    engine = ScriptedEngine.sequence(["1"], speed=WIDE, features=Features(prefix=False, top_logprobs=0))
    assert decide("self-consistency:n=3", engine).answer == "1"


def test_calls_carry_the_log_probabilities_a_score_needs() -> None:
    asked: dict[str, set[Any]] = {}
    for name in ("self-consistency", "best-of-n", "deepconf"):
        engine = scripted(Completion(answer="1", confidence=1.0))
        decide(f"{name}:n=2", engine)
        asked[name] = {call.top_logprobs for call in engine.calls}
    assert asked == {"self-consistency": {0}, "best-of-n": {0}, "deepconf": {20}}


def test_a_script_sees_seed_and_number_of_every_sample() -> None:
    seen: list[Call] = []
    engine = ScriptedEngine(lambda call: seen.append(call) or Completion(answer="1"), speed=WIDE)  # type: ignore[func-returns-value]
    decide("self-consistency:n=3", engine, request=question(seed=40))
    assert [(call.seed, call.index) for call in seen] == [(40, 0), (41, 1), (42, 2)]
