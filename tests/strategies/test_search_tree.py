"""Every search on a tree with known step values: the optimum, the calls it takes, and what can go wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Budget, Completion, Fault, ScriptedEngine, Speed, Unsupported
from outthink.engines.protocol import Features
from outthink.strategies import Spec, strategies
from outthink.verifiers import FunctionVerifier
from support.runs import Run, live, question, virtual
from support.toy_tree import OPTIMUM, STEP_TOKENS, WIDE, ToyTree, ToyVerifier, number, place, value

BEST = number(OPTIMUM)
SEARCHES = ("beam", "lookahead", "dvts", "rebase", "mcts")
CALLS = {
    "beam:n=4": 12,
    "lookahead:n=4,k=1": 20,  # twice 4 rollouts of one step; the third step ends the path
    "lookahead:n=4,k=2": 24,  # 8 rollout steps, then 4 that end the path
    "dvts:n=8": 24,
    "rebase:n=4": 12,
    "mcts:n=4,choice=visits": 12,  # 3 expansions; the fourth simulation ends at the optimum
    "mcts:n=4,choice=vote": 16,  # and 4 open leaves are completed
}


def play(spec: str, tree: ToyTree | None = None, verifier: Any = None, **options: Any) -> Run:
    tree = tree or ToyTree()
    run = virtual(
        Spec.parse(spec), tree.engine, options.pop("request", None), verifier=verifier or ToyVerifier(), **options
    )
    if run.error is not None:
        raise run.error
    return run


@pytest.mark.parametrize(("spec", "calls"), CALLS.items())
def test_the_optimum_is_found_in_the_known_number_of_calls(spec: str, calls: int) -> None:
    run = play(spec)
    assert (run.value.answer, run.value.stopped) == (BEST, "finished")
    assert place(run.value.text) == OPTIMUM
    assert len(run.calls) == calls
    assert run.receipt.notes == ()


@pytest.mark.parametrize("spec", CALLS)
def test_everything_is_charged_once(spec: str) -> None:
    verifier = ToyVerifier()
    run = play(spec, verifier=verifier)
    policy = [entry for entry in run.entries if entry.role == "policy"]
    judged = [entry for entry in run.entries if entry.role == "verifier"]
    assert len(policy) == len(run.calls)
    assert sum(entry.prompt_tokens for entry in policy) == 20 * len(policy)
    assert sum(entry.prompt_tokens - entry.cached_tokens for entry in judged) == STEP_TOKENS * len(verifier.seen)
    assert run.receipt.tokens == sum(entry.tokens for entry in run.entries)


@pytest.mark.parametrize("spec", ["beam:n=4", "dvts:n=8", "rebase:n=4"])
def test_a_path_is_judged_once_a_step(spec: str) -> None:
    verifier = ToyVerifier()
    run = play(spec, verifier=verifier)
    assert sum(verifier.batches) == len(run.calls)


@pytest.mark.parametrize("spec", [*CALLS, "mcts:n=12,noise=0.25,priors=logprob"])
def test_virtual_runs_repeat_to_the_digit(spec: str) -> None:
    one, other = (play(spec, seed=3, request=question(seed=3)) for _ in range(2))
    assert one.value == other.value
    assert one.entries == other.entries
    assert one.receipt.seconds == other.receipt.seconds


@pytest.mark.parametrize("name", SEARCHES)
def test_a_path_finishes_when_the_model_ends_it(name: str) -> None:
    tree = ToyTree(depth=1)
    run = play(f"{name}:n=4", tree, ToyVerifier(lambda at: 0.9 if at == (3,) else 0.2))
    assert run.value.answer == "13"
    assert len(run.calls) == 4


@pytest.mark.parametrize("name", SEARCHES)
def test_newline_steps_of_our_own_format(name: str) -> None:
    tree = ToyTree(separator="\n")
    run = play(f"{name}:n=8", tree, ToyVerifier(separator="\n"))
    assert run.value.answer == BEST
    assert run.value.text.count("\n") == 2


def test_a_separator_can_be_named() -> None:
    run = play(r"beam:n=4,separator=\n", ToyTree(separator="\n"))
    assert run.value.answer == BEST
    assert all(call.sampling.stop == ("\n",) for call in run.calls)


def test_blank_lines_open_the_next_step() -> None:
    verifier = ToyVerifier(separator="\n")
    run = play("beam:n=4", ToyTree(separator="\n\n"), verifier)
    assert run.value.answer == BEST
    assert len(run.calls) == 12 + 8  # every step but the first begins behind a blank line: one more call
    assert {call.sampling.stop for call in run.calls} == {("\n",)}
    assert max(verifier.texts, key=len).startswith("[2] and so it goes on 1\n\n[1]")


def test_a_path_may_fill_the_request_s_limit_and_no_more() -> None:
    run = play("beam:n=4", request=question(max_tokens=25))
    assert max(call.sampling.max_tokens for call in run.calls) == 25
    assert [call.sampling.max_tokens for call in run.calls][-1] == 25 - 2 * 11  # two steps are written
    assert (run.value.answer, place(run.value.text)) == (None, (2, 1, 0))  # cut before its answer, as a sample would be


def test_a_cut_step_goes_on_where_it_was_cut() -> None:
    texts = {"": "abcdefghij", "abcde": "fghij The answer is 7."}
    engine = ScriptedEngine(lambda call: Completion(text=texts[call.prefix or ""], tokens=10), speed=WIDE)
    run = virtual(Spec.parse("beam:n=1,step_tokens=5"), engine, verifier=FunctionVerifier(lambda request, text: 0.5))
    assert run.calls[1].prefix == "abcde"


def untold(text: str, index: int) -> ScriptedEngine:
    class Silent(ScriptedEngine):
        def outcome(self, call: Any) -> Any:
            outcome = super().outcome(call)
            object.__setattr__(outcome.sample, "stop", None)
            return outcome

    parts = text.split("\n\n")
    return Silent(
        lambda call: Completion(text=parts[min((call.prefix or "").count("\n\n"), index)], tokens=9), speed=WIDE
    )


def test_where_the_server_does_not_tell_its_stop_a_boxed_answer_ends_the_path() -> None:
    engine = untold("first we count\n\nthen \\boxed{42}", 1)
    run = virtual(Spec.parse("beam:n=1"), engine, verifier=FunctionVerifier(lambda request, text: 0.5))
    assert (run.value.answer, len(run.calls)) == ("42", 2)


def test_where_the_server_does_not_tell_its_stop_an_empty_step_ends_the_path() -> None:
    engine = untold("first we count\n\nThe answer is 42.\n\n", 2)
    run = virtual(Spec.parse("beam:n=1"), engine, verifier=FunctionVerifier(lambda request, text: 0.5))
    assert (run.value.answer, len(run.calls)) == ("42", 3)


@pytest.mark.parametrize("name", [*SEARCHES, "weighted-vote"])
def test_without_a_verifier_it_is_refused_before_anything_is_spent(name: str) -> None:
    run = virtual(Spec.parse(name), ToyTree().engine)
    assert isinstance(run.error, BadInput)
    assert f"'{name}' needs a verifier" in str(run.error)
    assert "--verifier" in str(run.error)
    assert run.calls == []


@pytest.mark.parametrize("name", SEARCHES)
def test_an_engine_that_cannot_continue_is_refused_before_anything_is_spent(name: str) -> None:
    tree = ToyTree(features=Features(logprobs=True, prefix=False))
    run = virtual(Spec.parse(name), tree.engine, verifier=ToyVerifier())
    assert isinstance(run.error, Unsupported)
    assert "cannot continue a prefix" in str(run.error)
    assert run.calls == []


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts", "rebase"])
def test_an_exact_check_cannot_judge_steps(name: str) -> None:
    run = virtual(Spec.parse(name), ToyTree().engine, verifier=FunctionVerifier(lambda r, t: True, exact=True))
    assert isinstance(run.error, BadInput)
    assert "whole solutions" in str(run.error)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("after", [0, 1])
def test_a_verifier_that_dies_leaves_the_majority(name: str, after: int) -> None:
    tree = ToyTree(answer=lambda at: "7")
    run = play(f"{name}:n=4", tree, ToyVerifier(fails_after=after))
    assert run.value.answer == "7"
    assert any("the toy has died" in note for note in run.receipt.notes)
    assert any("no score" in note for note in run.receipt.notes)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_score_that_is_no_number_leaves_an_answer(name: str) -> None:
    run = play(f"{name}:n=4", ToyTree(answer=lambda at: "7"), ToyVerifier(lambda at: math.nan))
    assert run.value.answer == "7"
    assert any("not between 0 and 1" in note for note in run.receipt.notes)


class Narrow(ToyVerifier):
    """Refuses texts of more than `window` steps."""

    window = 1

    async def score(self, request: Any, candidates: Any) -> Any:
        if any(len(candidate.steps) > self.window for candidate in candidates):
            raise BadInput("candidate", self.window, "is too long", "raise the window")
        return await super().score(request, candidates)


@pytest.mark.parametrize("name", SEARCHES)
def test_paths_that_grow_too_long_for_the_verifier_leave_the_majority(name: str) -> None:
    run = play(f"{name}:n=8", ToyTree(answer=lambda at: "7"), Narrow())
    assert run.value.answer == "7"
    assert any("too long" in note for note in run.receipt.notes)
    never = Narrow()
    never.window = 0
    if name == "lookahead":  # what it shows the verifier first is two steps long already
        return
    with pytest.raises(BadInput, match="too long"):
        play(f"{name}:n=8", verifier=never)


@pytest.mark.parametrize("name", SEARCHES)
def test_where_every_step_is_pruned_the_best_is_kept(name: str) -> None:
    run = play(f"{name}:n=4", ToyTree(tokens=3))  # below 5 tokens a step
    assert run.value.answer is not None
    assert place(run.value.text)[0] == OPTIMUM[0]
    assert any("every step was pruned" in note for note in run.receipt.notes)


def test_repeated_steps_are_pruned_and_never_looped() -> None:
    def write(call: Any) -> Completion:
        loops = call.index % 2 == 0
        text = "we do the same again\n\nmore" if loops else "now to the end. The answer is 5."
        return Completion(text=text, tokens=20)

    engine = ScriptedEngine(write, speed=WIDE)
    run = virtual(
        Spec.parse("beam:n=4,m=2"), engine, verifier=FunctionVerifier(lambda r, text: 0.9 if "same" in text else 0.1)
    )
    assert run.value.answer == "5"
    assert len(run.calls) == 6  # 2 finish, the other 2 are one text: its children repeat it, or finish


def test_search_stops_when_nothing_is_left_to_gain() -> None:
    """Two of four first samples end with one answer at 0.995; the third and fourth are not followed."""

    def write(call: Any) -> Completion:
        ends = call.index < 2
        return Completion(text="The answer is 5." if ends else "on and on we go\n\nThe answer is 6.", tokens=20)

    def run(best: float) -> Run:
        engine = ScriptedEngine(write, speed=WIDE)
        return virtual(
            Spec.parse("beam:n=4,m=2"), engine, verifier=FunctionVerifier(lambda r, t: best if "5" in t else 0.3)
        )

    assert len(run(0.995).calls) == 4
    assert len(run(0.95).calls) > 4


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SEARCHES),
    st.integers(1, 9),
    st.integers(60, 4000),
    st.integers(0, 10**6),
    st.none() | st.floats(0.1, 3),
)
def test_a_budget_is_never_exceeded_and_an_answer_survives(
    name: str, n: int, tokens: int, seed: int, seconds: float | None
) -> None:
    verifier = ToyVerifier(lambda at: (hash((seed, at)) % 1000) / 1000)
    request = question(budget=Budget(tokens=tokens, seconds=seconds), min_tokens=1)
    run = virtual(Spec.parse(f"{name}:n={n}"), ToyTree().engine, request, verifier=verifier)
    assert run.error is None
    assert run.receipt.tokens <= tokens
    if run.count("finished") and any(e.role == "policy" and e.status == "finished" for e in run.entries):
        assert run.value.text
        assert run.value.answer is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_when_the_budget_ends_before_any_path_the_best_partial_one_is_read(name: str) -> None:
    request = question(budget=Budget(tokens=420), min_tokens=1, max_tokens=40)
    run = virtual(Spec.parse(f"{name}:n=4"), ToyTree(words="so far 31 and").engine, request, verifier=ToyVerifier())
    assert run.error is None
    assert run.session.stopped == "budget:tokens"
    assert run.value.answer is not None
    assert run.receipt.tokens <= 420


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_say_what_they_need(name: str) -> None:
    result = strategies()[name]
    assert (result.needs_verifier, result.extends, result.sized, result.stops_early) == (True, True, True, False)
    assert not strategies()["weighted-vote"].extends
    assert strategies()["weighted-vote"].needs_verifier
    assert not strategies()["best-of-n"].needs_verifier


def even() -> FunctionVerifier:
    return FunctionVerifier(lambda request, text: 0.5)


@pytest.mark.parametrize("name", [*SEARCHES[:-1], "weighted-vote"])  # a simulation of mcts takes m samples
def test_a_size_of_one_equals_single(name: str) -> None:
    one, other = (
        virtual(
            Spec.parse(spec),
            ScriptedEngine(lambda call: Completion(answer="7", tokens=60), speed=WIDE),
            verifier=even(),
        )
        for spec in ("single", f"{name}:n=1")
    )
    assert (other.value.answer, other.value.text) == (one.value.answer, one.value.text) == ("7", "The answer is 7.")
    assert other.receipt.tokens == one.receipt.tokens == 80
    assert other.receipt.seconds == one.receipt.seconds


@pytest.mark.parametrize("name", [*SEARCHES, "weighted-vote", "best-of-n"])
@pytest.mark.parametrize(("text", "tokens"), [("hm", 9), ("", 0)])
def test_no_answer_where_none_can_be_read(name: str, text: str, tokens: int) -> None:
    engine = ScriptedEngine(lambda call: Completion(text=text, tokens=tokens), speed=WIDE)
    run = virtual(Spec.parse(name), engine, verifier=even())
    assert run.error is None
    assert (run.value.answer, run.value.text) == (None, text)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_server_found_unable_on_the_way_is_named(name: str) -> None:
    def write(call: Any) -> Completion:
        if call.prefix is None:
            return Completion(text="first we think about it\n\nThe answer is 5.", tokens=40)
        engine.features = Features(prefix=False)
        return Completion(fault=Fault(fatal=True))

    engine = ScriptedEngine(write, speed=WIDE, features=Features(logprobs=True))
    run = virtual(Spec.parse(name), engine, verifier=even())
    assert isinstance(run.error, Unsupported)
    assert len([entry for entry in run.entries if entry.role == "policy"]) > 1  # what was spent is in the receipt


@pytest.mark.parametrize("spec", ["beam:n=4", "dvts:n=8", "rebase:n=4", "mcts:n=4", "lookahead:n=4"])
def test_in_real_time_as_in_virtual_time(spec: str) -> None:
    tree = ToyTree(speed=Speed(stream=1e5, total=1e9, prefill=1e6, concurrency=64))
    verdict, session = live(Spec.parse(spec), tree.engine.live(), verifier=ToyVerifier())
    assert verdict.answer == BEST
    assert session.receipt().tokens == play(spec).receipt.tokens


def test_known_values() -> None:
    assert [round(value(at), 3) for at in ((2,), (2, 1), OPTIMUM, (0,))] == [0.367, 0.633, 0.9, 0.1]
