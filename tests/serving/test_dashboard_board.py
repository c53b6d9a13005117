"""The live board: what it shows of running requests, and that its memory is bounded."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp")

from hypothesis import given
from hypothesis import strategies as st

from outthink.serving.dashboard.live import FINISHED, KEPT, LETTERS, REQUESTS, SAMPLES, VOTES, LiveRequests
from outthink.serving.protocols import AdmittedRequest, RequestRecord


def begun(id: str) -> AdmittedRequest:
    """A request that has begun."""
    return AdmittedRequest(id, "k1", "/v1/chat/completions", "outthink/auto", "esc:n=4", False, 1000.0)


def record(id: str, stopped: str = "finished") -> RequestRecord:
    return RequestRecord(id, "k1", "/v1/chat/completions", "outthink/auto", "toy", "esc:n=4", stopped, 1000.0, 2.0, 200)


def test_a_request_from_its_first_sample_to_its_end() -> None:
    live = LiveRequests()
    live.began(begun("a"))
    for index in range(3):
        live.sampled("a", index, "started", None, None, "http://one")
    live.sampled("a", 0, "finished", "4", 20, "http://one")
    live.voted("a", {"4": 1.0}, "4")
    live.sampled("a", 2, "cancelled", None, 7, "http://one")
    shown = live.json()
    (row,) = shown["running"]
    assert (row["id"], row["key"], row["strategy"], row["started"]) == ("a", "k1", "esc:n=4", 1000.0)
    assert [sample["state"] for sample in row["samples"]] == ["finished", "started", "cancelled"]
    assert row["samples"][0] == {"index": 0, "state": "finished", "answer": "4", "tokens": 20, "backend": "http://one"}
    assert row["counts"] == {"started": 1, "finished": 1, "cancelled": 1}
    assert (row["votes"], row["leader"]) == ([{"answer": "4", "weight": 1.0}], "4")
    assert (shown["count"], shown["calls"]) == (1, 1)
    live.finished(record("a", "consensus"))
    shown = live.json()
    assert shown["running"] == []
    assert (shown["count"], shown["total"], shown["finished"][0]["stopped"]) == (0, 1, "consensus")
    story = live.story("a")
    assert story is not None
    assert len(story["samples"]) == 3
    assert live.story("unheard-of") is None


def test_tokens_that_nobody_counted_stay_unknown() -> None:
    live = LiveRequests()
    live.began(begun("a"))
    live.sampled("a", 0, "cancelled", None, None, "http://one")
    assert live.json()["running"][0]["samples"][0]["tokens"] is None
    live.finished(record("a"))
    assert live.json()["finished"][0]["tokens"] is None


def test_events_of_requests_that_it_does_not_know_change_nothing() -> None:
    live = LiveRequests()
    before = live.json()
    live.sampled("x", 0, "started", None, None, "http://one")
    live.voted("x", {"4": 1.0}, "4")
    assert live.json() | {"now": 0} == before | {"now": 0}


def test_backends() -> None:
    live = LiveRequests()
    live.backend("http://one", True)
    live.backend("http://two", True)
    live.backend("http://one", False)
    assert live.json()["backends"] == [{"url": "http://one", "healthy": False}, {"url": "http://two", "healthy": True}]


def test_memory_is_bounded_whatever_runs() -> None:
    live = LiveRequests()
    for number in range(REQUESTS + 50):
        live.began(begun(str(number)))
    newest = str(REQUESTS + 49)
    for index in range(SAMPLES + 30):
        live.sampled(newest, index, "finished", "9" * 5000, 1, "http://one")
    live.voted(newest, {f"{number} " + "x" * 5000: float(number) for number in range(VOTES + 12)}, "19 " + "x" * 5000)
    shown = live.json(most=10)
    assert (len(shown["running"]), shown["count"]) == (10, REQUESTS + 50)
    row = shown["running"][0]
    assert row["id"] == newest
    assert (len(row["samples"]), row["counts"]["finished"]) == (SAMPLES, SAMPLES + 30)
    assert max(len(sample["answer"]) for sample in row["samples"]) == LETTERS
    assert [vote["weight"] for vote in row["votes"]] == [float(number) for number in range(19, 19 - VOTES, -1)]
    assert row["answers"] == VOTES + 12
    assert row["leader"] == row["votes"][0]["answer"]
    for number in range(REQUESTS + 50):
        live.sampled(str(number), 0, "started", None, None, "http://one")
        live.finished(record(str(number)))
    shown = live.json()
    assert (shown["count"], len(shown["finished"]), shown["total"]) == (0, FINISHED, REQUESTS + 50)
    assert sum(live.story(str(number)) is not None for number in range(REQUESTS + 50)) == KEPT


_EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["started", "finished", "cancelled", "failed"]))
)


@given(_EVENTS)
def test_counts_never_go_below_zero(events: list[tuple[int, int, str]]) -> None:
    live = LiveRequests()
    for request, index, state in events:
        live.began(begun(str(request))) if index == 0 else None
        live.sampled(str(request), index, state, None, None, "http://one")
        if index == 5:
            live.finished(record(str(request)))
        shown = live.json()
        assert shown["count"] == len(shown["running"]) >= 0
        assert shown["calls"] >= 0
        assert all(number >= 0 for row in shown["running"] for number in row["counts"].values())
