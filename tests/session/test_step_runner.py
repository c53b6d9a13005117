"""The virtual clock over a step profile: exact times by hand, and a naive loop over single steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import BadInput, Budget, Completion, Fault, Message, Request, ScriptedEngine, Session, Speed, StepProfile
from outthink.core.receipt import Receipt
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call
from outthink.engines.time_model import StepLoad
from outthink.session.open import Source, open_session
from outthink.session.virtual.runner import drive
from outthink.session.virtual.steps import StepRunner
from support.runs import collect, question

PLAIN = StepProfile(base=((0.0, 1.0),), per_sequence=0.0, per_context=0.0, per_prefill=0.0, chunk=10)
"""Every step takes a second."""
FULL = StepProfile(base=((0.0, 1.0), (10.0, 2.0)), per_sequence=0.5, per_context=0.01, per_prefill=0.1, chunk=10)


def run(function: Any, engine: ScriptedEngine, request: Request | None = None, **options: Any) -> Receipt:
    """What a strategy has used on a server that moves in steps."""
    request = request or question()
    runner = StepRunner(engine)
    session = Session(runner, Tariff.of(engine.model), budget=request.budget, **options)
    drive(function(session, request), session, runner)
    return session.receipt()


def scripted(tokens: Sequence[int], *, speed: StepProfile = PLAIN, prompt: int = 20, **options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(["1"], tokens=tokens, speed=speed, prompt_tokens=prompt, **options)


def spent(receipt: Receipt) -> list[tuple[str, int | None, float | None]]:
    """Of each call in the order of their ends: how it ended, its tokens, its seconds."""
    return [(each.status, each.completion_tokens or each.cancelled_tokens, each.seconds) for each in receipt.entries]


def test_one_call_reads_in_chunks_and_then_gains_a_token_a_step() -> None:
    assert run(collect(n=1), scripted([5], prompt=25)).seconds == pytest.approx(3 + 5)
    seconds = run(collect(n=1), scripted([2], prompt=20, speed=FULL)).seconds
    reading = 2 * (2.0 + 0.5 + 1.0)  # 10 tokens in each of two steps
    assert seconds == pytest.approx(reading + (1.1 + 0.5 + 0.21) + (1.1 + 0.5 + 0.22))


def test_the_second_call_of_a_prompt_takes_one_step_for_it() -> None:
    assert [each[2] for each in spent(run(collect(n=2, ahead=2), scripted([5, 5])))] == [2 + 5, 2 + 1 + 5]
    later = spent(run(collect(n=2, ahead=1), scripted([5, 5])))
    assert [each[2] for each in later] == [2 + 5, 1 + 5]
    seconds = run(collect(n=2, ahead=2), scripted([1, 1], speed=FULL)).seconds
    steps = [2.0 + 1.0 + 1.0] * 2  # one reads 10, the other waits
    steps += [1.2 + 1.0 + 0.1 + 0.21]  # one writes its token, one reads the last of its prompt
    steps += [1.1 + 0.5 + 0.21]
    assert seconds == pytest.approx(sum(steps))


def first_of(n: int) -> Callable[[Session, Request], Any]:
    async def strategy(session: Session, request: Request) -> None:
        async for _ in session.sample(request, n=n, ahead=n, order="finished"):
            return

    return strategy


def test_a_cancelled_call_has_the_whole_tokens_that_it_wrote() -> None:
    assert spent(run(first_of(2), scripted([5, 50]))) == [("finished", 5, 7.0), ("cancelled", 4, 7.0)]
    # The reader is cut off by the deadline of its branch: the other reads the prompt from its start.
    early = ScriptedEngine(lambda call: Completion(text="1", tokens=3), speed=PLAIN, prompt_tokens=100, model="early")

    async def one_leaves(session: Session, request: Request) -> None:
        async def hurried(inner: Session) -> None:
            with inner.within(Budget(seconds=4.5)) as short:
                async for _ in short.sample(request, n=1):
                    pass

        async def patient(inner: Session) -> None:
            async for _ in inner.sample(request, n=1):
                pass

        await session.together(hurried, patient)

    assert spent(run(one_leaves, early)) == [("cancelled", 0, 4.5), ("finished", 3, 5.0 + 10 + 3)]


@pytest.mark.parametrize(("seconds", "tokens"), [(5.99, 3), (6.0, 4), (6.5, 4), (2.5, 0), (1.0, 0)])
def test_a_deadline_rings_within_a_step(seconds: float, tokens: int) -> None:
    receipt = run(collect(n=1), scripted([50]), question(budget=Budget(seconds=seconds)))
    assert (receipt.seconds, receipt.entries[0].cancelled_tokens or 0) == (seconds, tokens)


def test_calls_beyond_the_concurrency_wait_their_turn() -> None:
    narrow = scripted([5, 3, 4], speed=replace(PLAIN, concurrency=1))
    assert run(collect(n=3, ahead=3), narrow).seconds == pytest.approx((2 + 5) + (1 + 3) + (1 + 4))


def test_what_begins_during_a_step_takes_part_in_the_next() -> None:
    texts = iter([Completion(text="1", tokens=4, fault=Fault()), Completion(text="1", tokens=4)])
    again = ScriptedEngine(lambda call: next(texts), speed=PLAIN, prompt_tokens=20)
    receipt = run(collect(n=1), again)  # fails at 2, comes again at 2.25 where nothing runs
    assert receipt.seconds == pytest.approx(2.25 + 1 + 4)
    slow = ScriptedEngine(
        lambda call: Completion(text="1", tokens=6, delay=0.5 * call.index), speed=PLAIN, prompt_tokens=20
    )
    assert [each[2] for each in spent(run(collect(n=2, ahead=2), slow))] == [2 + 6, 0.5 + 0.5 + 1 + 1 + 6]


def test_a_prefix_that_is_continued_is_not_read_again() -> None:
    def script(call: Call) -> Completion:
        return Completion(text="a" * 40 if call.prefix is None else "b", tokens=40 if call.prefix is None else 1)

    def tokens(call: Call) -> int:
        return 100 + len(call.prefix or "")

    async def strategy(session: Session, request: Request) -> None:
        for prefix in (None, "a" * 40 + "!" * 15, "a" * 40 + "!" * 15, "a" * 20, "c"):
            async for _ in session.sample(request, n=1, prefix=prefix):
                pass

    engine = ScriptedEngine(script, speed=PLAIN, prompt_tokens=tokens)
    assert [each[2] for each in spent(run(strategy, engine))] == [10 + 40, 2 + 1, 1 + 1, 1 + 1, 1 + 1]


@dataclass
class Naive:
    """A call in the naive loop."""

    group: int
    output: int
    state: str = "queued"
    left: int = 0
    each: float = 0.0
    context: int = 0
    written: int = 0
    began: float = 0.0
    ended: float | None = None


def told(call: Naive) -> tuple[int, float | None]:
    return call.written, None if call.ended is None else call.ended - call.began


def step_by_step(
    profile: StepProfile, groups: Sequence[tuple[int, list[int], int]], deadline: float
) -> tuple[float, list[list[tuple[int, float | None]]]]:
    """The time and, of every call, its tokens and its duration; groups are (prompt, outputs, calls in flight)."""
    calls: list[list[Naive]] = [[] for _ in groups]
    queue: list[Naive] = []
    active: list[Naive] = []
    read, now = set[int](), 0.0
    while True:
        for number, (_, outputs, ahead) in enumerate(groups):
            while len(calls[number]) < len(outputs) and sum(c.ended is None for c in calls[number]) < ahead:
                calls[number].append(Naive(number, outputs[len(calls[number])]))
                queue.append(calls[number][-1])
        while queue and len(active) < profile.concurrency:
            call = queue.pop(0)
            others = [c for c in active if c.group == call.group]
            tokens = 1 if call.group in read else groups[call.group][0]
            call.state = "waiting" if call.group not in read and others else "reading"
            call.left = -(-tokens // profile.chunk)
            call.each, call.began = tokens / call.left, now
            active.append(call)
        if not active:
            return now, [[told(c) for c in group] for group in calls]
        writing, reading = ([c for c in active if c.state == state] for state in ("writing", "reading"))
        prefill, contexts = sum(c.each for c in reading), sum(c.context + 1 for c in writing)
        now += (
            profile.fixed(len(writing) + prefill)
            + profile.per_sequence * len(active)
            + profile.per_context * contexts
            + profile.per_prefill * prefill
        )
        if now > deadline:
            return deadline, [[told(c) for c in group] for group in calls]
        for call in writing:
            call.written, call.context = call.written + 1, call.context + 1
            if call.written == call.output:
                call.ended = now
        for call in reading:
            call.left -= 1
            if not call.left:
                call.state, call.context = "writing", groups[call.group][0]
                read.add(call.group)
        for call in active:
            if call.state == "waiting" and call.group in read:
                call.state, call.left, call.each = "reading", 1, 1.0
        active = [c for c in active if c.ended is None]


costs = st.floats(0, 0.1)
group = st.tuples(st.integers(1, 3000), st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(1, 6))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.floats(0.001, 0.2)), min_size=1, max_size=4),
    st.tuples(costs, st.floats(0, 1e-4), st.floats(0, 1e-3)),
    st.tuples(st.integers(1, 1000), st.integers(1, 8)),
    st.lists(group, min_size=1, max_size=3),
    st.none() | st.floats(0, 1),
)
def test_it_takes_as_long_as_single_steps_do(
    knots: list[tuple[int, float]],
    slopes: tuple[float, float, float],
    limits: tuple[int, int],
    groups: list[tuple[int, list[int], int]],
    share: float | None,
) -> None:
    profile = StepProfile(
        # Stairs stand between whole tokens: a prompt in equal parts may fall on either side of one that does not.
        base=tuple((tokens + 1 / 3, cost) for tokens, cost in sorted(knots)),
        per_sequence=slopes[0],
        per_context=slopes[1],
        per_prefill=slopes[2],
        chunk=limits[0],
        concurrency=limits[1],
    )
    whole, _ = step_by_step(profile, groups, float("inf"))
    deadline = None if share is None else whole * share + 1e-6
    prompts = {f"prompt {number}": (prompt, outputs) for number, (prompt, outputs, _) in enumerate(groups)}
    engine = ScriptedEngine(
        lambda call: Completion(answer="1", tokens=prompts[call.messages[0].text][1][call.index]),
        prompt_tokens=lambda call: prompts[call.messages[0].text][0],
        speed=profile,
    )

    async def strategy(session: Session, request: Request) -> None:
        def branch(number: int, n: int, ahead: int) -> Callable[[Session], Any]:
            asked = replace(request, messages=(Message("user", f"prompt {number}"),))

            async def one(inner: Session) -> None:
                async for _ in inner.sample(asked, n=n, ahead=ahead):
                    pass

            return one

        await session.together(*(branch(at, len(outputs), ahead) for at, (_, outputs, ahead) in enumerate(groups)))

    request = question(budget=Budget(seconds=deadline)) if deadline else question()
    receipt = run(strategy, engine, request)
    seconds, expected = step_by_step(profile, groups, deadline or float("inf"))
    assert receipt.seconds == pytest.approx(seconds, rel=1e-9)
    tokens = sum((each.completion_tokens or 0) + (each.cancelled_tokens or 0) for each in receipt.entries)
    assert tokens == sum(count for calls in expected for count, _ in calls)
    took = sorted(each.seconds or 0 for each in receipt.entries if each.status == "finished")
    assert took == pytest.approx(sorted(took for calls in expected for _, took in calls if took is not None), rel=1e-9)


@given(st.integers(0, 300), st.integers(0, 50), st.integers(0, 10**6), st.integers(1, 1000))
def test_steps_and_time_are_functions_of_each_other(writing: int, reading: int, contexts: int, steps: int) -> None:
    load = StepLoad(FULL)
    load.change(sequences=writing + 1, writing=writing, contexts=contexts * bool(writing), reading=float(reading))
    assert load.steps_in(load.seconds(steps)) == pytest.approx(steps, rel=1e-9)


def test_a_pool_of_both_kinds_keeps_one_clock() -> None:
    steps = scripted([5], model="steps")
    rates = ScriptedEngine.sequence(
        ["1"], tokens=40, speed=Speed(stream=10, prefill=1e9), model="rates", prompt_tokens=0
    )
    sources = [Source(each, lambda each=each: Tariff.of(each.model)) for each in (steps, rates)]  # type: ignore[misc]
    opened = open_session(sources)

    async def strategy(session: Session, request: Request) -> list[float]:
        async def on(inner: Session, model: str) -> float:
            async for _ in inner.on(model).sample(request, n=1):
                pass
            return inner.elapsed

        return await session.together(lambda inner: on(inner, "steps"), lambda inner: on(inner, "rates"))

    assert opened.run_now(strategy(opened.session, question())) == [7.0, 4.0]


def test_joules_are_no_time_and_a_stranger_is_no_time_model() -> None:
    with pytest.raises(BadInput, match=r"joules.* is no time"):
        StepRunner(scripted([1], speed=replace(PLAIN, unit="joules")))
    strange = scripted([1])
    strange.speed = "fast"  # type: ignore[assignment]
    with pytest.raises(BadInput, match="is no time model"):
        open_session([Source(strange, lambda: Tariff.of("x"))])
