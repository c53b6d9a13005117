"""Places on an engine: who waits for them takes turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.session.runner import Places


def run(test: Coroutine[Any, Any, None]) -> None:
    """Within an event loop."""
    asyncio.run(test)


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_whoever_waits_gets_one_place_a_round() -> None:
    async def test() -> None:
        places, order = Places(1), []
        assert places.take_now("first")

        async def want(who: str) -> None:
            await places.take(who)
            order.append(who)

        tasks = [asyncio.create_task(want(who)) for who in ("large", "large", "large", "small", "other")]
        await settled()
        assert places.waiting == 5
        places.give("first")
        await settled()
        for holder in ("large", "small", "other", "large"):
            places.give(holder)
            await settled()
        assert order == ["large", "small", "other", "large", "large"]
        await asyncio.gather(*tasks)

    run(test())


def test_nobody_overtakes_who_waits_when_the_limit_grows() -> None:
    async def test() -> None:
        limit = 0
        places = Places(lambda: limit)
        first = asyncio.create_task(places.take(1))
        await settled()
        limit = 1
        assert not places.take_now(2)
        await first
        assert (places.active, places.waiting) == (1, 0)

    run(test())


def test_one_with_all_its_places_is_passed_over() -> None:
    async def test() -> None:
        places = Places(3, of=lambda who: who, each=1)
        assert places.take_now("a")
        again = asyncio.create_task(places.take("a"))
        await settled()
        assert places.take_now("b")
        assert not places.take_now("b")
        assert not again.done()
        places.give("a")
        await again
        assert places.active == 2

    run(test())


def test_a_free_place_goes_to_the_key_that_has_the_fewest() -> None:
    async def test() -> None:
        places, order = Places(2, of=lambda who: who[0]), []

        async def want(who: str) -> None:
            await places.take(who)
            order.append(who)

        tasks = [asyncio.create_task(want(who)) for who in ("a1", "a2", "a3", "a3", "a4", "b1", "b2")]
        await settled()
        assert order == ["a1", "a2"]
        for who in ("a1", "b1", "b2", "a2", "a3", "a4"):  # b keeps its place, however long those of a are held
            places.give(who)
            await settled()
        assert order == ["a1", "a2", "b1", "b2", "a3", "a4", "a3"]
        await asyncio.gather(*tasks)

    run(test())


@given(
    st.lists(st.tuples(st.sampled_from(["come", "give", "cancel", "limit", "settle"]), st.integers(0, 8)), max_size=80)
)
def test_nobody_waits_beside_a_free_place_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    async def test() -> None:
        limit = 2
        places = Places(lambda: limit, of=lambda who: who[0], each=3)
        tasks: list[tuple[str, asyncio.Task[None]]] = []
        inside: list[str] = []

        async def settle() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            for who, task in [pair for pair in tasks if pair[1].done()]:
                tasks.remove((who, task))
                if not task.cancelled():
                    inside.append(who)
            held = Counter(who[0] for who in inside)
            assert places.active == len(inside)
            assert places.waiting == len(tasks)
            assert max(held.values(), default=0) <= 3
            assert places.active >= limit or all(held[who[0]] == 3 for who, _ in tasks)

        for step, number in steps:
            who = f"{'abc'[number % 3]}{number // 3}"
            if step == "come":
                tasks.append((who, asyncio.create_task(places.take(who, 60))))
            elif step == "give" and inside:
                places.give(inside.pop(number % len(inside)))
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)][1].cancel()
            elif step == "limit":
                limit = number
                places.move()
            elif step == "settle":
                await settle()
        limit = 3
        places.move()
        await settle()
        while inside:
            places.give(inside.pop())
            await settle()
        assert (places.active, places.waiting, tasks) == (0, 0, [])

    run(test())


def test_giving_up_frees_the_turn() -> None:
    async def test() -> None:
        places = Places(1)
        assert places.take_now(0)
        gone, next_one = (asyncio.create_task(places.take(who)) for who in (1, 2))
        await settled()
        gone.cancel()
        places.give(0)
        await next_one
        assert (places.active, places.waiting) == (1, 0)
        places.give(2)
        assert places.active == 0

    run(test())


def test_a_place_that_comes_while_giving_up_goes_to_the_next() -> None:
    async def test() -> None:
        places = Places(1)
        assert places.take_now(0)
        gone = asyncio.create_task(places.take(1))
        await settled()
        places.give(0)  # the place has come, and its owner does not know yet
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert places.active == 0

    run(test())


def test_waiting_can_be_refused() -> None:
    async def test() -> None:
        places = Places(1, of=lambda who: who)
        assert places.take_now(0)
        tasks = [asyncio.create_task(places.take(who)) for who in (1, 2, 2)]
        await settled()
        assert (places.greediest(), places.queued(2)) == (2, 2)
        places.turn_away(2, RuntimeError("too many"))
        await settled()
        assert [task.done() for task in tasks] == [False, False, True]
        places.refuse(RuntimeError("closing"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["closing", "closing", "too many"]
        assert places.waiting == 0

    run(test())
