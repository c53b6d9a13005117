"""The circuit breaker, on a clock of the test's own and in front of servers: who opens it, and what closes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.serving.pool.backend import Breaker, PoolSettings
from support.chat_server import ChatServer, Drop, Reply, Seen, models, refusal, stream, whole
from support.ledgers import KeyRing
from support.proxy_server import CHAT, ProxyServer
from support.waiting import until

pytestmark = pytest.mark.faults
SETTINGS = PoolSettings(failures=3, window=20, share=0.5, open_seconds=2.0)
OK = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
QUICK = {"failures": 2, "interval": 60.0, "open_seconds": 0.2, "down_after": 1000}


def against(breaker: Breaker, *keys: str, now: float = 0.0) -> None:
    for key in keys:
        for _ in range(3):
            breaker.failed(key, now)


def broken() -> Breaker:
    breaker = Breaker(SETTINGS)
    against(breaker, "a", "b")
    breaker.checked(0.0, well=False)
    return breaker


def test_several_keys_and_a_failed_check_open_it_for_its_time() -> None:
    breaker = Breaker(SETTINGS)
    against(breaker, "a", "b")
    assert breaker.opened_until is None
    breaker.checked(1.0, well=False)
    assert breaker.opened_until == 3.0


def test_a_check_that_passes_closes_it_and_forgets() -> None:
    breaker = broken()
    breaker.checked(0.5, well=True)
    assert breaker.opened_until is None
    breaker.checked(0.6, well=False)
    assert breaker.opened_until is None


def test_a_failed_check_waits_twice_as_long_up_to_a_bound() -> None:
    breaker, waits = broken(), []
    for _ in range(6):
        now = breaker.opened_until or 0.0
        breaker.checked(now, well=False)
        waits.append((breaker.opened_until or 0.0) - now)
    assert waits == [4.0, 8.0, 16.0, 24.0, 24.0, 24.0]


def test_a_check_before_its_time_changes_nothing() -> None:
    breaker = broken()
    breaker.checked(1.0, well=False)
    assert breaker.opened_until == 2.0


def test_calls_change_nothing_while_it_is_open() -> None:
    breaker = broken()
    breaker.succeeded("a", 1.0)
    against(breaker, "c", "d", now=1.0)
    assert breaker.opened_until == 2.0


def test_a_success_takes_the_vote_back_and_time_makes_it_void() -> None:
    breaker = Breaker(SETTINGS)
    against(breaker, "a", "b")
    breaker.succeeded("b", 0.0)
    breaker.checked(0.0, well=False)
    assert breaker.opened_until is None
    against(breaker, "b")
    breaker.checked(61.0, well=False)
    assert breaker.opened_until is None


def test_two_of_many_keys_are_no_share() -> None:
    breaker = Breaker(SETTINGS)
    against(breaker, "a", "b")
    for key in "cdefg":
        breaker.succeeded(key, 0.0)
    breaker.checked(0.0, well=False)
    assert breaker.opened_until is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_no_sequence_of_one_keys_calls_opens_it(steps: list[tuple[bool, bool]]) -> None:
    breaker = Breaker(SETTINGS)
    for ok, well in steps:
        breaker.succeeded("a", 0.0) if ok else breaker.failed("a", 0.0)
        breaker.checked(0.0, well=well)
        assert breaker.opened_until is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_it_opens_exactly_where_the_votes_say_so(outcomes: list[tuple[str, bool]]) -> None:
    rows: dict[str, int] = {}
    breaker = Breaker(SETTINGS)
    for key, ok in outcomes:
        breaker.succeeded(key, 0.0) if ok else breaker.failed(key, 0.0)
        if rows or not ok:
            rows[key] = 0 if ok else rows.get(key, 0) + 1
    breaker.checked(0.0, well=False)
    votes = sum(row >= 3 for row in rows.values())
    assert (breaker.opened_until is not None) == (votes >= 2 and votes >= len(rows) / 2)


@contextmanager
def served(answer: Reply) -> Iterator[tuple[ChatServer, ProxyServer]]:
    with ChatServer(answer) as backend, ProxyServer(backend.url, ledger=KeyRing("a", "b", "c"), pool=QUICK) as proxy:
        yield backend, proxy


def ask(proxy: ProxyServer, key: str, model: str = "toy", *, streamed: bool = False) -> int:
    return proxy.chat(model, headers={"authorization": f"Bearer {key}"}, stream=streamed).status


def unwell(backend: ChatServer, proxy: ProxyServer) -> None:
    """The server's own check fails, once at least from now on."""
    asked = sum(seen.path == "/v1/models" for seen in backend.seen)
    backend.routes["/v1/models"] = refusal("no", 500)
    proxy.pool.backends[0].wants_check()
    until(lambda: sum(seen.path == "/v1/models" for seen in backend.seen) > asked, "a check")


FAILURES = {
    "500": refusal("no pictures here", 500),
    "503": refusal("no", 503),
    "reset": stream(Drop(), before=(Drop(),)),
    "nonsense": whole(b"\x00\xff<html>no</html>", kind="text/html"),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_what_one_key_brings_about_closes_a_backend_to_nobody(kind: str, model: str) -> None:
    with served(FAILURES[kind]) as (backend, proxy):
        assert all(ask(proxy, "a", model) >= 500 for _ in range(12 if model == "toy" else 2))
        unwell(backend, proxy)
        assert ask(proxy, "a", model) >= 500
        backend.routes[CHAT] = OK
        assert ask(proxy, "b") == 200


def test_several_keys_open_nothing_while_the_check_passes() -> None:
    with served(FAILURES["500"]) as (backend, proxy):
        for key in "ababab":
            assert ask(proxy, key) == 500
        backend.routes[CHAT] = OK
        assert ask(proxy, "c") == 200


def test_several_keys_and_the_check_open_it_and_the_check_alone_closes_it() -> None:
    with served(FAILURES["503"]) as (backend, proxy):
        backend.routes["/v1/models"] = refusal("no", 500)
        for key in "aabb":
            ask(proxy, key)
        until(lambda: proxy.pool.backends[0].breaker.opened_until is not None, "the breaker")
        before = len(backend.calls)
        got = proxy.chat("toy", headers={"authorization": "Bearer c"})
        assert (got.status, got.error["code"], int(got.headers["retry-after"]) >= 1) == (503, "no_backend", True)
        backend.routes[CHAT] = OK
        asked = len(backend.seen)
        until(lambda: len(backend.seen) > asked, "another check")
        assert ask(proxy, "c") == 503
        assert len(backend.calls) == before, "no client's request is the trial"
        backend.routes["/v1/models"] = models("toy")
        until(lambda: ask(proxy, "c") == 200, "the check that closes it")


def test_a_pause_that_one_key_is_asked_for_is_that_keys() -> None:
    with served(whole({"error": {"message": "slow down"}}, 429, retry_after="30")) as (backend, proxy):
        assert ask(proxy, "a") == ask(proxy, "a") == 429
        assert len(backend.calls) == 1
        backend.routes[CHAT] = OK
        assert (ask(proxy, "b"), ask(proxy, "a")) == (200, 429)
        backend.routes[CHAT] = whole({"error": {"message": "slow down"}}, 503, retry_after="30")
        assert ask(proxy, "b") == 503
        backend.routes[CHAT] = OK
        assert ask(proxy, "c") == 429, "two keys have been asked for one"


def test_a_pause_that_is_asked_for_a_model_is_that_models() -> None:
    loading = whole({"error": {"message": "loading"}}, 503, retry_after="30")

    def answer(seen: Seen) -> Reply:
        return loading if seen.body["model"] == "big" else OK

    with (
        ChatServer(answer, routes={"/v1/models": models("toy", "big")}) as backend,
        ProxyServer(backend.url, ledger=KeyRing("a", "b", "c"), pool=QUICK) as proxy,
    ):
        assert [ask(proxy, key, "big") for key in "abc"] == [503, 503, 429]
        assert [ask(proxy, key) for key in "abc"] == [200] * 3
        assert sum(seen.body["model"] == "big" for seen in backend.calls) == 2


def test_a_complaint_of_one_key_has_the_server_checked_at_once_and_not_for_every_call() -> None:
    with served(FAILURES["500"]) as (backend, proxy):
        for _ in range(20):
            ask(proxy, "a")

        def checks() -> list[float]:
            return [seen.at for seen in backend.seen if seen.path == "/v1/models"]

        until(lambda: len(checks()) > 1, "a check long before its interval")
        assert all(later - earlier > 0.9 for earlier, later in pairwise(checks()))
