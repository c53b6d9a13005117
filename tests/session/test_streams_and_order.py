"""Streams: how many are in flight, in which order samples come, and what leaving a loop costs."""

from __future__ import annotations

from typing import Any

import pytest

from outthink import BadInput, Budget, Completion, Fault, Message, Request, ScriptedEngine, Session, Speed, Unsupported
from outthink.core.sample import Decision, Progress
from outthink.engines.protocol import Features
from support.runs import PROMPT, Run, answers, collect, question, virtual

WIDE = Speed(total=1e9, concurrency=64)
LENGTHS = [300, 50, 200, 100, 250, 150]


def engine(**options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence([str(i) for i in range(len(LENGTHS))], tokens=LENGTHS, speed=WIDE, **options)


@pytest.mark.parametrize("ahead", [1, 2, 3, 6, 50])
def test_in_flight_peaks_at_exactly_ahead(ahead: int) -> None:
    run = virtual(collect(n=6, ahead=ahead), engine())
    assert run.runner.peak == min(ahead, 6)


def test_the_sessions_own_ahead_is_the_default() -> None:
    assert virtual(collect(n=6), engine(), ahead=2).runner.peak == 2


def test_one_ahead_is_strictly_sequential() -> None:
    run = virtual(collect(n=4, ahead=1), engine())
    assert run.receipt.seconds == pytest.approx(sum(LENGTHS[:4]) / 50 + 4 * 20 / 5000)


def test_all_ahead_takes_as_long_as_the_longest() -> None:
    run = virtual(collect(n=6, ahead=6), engine())
    assert run.receipt.seconds == pytest.approx(300 / 50 + 20 / 5000)


def test_samples_come_in_launch_order() -> None:
    assert answers(virtual(collect(n=6, ahead=6), engine()).value) == list("012345")
    assert answers(virtual(collect(n=6, ahead=2), engine()).value) == list("012345")


def test_samples_come_as_they_finish_on_request() -> None:
    assert answers(virtual(collect(n=6, ahead=6, order="finished"), engine()).value) == list("135240")


def test_samples_that_finish_together_come_in_launch_order() -> None:
    same = ScriptedEngine.sequence(["1", "2", "3", "4"], speed=WIDE)
    assert answers(virtual(collect(n=4, ahead=4, order="finished"), same).value) == list("1234")


def test_calls_beyond_the_engines_concurrency_wait_their_turn() -> None:
    narrow = ScriptedEngine.sequence(["1"], tokens=100, speed=Speed(concurrency=2), prompt_tokens=0)
    assert virtual(collect(n=6, ahead=6), narrow).receipt.seconds == pytest.approx(3 * 2.0)


def test_a_queue_is_served_in_launch_order() -> None:
    narrow = ScriptedEngine.sequence(["1"], speed=Speed(concurrency=1))
    run = virtual(collect(n=5, ahead=3), narrow)
    assert [call.index for call in run.calls] == [0, 1, 2, 3, 4]


def test_a_sample_cut_at_its_limit_says_so() -> None:
    run = virtual(collect(), ScriptedEngine.sequence(["1"], tokens=70), question(max_tokens=40))
    sample = run.value[0]
    assert (sample.answer, sample.tokens, sample.finish_reason) == (None, 40, "length")
    assert sample.text == "The answer is 1."[: 16 * 40 // 70]


def test_streams_share_the_engines_total_rate() -> None:
    shared = ScriptedEngine.sequence(["1"], tokens=100, speed=Speed(stream=50, total=100), prompt_tokens=0)
    assert virtual(collect(n=4, ahead=4), shared).receipt.seconds == pytest.approx(4 * 100 / 100)


def test_leaving_the_loop_cancels_the_rest_and_pays_for_what_they_made() -> None:
    async def first(session: Session, request: Request) -> str | None:
        async for sample in session.sample(request, n=6, ahead=6, order="finished"):
            return sample.answer
        return None

    run = virtual(first, engine())
    assert run.value == "1"
    assert (run.count("finished"), run.count("cancelled")) == (1, 5)
    assert {entry.cancelled_tokens for entry in run.entries if entry.status == "cancelled"} == {50}
    assert run.receipt.tokens == 6 * (20 + 50)
    assert run.session.account.outstanding == 0


def test_an_exception_cancels_the_rest_too() -> None:
    async def stumble(session: Session, request: Request) -> None:
        async for _ in session.sample(request, n=6, ahead=6, order="finished"):
            raise KeyError("my own mistake")

    run = virtual(stumble, engine())
    assert isinstance(run.error, KeyError)
    assert run.receipt.tokens == 6 * 70


def test_the_next_call_on_the_session_closes_the_stream() -> None:
    async def two(session: Session, request: Request) -> tuple[int, list[Any]]:
        stream = session.sample(request, n=6, ahead=6, order="finished")
        await anext(stream)
        second = session.sample(request, n=1)
        closed = sum(entry.status == "cancelled" for entry in session.ledger.entries)
        return closed, [sample async for sample in second]

    run = virtual(two, engine())
    closed, samples = run.value
    assert closed == 5
    assert [sample.index for sample in samples] == [6]


def test_a_closed_stream_still_gives_what_had_finished() -> None:
    async def both(session: Session, request: Request) -> list[Any]:
        stream = session.sample(request, n=6, ahead=6)
        async for _ in stream:  # sample 0 is the longest: all others have finished by now
            session.sample(request)
            return [sample async for sample in stream]
        return []

    assert answers(virtual(both, engine()).value) == list("12345")


def test_a_failed_sample_hides_no_finished_one_when_time_is_up() -> None:
    """Sample 0 fails for good, 1 is still running at the deadline, 2 has finished."""
    script = [Completion(fault=Fault()), Completion(answer="1", tokens=900), Completion(answer="2", tokens=50)]
    mixed = ScriptedEngine(lambda call: script[call.index], speed=WIDE)
    run = virtual(collect(n=3, ahead=3), mixed, question(budget=Budget(seconds=10), max_tokens=900))
    assert answers(run.value) == ["2"]
    assert run.session.stopped == "budget:seconds"


# Numbers and seeds


def test_sample_numbers_and_seeds_never_repeat_in_a_session() -> None:
    async def twice(session: Session, request: Request) -> None:
        for _ in range(2):
            async for _ in session.sample(request, n=3, ahead=3):
                pass

    run = virtual(twice, engine(), question(seed=100))
    assert [(call.index, call.seed) for call in run.calls] == [(i, 100 + i) for i in range(6)]


def test_the_same_question_asked_with_new_objects_goes_on_counting() -> None:
    async def twice(session: Session, request: Request) -> None:
        for _ in range(2):
            fresh = Request(messages=(Message("user", PROMPT),), answer="number", seed=5)
            async for _ in session.sample(fresh, n=2):
                pass

    run = virtual(twice, engine())
    assert [call.seed for call in run.calls] == [5, 6, 7, 8]


def test_greedy_and_prefixed_samples_have_numbers_of_their_own() -> None:
    async def all_three(session: Session, request: Request) -> None:
        for stream in (
            lambda: session.sample(request),
            lambda: session.sample(request.greedy),
            lambda: session.extend(request, "So: "),
            lambda: session.extend(request, "So: "),
        ):
            async for _ in stream():
                pass

    assert [call.index for call in virtual(all_three, engine()).calls] == [0, 0, 0, 1]


def test_a_request_without_a_seed_sends_none() -> None:
    assert [call.seed for call in virtual(collect(n=2), engine()).calls] == [None, None]


# Watching


def watching(stop_at: int | None, seen: list[tuple[int, int]]) -> Any:
    def watch(progress: Progress) -> Decision:
        seen.append((progress.index, progress.tokens))
        return "stop" if progress.tokens == stop_at else "keep"

    return watch


def test_watch_is_called_at_every_chunk_of_sixteen_tokens() -> None:
    seen: list[tuple[int, int]] = []
    done = ScriptedEngine.sequence(["1"], tokens=70)
    run = virtual(collect(watch=watching(None, seen)), done)
    assert seen == [(0, 16), (0, 32), (0, 48), (0, 64)]
    assert answers(run.value) == ["1"]


def test_a_stopped_sample_is_charged_and_does_not_come_back() -> None:
    seen: list[tuple[int, int]] = []
    run = virtual(collect(n=1, watch=watching(32, seen)), ScriptedEngine.sequence(["1"], tokens=70))
    entry = run.entries[0]
    assert run.value == []
    assert (entry.status, entry.prompt_tokens, entry.completion_tokens) == ("stopped", 20, 32)
    assert entry.finish_reason == "stopped"
    assert run.receipt.seconds == pytest.approx(32 / 50 + 20 / 5000)


def test_a_stopped_sample_makes_room_for_the_next() -> None:
    run = virtual(collect(n=3, ahead=1, watch=watching(32, [])), ScriptedEngine.sequence(["1"], tokens=70))
    assert run.count("stopped") == 3
    assert run.receipt.tokens == 3 * (20 + 32)


def test_a_watch_sees_confidence_and_text_so_far() -> None:
    seen: list[tuple[float | None, str]] = []

    def watch(progress: Progress) -> Decision:
        seen.append((progress.window(32), progress.text))
        return "keep"

    done = Completion(answer="1", text="x" * 64, tokens=64, confidence=(1.0, 2.0, 4.0, 9.0))
    virtual(collect(watch=watch), ScriptedEngine(lambda call: done))
    assert seen == [(None, "x" * 16), (1.5, "x" * 32), (3.0, "x" * 48)]


def test_a_watch_that_raises_ends_the_request_with_its_error() -> None:
    def watch(progress: Progress) -> Decision:
        raise KeyError("my own mistake")

    run = virtual(collect(watch=watch), ScriptedEngine.sequence(["1"]))
    assert isinstance(run.error, KeyError)
    assert run.count("cancelled") == 1


# Refusals


@pytest.mark.parametrize("options", [{"n": 0}, {"ahead": 0}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    run = virtual(collect(**options), engine())
    assert isinstance(run.error, BadInput)
    assert not run.calls


def test_a_prefix_is_refused_by_an_engine_known_to_lack_it() -> None:
    run = virtual(collect(prefix="So: "), engine(features=Features(prefix=False)))
    assert isinstance(run.error, Unsupported)
    assert not run.calls
    assert virtual(collect(prefix="So: "), engine(features=Features(prefix=None))).error is None


def test_an_opening_precedes_every_prefix() -> None:
    run: Run = virtual(collect(prefix="two"), engine(), question(opening="one, "))
    assert [call.prefix for call in run.calls] == ["one, two"]
