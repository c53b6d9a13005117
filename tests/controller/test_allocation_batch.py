"""A batch under one budget: never exceeded, resumable, the same live as on the virtual clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Completion, EngineError, Fault, Price, ScriptedEngine, Speed
from outthink.client import BatchResult, ask_batch
from outthink.controller.allocation import GainTable
from outthink.core.request import Request
from outthink.engines.protocol import Call
from outthink.verifiers.checks import ExactVerifier

NAMES = ["sure", "split", "hopeless"]


def scripted(call: Call) -> Completion:
    """One request always agrees, one disagrees, one never can be read."""
    answer = {"sure": "7", "split": str(call.index % 2), "hopeless": None}[call.problem or ""]
    return Completion(answer=answer, tokens=50)


def engine(concurrency: int = 4) -> ScriptedEngine:
    return ScriptedEngine(scripted, speed=Speed(concurrency=concurrency))


def run(model: object = None, names: list[str] | None = None, **options: object) -> BatchResult:
    names = names or NAMES
    return asyncio.run(ask_batch(names, ids=names, model=model or engine(), **options))  # type: ignore[arg-type]


def test_the_undecided_get_the_samples() -> None:
    batch = run(budget="tokens=2500", max_tokens=60)
    sure, split, hopeless = batch.results
    assert (sure.answer, hopeless.answer) == ("7", None)
    assert len(split.receipt.entries) > 3 * len(sure.receipt.entries)
    assert batch.receipt.tokens == sum(result.receipt.tokens or 0 for result in batch.results)
    assert {result.stopped for result in batch.results} == {"budget:tokens"}


@given(
    st.integers(1, 3000),
    st.integers(1, 12),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_budget_holds_for_all_together(budget: int, concurrency: int, lengths: list[int], seed: int) -> None:
    weights = {"1": 0.5, "2": 0.3, None: 0.2}
    toy = ScriptedEngine.distribution(weights, tokens=lengths, seed=seed, speed=Speed(concurrency=concurrency))
    batch = run(toy, [f"q{i}" for i in range(6)], budget=f"tokens={budget}", at_most=8)
    assert (batch.receipt.tokens or 0) <= budget
    assert max(len(result.receipt.entries) for result in batch.results) <= 8
    for result in batch.results:
        assert all(entry.status == "finished" for entry in result.receipt.entries)


def test_without_a_budget_it_ends_where_nothing_is_gained() -> None:
    batch = run(at_most=6)
    assert [len(result.receipt.entries) for result in batch.results] == [6, 6, 6]
    assert {result.stopped for result in batch.results} == {"finished"}
    early = run(at_most=20, worth=3000.0)
    assert len(early.results[0].receipt.entries) < len(early.results[1].receipt.entries)
    assert early.results[0].stopped == "consensus"


def test_dollars_and_seconds_limit_it_too() -> None:
    price = Price(1.0, 1.0)
    batch = run(budget="usd=0.0005", price=price, max_tokens=60)
    assert 0 < (batch.receipt.usd or 0) <= 0.0005
    late = run(budget="seconds=2.5", max_tokens=60)  # a sample takes one second
    assert late.receipt.seconds == pytest.approx(2.5)
    assert {result.stopped for result in late.results} == {"budget:seconds"}
    assert late.results[0].answer == "7"


def test_the_first_sample_that_passes_ends_a_request() -> None:
    def check(request: Request, text: str) -> bool:
        return request.problem == "split" and "1" in text

    batch = run(engine(1), verifier=ExactVerifier(check, id="toy"), at_most=5)
    sure, split, hopeless = batch.results
    assert (split.answer, split.stopped) == ("1", "finished")
    assert sum(entry.role == "policy" for entry in split.receipt.entries) == 2
    assert (sure.answer, sure.stopped) == (hopeless.answer, hopeless.stopped) == (None, "gave-up")
    assert sum(entry.role == "policy" for entry in sure.receipt.entries) == 5


def test_a_table_closes_what_gains_nothing() -> None:
    nothing_more = GainTable({(0, 0, 0): 0.5}, (), 0.0, 8)
    batch = run(engine(1), gains=nothing_more)
    assert [len(result.receipt.entries) for result in batch.results] == [1, 1, 1]


def test_equal_questions_are_different_requests(tmp_path: Path) -> None:
    toy = ScriptedEngine.sequence(["1", "2"], speed=Speed(concurrency=1))
    twice = asyncio.run(ask_batch(["same?", "same?"], model=toy, at_most=2, journal=tmp_path / "journal"))
    assert [len(result.receipt.entries) for result in twice.results] == [2, 2]
    assert sorted((call.problem, call.index) for call in toy.calls) == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]


def test_mathematics_is_merged_within_a_request() -> None:
    texts = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{3}"]
    toy = ScriptedEngine(lambda call: Completion(text=texts[call.index], tokens=9), speed=Speed(concurrency=1))
    one, two = run(toy, ["a", "b"], answer="math", at_most=3).results
    assert one.answer == two.answer != "3"


def test_it_runs_live_as_on_the_virtual_clock() -> None:
    speed = Speed(stream=50_000, total=10_000_000, prefill=1_000_000, concurrency=1)
    virtual = ScriptedEngine(scripted, speed=speed)
    live = ScriptedEngine(scripted, speed=speed).live()
    there, here = (run(model, budget="tokens=1500", max_tokens=60) for model in (virtual, live))
    assert [(r.answer, r.stopped, r.receipt.tokens) for r in here.results] == [
        (r.answer, r.stopped, r.receipt.tokens) for r in there.results
    ]


def test_a_killed_batch_goes_on_and_its_budget_counts_what_was_spent(tmp_path: Path) -> None:
    whole = run(budget="tokens=3000", max_tokens=60, seed=1)
    journal = tmp_path / "journal"
    first = run(budget="tokens=1200", max_tokens=60, seed=1, journal=journal)
    second = engine()
    rest = run(second, budget="tokens=3000", max_tokens=60, seed=1, journal=journal)
    assert (first.receipt.tokens or 0) + (rest.receipt.tokens or 0) <= 3000
    assert [result.answer for result in rest.results] == [result.answer for result in whole.results]
    assert sum(entry.cached for entry in rest.receipt.entries) > 0
    assert "count against the budget" in rest.receipt.notes[0]
    spent = run(budget="tokens=1200", max_tokens=60, seed=1, journal=journal)
    assert spent.receipt.tokens == 0
    with pytest.raises(BadInput, match="another batch"):
        run(budget="tokens=1200", max_tokens=61, seed=1, journal=journal)


def test_questions_of_a_batch_may_go_and_change_places(tmp_path: Path) -> None:
    toy = ScriptedEngine(lambda call: Completion(answer=call.messages[-1].text, tokens=5), speed=Speed(concurrency=1))
    run(toy, ["1", "2", "3"], at_most=2, journal=tmp_path / "journal")
    toy.calls.clear()
    rest = run(toy, ["3", "1"], at_most=2, journal=tmp_path / "journal")
    assert [result.answer for result in rest.results] == ["3", "1"]
    assert toy.calls == []


def test_one_failing_request_does_not_end_the_batch() -> None:
    def script(call: Call) -> Completion:
        broken = call.problem == "hopeless" and call.index >= 0
        return Completion(answer="7", tokens=20, fault=Fault(fatal=True, message="no such thing") if broken else None)

    batch = run(ScriptedEngine(script, speed=Speed(concurrency=1)), at_most=2)
    assert [result.stopped for result in batch.results] == ["finished", "finished", "error"]
    assert any("no such thing" in note for note in batch.receipt.notes)
    with pytest.raises(EngineError, match="down"):
        run(ScriptedEngine(lambda call: Completion(fault=Fault(fatal=True, message="the engine is down"))))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"answer": "text"}, "answer"),
        ({"at_most": 0}, "at_most"),
        ({"names": ["a", "a"]}, "ids"),
        ({"verifier": "logprob"}, "exact"),
        ({"prior": (0.0, 0.0), "verifier": ExactVerifier(lambda request, text: True, id="toy")}, "prior"),
        ({"worth": -1.0}, "worth"),
    ],
)
def test_bad_input_names_the_field(options: dict[str, object], part: str) -> None:
    with pytest.raises(BadInput, match=part):
        run(**options)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="prompts"):
        asyncio.run(ask_batch([]))
