"""The proxy sends a request again only where no backend can have begun it, and once: the rest is the client's."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from hypothesis import given, settings
from hypothesis import strategies as st

from support.chat_server import ChatServer, Drop, Reply
from support.hostile_server import ACTS, CUTS, FAILURES, GOOD, REFUSALS, HostileServer
from support.proxy_server import Got, ProxyServer
from support.waiting import until

pytestmark = pytest.mark.faults
WANTED = {"toy": 1, "outthink/single": 1, "outthink/self-consistency@2": 2, "outthink/esc@4:window=2": 4}
MODELS = list(WANTED)
HELD = [act for act in REFUSALS if "later" not in act]


@contextmanager
def proxied(*servers: HostileServer) -> Iterator[ProxyServer]:
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        patient = {"failures": 1000, "share": 1.0}  # no breaker shall have the last word
        limits = {"backend_seconds": 5.0}
        yield stack.enter_context(ProxyServer(*(server.url for server in servers), pool=patient, limits=limits))


def ask(proxy: ProxyServer, model: str, streamed: bool) -> Got:
    own = {} if model == "toy" else {"outthink": {"answer": "number"}}
    return proxy.chat(model, stream=streamed, max_tokens=32, **own)


def total(servers: Any, name: str) -> int:
    return sum(getattr(server, name) for server in servers)


def answered(got: Got) -> bool:
    return got.status == 200 and b'"error":{' not in got.content.replace(b" ", b"")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
@pytest.mark.parametrize("act", [*FAILURES, *CUTS])
def test_what_may_have_been_begun_is_asked_of_no_backend_again(act: str, model: str, streamed: bool) -> None:
    servers = [HostileServer(*[act] * 9) for _ in range(2)]
    with proxied(*servers) as proxy:
        assert total(servers, "read") == 0
        got = ask(proxy, model, streamed)
        # Pass-through hands on what came as it came.
        assert not answered(got) or (model == "toy" and act == "empty object")
        assert total(servers, "read") == 1


@pytest.mark.parametrize("backends", [1, 2, 3])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("act", [*HELD, "429 later", "503 later"])
def test_a_client_hears_of_a_refusal_after_one_more_try_a_sample(
    act: str, model: str, streamed: bool, backends: int
) -> None:
    servers = [HostileServer(*[act] * 99) for _ in range(backends)]
    with proxied(*servers) as proxy:
        got = ask(proxy, model, streamed)
        assert got.status in (429, 503)
        assert int(got.headers["retry-after"]) >= (20 if "later" in act else 0)
        assert total(servers, "read") <= 2 * WANTED[model]
        if model == "toy":
            assert total(servers, "read") == min(backends, 2)


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_a_refusal_whose_text_is_cut_off_is_one(model: str) -> None:
    cut = Reply((b'{"error": {"mess', Drop()), 429, (("retry-after", "9"),), "application/json", together=False)
    with ChatServer(cut) as backend, ProxyServer(backend.url) as proxy:
        got = proxy.chat(model)
        assert (got.status, int(got.headers["retry-after"]) > 1) == (429, True)
        assert len(backend.calls) == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
@pytest.mark.parametrize(
    ("told", "most"),
    [
        ((("Retry-After", "soon"),), 1),
        ((("Retry-After", "2"), ("retry-after", "9")), 9),
        ((("retry-after-ms", "2500"),), 3),
        ((("Retry-After", "Wed, 21 Oct 2015 07:28:00 +99999999999999999999999"),), 1),
        ((("Retry-After", "1e308"),), None),
    ],
)
def test_a_client_hears_one_pause_that_it_can_read(
    told: tuple[tuple[str, str], ...], most: int | None, model: str, streamed: bool
) -> None:
    busy = Reply((b'{"error": {"message": "busy"}}',), 429, told, "application/json")
    with ChatServer(busy) as backend, ProxyServer(backend.url) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
        body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Hello"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        pauses = reply.headers.get_all("retry-after") or []
        connection.close()
        assert (reply.status, len(pauses)) == (429, 1)
        if most is not None:
            assert 1 <= int(pauses[0]) <= most
        assert len(backend.calls) <= 2


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@2"])
def test_a_client_that_tries_three_times_brings_about_two_requests_a_sample_and_round(model: str) -> None:
    with proxied(server := HostileServer(*["429"] * 99)) as proxy:
        for round_ in range(1, 4):
            assert ask(proxy, model, False).status == 429
            assert server.read <= 2 * WANTED[model] * round_


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("act", HELD)
def test_one_refusal_costs_no_sample(act: str, model: str) -> None:
    # With a single backend a refusal of what is passed through is the client's.
    servers = [HostileServer(act) for _ in range(2 if model == "toy" else 1)]
    with proxied(*servers) as proxy:
        got = [ask(proxy, model, False) for _ in range(1 if len(servers) == 1 else 3)]
        assert answered(got[-1])
        assert total(servers, "read") == total(servers, "answered") + total(servers, "refused")


@pytest.mark.parametrize("model", MODELS)
def test_backends_out_of_reach_are_passed_over(model: str) -> None:
    servers = [HostileServer() for _ in range(3)]
    with proxied(*servers) as proxy:
        for server in servers[:2]:
            server.stop()
        for _ in range(4):
            assert answered(ask(proxy, model, False))
        assert servers[2].read <= 4 * WANTED[model]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_connections_that_were_closed_while_they_were_idle_cost_no_request(model: str, streamed: bool) -> None:
    with proxied(server := HostileServer()) as proxy:
        for at in range(12):
            assert answered(ask(proxy, model, streamed))
            server.hang_up(reset=at % 2 == 0)
            until(lambda: not server.open, "the end of the connections")
        assert server.read == server.answered == 12


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_a_kept_connection_on_which_a_request_was_read_and_dropped_is_none_that_was_stale(model: str) -> None:
    with proxied(server := HostileServer("good", "read, then closed", "good", "read, then reset")) as proxy:
        assert [answered(ask(proxy, model, False)) for _ in range(5)] == [True, False, True, False, True]
        assert server.read == 5


@settings(max_examples=40, deadline=None)
@given(
    scripts=st.lists(st.lists(st.sampled_from(ACTS), max_size=6), min_size=1, max_size=3),
    doors=st.lists(st.booleans(), max_size=3),
    partial=st.lists(st.sampled_from([False, False, True]), max_size=3),
    asked=st.lists(st.tuples(st.sampled_from(MODELS), st.booleans()), min_size=1, max_size=3),
)
def test_no_backend_reads_more_than_the_samples_and_what_it_refused(
    scripts: list[list[str]], doors: list[bool], partial: list[bool], asked: list[tuple[str, bool]]
) -> None:
    servers = [HostileServer(*script) for script in scripts]
    with proxied(*servers) as proxy:
        servers[0].doors, servers[0].partial = list(doors), list(partial)  # after the check, which is asked again
        wanted = 0
        for model, streamed in asked:
            ask(proxy, model, streamed)
            wanted += WANTED[model]
            # Together: what one request has cancelled may be read while the next one is answered.
            assert total(servers, "read") <= wanted + total(servers, "refused")
            assert total(servers, "refused") <= 2 * wanted
        if all(set(script) <= set(GOOD) for script in scripts) and not any((*doors, *partial)):
            assert total(servers, "read") == total(servers, "answered")
