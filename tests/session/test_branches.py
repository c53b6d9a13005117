"""Branches side by side: one budget, one clock, results in order."""

from __future__ import annotations

from typing import Any

import pytest

from outthink import Budget, Request, ScriptedEngine, Session, Speed
from support.runs import BYTE_BOUND, question, virtual

WIDE = Speed(total=1e9, concurrency=64)


def engine(tokens: Any = 100) -> ScriptedEngine:
    return ScriptedEngine.sequence(["1"], tokens=tokens, speed=WIDE, prompt_tokens=0)


async def drain(session: Session, request: Request, n: int) -> list[Any]:
    return [sample async for sample in session.sample(request, n=n, ahead=1)]


def test_time_moves_only_when_every_branch_waits() -> None:
    """Three branches of 1, 2 and 3 sequential samples take as long as the longest."""

    async def three(session: Session, request: Request) -> list[int]:
        parts = await session.together(*(lambda child, n=n: drain(child, request, n) for n in (1, 2, 3)))
        return [len(part) for part in parts]

    run = virtual(three, engine())
    assert run.value == [1, 2, 3]
    assert run.receipt.seconds == pytest.approx(6.0)


def test_results_come_in_the_order_given() -> None:
    async def strategy(session: Session, request: Request) -> list[str]:
        async def slow(child: Session) -> str:
            await drain(child, request, 3)
            return "slow"

        async def quick(child: Session) -> str:
            return "quick"

        return await session.together(slow, quick)

    assert virtual(strategy, engine()).value == ["slow", "quick"]


def test_branches_share_the_budget() -> None:
    async def two(session: Session, request: Request) -> list[list[Any]]:
        return await session.together(*(lambda child: drain(child, request, 50) for _ in range(2)))

    run = virtual(two, engine(), question(budget=Budget(tokens=2000)))
    assert run.session.stopped == "budget:tokens"
    assert run.receipt.tokens is not None
    assert 2000 - BYTE_BOUND - 64 < run.receipt.tokens <= 2000
    assert run.receipt.tokens == sum(sample.tokens for part in run.value for sample in part)


def test_one_branch_waits_for_the_others_settlement() -> None:
    """There is room for one call at a time; nobody gives up while the other's call is running."""

    async def two(session: Session, request: Request) -> list[int]:
        parts = await session.together(*(lambda child: drain(child, request, 2) for _ in range(2)))
        return [len(part) for part in parts]

    run = virtual(two, engine(150), question(budget=Budget(tokens=700), min_tokens=400))
    assert run.value[0] + run.value[1] == 2
    assert run.runner.peak == 1
    assert run.receipt.tokens == 300
    assert run.session.stopped == "budget:tokens"


def test_a_branch_with_a_budget_of_its_own_stops_alone() -> None:
    async def strategy(session: Session, request: Request) -> list[int]:
        async def modest(child: Session) -> int:
            with child.within(Budget(tokens=400)) as inner:
                return len(await drain(inner, request, 50))

        async def greedy(child: Session) -> int:
            return len(await drain(child, request, 5))

        return await session.together(modest, greedy)

    run = virtual(strategy, engine())
    assert run.value == [3, 5]  # 400 tokens: a fourth call's bound does not fit
    assert run.session.stopped is None


def test_branches_continue_each_others_numbers() -> None:
    async def two(session: Session, request: Request) -> None:
        await session.together(*(lambda child: drain(child, request, 2) for _ in range(2)))

    run = virtual(two, engine(), question(seed=10))
    assert sorted(call.seed or 0 for call in run.calls) == [10, 11, 12, 13]


def test_a_branch_that_raises_cancels_the_others() -> None:
    async def strategy(session: Session, request: Request) -> None:
        async def stumble(child: Session) -> None:
            await drain(child, request, 1)
            raise KeyError("my own mistake")

        await session.together(stumble, lambda child: drain(child, request, 9))

    run = virtual(strategy, engine([100, 400]))
    assert isinstance(run.error, KeyError)
    assert (run.count("finished"), run.count("cancelled")) == (1, 1)
    assert run.session.account.outstanding == 0


def test_the_deadline_ends_every_branch_at_once() -> None:
    async def two(session: Session, request: Request) -> list[int]:
        parts = await session.together(*(lambda child: drain(child, request, 50) for _ in range(2)))
        return [len(part) for part in parts]

    run = virtual(two, engine(), question(budget=Budget(seconds=5)))
    assert run.value == [2, 2]
    assert run.receipt.seconds == 5
    assert run.count("cancelled") == 2


def test_branches_within_branches() -> None:
    async def outer(session: Session, request: Request) -> Any:
        async def inner(child: Session) -> list[int]:
            parts = await child.together(*(lambda leaf: drain(leaf, request, 2) for _ in range(2)))
            return [len(part) for part in parts]

        return await session.together(inner, inner)

    run = virtual(outer, engine())
    assert run.value == [[2, 2], [2, 2]]
    assert run.receipt.seconds == pytest.approx(4.0)


def test_after_the_branches_the_session_goes_on() -> None:
    async def strategy(session: Session, request: Request) -> int:
        await session.together(lambda child: drain(child, request, 1))
        return len(await drain(session, request, 2))

    assert virtual(strategy, engine()).value == 2


def test_interrupting_the_session_stops_all_branches_and_keeps_what_they_have() -> None:
    async def two(session: Session, request: Request) -> list[int]:
        parts = await session.together(*(lambda child: drain(child, request, 50) for _ in range(2)))
        return [len(part) for part in parts]

    def prepare(session: Session, runner: Any) -> None:
        runner.alarm(4.5, lambda: session.stop("interrupted"))

    run = virtual(two, engine(), prepare=prepare)
    assert run.value == [2, 2]
    assert run.session.stopped == "interrupted"
    assert run.receipt.seconds == 4.5


def test_what_an_ended_branch_gives_back_admits_another_ones_call() -> None:
    """The first branch waits for budget that the second one holds, and gives back by leaving early."""

    async def strategy(session: Session, request: Request) -> list[int]:
        async def leaving(child: Session) -> int:
            async for _ in child.sample(request, n=4, ahead=4):
                break
            return 1

        async def waiting(child: Session) -> int:
            return len(await drain(child, request, 2))

        return await session.together(waiting, leaving)

    one_by_one = Speed(total=1e9, concurrency=1)
    silent = ScriptedEngine.sequence(["1"], tokens=100, speed=one_by_one, prompt_tokens=0, told=False)
    run = virtual(strategy, silent, question(max_tokens=100, budget=Budget(tokens=5 * (BYTE_BOUND + 100))))
    assert run.error is None
    assert run.value == [2, 1]
