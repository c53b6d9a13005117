"""`session.sample(..., judged=True)`: samples that come with their verifier's scores, on the virtual clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink as ot
from outthink.core.errors import BadInput, EngineError, Unsupported
from outthink.core.receipt import Entry
from outthink.core.sample import Candidate, Sample
from outthink.engines.protocol import Call
from outthink.strategies.voting import Step
from outthink.verifiers import ConfidenceVerifier, Score, Verifier
from support.runs import Run, answers, collect, question, virtual

QUICK = ot.Speed(total=1e9, prefill=1e12, judge=10, concurrency=64)
"""Fifty tokens a second and stream; a verifier reads ten."""


class Reads(Verifier):
    """The score of a text is its number / 100; `tokens` a text, of which it tells unless `told` is False."""

    def __init__(self, tokens: int = 10, *, told: bool = True, fails: tuple[str, ...] = (), **more: Any) -> None:
        self.id = self.model = "reader"
        self.parameters = 1000
        self.tokens, self.told, self.fails = tokens, told, fails
        self.seen: list[list[str]] = []
        self.__dict__.update(more)

    def bound(self, request: ot.Request, candidate: Candidate) -> int:
        return self.tokens

    async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
        texts = [candidate.text for candidate in candidates]
        self.seen.append(texts)
        if any(part in text for text in texts for part in self.fails):
            raise EngineError("the reader has died")
        return [Score((number(text) / 100,), self.tokens if self.told else None) for text in texts]


def number(text: str) -> int:
    return int("".join(filter(str.isdigit, text)) or 0)


def engine(lengths: Sequence[int], texts: Sequence[str | None] | None = None, **options: Any) -> ot.ScriptedEngine:
    names = texts or [str(i) for i in range(1, len(lengths) + 1)]
    return ot.ScriptedEngine.sequence(names, tokens=lengths, **{"speed": QUICK, "prompt_tokens": 0, **options})


def judgements(run: Run) -> list[Entry]:
    return [entry for entry in run.entries if entry.role == "verifier"]


def at(taken: list[Any], *, leave: int | None = None, **options: Any) -> Any:
    """A strategy that notes when each sample is taken, and which; `leave` after so many."""

    async def strategy(session: ot.Session, request: ot.Request) -> list[Sample]:
        samples = []
        async for sample in session.sample(request, judged=True, **options):
            taken.append((round(session.elapsed, 6), sample.answer))
            samples.append(sample)
            if len(samples) == leave:
                break
        return samples

    return strategy


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 60))
def test_samples_come_scored_and_in_launch_order(lengths: list[int], ahead: int, tokens: int) -> None:
    judge = Reads(tokens)
    run = virtual(collect(n=len(lengths), ahead=ahead, judged=True), engine(lengths), verifier=judge)
    assert answers(run.value) == [str(i) for i in range(1, len(lengths) + 1)]
    assert [sample.scores for sample in run.value] == [(i / 100,) for i in range(1, len(lengths) + 1)]
    assert all(sample.verifier_tokens == tokens for sample in run.value)
    assert sum(entry.prompt_tokens or 0 for entry in judgements(run)) == tokens * len(lengths)
    assert run.runner.peak <= min(ahead, len(lengths))


def test_what_has_finished_is_judged_while_others_generate() -> None:
    """Sample 2 ends at 1 s and has its score at 2 s; sample 1 ends at 3 s, is judged until 4 s, and comes first."""
    taken: list[Any] = []
    run = virtual(at(taken, n=3, ahead=3), engine([150, 50, 25]), verifier=Reads())
    assert taken == [(4.0, "1"), (4.0, "2"), (4.0, "3")]
    assert [entry.seconds for entry in judgements(run)] == [1.0] * 3
    assert run.receipt.seconds == 4.0


@pytest.mark.parametrize(("ahead", "seconds"), [(3, 12.0), (1, 34.5)])
def test_a_judge_that_is_slower_than_generating(ahead: int, seconds: float) -> None:
    """Each is judged for 10 s: three in flight are known 10 s after the longest, one after the other takes the sum."""
    run = virtual(collect(n=3, ahead=ahead, judged=True), engine([50, 75, 100]), verifier=Reads(100))
    assert run.receipt.seconds == pytest.approx(seconds)


def test_a_sample_is_in_flight_until_it_is_judged() -> None:
    """With two in flight the third call begins when the first has its score, at 2 s, and has its own at 4 s."""
    run = virtual(at([], n=3, ahead=2, order="finished", leave=2), engine([50, 500, 50]), verifier=Reads())
    assert answers(run.value) == ["1", "3"]
    assert run.receipt.seconds == 4.0
    assert run.runner.peak == 2


def test_what_finishes_at_the_same_moment_is_judged_together() -> None:
    judge = Reads()
    run = virtual(collect(n=4, ahead=4, judged=True), engine([50, 50, 50, 100]), verifier=judge)
    assert judge.seen == [["The answer is 1.", "The answer is 2.", "The answer is 3."], ["The answer is 4."]]
    assert [(entry.prompt_tokens, entry.seconds) for entry in judgements(run)] == [(10, 1.0), (30, 3.0)]


def test_samples_come_as_they_are_judged_on_request() -> None:
    taken: list[Any] = []
    virtual(at(taken, n=3, ahead=3, order="finished"), engine([150, 50, 100]), verifier=Reads())
    assert taken == [(2.0, "2"), (3.0, "3"), (4.0, "1")]


def test_without_an_answer_nothing_is_judged_or_paid() -> None:
    judge = Reads()
    run = virtual(collect(n=3, ahead=3, judged=True), engine([50] * 3, ["1", None, "3"]), verifier=judge)
    assert judge.seen == [["The answer is 1.", "The answer is 3."]]
    assert [(sample.scores, sample.verifier_tokens) for sample in run.value] == [
        ((0.01,), 10),
        ((), None),
        ((0.03,), 10),
    ]


def test_leaving_cancels_what_is_being_judged_and_charges_it() -> None:
    """Sample 1 is judged until 2 s; 2 has been judged since 1.5 s, 3 is still generating."""
    run = virtual(at([], n=3, ahead=3, leave=1), engine([50, 75, 400]), verifier=Reads())
    assert run.receipt.seconds == 2.0
    first, second = judgements(run)
    assert (first.status, first.prompt_tokens, first.seconds) == ("finished", 10, 1.0)
    assert (second.status, second.prompt_tokens, second.seconds) == ("cancelled", 10, 0.5)
    assert [entry.cancelled_tokens for entry in run.entries if entry.role == "policy"] == [0, 0, 100]


def test_a_deadline_delivers_what_has_finished_and_is_not_judged_without_a_score() -> None:
    asked = question(budget=ot.Budget(seconds=2.25))
    run = virtual(collect(n=3, ahead=3, judged=True), engine([50, 75, 400]), asked, verifier=Reads())
    assert [(sample.answer, sample.scores) for sample in run.value] == [("1", (0.01,)), ("2", ())]
    assert run.session.stopped == "budget:seconds"
    assert run.receipt.seconds == 2.25


def test_a_verifier_that_dies_costs_scores_and_no_sample() -> None:
    run = virtual(collect(n=4, ahead=2, judged=True), engine([50, 60, 70, 80]), verifier=Reads(fails=("2", "3")))
    assert [(sample.answer, sample.scores) for sample in run.value] == [
        ("1", (0.01,)),
        ("2", ()),
        ("3", ()),
        ("4", (0.04,)),
    ]
    assert [note for note in run.receipt.notes if "died" in note] == [
        "reader failed, its scores are missing: the reader has died"
    ]
    assert sorted(entry.status for entry in judgements(run)) == ["failed", "failed", "finished", "finished"]


def test_a_verifier_that_is_misused_says_so() -> None:
    bare = ot.ScriptedEngine(lambda call: ot.Completion(answer="1", logprob=None), speed=QUICK)
    run = virtual(collect(n=2, judged=True), bare, verifier=ConfidenceVerifier("logprob"))
    assert isinstance(run.error, Unsupported)
    assert "log-probabilities" in str(run.error)


def test_a_candidate_that_the_verifier_cannot_take_is_unscored_and_noted_once() -> None:
    class Short(Reads):
        def bound(self, request: ot.Request, candidate: Candidate) -> int:
            if number(candidate.text) < 3:
                raise BadInput("candidate", candidate.text, "is too long", "leave it out")
            return super().bound(request, candidate)

    run = virtual(collect(n=3, judged=True), engine([50, 60, 70]), verifier=Short())
    assert [sample.scores for sample in run.value] == [(), (), (0.03,)]
    assert list(run.receipt.notes) == ["reader: some samples cannot be judged: is too long"]


def test_without_a_verifier_the_remedy_is_named() -> None:
    run = virtual(collect(judged=True), engine([50]))
    assert isinstance(run.error, BadInput)
    assert "--verifier" in str(run.error)
    assert run.calls == []


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf")])
def test_a_ratio_is_a_number_from_0(ratio: float) -> None:
    with pytest.raises(BadInput, match="ratio"):
        ot.Judged(ratio=ratio)


def test_a_watch_that_stops_a_sample_leaves_nothing_to_judge() -> None:
    judge = Reads()
    watched = collect(n=2, ahead=2, judged=True, watch=lambda progress: "stop" if progress.index == 0 else "keep")
    run = virtual(watched, engine([50, 50]), question(budget=ot.Budget(tokens=5000)), verifier=judge)
    assert answers(run.value) == ["2"]
    assert judge.seen == [["The answer is 2."]]


class Kept(dict[int, Sample]):
    """A cache of samples by number."""

    def get(self, call: Call) -> Sample | None:  # type: ignore[override]
        return super().get(call.index)

    def put(self, call: Call, sample: Sample) -> None:
        self[call.index] = sample


@pytest.mark.parametrize("ahead", [1, 3])
def test_cached_samples_are_judged_too_unless_they_carry_scores(ahead: int) -> None:
    carried = Sample(1, "The answer is 7.", "7", "scripted", 5, scores=(0.9,), verifier_tokens=3)
    cache, judge = Kept({0: Sample(0, "The answer is 6.", "6", "scripted", 5), 1: carried}), Reads()
    run = virtual(collect(n=3, ahead=ahead, judged=True), engine([50] * 3), verifier=judge, cache=cache)
    assert [(sample.answer, sample.scores) for sample in run.value] == [("6", (0.06,)), ("7", (0.9,)), ("3", (0.03,))]
    assert judge.seen == [["The answer is 6."], ["The answer is 3."]]
    assert cache[2].scores == ()  # a score belongs to a verifier, and the cache's key does not
    assert run.receipt.seconds == (3.0 if ahead == 1 else 2.0)


def test_what_goes_on_from_a_text_is_judged_with_it() -> None:
    judge = Reads()

    async def strategy(session: ot.Session, request: ot.Request) -> list[Sample]:
        return [sample async for sample in session.extend(request, "So far 20. ", n=1, judged=True)]

    run = virtual(strategy, engine([50]), verifier=judge)
    assert judge.seen == [["So far 20. The answer is 1."]]
    assert run.value[0].text == "The answer is 1."


def test_branches_and_nested_budgets_judge_on_the_same_clock() -> None:
    async def strategy(session: ot.Session, request: ot.Request) -> Any:
        async def branch(child: ot.Session) -> list[Sample]:
            with child.within("tokens=5000") as inner:
                return [sample async for sample in inner.sample(request, n=2, ahead=2, judged=True)]

        return await session.together(branch, branch)

    run = virtual(strategy, engine([50, 50, 100, 100]), verifier=Reads())
    assert [[sample.scores for sample in branch] for branch in run.value] == [[(0.01,), (0.02,)], [(0.03,), (0.04,)]]
    assert run.receipt.seconds == 4.0
    assert not any(run.session.account.reserved.values())


def test_an_inner_stream_is_judged_while_the_session_around_it_works() -> None:
    """The outer call takes from 2 s to 12 s; sample 2 is judged meanwhile, and not only when it is asked for."""

    async def strategy(session: ot.Session, request: ot.Request) -> Any:
        seen = []
        with session.within("tokens=9000") as inner:
            async for sample in inner.sample(request, n=2, ahead=2, judged=True):
                seen.append((session.elapsed, sample.answer, sample.scores))
                if len(seen) == 1:
                    _ = [other async for other in session.sample(request, n=1)]
        return seen

    run = virtual(strategy, engine([50, 100, 500]), question(budget=ot.Budget(tokens=20_000)), verifier=Reads())
    assert run.value == [(2.0, "1", (0.01,)), (12.0, "2", (0.02,))]


def test_the_models_own_confidence_is_the_same_path_at_no_tokens() -> None:
    sure = ot.ScriptedEngine(lambda call: ot.Completion(answer="1", logprob=-0.5, tokens=50), speed=QUICK)
    run = virtual(collect(n=2, ahead=2, judged=True), sure, verifier=ConfidenceVerifier("logprob"))
    assert [sample.scores[0] for sample in run.value] == [pytest.approx(0.60653, abs=1e-5)] * 2
    assert [(entry.tokens, entry.seconds) for entry in judgements(run)] == [(0, 0.0)]
    assert run.receipt.seconds == pytest.approx(1.0)
    mean = virtual(collect(n=1, judged=True), engine([50]), verifier=ConfidenceVerifier())
    assert [call.top_logprobs for call in mean.calls] == [20]


class Agree:
    """A rule that buys judged samples until one has a score above a bar."""

    def __init__(self, bar: float, judged: bool | ot.Judged) -> None:
        self.bar, self.judged, self.best, self.seen = bar, judged, None, 0

    def next(self) -> Step | None:
        return Step(None, 4, ahead=2, judged=self.judged) if not self.seen else None

    def add(self, sample: Sample, model: str | None) -> bool:
        self.seen += 1
        if sample.scores and sample.scores[-1] >= self.bar:
            self.best = sample
        return self.best is not None

    def verdict(self) -> ot.Verdict:
        return ot.Verdict(self.best and self.best.answer, "")


@pytest.mark.parametrize("judged", [True, ot.Judged(ratio=0.5)])
def test_a_rule_sees_scores_after_every_sample(judged: bool | ot.Judged) -> None:
    async def strategy(session: ot.Session, request: ot.Request) -> ot.Verdict:
        return await ot.allocate(session, request, rule=Agree(0.02, judged))

    run = virtual(strategy, engine([50, 100, 150, 200]), verifier=Reads())
    assert run.value.answer == "2"
    assert run.receipt.seconds == 3.0


@pytest.mark.parametrize("seed", range(5))
def test_the_same_run_gives_the_same_receipt(seed: int) -> None:
    lengths = [random.Random(seed * 10 + i).randrange(1, 90) for i in range(8)]

    def once() -> Any:
        return virtual(collect(n=8, ahead=3, judged=True), engine(lengths), verifier=Reads()).receipt.json()

    assert once() == once()
