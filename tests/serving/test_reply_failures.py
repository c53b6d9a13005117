"""Failures that a backend tells within a reply with status 200: an error in record, metrics and breaker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.observe.metrics import attach
from outthink.serving.protocols import Key
from support.chat_server import DONE, ChatServer, Drop, Reply, chat, chunk, event, stream, usage, whole
from support.ledgers import Charging
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import until

RESPONSES = "/v1/responses"
WORDS = "the secret words of the backend"
DAILY = {"Authorization": "Bearer daily"}
MESSAGE = {"role": "assistant", "content": "a"}
FAILED = {"object": "response", "status": "failed", "output": [], "error": {"code": "server_error", "message": WORDS}}
WHOLE: dict[str, Any] = {
    "an error object": {"error": {"message": WORDS, "code": 500}},
    "an error in words": {"error": WORDS},
    "object: error": {"object": "error", "message": WORDS, "code": 500},
    "type: error": {"type": "error", "message": WORDS},
    "a choice": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "error"}]},
    "a choice in capitals": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "ERROR"}]},
    "a choice that was aborted": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "abort"}]},
    "a choice without resources": {
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "insufficient_system_resource"}]
    },
    "a choice with an error": {"choices": [{"index": 0, "message": MESSAGE, "error": {"message": WORDS}}]},
    "words alone": {"detail": WORDS},
    "words and a code": {"message": WORDS, "code": 500},
    "several errors": {"errors": [{"message": WORDS}], "success": False},
    "beside no choices": {"choices": [], "x_groq": {"id": "r", "error": WORDS}},
    "the second choice": {"choices": [{"index": 0}, {"index": 1, "error": {"message": WORDS}}]},
    "a failed response": FAILED,
    "a failed response without a reason": {**FAILED, "error": None},
}
EVENTS: dict[str, bytes] = {
    **{name: event(value) for name, value in WHOLE.items() if "response" not in name},
    "event: error": b"event: error\ndata: " + json.dumps({"message": WORDS}).encode() + b"\n\n",
    "event: error in words": b"event:error\r\ndata: " + WORDS.encode() + b"\r\n\r\n",
    "event: Error": b"event: Error\ndata: " + json.dumps({"message": WORDS}).encode() + b"\n\n",
    "error: as a field": b"error: " + json.dumps({"message": WORDS}).encode() + b"\n\n",
    "names with escapes": b'data: {"e\\u0072ror": {"message": "no"}}\n\n',
    "a failed response": b"event: response.failed\n" + event({"type": "response.failed", "response": FAILED}),
}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def ledger() -> Charging:
    return Charging(100_000, Key("daily", limited=True), Key("other", limited=True))


@pytest.fixture
def proxy(backend: ChatServer, ledger: Charging) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=ledger) as running:
        yield running


def ask(proxy: ProxyServer, path: str = CHAT, key: str = "daily", **fields: Any) -> Got:
    said = {"input": "Hi"} if path == RESPONSES else {"messages": [{"role": "user", "content": "Hi"}]}
    return proxy.send("POST", path, {"model": "toy", **said, **fields}, Authorization=f"Bearer {key}")


def record(proxy: ProxyServer, got: Got) -> Any:
    return proxy.ledger.records[got.headers["x-outthink-receipt"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_reply(backend: ChatServer, proxy: ProxyServer, case: str) -> None:
    path = RESPONSES if "response" in case else CHAT
    backend.routes[path] = whole(WHOLE[case])
    got = ask(proxy, path)
    assert (got.status, got.json) == (200, WHOLE[case])
    made = record(proxy, got)
    assert (made.stopped, made.tokens, made.estimated) == ("error", None, True)
    assert made.error.endswith("backend_error")
    assert WORDS not in repr(made)


@pytest.mark.parametrize("reason", ["error", "ABORT", "insufficient_system_resource", "network_error"])
def test_counts_at_the_end_do_not_hide_a_failure(backend: ChatServer, proxy: ProxyServer, reason: str) -> None:
    choice = {"index": 0, "message": MESSAGE, "finish_reason": reason}
    backend.routes[CHAT] = whole({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    made = record(proxy, ask(proxy))
    assert (made.stopped, made.tokens) == ("error", 4)


@pytest.mark.parametrize("case", EVENTS)
@pytest.mark.parametrize("first", [True, False])
def test_an_event_of_a_stream(backend: ChatServer, proxy: ProxyServer, case: str, first: bool) -> None:
    path = RESPONSES if "response" in case else CHAT
    delta = event({"type": "response.output_text.delta", "delta": "a"}) if path == RESPONSES else chunk("a")
    for end in (b"", DONE):
        pieces = (b"" if first else delta, EVENTS[case], end)
        backend.routes[path] = stream(*pieces)
        got = ask(proxy, path, stream=True)
        assert (got.status, got.content) == (200, b"".join(pieces))
        made = record(proxy, got)
        assert made.stopped == "error"
        assert made.error.endswith("backend_error")
        assert WORDS not in repr(made)
        # What was generated before is charged; a choice that fails has been begun.
        nothing = first and not case.startswith("a choice")
        assert made.tokens == (0 if nothing else None)


@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@2"])
@pytest.mark.parametrize("case", sorted(set(EVENTS) - {"the second choice", "a failed response"}))
def test_a_failure_is_one_for_strategies_too(backend: ChatServer, proxy: ProxyServer, case: str, model: str) -> None:
    for first in (b"", chunk("a")):
        backend.routes[CHAT] = stream(first, EVENTS[case], DONE)
        for streamed in (False, True):
            got = proxy.chat(model, stream=streamed, headers=DAILY)
            made = record(proxy, got)
            assert made.stopped == "error"
            assert WORDS not in repr(made)
            assert made.tokens is None or not first


@pytest.mark.parametrize("value", [{}, {"choices": None}, {"choices": [], "usage": {"prompt_tokens": 3}}, {"id": "c"}])
@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@2"])
def test_a_reply_without_a_choice_is_no_answer(
    backend: ChatServer, proxy: ProxyServer, value: dict[str, Any], model: str
) -> None:
    for reply in (whole(value), stream(event(value), DONE)):
        backend.routes[CHAT] = reply
        for streamed in (False, True):
            got = proxy.chat(model, stream=streamed, headers=DAILY)
            assert (got.status, got.error["code"]) == (502, "backend_error")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307])
def test_nobody_is_sent_elsewhere(backend: ChatServer, proxy: ProxyServer, status: int, streamed: bool) -> None:
    location = "http://127.0.0.1:9/inside"
    events = Reply((event({"choices": [{"delta": {"content": "x"}}]}), DONE), status, (("location", location),))
    for reply in (*(whole(body, status, location=location) for body in ("", "{}", "<html>moved</html>")), events):
        backend.routes[CHAT] = reply
        for model in ("toy", "outthink/single"):
            got = proxy.chat(model, stream=streamed, headers=DAILY)
            assert (got.status, got.error["code"]) == (502, "backend_error")
            assert "location" not in got.headers


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"detail": "top_p is odd"},
        {"detail": [{"loc": ["body", "top_p"], "msg": "is odd"}]},
        "id:1\nevent:error\n:HTTP_STATUS/400\ndata:"
        + json.dumps({"code": "InvalidParameter", "message": "top_p is odd"}),
        event({"error": {"message": "top_p is odd"}}) + DONE,
        "top_p is odd",
    ],
)
def test_a_refusal_in_any_form_says_why(backend: ChatServer, proxy: ProxyServer, body: Any, streamed: bool) -> None:
    backend.routes[CHAT] = whole(body, 400)
    for model in ("toy", "outthink/single"):
        got = proxy.chat(model, stream=streamed, headers=DAILY)
        assert got.status == 400
        assert "is odd" in got.error["message"]
        assert "data" not in got.error["message"]


def test_an_event_without_an_end_is_given_up(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(chunk("a"), b"data: {", *[b"x" * (1 << 20)] * 33, DONE)
    got = ask(proxy, stream=True)
    assert got.events[-1]["error"]["code"] == "backend_error"
    assert len(got.content) < 2000
    assert (record(proxy, got).stopped, record(proxy, got).tokens) == ("error", None)


def test_what_was_counted_before_the_failure_is_charged(backend: ChatServer, proxy: ProxyServer) -> None:
    for last in (chunk("b", finish="error"), event({"error": {"message": WORDS}})):
        backend.routes[CHAT] = stream(chunk("a"), last, usage(5, 2), DONE)
        made = record(proxy, ask(proxy, stream=True))
        assert (made.stopped, made.tokens) == ("error", 7)


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_breaker_hears_of_it(backend: ChatServer, ledger: Charging, model: str, streamed: bool) -> None:
    pool = {"failures": 2, "interval": 0.05, "open_seconds": 60.0}
    with ProxyServer(backend.url, ledger=ledger, pool=pool) as proxy:
        failing = (
            stream(event({"error": {"message": WORDS, "code": 500}}), DONE)
            if streamed
            else whole(WHOLE["object: error"])
        )
        backend.routes[CHAT] = failing
        backend.routes["/v1/models"] = whole({"error": "down"}, 500)
        for key in ("daily", "other"):
            for _ in range(2):
                proxy.chat(model, stream=streamed, headers={"Authorization": f"Bearer {key}"})
        until(lambda: proxy.pool.backends[0].breaker.opened_until is not None, "the breaker is open")


def test_metrics_count_them_as_errors(backend: ChatServer, ledger: Charging) -> None:
    pytest.importorskip("prometheus_client")
    backend.routes[CHAT] = stream(chunk("a"), event({"error": {"message": WORDS}}))
    with ProxyServer(backend.url, ledger=ledger) as proxy:
        metrics = attach(proxy.app, proxy.endpoints.backends.policies)
        ask(proxy, stream=True)
        samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    stopped = {sample.labels["reason"]: sample.value for sample in samples if sample.name == "outthink_stopped_total"}
    assert stopped == {"error": 1}


@pytest.mark.parametrize(
    "text", ["error", '{"error": "no"}', "event: error", "response.failed", '"finish_reason": "error"']
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_model_writes_is_no_failure(backend: ChatServer, proxy: ProxyServer, text: str, streamed: bool) -> None:
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "error": None}
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    replies = {True: stream(chunk(text), usage(5, 2), DONE), False: whole({**body, "usage": counts})}
    backend.routes[CHAT] = replies[streamed]
    made = record(proxy, ask(proxy, stream=streamed))
    assert (made.stopped, made.error, made.tokens) == ("finished", None, 7)


REFUSALS: dict[str, Any] = {
    "a number": {"error": {"message": WORDS, "code": 401}},
    "a number in words": {"error": {"message": WORDS, "code": "403"}},
    "a name": {"error": {"message": WORDS, "type": "authentication_error"}},
    "openai": {"error": {"message": f"Incorrect API key provided: {WORDS}", "code": "invalid_api_key"}},
    "google": {"error": {"message": WORDS, "code": 403, "status": "PERMISSION_DENIED"}},
    "words alone": {"error": f"Invalid API key {WORDS}"},
    "beside": {"error": WORDS, "status": 401},
    "object": {"object": "error", "message": WORDS, "code": 401},
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("model", ["outthink/single", "outthink/self-consistency@2"])
def test_a_refusal_of_our_key_is_ours_for_strategies(
    backend: ChatServer, proxy: ProxyServer, case: str, model: str
) -> None:
    refused = REFUSALS[case]
    for reply in (whole(refused, 401), whole(refused), stream(event(refused), DONE)):
        backend.routes[CHAT] = reply
        for streamed in (False, True):
            got = proxy.chat(model, stream=streamed, headers=DAILY)
            assert (got.status, got.error["code"]) == (502, "backend_auth")
            assert WORDS not in repr(got)
            assert WORDS not in repr(record(proxy, got))


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_of_our_key_is_ours(backend: ChatServer, proxy: ProxyServer, case: str) -> None:
    refused = REFUSALS[case]
    replies = {
        "status": (whole(refused, 401, www_authenticate=WORDS.replace(" ", "-")), True),
        "status 403": (whole(WORDS, 403, kind="text/plain"), True),
        "whole": (whole(refused), False),
        "first": (stream(event(refused), DONE), True),
        "cut": (stream(event(refused)[:9], 0.01, event(refused)[9:]), True),
    }
    for name, (reply, streamed) in replies.items():
        backend.routes[CHAT] = reply
        got = ask(proxy, stream=streamed)
        assert (got.status, got.error["code"]) == (502, "backend_auth"), name
        assert not any(words in repr(got) for words in (WORDS, WORDS.replace(" ", "-"))), name
        made = record(proxy, got)
        assert (made.status, made.stopped, made.tokens) == (502, "error", 0), name
        assert WORDS not in repr(made)


def test_a_refusal_of_our_key_later_in_a_stream(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(chunk("a"), event(REFUSALS["openai"]), DONE, together=False)
    got = ask(proxy, stream=True)
    assert got.content.startswith(chunk("a"))
    assert got.events[-1]["error"]["code"] == "backend_auth"
    assert WORDS not in got.content.decode()
    assert (record(proxy, got).stopped, record(proxy, got).tokens) == ("error", None)


INNER = "http://169.254.7.8:8099/v1"
ELSEWHERE = {"location": INNER, "content_location": INNER, "refresh": f"0;url={INNER}", "via": "1.1 169.254.7.8"}
PLACES: dict[str, Reply] = {
    "redirection": whole({"error": {"message": "moved"}}, 307, **ELSEWHERE),
    "redirection by a page": whole(f"<html>{INNER}</html>", 301, kind="text/html", **ELSEWHERE),
    "gateway in words": whole(f"upstream gpu-1.cluster.local:8099 ({INNER}) failed", 502, kind="text/plain"),
    "words of a name": whole("cannot connect to http://vllm:8099/v1 or [fd00::1]:8099", 400, kind="text/plain"),
    "gateway by a page": whole(f"<html>{INNER}</html>", 502, kind="text/html"),
    "no JSON": whole("{" + INNER),
    "nothing": Reply((Drop(),), before=(Drop(),)),
}


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@2"])
@pytest.mark.parametrize("case", PLACES)
def test_no_failure_tells_an_address_of_the_inner_network(
    backend: ChatServer, proxy: ProxyServer, case: str, model: str
) -> None:
    backend.routes[CHAT] = PLACES[case]
    for streamed in (False, True):
        got = proxy.chat(model, stream=streamed, headers=DAILY)
        assert got.status == (400 if case == "words of a name" else 502)
        told = re.sub(r"rcpt-\w+", "", got.content.decode() + str(got.headers))  # an id may hold any number
        for part in ("169.254.7.8", "8099", "cluster", "vllm:", "fd00", backend.url.split("/")[2]):
            assert part not in told


def test_a_receipt_names_no_host_of_a_call_that_failed(backend: ChatServer, proxy: ProxyServer) -> None:
    replies = [PLACES["nothing"], PLACES["gateway in words"], chat(["The answer is 4."]), chat(["The answer is 5."])]
    backend.routes[CHAT] = lambda seen: replies[seen.number % len(replies)]
    got = proxy.chat("outthink/self-consistency@8", headers=DAILY)
    assert got.status == 200, got.content
    receipt = got.json["outthink"]["receipt"]
    errors = [entry["error"] for entry in receipt["entries"] if entry["error"]]
    assert errors
    assert not any(part in error for part in ("169.254", "cluster", "127.0.0.1", "8099") for error in errors)


def test_a_public_address_in_a_refusal_stays(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = whole("too large, see https://docs.example.com/limits (v1.10.2.3)", 400, kind="text/plain")
    for model in ("toy", "outthink/single"):
        assert "see https://docs.example.com/limits (v1.10.2.3)" in proxy.chat(model, headers=DAILY).error["message"]
