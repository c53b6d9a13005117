"""Admission: limits in all and by key, a line that is bounded and fair, and honest Retry-After."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.errors import BadInput
from outthink.serving.admission import Admission, AdmissionSettings, Rate
from outthink.serving.protocols import Busy
from support.waiting import PATIENCE


def admission(**settings: Any) -> Admission:
    return Admission(AdmissionSettings(**settings))


async def come(door: Admission, key: str) -> str:
    if not door.enter(key):
        await door.wait(key)
    return key


async def standing(jobs: list[Coroutine[Any, Any, str]]) -> list[asyncio.Task[str]]:
    """Everybody has come in or stands in line, in this order."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def served(door: Admission, tasks: list[asyncio.Task[str]]) -> list[str]:
    """Keys in the order in which they come in, one leaving after the other."""
    order: list[str] = []
    left = list(tasks)
    while left:
        for task in [task for task in left if task.done()]:
            left.remove(task)
            if task.cancelled() or task.exception() is not None:
                continue
            order.append(task.result())
            door.leave(task.result())
        await asyncio.sleep(0)
    return order


def test_keys_take_turns_however_many_each_sends() -> None:
    async def main() -> None:
        door = admission(concurrency=1)
        tasks = await standing([come(door, "a") for _ in range(20)] + [come(door, "b"), come(door, "c")])
        order = await served(door, tasks)
        assert sorted(order[:5]) == ["a", "a", "a", "b", "c"]
        assert (door.active, door.waiting, len(order)) == (0, 0, 22)

    asyncio.run(main())


def test_a_keys_own_limit_holds_up_nobody_else() -> None:
    async def main() -> None:
        door = admission(concurrency=10, per_key=2)
        tasks = await standing([come(door, "a") for _ in range(5)] + [come(door, "b")])
        assert [task.done() for task in tasks] == [True, True, False, False, False, True]
        door.leave("b")
        assert await asyncio.wait_for(come(door, "b"), PATIENCE) == "b"
        door.leave("a")
        await asyncio.sleep(0)
        assert [task.done() for task in tasks[2:4]] == [True, False]
        for task in tasks[3:5]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (door.active, door.waiting) == (3, 0)

    asyncio.run(main())


def test_a_full_line_turns_away_the_newest_of_who_waits_with_the_most() -> None:
    async def main() -> None:
        door = admission(concurrency=1, queue=4)
        tasks = await standing([come(door, "greedy") for _ in range(5)])
        with pytest.raises(Busy):
            await come(door, "greedy")
        other = (await standing([come(door, "modest")]))[0]
        with pytest.raises(Busy):
            await tasks[4]
        assert door.waiting == 4
        order = await served(door, [*tasks[:4], other])
        assert order.index("modest") <= 2

    asyncio.run(main())


def test_no_line_refuses_at_once() -> None:
    async def main() -> None:
        door = admission(concurrency=1, queue=0)
        await come(door, "a")
        with pytest.raises(Busy):
            await come(door, "b")

    asyncio.run(main())


def test_nobody_waits_longer_than_told() -> None:
    async def main() -> None:
        door = admission(concurrency=1, queue_seconds=0.05)
        await come(door, "a")
        with pytest.raises(Busy, match=r"0\.05 s") as busy:
            await asyncio.wait_for(come(door, "b"), PATIENCE)
        assert busy.value.retry_after >= 1
        assert (door.active, door.waiting) == (1, 0)

    asyncio.run(main())


def test_retry_after_is_what_the_line_takes_at_the_rate_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("outthink.serving.admission.monotonic", lambda: clock[0])

    async def main() -> None:
        door = admission(concurrency=1, queue=19)
        tasks = await standing([come(door, "a")])
        for _ in range(200):  # two a second
            clock[0] += 0.5
            door.leave("a")
            door.enter("a")
        tasks += await standing([come(door, "a") for _ in range(19)])
        with pytest.raises(Busy) as busy:
            await come(door, "a")
        assert 9 <= busy.value.retry_after <= 11
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("events", [5, 50, 500])
def test_the_rate_is_right_from_the_first_seconds(events: int) -> None:
    rate = Rate(0.0)
    for at in range(1, events + 1):
        rate.add(at * 0.1)
    assert rate.value(events * 0.1) == pytest.approx(10, rel=0.12)
    assert rate.value(events * 0.1 + 100) < 0.2


@given(
    st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel", "settle"]), st.sampled_from("abc")), max_size=60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_limits_hold_and_no_place_is_lost(
    steps: list[tuple[str, str]], concurrency: int, per_key: int, queue: int
) -> None:
    async def main() -> None:
        door = admission(concurrency=concurrency, per_key=per_key, queue=queue)
        tasks: list[asyncio.Task[str]] = []
        inside: list[asyncio.Task[str]] = []

        async def settle() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                if not task.cancelled() and task.exception() is None:
                    inside.append(task)

        for step, key in steps:
            mine = [task for task in inside if task.result() == key]
            if step == "come":
                tasks.append(asyncio.create_task(come(door, key)))
            elif step == "leave" and mine:
                inside.remove(mine[0])
                door.leave(key)
            elif step == "cancel" and tasks:
                tasks[-1].cancel()
            elif step == "settle":
                await settle()
                counts = Counter(task.result() for task in inside)
                assert door.active == len(inside) <= concurrency
                assert max(counts.values(), default=0) <= per_key
                assert door.waiting == len(tasks) <= queue
        await settle()
        while inside:
            door.leave(inside.pop().result())
            await settle()
        assert (door.active, door.waiting, tasks) == (0, 0, [])

    asyncio.run(main())


@pytest.mark.parametrize(("field", "value"), [("concurrency", 0), ("per_key", 0), ("queue", -1), ("queue_seconds", 0)])
def test_settings_that_make_no_sense(field: str, value: float) -> None:
    with pytest.raises(BadInput) as wrong:
        AdmissionSettings(**{field: value})  # type: ignore[arg-type]
    assert wrong.value.field == field
