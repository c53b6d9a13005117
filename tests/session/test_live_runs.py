"""Real time: the same rules with asyncio, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import outthink as ot
from outthink import Budget, Completion, EngineError, Fault, Request, ScriptedEngine, Session, Speed
from outthink.core.receipt import Verdict
from outthink.engines.protocol import Call, Delta, Event, Finish, RealTimeEngine, is_simulated
from support.runs import PROMPT, answers, collect, live, question
from support.waiting import eventually

FAST = Speed(stream=50_000, total=1e9, prefill=5e6, concurrency=16)
SLOW = Speed(stream=100, total=1e9, prefill=5e6, concurrency=16)


def engine(speed: Speed = FAST, tokens: Any = 100, answer: str = "391", **options: Any) -> RealTimeEngine:
    return ScriptedEngine.sequence([answer], tokens=tokens, speed=speed, **options).live()


def alone() -> bool:
    """Whether the current task is the only one."""
    return asyncio.all_tasks() == {asyncio.current_task()}


def asked(model: Any, **options: Any) -> ot.Result:
    """`ask` in a loop of its own, which must be empty afterwards."""

    async def run() -> ot.Result:
        result = await ot.ask(PROMPT, model=model, **{"answer": "number", **options})
        assert alone()
        return result

    return asyncio.run(run())


def test_a_live_double_is_not_run_on_the_virtual_clock() -> None:
    assert is_simulated(ScriptedEngine.sequence(["1"]))
    assert not is_simulated(engine())


def test_live_and_virtual_runs_agree() -> None:
    script = ScriptedEngine.sequence(["391", "17", "391", "4"], tokens=[100, 60, 80, 40], speed=FAST)
    options: dict[str, Any] = {"strategy": "self-consistency:n=4", "budget": "tokens=9000", "seed": 3}
    virtual, real = asked(script, **options), asked(script.live(), **options)
    assert (real.answer, real.stopped, real.strategy) == (virtual.answer, virtual.stopped, virtual.strategy)
    assert real.receipt.tokens == virtual.receipt.tokens == 4 * 20 + 280


def test_a_deadline_before_anything_has_finished_keeps_the_text_so_far() -> None:
    text = "\\boxed{391} " + "and so on " * 200
    slow = ScriptedEngine(lambda call: Completion(text=text, tokens=400), speed=SLOW).live()
    result = asked(slow, strategy="single", budget="seconds=0.5")
    assert result.stopped == "budget:seconds"
    assert result.answer == "391"
    assert result.text
    assert text.startswith(result.text)


async def for_ever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


class Odd(ScriptedEngine):
    """An engine with a generator of its own."""

    def __init__(self, play: Callable[[Call], AsyncIterator[Event]], **options: Any) -> None:
        super().__init__(lambda call: Completion(answer="391"), speed=FAST, **options)
        self.play = play

    def generate(self, call: Call) -> AsyncIterator[Event]:
        return self.play(call)


def test_an_engine_that_gets_ready_too_late_meets_the_deadline_too() -> None:
    class Sleepy(ScriptedEngine):
        async def prepare(self, call: Call) -> None:
            await for_ever()

    result = asked(Sleepy(lambda call: Completion()).live(), budget="seconds=0.1")
    assert result.stopped == "budget:seconds"
    assert result.receipt.entries == ()
    assert result.receipt.tokens == 0


def test_a_timeout_that_is_not_ours_is_not_called_a_deadline() -> None:
    class Broken(ScriptedEngine):
        async def prepare(self, call: Call) -> None:
            raise TimeoutError("the engine's own")

    with pytest.raises(TimeoutError, match="own"):
        asked(Broken(lambda call: Completion()).live(), budget="seconds=60")


@pytest.mark.parametrize("place", ["generate", "watch", "count", "reader"])
def test_an_unforeseen_exception_reaches_the_caller_instead_of_hanging(place: str) -> None:
    class Buggy(ScriptedEngine):
        async def count_prompt(self, call: Call) -> int | None:
            if place == "count":
                raise KeyError("bug")
            return 20

    def script(call: Call) -> Completion:
        if place == "generate":
            raise KeyError("bug")
        return Completion(answer="1")

    def watch(progress: Any) -> Any:
        raise KeyError("bug")

    def reader(kind: Any) -> Any:
        raise KeyError("bug")

    request = question(budget=Budget(tokens=5000))
    options = {"watch": watch} if place == "watch" else {}
    buggy = Buggy(script, speed=FAST).live()

    async def strategy(session: Session, asked: Request) -> Any:
        if place == "reader":
            session.runner.reader = reader  # type: ignore[method-assign]
        return await collect(n=2, ahead=2, **options)(session, asked)

    with pytest.raises(KeyError, match="bug"):
        live(strategy, buggy, request)


def test_a_stream_without_an_end_is_an_engine_error() -> None:
    async def endless(call: Call) -> AsyncIterator[Event]:
        yield Delta("word")

    with pytest.raises(EngineError, match="without saying"):
        asked(Odd(endless).live(), strategy="single")


def test_an_engine_that_answers_a_cancellation_with_an_error_is_settled_once() -> None:
    async def touchy(call: Call) -> AsyncIterator[Event]:
        try:
            yield Delta("word", tokens=1)
            await (asyncio.sleep(0) if call.index == 0 else for_ever())
        except asyncio.CancelledError:
            raise EngineError("connection closed") from None
        yield Delta(" The answer is 391.", tokens=9)
        yield Finish(prompt_tokens=20, completion_tokens=9)

    result = asked(Odd(touchy).live(), strategy="short-m-of-k:n=3,m=1")
    assert result.answer == "391"
    assert len(result.receipt.entries) == 3


def test_a_call_cancelled_while_its_engine_gets_ready_was_never_sent() -> None:
    class Touchy(ScriptedEngine):
        async def prepare(self, call: Call) -> None:
            try:
                await (asyncio.sleep(0) if call.index == 0 else for_ever())
            except asyncio.CancelledError:
                raise EngineError("connection closed") from None

    touchy = Touchy(lambda call: Completion(answer="391"), speed=FAST).live()
    _, session = live(
        collect(n=3, ahead=3, order="finished"), touchy, question(budget=Budget(tokens=9000, seconds=0.2))
    )
    assert [entry.status for entry in session.ledger.entries] == ["finished"]


def test_an_error_after_the_first_sign_of_life_is_unknown_not_free() -> None:
    """The server has accepted the call, so it has read the prompt, and maybe more."""

    async def breaking(call: Call) -> AsyncIterator[Event]:
        yield Delta()
        raise EngineError("connection lost", fatal=True)

    session = None

    def opened(opening: Session) -> None:
        nonlocal session
        session = opening

    with pytest.raises(EngineError, match="lost"):
        asked(Odd(breaking, told=False).live(), strategy="single", opened=opened)
    assert session is not None
    assert session.receipt().tokens is None


def test_an_error_before_any_output_costs_nothing_and_later_ones_what_had_arrived() -> None:
    faults = [Fault(0), None, Fault(64)]
    broken = ScriptedEngine(
        lambda call: Completion(answer="391", fault=faults.pop(0) if faults else None), speed=FAST
    ).live()
    value, session = live(collect(n=2, ahead=1), broken)
    assert answers(value) == ["391"]
    spent = [(e.status, e.prompt_tokens, e.cancelled_tokens, e.completion_tokens) for e in session.ledger.entries]
    assert spent == [("failed", 0, 0, 0), ("finished", 20, 0, 100), ("failed", 20, 64, 0)]


def test_a_failure_in_mid_stream_without_counts_is_unknown_not_free() -> None:
    faults = [None, Fault(64)]
    silent = ScriptedEngine(
        lambda call: Completion(answer="391", fault=faults.pop(0) if faults else None), speed=FAST, told=False
    ).live()
    _, session = live(collect(n=2, ahead=1), silent)
    failed = session.ledger.entries[1]
    assert failed.status == "failed"
    assert failed.tokens is None
    assert failed.estimated
    assert failed.known_tokens >= 4


def test_cancelling_ask_from_outside_leaves_nothing_behind() -> None:
    begun: list[int] = []

    async def endless(call: Call) -> AsyncIterator[Event]:
        begun.append(call.index)
        yield Delta("word ", tokens=1)
        await for_ever()

    async def run() -> None:
        task = asyncio.create_task(
            ot.ask(PROMPT, model=Odd(endless).live(), strategy="self-consistency:n=6", answer="number")
        )
        await eventually(lambda: len(begun) == 6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert alone()

    asyncio.run(run())


def test_an_interrupted_request_returns_the_best_answer_so_far() -> None:
    def opened(session: Session) -> None:
        asyncio.get_running_loop().call_later(0.4, session.stop, "interrupted")

    result = asked(engine(SLOW, [20, 9000]), strategy="self-consistency:n=2", max_tokens=9000, opened=opened)
    assert (result.answer, result.stopped) == ("391", "interrupted")
    assert [entry.status for entry in result.receipt.entries] == ["finished", "cancelled"]


def test_a_virtual_session_can_be_opened_and_stopped_too() -> None:
    result = asked(ScriptedEngine.sequence(["1"]), opened=lambda session: session.stop("interrupted"))
    assert result.stopped == "interrupted"
    assert result.answer is None
    assert result.receipt.entries == ()


def test_watching_stops_a_live_sample() -> None:
    value, session = live(collect(n=2, watch=lambda p: "stop" if p.tokens >= 48 and p.index == 0 else "keep"), engine())
    assert [sample.index for sample in value] == [1]
    assert [(e.status, e.completion_tokens) for e in session.ledger.entries] == [("stopped", 48), ("finished", 100)]


def test_branches_and_nested_budgets_work_live() -> None:
    async def strategy(session: Session, request: Request) -> list[int]:
        async def branch(child: Session) -> int:
            with child.within(Budget(tokens=450)) as inner:
                return len([sample async for sample in inner.sample(request, n=9, ahead=1)])

        return await session.together(branch, branch)

    value, session = live(strategy, engine(), question(budget=Budget(tokens=9000)))
    assert value == [4, 4]
    assert session.stopped is None
    assert session.receipt().tokens == 2 * 450  # three whole samples and one of the 70 tokens that were left


def test_together_refuses_to_await_anything_foreign_live() -> None:
    async def strategy(session: Session, request: Request) -> None:
        async def branch(child: Session) -> None:
            await for_ever()

        await session.together(branch)

    with pytest.raises(ot.OutthinkError, match="nothing but its session"):
        live(strategy, engine())


def test_the_engines_concurrency_is_kept() -> None:
    running = peak = 0

    async def counted(call: Call) -> AsyncIterator[Event]:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        try:
            for _ in range(20):  # so that the others come in meanwhile
                await asyncio.sleep(0)
            yield Finish(prompt_tokens=5, completion_tokens=0)
        finally:
            running -= 1

    narrow = Odd(counted)
    narrow.speed = Speed(concurrency=3)
    live(collect(n=12, ahead=12), narrow.live())
    assert peak == 3


def test_your_own_function_is_a_strategy() -> None:
    async def coin(session: Session, request: Request) -> Verdict:
        async for sample in session.sample(request):
            return Verdict(sample.answer, "heads", "gave-up")
        return Verdict(None, "")

    result = asked(engine(), strategy=coin)
    assert (result.answer, result.text, result.strategy, result.stopped) == ("391", "heads", "coin", "gave-up")


def test_defaults_follow_the_answer_kind() -> None:
    assert asked(engine(), answer="text").strategy == "single"
    assert asked(engine()).strategy == "adaptive-consistency:n=16"


def test_dollars_and_joules_are_accepted_with_a_price_and_an_energy() -> None:
    from outthink.economics.tariff import Energy

    result = asked(
        engine(),
        budget="usd=1,joules=1e6",
        price=ot.Price(1, 2),
        energy=Energy(0.5, 2.0),
        strategy="self-consistency:n=2",
    )
    assert result.receipt.usd == pytest.approx(2 * (20 + 200) / 1e6)
    assert result.receipt.joules == pytest.approx(2 * (10 + 200))


def test_ask_sync_works_inside_a_running_loop() -> None:
    async def notebook() -> ot.Result:
        return ot.ask_sync(PROMPT, model=engine(), answer="number", strategy="single")

    assert asyncio.run(notebook()).answer == "391"


def test_ask_uses_the_cache_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    options: dict[str, Any] = {"strategy": "self-consistency:n=3", "seed": 1, "cache": True}
    first, second = asked(engine(), **options), asked(engine(), **options)
    assert first.answer == second.answer == "391"
    assert (first.receipt.tokens, second.receipt.tokens) == (360, 0)


def test_the_result_as_json_has_the_contracts_keys() -> None:
    shown = asked(engine(), strategy="single").json()
    assert list(shown) == ["answer", "text", "strategy", "model", "stopped", "receipt"]


def test_a_long_prompt_is_measured_once_for_all_calls_that_count_nothing() -> None:
    class Measured(str):
        times = 0

        def encode(self, *told: Any) -> bytes:  # type: ignore[override]
            Measured.times += 1
            return super().encode(*told)

    started = []

    async def play(call: Call) -> AsyncIterator[Event]:
        yield Delta("so far")
        started.append(call.index)
        await for_ever()

    async def first(session: Session, request: Request) -> None:
        stream = session.sample(request, n=16, ahead=16)
        reading = asyncio.ensure_future(anext(stream))
        await eventually(lambda: len(started) == 16)
        session.stop("budget:seconds")
        with pytest.raises(StopAsyncIteration):
            await reading

    request = Request(messages=(ot.Message("user", Measured("word " * 1000)),), answer="number")
    _, session = live(first, Odd(play, told=False), request)
    assert [entry.reserved_tokens for entry in session.ledger.entries] == [5000 + 16 + 64 + 512] * 16
    assert Measured.times == 1


class Counting(Odd):
    """Begins completions that never end, and counts what it is asked about prompts."""

    def __init__(self) -> None:
        async def begin(call: Call) -> AsyncIterator[Event]:
            self.begun += 1
            yield Delta("3", "")
            await for_ever()

        super().__init__(begin)
        self.begun = self.asked = 0
        self.concurrency = 64

    async def count_prompt(self, call: Call) -> int | None:
        self.asked += 1
        await asyncio.sleep(0)
        return 20


@pytest.mark.parametrize("budget", [None, "tokens=1000000"])
def test_one_question_about_a_prompt_is_enough_for_all_that_are_cancelled(budget: str | None) -> None:
    async def run() -> None:
        model = Counting()
        asking = asyncio.create_task(
            ot.ask(PROMPT, model=model.live(), strategy="self-consistency:n=64", budget=budget)
        )
        await eventually(lambda: model.begun == 64)
        asking.cancel()
        await asyncio.wait([asking])
        assert model.asked == 1
        assert alone()

    asyncio.run(run())


def test_events_that_end_without_an_end_are_not_asked_for_again() -> None:
    calls = []

    async def say_nothing(call: Call) -> AsyncIterator[Event]:
        calls.append(call)
        return
        yield

    with pytest.raises(EngineError, match="without saying"):
        asked(Odd(say_nothing).live(), strategy="single")
    assert len(calls) == 1
