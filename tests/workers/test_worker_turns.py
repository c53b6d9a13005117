"""Who shares the workers: one request's heavy calls delay another's light one by about its own time."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import copy_context

import pytest

from outthink.workers.fairness import FairThreads, Rounds, asker
from outthink.workers.pool import WorkerPool


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(limit=0.5, count=2)
    yield made
    made.close()


def test_what_hangs_leaves_a_worker_to_others(pool: WorkerPool) -> None:
    heavy = [pool.submit("math:factorial", 10_000_000, turn="heavy") for _ in range(24)]
    light = pool.submit("math:sqrt", 16, turn="light")
    assert light.result(60) == 4
    assert sum(future.done() for future in heavy) <= 2


def test_a_turn_has_so_many_seconds_and_no_more() -> None:
    pool = WorkerPool(limit=0.2, count=2, allowed=0.5)
    heavy = [pool.submit("math:factorial", 10_000_000, turn="heavy") for _ in range(200)]
    assert not wait(heavy, 60).not_done, "after three calls the others are not begun"
    assert pool.submit("math:sqrt", 9, turn="heavy").result(60) is None
    assert pool.submit("math:sqrt", 9, turn="another").result(60) == 3
    pool.close()


def test_many_requests_of_one_asker_leave_a_worker_to_others(pool: WorkerPool) -> None:
    asker.set("a")
    heavy = [pool.submit("math:factorial", 10_000_000, turn=f"heavy {at}") for at in range(24)]
    asker.set("b")
    assert [pool.submit("math:sqrt", 16, turn=at).result(60) for at in range(8)] == [4] * 8
    assert sum(future.done() for future in heavy) < 24
    asker.set(None)


def test_who_has_used_little_waits_for_no_round_of_those_who_used_much() -> None:
    pool = WorkerPool(limit=0.1, count=2)
    heavy: list[Future[None]] = []
    for at in range(60):
        asker.set(f"heavy {at % 10}")
        heavy.append(pool.submit("math:factorial", 10_000_000, turn=at))
    wait(heavy[:10], 60)
    before = sum(future.done() for future in heavy)
    asker.set("light")
    assert [pool.submit("math:sqrt", 16, turn="light").result(60) for _ in range(5)] == [4] * 5
    assert sum(future.done() for future in heavy) - before <= 15, "one or two for each, not ten"
    asker.set(None)
    pool.close()


def ask(threads: FairThreads, name: str, call: Callable[[], int]) -> Future[int]:
    context = copy_context()
    context.run(asker.set, name)
    return context.run(threads.submit, call)


def test_what_one_asker_has_queued_leaves_threads_to_others() -> None:
    gate, order = threading.Event(), list[int]()

    def held() -> int:
        assert gate.wait(60)
        return 0

    def noted(number: int) -> int:
        order.append(number)
        return number

    with FairThreads() as threads:
        many = [ask(threads, "a", held) for _ in range(40)]
        assert [ask(threads, "b", lambda at=at: noted(at)).result(60) for at in range(20)] == list(range(20))
        assert sum(future.running() for future in many) == 2
        many[-1].cancel()
        gate.set()
        assert [future.result(60) for future in many[:-1]] == [0] * 39
    assert order == list(range(20))


def test_a_call_that_raises_ends_nothing_but_itself() -> None:
    with FairThreads() as threads:
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                ask(threads, "a", lambda: 1 // 0).result(60)
        assert ask(threads, "a", lambda: 1).result(60) == 1


def test_rounds_are_one_askers_each_and_askers_take_turns() -> None:
    async def run() -> tuple[list[str], list[int]]:
        rounds, loop = Rounds(), asyncio.get_running_loop()
        order: list[str] = []
        at: list[int] = []
        now = 0

        def tick() -> None:
            nonlocal now
            now += 1
            loop.call_soon(tick)

        async def work(name: str) -> None:
            asker.set(name)
            await rounds.turn()
            order.append(name)
            at.append(now)

        tick()
        jobs = [asyncio.create_task(work(name)) for name in "aaaaaaab"]
        left = jobs[1]
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait(jobs)
        assert left.cancelled()
        await asyncio.create_task(work("c"))
        return order, at

    order, at = asyncio.run(run())
    assert sorted(order) == sorted("aaaaaabc"), "who has left takes no turn"
    assert "b" in order[:3], "six of one asker's do not stand before another's first"
    assert len(set(at)) == len(at), "no two in one round"


def test_threads_ask_for_the_interpreter_sooner_while_long_work_goes_on_and_only_then() -> None:
    usual = sys.getswitchinterval()
    seen: list[float] = []

    async def piece(rounds: Rounds) -> None:
        await rounds.turn()
        seen.append(sys.getswitchinterval())

    async def run() -> None:
        rounds = Rounds()
        jobs = [asyncio.create_task(piece(rounds)) for _ in range(8)]
        jobs[3].cancel()
        await asyncio.wait(jobs)
        await asyncio.sleep(0)
        assert sys.getswitchinterval() == usual

    asyncio.run(run())
    with FairThreads() as threads:
        asked = [ask(threads, "a", lambda: seen.append(sys.getswitchinterval()) or 1) for _ in range(5)]
        with pytest.raises(ZeroDivisionError):
            ask(threads, "b", lambda: 1 // 0).result(60)
        assert [each.result(60) for each in asked] == [1] * 5
    assert len(seen) == 12
    assert all(each <= usual / 10 for each in seen)
    assert sys.getswitchinterval() == usual
