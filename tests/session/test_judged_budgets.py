"""Budgets of judged streams: what is kept aside, what judging is charged, and what happens where there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import outthink as ot
from outthink.core.errors import Unsupported
from outthink.core.sample import Candidate
from outthink.economics.tariff import Energy
from outthink.verifiers import ConfidenceVerifier, Score, Verifier
from support.runs import BYTE_BOUND, Run, answers, collect, question, virtual

QUICK = ot.Speed(total=1e9, prefill=1e12, judge=10, concurrency=64)
EVEN = ot.Judged(ratio=1.0)


class Costs(Verifier):
    """Gives 0.5 for `takes` tokens a text, of which it says beforehand that they are `at_most`."""

    id = "costs"
    parameters = 1000

    def __init__(self, takes: int = 50, at_most: int | None = None, *, model: str = "costs", told: bool = True) -> None:
        self.takes, self.at_most, self.model, self.told = takes, at_most or takes, model, told

    def bound(self, request: ot.Request, candidate: Candidate) -> int:
        return self.at_most

    async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
        return [Score((0.5,), self.takes if self.told else None) for _ in candidates]


def engine(lengths: Sequence[int] | int = 100) -> ot.ScriptedEngine:
    return ot.ScriptedEngine.sequence(["1"], tokens=lengths, speed=QUICK, prompt_tokens=20)


def run(budget: ot.Budget, verifier: Verifier, lengths: Sequence[int] | int = 100, **options: Any) -> Run:
    prices = {name: options.pop(name) for name in ("price", "energy") if name in options}
    asked = question(budget=budget, min_tokens=options.pop("min_tokens", 64))
    judged = collect(**{"judged": EVEN, "n": 1, "ahead": 1, **options})
    return virtual(judged, engine(lengths), asked, verifier=verifier, **prices)


def caps(finished: Run) -> list[int]:
    return [call.sampling.max_tokens for call in finished.calls]


@pytest.mark.parametrize(("ratio", "cap"), [(1.0, 100), (1.25, (2 * BYTE_BOUND + 200) / 2.25 - BYTE_BOUND), (0.0, 300)])
def test_as_much_is_kept_aside_as_judging_may_take(ratio: float, cap: float) -> None:
    tokens = 2 * (BYTE_BOUND + 100) if ratio else BYTE_BOUND + 300
    assert caps(run(ot.Budget(tokens=tokens), Costs(), judged=ot.Judged(ratio=ratio))) == [int(cap)]


def test_nothing_is_kept_aside_for_a_verifier_without_tokens() -> None:
    budget = ot.Budget(tokens=BYTE_BOUND + 100)
    assert caps(run(budget, ConfidenceVerifier("logprob"), judged=True)) == [100]
    assert caps(run(budget, Costs(), judged=True)) == []  # a quarter more than the call itself


def test_calls_wanted_together_share_what_is_left() -> None:
    finished = run(ot.Budget(tokens=3 * 2 * (BYTE_BOUND + 90) + 2), Costs(20), 60, n=3, ahead=3)
    assert caps(finished) == [90, 90, 90]
    assert [sample.scores for sample in finished.value] == [(0.5,)] * 3


def test_what_judging_has_not_taken_is_free_again() -> None:
    """Of 1,200 the first call and its judging take 120 + 50: 1,030 are left, half of them for judging."""
    finished = run(ot.Budget(tokens=1200), Costs(50), n=2)
    assert caps(finished) == [600 - BYTE_BOUND, 515 - 20]
    assert finished.receipt.tokens == 2 * (120 + 50)
    assert finished.session.stopped is None


def test_no_sample_is_bought_that_could_not_be_judged() -> None:
    """Each sample takes 80, judging it 80 more: six leave 40, and a seventh has to begin with 2 x (20 + 64)."""
    finished = run(ot.Budget(tokens=1000), Costs(80), 60, n=50)
    assert [sample.scores for sample in finished.value] == [(0.5,)] * 6
    assert finished.session.stopped == "budget:tokens"
    assert finished.receipt.tokens == 960


def test_the_least_that_works_counts_judging() -> None:
    least = 2 * (BYTE_BOUND + 64)
    refused = run(ot.Budget(tokens=least - 1), Costs())
    assert refused.calls == []
    assert f"budget tokens={least - 1} is below the least that works here: {least}" in refused.receipt.notes
    assert caps(run(ot.Budget(tokens=least), Costs(10))) == [64]


def test_where_there_is_no_room_for_judging_the_sample_comes_without_a_score_and_it_is_noted_once() -> None:
    """A verifier that may take 2,000 for a text, where a twentieth was foreseen."""
    finished = run(ot.Budget(tokens=1500), Costs(2000), n=3, judged=ot.Judged(ratio=0.05))
    assert [(sample.answer, sample.scores) for sample in finished.value] == [("1", ())] * 3
    assert list(finished.receipt.notes) == ["costs: some samples are not judged: the budget has no room for it"]
    assert finished.receipt.tokens == 3 * 120


def test_more_than_was_kept_aside_is_taken_from_what_is_left() -> None:
    finished = run(ot.Budget(tokens=1500), Costs(400), n=2, judged=ot.Judged(ratio=0.05))
    assert [sample.scores for sample in finished.value] == [(0.5,)] * 2
    assert finished.receipt.tokens == 2 * 520


def test_unknown_counts_are_charged_as_bounded() -> None:
    finished = run(ot.Budget(tokens=1000), Costs(10, 80, told=False), 60, n=50)
    assert len(finished.value) == 6
    assert finished.receipt.tokens is None
    assert finished.receipt.at_most["tokens"] == finished.session.account.spent["tokens"] == 960


@pytest.mark.parametrize("currency", ["usd", "joules"])
def test_a_judge_on_a_model_of_the_request_costs_what_that_costs(currency: str) -> None:
    """A token in or out costs a millionth of a dollar, or a joule."""
    unit = 1e-6 if currency == "usd" else 1.0
    costs = {"price": ot.Price(1.0, 1.0), "energy": Energy(1.0, 1.0)}
    judge = Costs(80, model="scripted")
    finished = run(ot.Budget(**{currency: 1000 * unit}), judge, 60, n=50, **costs)
    assert [sample.scores for sample in finished.value] == [(0.5,)] * 6
    assert finished.receipt.total(currency).value == pytest.approx(960 * unit)
    assert finished.session.stopped == f"budget:{currency}"


def test_what_a_judge_writes_is_bounded_at_the_price_of_writing() -> None:
    class Writes(Costs):
        kind = "generative"

        async def score(self, request: ot.Request, candidates: Sequence[Candidate]) -> list[Score]:
            return [Score((0.5,), 0, self.takes) for _ in candidates]

    judge = Writes(80, model="scripted")
    finished = run(ot.Budget(usd=3000e-6), judge, n=50, judged=True, price=ot.Price(1.0, 10.0), min_tokens=1)
    assert finished.value
    spent = finished.receipt.usd
    assert spent is not None
    assert spent <= 3000e-6


@pytest.mark.parametrize("currency", ["usd", "joules"])
def test_a_currency_in_which_a_verifier_has_no_price_is_refused_before_any_call(currency: str) -> None:
    costs = {"price": ot.Price(1.0, 1.0), "energy": Energy(1.0, 1.0)}
    finished = run(ot.Budget(**{currency: 1000.0}), Costs(), **costs)
    assert isinstance(finished.error, Unsupported)
    assert str(finished.error).startswith(f"budget {currency}: what the verifier costs costs in it is unknown; ")
    assert finished.calls == []
    free = run(ot.Budget(**{currency: 1000.0}), ConfidenceVerifier("logprob"), judged=True, **costs)
    assert len(free.value) == 1


def test_a_nested_budget_keeps_aside_within_itself() -> None:
    async def strategy(session: ot.Session, request: ot.Request) -> Any:
        with session.within(ot.Budget(tokens=2 * (BYTE_BOUND + 100))) as inner:
            inside = [sample async for sample in inner.sample(request, n=9, ahead=1, judged=EVEN)]
        outside = [sample async for sample in session.sample(request, n=1, ahead=1, judged=EVEN)]
        return inside, outside, inner.account.spent["tokens"]

    finished = virtual(strategy, engine(60), question(budget=ot.Budget(tokens=2000)), verifier=Costs(60))
    inside, outside, spent = finished.value
    assert (answers(inside), answers(outside), spent) == (["1", "1"], ["1"], 280)
    assert not any(finished.session.account.reserved.values())


def test_what_fails_or_is_cancelled_gives_back_what_was_kept_aside() -> None:
    def script(call: Any) -> ot.Completion:
        fault = ot.Fault(after=30) if call.index == 0 else None
        return ot.Completion(answer="1", tokens=100 if call.index < 2 else 400, fault=fault)

    async def strategy(session: ot.Session, request: ot.Request) -> Any:
        async for _ in session.sample(request, n=3, ahead=3, judged=EVEN):
            break
        session.sample(request)  # closes the stream
        return dict(session.account.spent), dict(session.account.reserved)

    faulty = ot.ScriptedEngine(script, speed=QUICK, prompt_tokens=20)
    finished = virtual(strategy, faulty, question(budget=ot.Budget(tokens=9000)), verifier=Costs(10))
    spent, reserved = finished.value
    assert spent["tokens"] == 50 + 130 + (20 + 150)  # the third is cancelled when the second has its score, at 3 s
    assert not any(reserved.values())
