"""Requests of a ledger as a workload: what is counted, what is left out, and how calls of a request run together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.economics.capacity.footprint import Footprint
from outthink.economics.capacity.served import ServedLoad


@dataclass
class Row:
    """A request as a ledger tells of it."""

    started: float = 0.0
    seconds: float = 1.0
    backend_model: str = "tiny"
    prompt_tokens: int | None = 10
    completion_tokens: int | None = 20
    cancelled_tokens: int | None = 0
    samples: int = 1
    receipt: Mapping[str, Any] | None = None


def call(
    prompt: int = 10,
    output: int | None = 20,
    status: str = "finished",
    *,
    role: str = "policy",
    seconds: float = 1.0,
    seen: int = 0,
    model: str = "tiny",
) -> dict[str, Any]:
    unused = status in ("cancelled", "failed")
    return {
        "role": role,
        "status": status,
        "model": model,
        "prompt_tokens": prompt,
        "completion_tokens": 0 if unused else output,
        "cancelled_tokens": output if unused else 0,
        "seen_tokens": seen,
        "seconds": seconds,
    }


def request(*calls: dict[str, Any], started: float = 0.0, seconds: float = 1.0) -> Row:
    def total(name: str) -> int | None:
        values = [each[name] for each in calls]
        return None if None in values else sum(values)

    sums = {name: total(name) for name in ("prompt_tokens", "completion_tokens", "cancelled_tokens")}
    drawn = sum(each["role"] == "policy" for each in calls)
    return Row(started, seconds, samples=drawn, receipt={"entries": list(calls)}, **sums)


def load_of(*rows: Row, since: float = 0.0, until: float = 10.0) -> ServedLoad:
    return ServedLoad(since, until).add(rows)


def test_requests_come_in_order_of_arrival_with_their_tokens() -> None:
    load = load_of(Row(started=7.0, prompt_tokens=30), Row(started=2.0, completion_tokens=5), since=1.0)
    workload = load.workload()
    assert workload.arrival.tolist() == [1.0, 6.0]
    assert workload.prompt.tolist() == [10, 30]
    assert workload.output.tolist() == [5, 20]
    assert (len(load), load.seconds, load.rate) == (2, 9.0, pytest.approx(2 / 9))
    assert list(load.notes()) == []


def test_calls_of_a_request_share_the_prompt_and_only_those_that_ended_are_waited_for() -> None:
    load = load_of(request(call(output=8), call(output=6, status="cancelled"), call(output=30), call(output=12)))
    workload = load.workload()
    assert workload.output.tolist() == [8, 30, 12, 6]
    assert workload.shared.tolist() == [10] * 4
    assert workload.need.tolist() == [3]
    footprint = Footprint.of(workload.checked(), 512)
    assert footprint.written.tolist() == [8 + 30 + 12 + 6]
    assert footprint.wanted.tolist() == [8 + 30 + 12]
    assert footprint.read.tolist() == [10 + 3 * 0]


@pytest.mark.parametrize(("seconds", "ahead"), [(8.0, 1), (4.2, 2), (2.01, 4), (1.0, 8), (0.1, 8), (20.0, 1)])
def test_as_few_calls_are_in_flight_as_the_seconds_allow(seconds: float, ahead: int) -> None:
    load = load_of(request(*[call(seconds=1.0)] * 8, seconds=seconds))
    assert load.workload().ahead.tolist() == [ahead]


@given(
    durations=st.lists(st.floats(0.01, 10), min_size=1, max_size=12),
    data=st.data(),
)
def test_the_calls_fit_into_the_time_that_so_many_in_flight_take(durations: list[float], data: st.DataObject) -> None:
    true = data.draw(st.integers(1, len(durations)))
    free = [0.0] * true
    for seconds in durations:
        free[free.index(min(free))] += seconds
    load = load_of(request(*(call(seconds=each) for each in durations), seconds=max(free)))
    assert 1 <= int(load.workload().ahead[0]) <= true


def test_prompts_that_grow_share_what_the_shortest_has() -> None:
    workload = load_of(request(call(10), call(35), call(60), seconds=3.0)).workload()
    assert workload.shared.tolist() == [10] * 3
    assert workload.prompt.tolist() == [10, 35, 60]


def test_a_call_that_joined_a_group_holds_the_prompt_that_was_read_for_it() -> None:
    assert load_of(request(call(40), call(0), call(0))).workload().prompt.tolist() == [40] * 3


def test_what_costs_a_server_nothing_is_no_call() -> None:
    load = load_of(
        request(call(), call(0, 0, "cached"), call(0, 0, role="router")),
        request(call(0, 0, "cached")),
        Row(prompt_tokens=0, completion_tokens=0),
        Row(prompt_tokens=7, completion_tokens=0),
    )
    assert len(load.workload().output) == 1
    assert (len(load), load.idle) == (1, 3)
    assert list(load.notes()) == ["requests for which nothing was written are left out: 3"]


def test_verifiers_tokens_are_spread_over_the_calls() -> None:
    verdicts = (call(100, 1, role="verifier"), call(50, 1, role="verifier"))
    workload = load_of(request(call(), call(), *verdicts)).workload()
    assert workload.verifier.tolist() == [76, 76]
    assert workload.output.size == 2


NONSENSE: Sequence[dict[str, Any]] = (
    {"prompt_tokens": None},
    {"completion_tokens": None},
    {"cancelled_tokens": None},
    {"prompt_tokens": -1},
    {"completion_tokens": 10**18},
)


@pytest.mark.parametrize("values", NONSENSE)
def test_requests_without_known_tokens_are_left_out_and_counted(values: dict[str, Any]) -> None:
    load = load_of(Row(**values), Row())
    assert (len(load), load.unknown) == (1, 1)
    assert load.rate == 0.1
    assert any("without known tokens" in note and note.endswith(": 1") for note in load.notes())


def test_a_cancelled_call_counts_at_what_was_seen_of_it() -> None:
    load = load_of(request(call(output=9), call(output=None, status="cancelled", seen=4)))
    assert load.workload().output.tolist() == [9, 4]
    assert (load.unknown, load.bounded) == (0, 1)


def test_sums_alone_are_divided_evenly_and_said_so() -> None:
    load = load_of(Row(samples=3, prompt_tokens=30, completion_tokens=100))
    workload = load.workload()
    assert workload.prompt.tolist() == [10] * 3
    assert workload.output.tolist() == [34] * 3
    assert any("sums alone" in note for note in load.notes())


def test_models_are_named_where_there_are_several() -> None:
    load = load_of(Row(), Row(), Row(backend_model="large"))
    assert "calls of 2 models are planned as if one server had answered them: tiny 67%, large 33%" in load.notes()


def test_the_busiest_hour_is_told_where_it_is_far_above_the_mean() -> None:
    rows = [Row(started=3600 * hour + 1) for hour in range(10)] + [Row(started=7300.0)] * 350
    (note,) = load_of(*rows, until=36_000.0).notes()
    assert note == "the busiest hour had 0.0975 requests/s, 9.8 times the mean"


def test_a_span_may_begin_with_the_first_request() -> None:
    load = load_of(Row(started=4.0), Row(started=6.0))
    load.begin_at_first()
    assert (load.seconds, load.rate) == (6.0, pytest.approx(1 / 3))
    assert load.workload().arrival.tolist() == [0.0, 2.0]
    load.begin_at_first(60.0)
    assert load.seconds == 6.0
    late = load_of(Row(started=9.9))
    late.begin_at_first()
    assert (late.rate, late.workload().arrival[0]) == (1.0, pytest.approx(0.9))


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 500), st.integers(0, 300), st.sampled_from(["finished", "cancelled", "failed"])),
            min_size=1,
            max_size=6,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_no_token_is_lost_or_made(requests: list[list[tuple[int, int, str]]]) -> None:
    load = load_of(*(request(*(call(*each) for each in calls)) for calls in requests))
    written = sum(output for calls in requests for _, output, _ in calls)
    if not load:
        assert written == 0
        return
    workload = load.workload().checked()
    assert int(workload.output.sum()) == written
    assert len(load) + load.idle == len(requests)
    assert (workload.shared <= workload.prompt).all()
    assert np.isfinite(Footprint.of(workload, 64).held).all()
    assert not math.isnan(load.rate)
