"""Budget forcing: caps, ignored stops and guards, on scripted traces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outthink import BadInput, Budget, Completion, ScriptedEngine, Unsupported
from outthink.core.request import Sampling
from outthink.engines.protocol import Call, Features, Outcome
from outthink.strategies import Spec
from outthink.strategies.serial.length import budget_forcing
from outthink.strategies.serial.thinking import CLOSE, Trace, looping
from support.reasoning_model import WIDTH, ReasoningModel
from support.runs import Run, question, virtual

MODEL = ReasoningModel()


def force(problem: str = "p3/0", *, max_tokens: int = 8000, **parameters: object) -> Run:
    run = virtual(
        lambda session, request: budget_forcing(session, request, **parameters),  # type: ignore[arg-type]
        MODEL.engine(),
        question(problem=problem, max_tokens=max_tokens),
    )
    if run.error is not None:
        raise run.error
    return run


def thinking(run: Run) -> str:
    return run.value.text.partition(CLOSE)[0]


def natural(problem: str) -> str:
    run = virtual(Spec.parse("single"), MODEL.engine(), question(problem=problem, max_tokens=8000))
    return run.value.text


@pytest.mark.parametrize("problem", ["p1/0", "p3/0", "p8/0"])
@pytest.mark.parametrize("cap", [17, 100, 333])
def test_thinking_never_exceeds_the_cap(problem: str, cap: int) -> None:
    run = force(problem, max_think=cap, n_ignore=3)
    thought = run.entries[:-1]
    assert sum(entry.completion_tokens or 0 for entry in thought) <= cap
    assert len(thinking(run).rstrip("\n")) <= cap * WIDTH
    assert "\n</think>\n\nFinal Answer:" in run.value.text
    assert run.value.answer is not None


@pytest.mark.parametrize("ignored", [1, 2, 4])
def test_exactly_so_many_stops_are_ignored(ignored: int) -> None:
    run = force(n_ignore=ignored)
    assert len(run.calls) == ignored + 2  # up to each stop, and the answer
    prefixes = [call.prefix or "" for call in run.calls]
    assert sum(prefix.endswith("Wait") for prefix in prefixes) == ignored
    assert run.value.text.count(CLOSE) == 1
    assert len(thinking(run)) > len(natural("p3/0").partition(CLOSE)[0])


@pytest.mark.parametrize("problem", [f"p{i}/0" for i in range(6)])
def test_without_force_it_is_single(problem: str) -> None:
    plain = force(problem)
    assert plain.value.text == natural(problem)
    assert len(plain.calls) == 1
    assert force(problem, max_think=100_000).value.text == natural(problem)  # in two pieces, the same text


def test_a_model_that_ends_without_the_mark_is_asked_to_go_on_too() -> None:
    texts = ["The answer is 7.", " Hm. The answer is 8."]
    engine = ScriptedEngine(lambda call: Completion(text=texts[call.prefix is not None], tokens=10))
    run = virtual(Spec.parse("budget-forcing:n_ignore=1,max_think=400"), engine)
    assert (run.value.answer, run.value.text) == ("8", "The answer is 7.Wait Hm. The answer is 8.")


def test_a_loop_ends_the_forcing_and_an_answer_is_written() -> None:
    circle = " ".join(f"w{i}" for i in range(64)) + " "

    def script(call: Call) -> Completion:
        if CLOSE in (call.prefix or ""):
            return Completion(text=" The answer is 5.", tokens=4)
        return Completion(text=circle * 3 + CLOSE, tokens=200)

    run = virtual(Spec.parse("budget-forcing:n_ignore=5,max_think=9000"), ScriptedEngine(script))
    assert len(run.calls) == 2
    assert run.value.answer == "5"
    assert "repeats itself" in run.receipt.notes[0]


def test_a_64_gram_counts_as_a_loop_at_its_third_time() -> None:
    circle = " ".join(f"w{i}" for i in range(64))
    assert not looping(f"{circle} a {circle} b {circle[:-1]}")
    assert looping(f"{circle} a {circle} b {circle}")
    assert not looping("")


def test_the_last_tenth_of_the_context_is_not_forced() -> None:
    tokens = force().calls[0]
    assert tokens.prefix is None
    length = len(thinking(force(n_ignore=1))) // WIDTH
    assert len(force(n_ignore=1, context=2 * length).calls) == 3
    short = force(n_ignore=1, context=len(natural("p3/0")) // WIDTH)
    assert len(short.calls) == 2
    assert "tenth of the context" in short.receipt.notes[0]


def test_an_engine_that_cannot_continue_is_refused_before_anything_is_spent() -> None:
    engine = ScriptedEngine(MODEL.complete, features=Features(prefix=False))
    run = virtual(Spec.parse("budget-forcing:max_think=50"), engine)
    assert isinstance(run.error, Unsupported)
    assert not run.calls


def test_the_sessions_budget_ends_it_with_what_can_be_read() -> None:
    run = virtual(
        Spec.parse("budget-forcing:max_think=5000"),
        ScriptedEngine(lambda call: Completion(text="The answer is 3. " + "x " * 4000, tokens=2000)),
        question(budget=Budget(tokens=400), max_tokens=8000),
    )
    assert run.error is None
    assert run.session.stopped == "budget:tokens"
    assert run.value.answer == "3"
    assert run.receipt.tokens is not None
    assert run.receipt.tokens <= 400


def test_a_server_that_does_not_name_its_stop_is_looked_behind() -> None:
    """Text and end are those of a server that tells; eight tokens more are paid for the look."""

    class Silent(ScriptedEngine):
        def outcome(self, call: Call) -> Outcome:
            done = super().outcome(call)
            return replace(done, sample=replace(done.sample, stop=None))

    received = force(max_think=8000)
    silent = Silent(MODEL.complete, model="scripted-reasoning", prompt_tokens=MODEL.engine().prompt_tokens)
    run = virtual(Spec.parse("budget-forcing:max_think=8000"), silent, question(problem="p3/0", max_tokens=8000))
    assert run.value == received.value
    assert len(run.calls) == len(received.calls) + 1


def test_inserted_text_counts_as_bytes_until_the_prompt_tells() -> None:
    async def insert(session, request):  # type: ignore[no-untyped-def]
        trace = Trace(session, request, 4000)
        await trace.grow(40)
        trace.insert("abcdefgh")
        bound = trace.used
        await trace.grow(40)
        return bound, trace.used

    engine = MODEL.engine()
    run = virtual(insert, engine, question(problem="p3/0", max_tokens=8000))
    assert run.value == (48, 82)  # eight bytes were two of its tokens


def test_requests_keep_their_own_sampling() -> None:
    run = force(max_think=100)
    assert {call.sampling.temperature for call in run.calls} == {Sampling().temperature}
    assert run.calls[0].sampling.max_tokens == 100


@pytest.mark.parametrize("parameters", [{"max_think": 0}, {"n_ignore": -1}])
def test_no_thinking_at_all_is_no_cap(parameters: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=next(iter(parameters))):
        force(**parameters)
