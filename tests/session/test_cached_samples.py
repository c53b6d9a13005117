"""The response cache: hits cost nothing, resuming pays nothing twice, and it changes no concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outthink import BadInput, Budget, Price, Sample, ScriptedEngine, Speed
from outthink.core.sample import ConfidenceTrace
from outthink.engines.protocol import Call
from outthink.session.store import ResponseCache, SampleStore, call_key
from outthink.strategies import Spec
from support.runs import BYTE_BOUND, Run, answers, collect, question, virtual

WIDE = Speed(total=1e9, concurrency=64)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResponseCache]:
    store = ResponseCache(SampleStore(tmp_path / "responses.sqlite"), lambda: "scripted")
    yield store
    store.close()


def engine(**options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(["1", "2", "3", "4", "5", "6"], tokens=[300, 50, 200, 100, 250, 150], speed=WIDE)


def play(cache: Any, n: int = 6, ahead: int = 6, request: Any = None, **options: Any) -> Run:
    return virtual(collect(n=n, ahead=ahead), engine(), request or question(seed=7), cache=cache, **options)


def test_a_second_run_costs_nothing_and_gives_the_same(cache: ResponseCache) -> None:
    first, second = play(cache), play(cache, price=Price(1, 1))
    assert answers(second.value) == answers(first.value) == list("123456")
    assert second.calls == []
    assert second.count("cached") == 6
    assert (second.receipt.tokens, second.receipt.usd, second.receipt.seconds) == (0, 0.0, 0.0)
    assert all(entry.cached for entry in second.entries)


@pytest.mark.parametrize("ahead", [1, 3, 6])
def test_a_cache_does_not_change_how_many_are_in_flight(cache: ResponseCache, ahead: int) -> None:
    cold = play(cache, ahead=ahead)
    assert cold.runner.peak == ahead
    assert cold.receipt.seconds == play(None, ahead=ahead).receipt.seconds


def test_resuming_pays_for_what_is_missing_only(cache: ResponseCache) -> None:
    """An interrupted run leaves gaps: samples 1 and 3 were finished, 0 and 2 were not."""

    def interrupt(session: Any, runner: Any) -> None:
        runner.alarm(2.5, lambda: session.stop("interrupted"))

    broken = play(cache, prepare=interrupt)
    assert answers(broken.value) == ["2", "4"]
    resumed = play(cache)
    assert answers(resumed.value) == list("123456")
    assert [call.index for call in resumed.calls] == [0, 2, 4, 5]
    assert resumed.count("cached") == 2


def test_resuming_under_a_budget_pays_for_what_is_missing_only(cache: ResponseCache) -> None:
    asked = question(seed=7, budget=Budget(tokens=900))
    first = play(cache, ahead=1, request=asked)
    assert first.session.stopped == "budget:tokens"
    got = len([sample for sample in first.value if sample.finish_reason == "stop"])
    second = play(cache, ahead=1, request=asked)
    assert second.count("cached") == got > 0
    assert len(second.value) > len(first.value)
    assert second.receipt.tokens is not None
    assert second.receipt.tokens <= 900


def test_a_sample_cut_by_the_budget_is_not_taken_for_the_whole(cache: ResponseCache) -> None:
    cut = play(cache, n=1, request=question(seed=7, budget=Budget(tokens=300)))
    assert [sample.finish_reason for sample in cut.value] == ["length"]
    assert [sample.answer for sample in play(cache, n=1).value] == ["1"]


def test_hits_and_misses_share_a_budget_in_order(cache: ResponseCache) -> None:
    play(cache, n=2)
    run = play(cache, request=question(seed=7, budget=Budget(tokens=4000)))
    assert answers(run.value) == list("123456")
    assert [call.index for call in run.calls] == [2, 3, 4, 5]


def test_calls_that_miss_the_cache_share_a_budget_like_others(cache: ResponseCache) -> None:
    asked = question(seed=7, budget=Budget(tokens=3 * (BYTE_BOUND + 90)))
    cold, none = play(cache, n=3, ahead=3, request=asked), play(None, n=3, ahead=3, request=asked)
    assert [call.sampling.max_tokens for call in cold.calls] == [90] * 3
    assert cold.receipt.json() == none.receipt.json()


def test_a_hit_behind_a_call_that_must_wait_keeps_its_place(cache: ResponseCache) -> None:
    """Only sample 2 is known, and the budget lets only one call run at a time."""
    play(cache, n=3)

    class Gappy:
        def get(self, call: Call) -> Sample | None:
            return cache.get(call) if call.index == 2 else None

        def put(self, call: Call, sample: Sample) -> None:
            pass

    run = play(Gappy(), n=4, ahead=3, request=question(seed=7, budget=Budget(tokens=850), min_tokens=350))
    assert run.runner.peak == 1
    assert answers(run.value) == list("1234")
    assert [call.index for call in run.calls] == [0, 1, 3]


def test_a_strategy_stops_in_the_middle_of_cached_samples(cache: ResponseCache) -> None:
    same = ScriptedEngine.sequence(["5"], speed=WIDE)
    virtual(Spec.parse("self-consistency:n=8"), same, question(seed=1), cache=cache)
    run = virtual(Spec.parse("adaptive-consistency:n=16"), same, question(seed=1), cache=cache, ahead=1)
    assert run.value.stopped == "consensus"
    assert run.count("cached") == 4
    assert run.receipt.tokens == 0


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"max_tokens": 400}, {"problem": "p"}, {"opening": "So: "}],
    ids=lambda change: next(iter(change)),
)
def test_another_request_is_no_hit(cache: ResponseCache, change: dict[str, Any]) -> None:
    play(cache)
    assert play(cache, request=question(**{"seed": 7, **change})).count("cached") == 0


@pytest.mark.parametrize(
    "change",
    [
        "value = '{'",
        "value = ''",
        "value = 'null'",
        "value = '[]'",
        "value = '{}'",
        "value = x'00ff'",
        "value = json_set(value, '$.text', 5)",
        "value = json_set(value, '$.text', json('null'))",
        "value = json_set(value, '$.answer', json('[1]'))",
        "value = json_set(value, '$.tokens', 'many')",
        "value = json_set(value, '$.index', 99)",
        "value = json_set(value, '$.confidence', 'x')",
        "value = json_set(value, '$.logprobs', 3)",
        "value = json_set(value, '$.logprobs', json('[\"a\"]'))",
        "value = json_set(value, '$.scores', json('[null]'))",
        "value = json_set(value, '$.index', json('null'))",
        "value = json_set(value, '$.verifier_tokens', 'many')",
        "value = json_set(value, '$.self_certainty', json('[]'))",
        "value = json_set(value, '$.confidence', json('[[\"a\"], 1, 2]'))",
        "value = json_set(value, '$.confidence', json('[[1.5], \"x\", 2]'))",
        "value = json_remove(value, '$.text')",
        "value = '" + "[" * 100_000 + "'",
    ],
)
def test_a_broken_entry_is_a_miss_and_is_replaced(cache: ResponseCache, change: str) -> None:
    first = play(cache)
    cache.store._database.execute(f"UPDATE samples SET {change}")
    second = play(cache)
    assert (answers(second.value), second.count("cached")) == (answers(first.value), 0)
    assert play(cache).count("cached") == 6


def test_a_cache_that_became_unreadable_costs_no_answer(cache: ResponseCache) -> None:
    cache.store._database.execute("ALTER TABLE samples RENAME COLUMN value TO other")
    assert answers(play(cache).value) == list("123456")


def test_a_request_does_not_wait_for_another_process_that_keeps_the_cache_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    caches = [ResponseCache.default(lambda: "scripted") for _ in range(2)]
    other = caches[1].store._database
    other.execute("BEGIN IMMEDIATE")
    ((milliseconds,),) = caches[0].store._database.execute("PRAGMA busy_timeout")
    assert milliseconds <= 200
    assert answers(play(caches[0]).value) == list("123456")
    other.execute("ROLLBACK")
    assert play(ResponseCache.default(lambda: "scripted")).count("cached") == 0
    for cache in caches:
        cache.close()


def test_keys_tell_engines_and_sample_numbers_apart() -> None:
    asked = question()
    calls = [Call(asked.messages, asked.sampling, None, number) for number in range(3)]
    assert len({call_key(name, call) for name in ("a", "b") for call in calls}) == 6


def test_failed_and_stopped_samples_are_not_kept(cache: ResponseCache) -> None:
    virtual(collect(n=3, watch=lambda progress: "stop"), engine(), question(seed=7), cache=cache)
    assert len(cache.store) == 0


def test_a_sample_survives_the_store_unchanged(tmp_path: Path) -> None:
    sample = Sample(
        3,
        "text é",
        None,
        "none",
        None,
        "length",
        20,
        -0.25,
        ConfidenceTrace((1.5, 2.0), 16, 30),
        4.0,
        "hm",
        (-0.5, -1.0),
    )
    store = SampleStore(tmp_path / "deep" / "s.sqlite")
    store.put("key", sample)
    store.put("key", Sample(9, "later", "1", "x", 1))
    assert store.get("key") == sample
    assert store.get("other") is None
    assert dict(store) == {"key": sample}
    store.close()


def test_a_file_that_is_no_store_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello " * 500)
    with pytest.raises(BadInput, match="move the file away"):
        SampleStore(path)
