"""Calls that fail: when they are tried again, and what the request makes of it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from outthink import Completion, EngineError, Fault, OutthinkError, Request, ScriptedEngine, Session, Speed
from outthink.engines.protocol import Call
from outthink.session.calls import Retries
from support.runs import answers, collect, virtual

pytestmark = pytest.mark.faults
WIDE = Speed(total=1e9, concurrency=64)
GOOD = Completion(answer="1", tokens=50)


def engine(faults: dict[int, list[Fault]], **options: Any) -> ScriptedEngine:
    """Sample i fails as listed, attempt by attempt, and succeeds after that."""
    attempts: dict[int, int] = defaultdict(int)

    def script(call: Call) -> Completion:
        attempt = attempts[call.index]
        attempts[call.index] += 1
        planned = faults.get(call.index, [])
        return Completion(answer="1", tokens=50, fault=planned[attempt]) if attempt < len(planned) else GOOD

    return ScriptedEngine(script, speed=WIDE, prompt_tokens=0, **options)


def test_a_failed_call_is_tried_again_after_growing_pauses() -> None:
    run = virtual(collect(), engine({0: [Fault(), Fault()]}))
    assert answers(run.value) == ["1"]
    assert len(run.calls) == 3
    assert run.receipt.seconds == pytest.approx(0.25 + 0.5 + 1.0)
    assert {(call.index, call.seed) for call in run.calls} == {(0, None)}


def test_the_servers_own_pause_is_respected() -> None:
    run = virtual(collect(), engine({0: [Fault(retry_after=7.0)]}))
    assert run.receipt.seconds == pytest.approx(7.0 + 1.0)


def test_a_pause_that_is_too_long_is_no_retry() -> None:
    run = virtual(collect(), engine({0: [Fault(retry_after=31.0)]}))
    assert isinstance(run.error, EngineError)
    assert len(run.calls) == 1


@pytest.mark.parametrize(
    ("attempt", "fault", "delay"),
    [
        (1, Fault(), 0.25),
        (2, Fault(), 0.5),
        (3, Fault(), None),
        (1, Fault(fatal=True), None),
        (1, Fault(retry_after=0.0), 0.0),
        (2, Fault(retry_after=30.0), 30.0),
        (1, Fault(retry_after=30.1), None),
    ],
)
def test_delays(attempt: int, fault: Fault, delay: float | None) -> None:
    assert Retries().delay(attempt, fault.error) == delay


def test_backoff_is_capped() -> None:
    assert Retries(attempts=20, first=1.0, longest=5.0).delay(10, Fault().error) == 5.0


@pytest.mark.parametrize("told", [True, False])
def test_what_a_failed_call_had_generated_is_charged_and_not_asked_for_again(told: bool) -> None:
    run = virtual(collect(n=2, ahead=1), engine({1: [Fault(after=30)]}, told=told))
    assert [call.index for call in run.calls] == [0, 1]
    finished, failed = run.entries
    assert (failed.status, failed.completion_tokens) == ("failed", 0)
    assert failed.error == "the scripted engine failed as told"
    if told:
        assert (failed.cancelled_tokens, finished.completion_tokens, run.receipt.tokens) == (30, 50, 80)


def test_a_call_that_was_begun_is_not_sent_again() -> None:
    assert Retries().delay(1, EngineError("lost", begun=True)) is None


def test_a_fault_beyond_the_end_never_happens() -> None:
    assert answers(virtual(collect(), engine({0: [Fault(after=51)]})).value) == ["1"]


def test_some_failures_do_not_end_the_request() -> None:
    run = virtual(collect(n=4, ahead=4), engine({1: [Fault()] * 3}))
    assert answers(run.value) == ["1", "1", "1"]
    assert run.error is None
    assert run.session.stopped is None
    assert [sample.index for sample in run.value] == [0, 2, 3]
    assert any("some calls failed" in note for note in run.receipt.notes)


def test_all_failing_is_an_engine_error() -> None:
    run = virtual(collect(n=2, ahead=2), engine({0: [Fault()] * 3, 1: [Fault(message="down")] * 3}))
    assert isinstance(run.error, EngineError)
    assert "down" in str(run.error)


def test_an_engine_that_is_down_is_not_asked_forever() -> None:
    down = ScriptedEngine(lambda call: Completion(fault=Fault()), speed=WIDE)
    run = virtual(collect(n=100, ahead=1), down)
    assert isinstance(run.error, EngineError)
    assert len(run.calls) == 3 * 3


def test_a_fatal_error_ends_the_request_at_once() -> None:
    run = virtual(collect(n=5, ahead=1), engine({0: [Fault(fatal=True, message="wrong key")]}))
    assert isinstance(run.error, EngineError)
    assert str(run.error) == "wrong key"
    assert len(run.calls) == 1


def test_a_fatal_error_after_an_answer_keeps_the_answer() -> None:
    run = virtual(collect(n=5, ahead=1), engine({1: [Fault(fatal=True)]}))
    assert answers(run.value) == ["1"]
    assert run.session.stopped == "error"
    assert len(run.calls) == 2


def test_a_fatal_error_in_a_branch_ends_the_whole_request() -> None:
    async def strategy(session: Session, request: Request) -> int:
        async def branch(child: Session) -> None:
            async for _ in child.sample(request, n=3, ahead=1):
                pass

        await session.together(branch)
        return len([sample async for sample in session.sample(request)])

    run = virtual(strategy, engine({1: [Fault(fatal=True)]}))
    assert run.value == 0
    assert run.session.stopped == "error"


def test_retries_are_numbers_of_one_sample_not_new_samples() -> None:
    run = virtual(collect(n=3, ahead=3), engine({1: [Fault()]}))
    assert sorted(call.index for call in run.calls) == [0, 1, 1, 2]
    assert [sample.index for sample in run.value] == [0, 1, 2]


def test_a_stream_left_while_a_retry_waits_does_not_send_it() -> None:
    async def leave(session: Session, request: Request) -> None:
        async for _ in session.sample(request, n=2, ahead=2, order="finished"):
            break

    run = virtual(leave, engine({1: [Fault(retry_after=20.0)]}))
    assert len(run.calls) == 2
    assert run.receipt.seconds == pytest.approx(1.0)


def test_awaiting_something_foreign_is_a_clear_error() -> None:
    import asyncio

    async def sleeper(session: Session, request: Request) -> None:
        await asyncio.get_running_loop().create_future()

    async def branching(session: Session, request: Request) -> None:
        await session.together(lambda child: sleeper(child, request))

    async def main() -> None:
        for function in (sleeper, branching):
            run = virtual(function, engine({}))
            assert isinstance(run.error, OutthinkError)
            assert "awaits nothing but its session" in str(run.error)

    asyncio.run(main())


def test_waiting_for_nothing_is_a_clear_error() -> None:
    async def stuck(session: Session, request: Request) -> None:
        await session.pause()

    run = virtual(stuck, engine({}))
    assert isinstance(run.error, OutthinkError)
    assert "nothing is in flight" in str(run.error)
