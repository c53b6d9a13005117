"""Best-of-N and the weighted vote with a verifier (verifiers specification, section 12)."""

from __future__ import annotations

import random
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Completion, ScriptedEngine, Speed
from outthink.core.sample import Candidate
from outthink.strategies import Spec
from outthink.verifiers import FunctionVerifier, Score
from outthink.verifiers.protocol import aggregate
from support.runs import Run, live, question, virtual
from support.toy_tree import WIDE, ToyTree, ToyVerifier

VOTES = ("weighted-vote", "best-of-n")


class Table:
    """Gives the text that begins with the i-th letter the i-th score."""

    id, kind, model, parameters, separator, aggregation = "table@1", "outcome", "table", 0, "\n\n", "last"

    def __init__(self, scores: list[float | None], tokens: int = 0) -> None:
        self.scores, self.tokens = scores, tokens
        self.judged: list[str] = []

    def bound(self, request: Any, candidate: Candidate) -> int:
        return self.tokens

    async def score(self, request: Any, candidates: Any) -> list[Score]:
        self.judged += [candidate.text for candidate in candidates]
        values = [self.scores[ord(candidate.text[0]) - 97] for candidate in candidates]
        return [Score(() if value is None else (value,), self.tokens) for value in values]


def play(
    spec: str,
    answers: list[str | None],
    verifier: Any,
    *,
    logprobs: list[float] | None = None,
    tokens: list[int] | None = None,
    order: list[int] | None = None,
    **options: Any,
) -> Run:
    """Sample i is candidate order[i]: its answer, its text, its score."""
    order = order or list(range(len(answers)))

    def write(call: Any) -> Completion:
        i = order[call.index]
        return Completion(
            answer=answers[i],
            text=f"{chr(97 + i)}: {answers[i]}",
            logprob=logprobs[i] if logprobs else -0.5,
            tokens=tokens[i] if tokens else 100,
        )

    engine = ScriptedEngine(write, speed=WIDE)
    run = virtual(
        Spec.parse(f"{spec.replace(':', f':n={len(answers)},') if ':' in spec else f'{spec}:n={len(answers)}'}"),
        engine,
        options.pop("request", None),
        verifier=verifier,
        **options,
    )
    if run.error is not None:
        raise run.error
    return run


def winner(*args: Any, **options: Any) -> str | None:
    return play(*args, **options).value.answer


ANSWERS = st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.sampled_from([0.0, 0.3, 1.0]), st.data())
def test_equal_scores_are_the_majority_with_its_ties(answers: list[str | None], score: float, data: Any) -> None:
    logprobs = data.draw(st.lists(st.floats(-3, 0), min_size=len(answers), max_size=len(answers)))
    plain = play("self-consistency", answers, None, logprobs=logprobs)
    weighted = play("weighted-vote", answers, Table([score] * len(answers)), logprobs=logprobs)
    assert weighted.value == plain.value


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_an_exact_check_as_score_wins_whenever_anyone_is_right(answers: list[str | None]) -> None:
    scores: list[float | None] = [float(answer == "2") for answer in answers]
    for spec in VOTES:
        assert (winner(spec, answers, Table(scores)) == "2") == ("2" in answers)


def test_aggregations() -> None:
    result = {how: round(aggregate([0.9, 0.5, 0.8], how), 4) for how in ("min", "last", "prod", "mean")}
    assert result == {"min": 0.5, "last": 0.8, "prod": 0.36, "mean": 0.7333}


@pytest.mark.parametrize("spec", VOTES)
def test_aggregation_is_the_verifier_s_own_unless_named(spec: str) -> None:
    """Candidate 1 ends best, candidate 0 has no weak step."""
    gain = {(0,): 0.6, (0, 0): 0.6, (1,): 0.1, (1, 0): 0.9}.__getitem__

    def run(name: str, own: str) -> str | None:
        result = virtual(Spec.parse(name), ToyTree(depth=2).engine, verifier=ToyVerifier(gain, aggregation=own))
        assert result.error is None
        return result.value.answer

    assert [run(f"{spec}:n=2", own) for own in ("last", "min")] == ["110", "100"]
    assert [run(f"{spec}:n=2,aggregation={how}", "last") for how in ("last", "min", "prod", "mean")] == [
        "110", "100", "100", "100",
    ]  # fmt: skip


@pytest.mark.parametrize("spec", VOTES)
def test_solutions_of_one_step_agree_in_all_aggregations(spec: str) -> None:
    def run(how: str) -> Any:
        verifier = ToyVerifier(lambda at: 0.1 + 0.2 * at[0])
        return virtual(Spec.parse(f"{spec}:aggregation={how}"), ToyTree(depth=1).engine, verifier=verifier).value

    assert len({run(how) for how in ("last", "min", "prod", "mean")}) == 1


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(2, 8))
def test_the_order_of_candidates_changes_no_winner(data: Any, n: int) -> None:
    answers = data.draw(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=n, max_size=n))
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    logprobs = [-0.1 * (i + 1) ** 1.1 for i in range(n)]  # no two alike: the tie rule decides alone
    for spec in ("weighted-vote", "weighted-vote:top=0.5", "best-of-n"):
        first = winner(spec, answers, Table(scores), logprobs=logprobs)
        assert winner(spec, answers, Table(scores), logprobs=logprobs, order=order) == first


def test_weights_are_sums_of_scores() -> None:
    answers: list[str | None] = ["1", "1", "2", None]
    assert winner("weighted-vote", answers, Table([0.2, 0.3, 0.6, 0.9])) == "2"
    assert winner("weighted-vote", answers, Table([0.3, 0.4, 0.6, 0.9])) == "1"


def test_vote_at_top_q_is_the_majority_of_the_best() -> None:
    answers: list[str | None] = ["1", "1", "1", "2", "2", "3"]
    scores: list[float | None] = [0.1, 0.2, 0.3, 0.7, 0.75, 0.9]
    assert winner("weighted-vote:top=0.5", answers, Table(scores)) == "2"
    assert winner("weighted-vote:top=0.1", answers, Table(scores)) == "3"
    assert winner("weighted-vote:top=1", answers, Table(scores)) == "2"  # 1.45 against 0.6 and 0.9
    with pytest.raises(BadInput, match="fraction"):
        winner("weighted-vote:top=1.5", answers, Table(scores))


def test_unreadable_samples_cost_no_verifier() -> None:
    verifier = Table([0.5, 0.9, 0.5])
    assert winner("weighted-vote", ["1", None, "1"], verifier) == "1"
    assert winner("best-of-n", ["1", None, "1"], verifier) == "1"
    assert not [text for text in verifier.judged if text.startswith("b")]


def test_ties_of_best_of_n_go_to_the_surer_then_to_the_shorter() -> None:
    even = Table([0.5, 0.5, 0.4])
    assert winner("best-of-n", ["1", "2", "3"], even, logprobs=[-0.9, -0.5, -0.1]) == "2"
    assert winner("best-of-n", ["1", "2", "3"], even, tokens=[90, 60, 10]) == "2"


def test_candidates_without_a_score() -> None:
    run = play("weighted-vote", ["1", "2", "2"], Table([0.9, None, None]))
    assert run.value.answer == "2"  # 0.9 against twice the mean of the known ones
    assert any("2 of 3 candidates have no score" in note for note in run.receipt.notes)
    assert winner("best-of-n", ["1", "2", "2"], Table([0.1, None, None])) == "1"
    for spec in VOTES:
        run = play(spec, ["1", "2", "2"], Table([None, None, None]))
        assert run.value.answer == "2"
        assert any("majority" in note for note in run.receipt.notes)


class Narrow(Table):
    """Takes no candidate that it has no score for."""

    def bound(self, request: Any, candidate: Candidate) -> int:
        if self.scores[ord(candidate.text[0]) - 97] is None:
            raise BadInput("candidate", candidate.text, "is too long", "raise the window")
        return 0


def test_a_refused_candidate_does_not_cost_the_others_their_scores() -> None:
    for spec in VOTES:
        run = play(spec, ["1", "2", "3"], Narrow([0.2, None, 0.9]))
        assert run.value.answer == "3"
        assert any("too long" in note for note in run.receipt.notes)
        with pytest.raises(BadInput, match="too long"):
            play(spec, ["1", "2"], Narrow([None, None]))


def test_text_without_scores_is_the_first_sample() -> None:
    run = play("best-of-n", ["b", "a", "a"], Table([None] * 3), request=question(answer="text"))
    assert run.value.text == "a: b"
    assert any("first sample" in note for note in run.receipt.notes)


def test_a_dead_verifier_leaves_the_majority() -> None:
    for spec in VOTES:
        run = virtual(
            Spec.parse(f"{spec}:n=4"), ToyTree(answer=lambda at: "5").engine, verifier=ToyVerifier(fails_after=0)
        )
        assert run.error is None
        assert run.value.answer == "5"
        assert any("the toy has died" in note for note in run.receipt.notes)


def test_best_of_n_without_a_verifier_takes_the_surest() -> None:
    assert winner("best-of-n", ["1", "2", "3"], None, logprobs=[-0.9, -0.1, -0.5]) == "2"
    assert winner("best-of-n:score=logprob", ["1", "2"], Table([0.1, 0.9]), logprobs=[-0.1, -0.9]) == "1"
    assert winner("best-of-n:score=verifier", ["1", "2"], Table([0.1, 0.9]), logprobs=[-0.1, -0.9]) == "2"
    with pytest.raises(BadInput, match="needs a verifier"):
        winner("best-of-n:score=verifier", ["1"], None)
    with pytest.raises(BadInput, match="score"):
        winner("best-of-n:score=luck", ["1"], None)


class Exact(Table):
    kind = "exact"


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_an_exact_verifier_stops_at_the_first_pass(ahead: int) -> None:
    """Candidate 2 passes: 3 is never judged, and only what was started is charged."""
    verifier = Exact([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    run = play("best-of-n", [str(i) for i in range(8)], verifier, ahead=ahead, tokens=[100, 110, 120, *[300] * 5])
    assert run.value.answer == "2"
    assert [text[0] for text in verifier.judged] == ["a", "b", "c"]
    policy = [entry for entry in run.entries if entry.role == "policy"]
    assert len(policy) == len(run.calls) == min(8, {1: 3, 3: 5, 8: 8}[ahead])
    assert (run.count("cancelled"), len(policy)) == ({1: 0, 3: 2, 8: 5}[ahead], len(policy))
    assert run.receipt.tokens == sum(entry.tokens for entry in run.entries)


def test_a_slow_first_candidate_is_judged_first() -> None:
    verifier = Exact([1.0, 1.0])
    run = play("best-of-n", ["1", "2"], verifier, ahead=2, tokens=[200, 50])
    assert run.value.answer == "1"
    assert len(verifier.judged) == 1


def test_where_nothing_passes_the_surest_is_taken() -> None:
    run = play("best-of-n", ["1", "2", "3"], Exact([0.0] * 3), logprobs=[-0.9, -0.1, -0.5])
    assert run.value.answer == "2"
    assert len(run.calls) == 3


def test_an_unchecked_candidate_is_better_than_a_failed_one() -> None:
    run = play("best-of-n", ["1", "2", "2"], Exact([0.0, None, None]), logprobs=[-0.1, -0.9, -0.9])
    assert run.value.answer == "2"
    assert any("majority" in note for note in run.receipt.notes)


def test_the_first_pass_ends_it_in_real_time_too() -> None:
    engine = ScriptedEngine.sequence(["1", "2", "3"], tokens=[10, 20, 4000], speed=Speed(stream=2000, total=1e9))
    check = FunctionVerifier(lambda request, text: "answer is 2" in text, exact=True)
    verdict, session = live(Spec.parse("best-of-n:n=3"), engine.live(), verifier=check, ahead=3)
    assert verdict.answer == "2"
    assert [entry.status for entry in session.receipt().entries if entry.role == "policy"].count("cancelled") == 1


def test_an_exact_pass_needs_no_readable_answer() -> None:
    run = play("best-of-n", [None, None], FunctionVerifier(lambda r, text: "b: " in text, exact=True))
    assert run.value.text == "b: None"


def test_verifier_tokens_are_charged() -> None:
    for spec in VOTES:
        run = play(spec, ["1", "2", "2"], Table([0.5] * 3, tokens=7))
        (judged,) = [entry for entry in run.entries if entry.role == "verifier"]
        assert judged.tokens == 21
        assert run.receipt.tokens == 3 * 120 + 21


def test_random_scores_never_gain_over_the_majority() -> None:
    """1,000 toy problems of 9 samples, each right with 0.4, else one of two wrong answers."""
    draw = random.Random(7)
    gains = []
    for _ in range(1000):
        answers = [draw.choices(["1", "2", "3"], [0.4, 0.35, 0.25])[0] for _ in range(9)]
        logprobs = [-draw.random() for _ in answers]
        plain = winner("self-consistency", answers, None, logprobs=logprobs)
        weighted = winner("weighted-vote", answers, Table([draw.random() for _ in answers]), logprobs=logprobs)
        gains.append(float(weighted == "1") - float(plain == "1"))
    low = fmean(gains) - 1.96 * stdev(gains) / len(gains) ** 0.5
    assert low <= 0
    assert stdev(gains) > 0  # the scores do decide some


def test_zero_is_read_where_it_is_legal() -> None:
    assert Spec.parse("lookahead:k=0").parameters == {"k": 0}
    assert Spec.parse("mcts:noise=0").parameters == {"noise": 0.0}
    for text in ("lookahead:k=-1", "lookahead:m=0", "mcts:noise=-0.1", "beam:n=0", "rebase:temperature=0"):
        with pytest.raises(BadInput, match="is n"):
            Spec.parse(text)
