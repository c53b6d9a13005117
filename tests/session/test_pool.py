"""Several models behind one session: one budget, one clock, one ledger; price and abilities of each its own."""

from __future__ import annotations

from typing import Any

import pytest

from outthink import BadInput, Budget, Completion, Fault, Price, Request, ScriptedEngine, Session, Speed
from outthink.core.errors import EngineError, Unsupported
from outthink.engines.protocol import Features
from support.pools import live_pool, virtual_pool
from support.runs import answers, question

WIDE = Speed(total=1e9, concurrency=64, prefill=1e12)


def small(**options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(["1"], **{"tokens": 100, "speed": WIDE, "model": "small", **options})


def large(**options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(["2"], **{"tokens": 200, "speed": WIDE, "model": "large", **options})


async def take(session: Session, request: Request, n: int, **options: Any) -> list[Any]:
    return [sample async for sample in session.sample(request, n=n, **options)]


async def both(session: Session, request: Request) -> list[str | None]:
    first = await take(session, request, 2)
    return answers([*first, *await take(session.on("large"), request, 3)])


def test_every_entry_names_its_model_and_is_priced_by_that_models_tariff() -> None:
    prices = {"small": Price(1.0, 1.0), "large": Price(10.0, 20.0)}
    run = virtual_pool(both, [small(), large(prompt_tokens=30)], prices=prices)
    assert run.value == ["1", "1", "2", "2", "2"]
    assert [entry.usd for entry in run.of("small")] == pytest.approx([120e-6] * 2)
    assert [entry.usd for entry in run.of("large")] == pytest.approx([30 * 10e-6 + 200 * 20e-6] * 3)
    assert run.receipt.tokens == 2 * 120 + 3 * 230
    assert run.receipt.usd == pytest.approx(sum(entry.usd for entry in run.receipt.entries))


def test_the_sessions_own_model_is_the_session_itself() -> None:
    async def strategy(session: Session, request: Request) -> bool:
        large_one = session.on("large")
        return session.on("small") is session and large_one.on("small") is session and session.on("large") is large_one

    assert virtual_pool(strategy, [small(), large()]).value


def test_a_model_outside_the_pool_is_refused() -> None:
    async def strategy(session: Session, request: Request) -> None:
        session.on("other")

    error = virtual_pool(strategy, [small(), large()]).error
    assert isinstance(error, BadInput)
    assert "small, large" in str(error)


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="twice"):
        virtual_pool(both, [small(), large(model="small")])


def test_numbers_and_prompt_lengths_are_each_models_own() -> None:
    """Samples are numbered for each model, and the second model's prompt is not bounded by the first one's count."""
    run = virtual_pool(both, [small(), large(prompt_tokens=90)], question(budget=Budget(tokens=10_000)))
    models = [running.model for running in run.launched]
    assert models == ["small"] * 2 + ["large"] * 3
    assert [running.call.index for running in run.launched] == [0, 1, 0, 1, 2]
    assert all(running.prompt_bound >= 90 for running in run.launched[2:])


def test_the_budget_counts_both_models_together() -> None:
    async def strategy(session: Session, request: Request) -> int:
        return len(await take(session, request, 4)) + len(await take(session.on("large"), request, 50))

    run = virtual_pool(strategy, [small(), large()], question(budget=Budget(tokens=2000)))
    assert run.session.stopped == "budget:tokens"
    assert run.of("small")
    assert run.of("large")
    assert run.receipt.tokens is not None
    assert 1000 < run.receipt.tokens <= 2000


def test_a_reservation_uses_the_tariff_of_the_model_that_is_called() -> None:
    """A cent buys thousands of small tokens and not one large call: that one is never sent."""
    prices = {"small": Price(1.0, 1.0), "large": Price(1000.0, 1000.0)}
    run = virtual_pool(both, [small(), large()], question(budget=Budget(usd=0.01)), prices=prices)
    assert run.value == ["1", "1"]
    assert run.session.stopped == "budget:usd"
    assert not run.of("large")


def test_a_dollar_budget_needs_a_price_for_every_model_before_any_call() -> None:
    engines = [small(), large()]
    with pytest.raises(Unsupported, match="'large'"):
        virtual_pool(both, engines, question(budget=Budget(usd=1.0)), prices={"small": Price(1.0, 1.0)})
    assert not engines[0].calls


def test_an_inner_budget_holds_on_both_models() -> None:
    async def strategy(session: Session, request: Request) -> tuple[int, str | None, str | None]:
        with session.within(Budget(tokens=700)) as inner:
            await take(inner, request, 1)
            await take(inner.on("large"), request, 20)
            stopped = inner.stopped
        spent = session.receipt().tokens or 0
        return spent, stopped, session.stopped

    spent, inner, outer = virtual_pool(strategy, [small(), large()]).value
    assert spent <= 700
    assert (inner, outer) == ("budget:tokens", None)


def test_an_inner_budget_of_one_model_can_go_on_with_the_other_one() -> None:
    async def strategy(session: Session, request: Request) -> list[str | None]:
        with session.on("large").within(Budget(tokens=400)) as inner:
            first = await take(inner, request, 9, ahead=1)
            assert inner.stopped == "budget:tokens"
        return answers([first[0], *await take(session, request, 2)])

    run = virtual_pool(strategy, [small(), large()])
    assert run.value == ["2", "1", "1"]
    assert run.session.stopped is None


def test_a_call_on_one_model_closes_the_others_stream() -> None:
    async def strategy(session: Session, request: Request) -> list[Any]:
        async for _ in session.sample(request, n=8, ahead=8):
            break
        return await take(session.on("large"), request, 1)

    run = virtual_pool(strategy, [small(tokens=[50, *[400] * 7]), large()])
    assert [entry.status for entry in run.of("small")] == ["finished"] + ["cancelled"] * 7
    assert {entry.cancelled_tokens for entry in run.of("small")[1:]} == {50}
    assert run.receipt.seconds == pytest.approx((50 + 200) / 50)


def test_leaving_the_strategy_cancels_what_is_in_flight_on_every_model() -> None:
    async def strategy(session: Session, request: Request) -> None:
        async for _ in session.on("large").sample(request, n=5, ahead=5):
            return

    run = virtual_pool(strategy, [small(), large(tokens=[60, *[400] * 4])])
    assert [entry.status for entry in run.of("large")] == ["finished"] + ["cancelled"] * 4
    assert run.session.account.outstanding == 0


def test_models_side_by_side_share_the_clock_but_not_the_server() -> None:
    """Two slow servers, each serving two calls at a time, both busy: neither slows the other down."""
    narrow = Speed(stream=50, total=50, concurrency=2, prefill=1e12)

    async def strategy(session: Session, request: Request) -> list[int]:
        parts = await session.together(
            lambda child: take(child, request, 2, ahead=2), lambda child: take(child.on("large"), request, 2, ahead=2)
        )
        return [len(part) for part in parts]

    run = virtual_pool(strategy, [small(speed=narrow), large(speed=narrow)])
    assert run.value == [2, 2]
    assert [entry.seconds for entry in run.of("small")] == pytest.approx([4.0, 4.0])
    assert [entry.seconds for entry in run.of("large")] == pytest.approx([8.0, 8.0])
    assert run.receipt.seconds == pytest.approx(8.0)


def test_events_of_one_instant_are_delivered_in_launch_order() -> None:
    async def strategy(session: Session, request: Request) -> list[Any]:
        ended: list[Any] = []

        async def one(child: Session) -> None:
            ended.extend(answers(await take(child, request, 1)))

        await session.together(lambda child: one(child.on("large")), one, lambda child: one(child.on("large")))
        return ended

    run = virtual_pool(strategy, [small(), large(tokens=100)])
    assert [entry.model for entry in run.receipt.entries] == ["large", "small", "large"]
    assert run.receipt.seconds == pytest.approx(2.0)


def test_the_deadline_stops_every_model() -> None:
    async def strategy(session: Session, request: Request) -> None:
        await session.together(
            lambda child: take(child, request, 9, ahead=1), lambda child: take(child.on("large"), request, 9, ahead=1)
        )

    run = virtual_pool(strategy, [small(), large()], question(budget=Budget(seconds=5.01)))
    assert run.receipt.seconds == pytest.approx(5.01)
    assert run.session.stopped == "budget:seconds"
    assert [entry.status for entry in run.of("small")] == ["finished", "finished", "cancelled"]
    assert [entry.cancelled_tokens for entry in run.of("large")] == [0, 50]


def test_each_model_has_its_own_abilities() -> None:
    blind = Features(logprobs=True, top_logprobs=0, prefix=False, seed=True)

    async def strategy(session: Session, request: Request) -> list[Any]:
        first = await take(session, request, 1, prefix="So")
        try:
            session.on("large").sample(request, prefix="So")
        except Unsupported as refused:
            return [len(first), "large" in str(refused)]
        return []

    assert virtual_pool(strategy, [small(), large(features=blind)]).value == [1, True]


def test_a_broken_model_leaves_the_other_one_usable() -> None:
    broken = ScriptedEngine(lambda call: Completion(fault=Fault(fatal=True, message="gone")), model="large", speed=WIDE)

    async def strategy(session: Session, request: Request) -> list[str | None]:
        first = await take(session, request, 1)
        lost = await take(session.on("large"), request, 3)
        return answers([*first, *lost, *await take(session, request, 1)])

    run = virtual_pool(strategy, [small(), broken])
    assert run.value == ["1", "1"]
    assert run.session.stopped is None
    assert run.receipt.notes == ("some calls failed: gone",)


def test_a_pool_without_any_success_raises_the_engines_error() -> None:
    broken = ScriptedEngine(lambda call: Completion(fault=Fault(fatal=True, message="gone")), model="large", speed=WIDE)

    async def strategy(session: Session, request: Request) -> list[Any]:
        return await take(session.on("large"), request, 3)

    assert isinstance(virtual_pool(strategy, [small(), broken]).error, EngineError)


def test_live_models_wake_one_request() -> None:
    """Branches on two real-time engines: each is woken by its own calls, nothing stays behind."""
    quick = Speed(stream=50_000, total=1e9, prefill=1e9)

    async def strategy(session: Session, request: Request) -> list[Any]:
        parts = await session.together(
            lambda child: take(child, request, 3, ahead=1), lambda child: take(child.on("large"), request, 3)
        )
        return [answers(part) for part in parts]

    run = live_pool(strategy, [small(speed=quick), large(speed=quick)])
    assert run.value == [["1"] * 3, ["2"] * 3]
    assert len(run.of("small")) == len(run.of("large")) == 3


def test_live_calls_of_every_model_are_cancelled_and_settled() -> None:
    slow = Speed(stream=100, total=1e9, prefill=1e9)

    async def strategy(session: Session, request: Request) -> list[Any]:
        async for _ in session.sample(request, n=1):
            break
        async for _ in session.on("large").sample(request, n=4, ahead=4):
            break
        return []

    run = live_pool(strategy, [small(speed=slow, tokens=2), large(speed=slow, tokens=[2, 5000, 5000, 5000])])
    assert [entry.status for entry in run.of("large")].count("cancelled") == 3
    assert run.receipt.tokens is not None
