"""Sessions from models at hand: live or virtual, ready before their deadline, and what is left of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outthink import BadInput, Budget, Completion, Request, Result, ScriptedEngine, Session, Speed, Unsupported
from outthink.core.errors import OutthinkError
from outthink.core.receipt import Verdict
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, RealTimeEngine
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.runner import Places
from support.runs import question


async def first(session: Session, request: Request) -> Verdict:
    """The first sample's answer."""
    async for sample in session.sample(request):
        return Verdict(sample.answer, sample.text)
    return Verdict(None, "")


def engine(name: str = "scripted", **options: Any) -> ScriptedEngine:
    """An engine that always answers 391."""
    return ScriptedEngine(lambda call: Completion(text="\\boxed{391}", tokens=8), model=name, **options)


def source(model: Any, **options: Any) -> Source:
    """It as a source without a price."""
    return Source(model, Tariff.of_engine(model), **options)


def test_simulated_engines_run_on_the_virtual_clock_without_an_event_loop() -> None:
    opened = open_session([source(engine(speed=Speed(stream=1.0)))])
    verdict = opened.run_now(first(opened.session, question()))
    assert verdict.answer == "391"
    assert opened.receipt().seconds > 8
    result = Result.of(verdict, "first", opened)
    assert (result.answer, result.model, result.stopped, result.strategy) == ("391", "scripted", "finished", "first")


def test_the_same_session_runs_live_and_then_needs_an_event_loop() -> None:
    live = RealTimeEngine(engine(speed=Speed(stream=50_000.0)))

    async def run() -> Verdict:
        opened = open_session([source(live)])
        return await opened.run(first(opened.session, question()))

    assert asyncio.run(run()).answer == "391"

    async def run_now() -> None:
        opened = open_session([source(live)])
        work = first(opened.session, question())
        try:
            opened.run_now(work)
        finally:
            work.close()

    with pytest.raises(OutthinkError, match="use `run`"):
        asyncio.run(run_now())


def test_one_live_engine_makes_the_whole_pool_live() -> None:
    async def run() -> str:
        opened = open_session([source(engine("first")), source(RealTimeEngine(engine("second")))])
        await opened.run(first(opened.session, question()))
        return opened.model

    assert asyncio.run(run()) == "first,second"


class Slow(RealTimeEngine):
    """An engine that is not ready before somebody lets it be."""

    def __init__(self, inner: ScriptedEngine) -> None:
        super().__init__(inner)
        self.ready = asyncio.Event()

    async def prepare(self, call: Call) -> None:
        """Wait for it."""
        await self.ready.wait()


def test_the_deadline_covers_getting_ready() -> None:
    async def run() -> Result:
        opened = open_session([source(Slow(engine()))], budget=Budget(seconds=0.02))
        await opened.prepare(question())
        assert opened.late
        return Result.of(Verdict(None, ""), "first", opened)

    result = asyncio.run(run())
    assert (result.stopped, result.answer, result.receipt.entries) == ("budget:seconds", None, ())
    assert result.receipt.notes == ("the engine was not ready before the deadline",)


def test_a_timeout_inside_the_deadline_is_not_taken_for_it() -> None:
    async def run() -> None:
        opened = open_session([source(RealTimeEngine(engine()))], budget=Budget(seconds=60))
        async with opened.deadline():
            raise TimeoutError("another one")

    with pytest.raises(TimeoutError, match="another one"):
        asyncio.run(run())


def test_a_tariff_may_wait_for_the_name_that_the_engine_tells() -> None:
    class Named(RealTimeEngine):
        async def prepare(self, call: Call) -> None:
            self.model = "told"

    async def run() -> str:
        named = Named(engine())
        opened = open_session([Source(named, lambda: Tariff.of_engine(named))])
        await opened.prepare(question())
        return opened.model

    assert asyncio.run(run()) == "told"


def test_requests_on_one_engine_take_turns() -> None:
    order: list[str] = []

    def observer(name: str) -> Any:
        return lambda event, running, sample: order.append(name) if event == "finished" else None

    async def all_of(session: Session, request: Request, n: int) -> None:
        async for _ in session.sample(request, n=n, ahead=n):
            pass

    async def run() -> None:
        live = RealTimeEngine(engine(speed=Speed(stream=50_000.0, concurrency=8)))
        shared = Places(1)
        large, small = (
            open_session([source(live, places=shared)], options=SessionOptions(observer=observer(name)))
            for name in ("large", "small")
        )
        await asyncio.gather(
            large.run(all_of(large.session, question(), 4)), small.run(all_of(small.session, question(), 1))
        )
        assert (shared.active, shared.waiting) == (0, 0)

    asyncio.run(run())
    assert sorted(order) == ["large"] * 4 + ["small"]
    assert order.index("small") <= 2


def test_what_cannot_be_is_refused_when_the_session_is_made() -> None:
    with pytest.raises(BadInput, match="in the pool twice"):
        _ = open_session([source(engine()), source(engine())]).session
    with pytest.raises(Unsupported, match="no price is known"):
        _ = open_session([Source(engine(), Tariff("scripted"))], budget=Budget(usd=1.0)).session


def test_an_unfinished_text_is_salvaged_with_the_answer_that_it_states() -> None:
    text = "So \\boxed{391} it is." + " more" * 200
    long = ScriptedEngine(lambda call: Completion(text=text, tokens=400), speed=Speed(stream=800.0))

    async def run(kind: str) -> Verdict | None:
        opened = open_session([source(RealTimeEngine(long))])

        async def stop_in_the_middle() -> None:
            def watch(progress: Any) -> str:
                if progress.tokens >= 48:
                    opened.stop("interrupted")
                return "keep"

            async for _ in opened.session.sample(question(answer=kind), watch=watch):  # type: ignore[arg-type]
                pass

        await opened.run(stop_in_the_middle())
        assert opened.stopped == "interrupted"
        return opened.salvage(question(answer=kind))

    salvaged = asyncio.run(run("number"))
    assert salvaged is not None
    assert salvaged.answer == "391"
    assert salvaged.text.startswith("So")


def test_nothing_is_salvaged_where_nothing_was_begun() -> None:
    opened = open_session([source(engine())])
    assert opened.salvage(question()) is None
