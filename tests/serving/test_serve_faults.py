"""Backends at their worst: every client gets an answer or a correct error object, and the books stay right."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.forward.replies import begins_events
from support.chat_server import ChatServer, Drop, Hang, Reply, chat, chunk, refusal, stream, usage, whole
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import until

pytestmark = pytest.mark.faults
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
FAULTS: dict[str, Reply] = {
    "killed before the head": stream(before=(Drop(),)),
    "killed after the head": stream(Drop()),
    "killed in the middle": stream(chunk("The answer"), Drop(), together=False),
    "hung before the head": stream(before=(Hang(),)),
    "hung in the middle": stream(chunk("The answer"), Hang(), together=False),
    "slow": chat(["The", " answer", " is", " 4."], delay=0.05),
    "garbage": whole(b"\x00\xff<html>no</html>", kind="text/html"),
    "garbage events": stream(b"data: {no json\n\n", b"\xff\xfe\n\n"),
    "a list": whole([1, 2, 3]),
    "an empty object": whole({}),
    "nothing": whole(b""),
    "429": whole({"error": {"message": "slow down"}}, 429, retry_after="1"),
    "500": whole({"error": {"message": "no"}}, 500),
    "500 in words": whole(b"Internal Server Error", 500, kind="text/plain"),
    "503": whole({"error": "loading"}, 503),
    "400": refusal("max_tokens is odd", param="max_tokens"),
    "an error in the stream": stream(chunk("The"), b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'),
    "no end": stream(chunk("The answer is 4."), usage(5, 2)),
}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["The answer is 4."])) as server:
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, limits={"backend_seconds": 0.4}, pool={"open_seconds": 0.1}) as running:
        yield running


def correct(got: Got, fault: str, model: str) -> None:
    """An answer, an error object, or a stream that ends in one of them."""
    place = f"{fault}, {model}: {got.status} {got.content[:300]!r}"
    if got.status >= 400:
        passed_on = model == "toy" and fault in ("429", "500", "503", "400")  # it came as an error object
        if passed_on:
            assert got.json["error"], place
        else:
            assert set(got.json["error"]) == {"message", "type", "param", "code"}, place
        return
    if "text/event-stream" in got.headers["content-type"] and model != "toy":
        last = got.events[-1]
        assert last == "[DONE]", place
        error = [event for event in got.events[:-1] if "error" in event]
        finished = [event for event in got.events[:-1] if event.get("choices") and event["choices"][0]["finish_reason"]]
        assert bool(error) != bool(finished), place
    elif model != "toy":
        assert got.json["choices"][0]["message"]["content"] is not None, place
    elif "text/event-stream" not in got.headers["content-type"]:
        assert isinstance(got.json, dict), place


@pytest.mark.parametrize("fault", FAULTS)
def test_every_client_gets_an_answer_or_an_error_object(backend: ChatServer, proxy: ProxyServer, fault: str) -> None:
    backend.routes[CHAT] = FAULTS[fault]
    jobs = [
        (model, streamed) for model in ("toy", "outthink/single", "outthink/self-consistency@3") for streamed in (0, 1)
    ]

    def ask(job: tuple[str, int]) -> Got:
        return proxy.chat(job[0], stream=bool(job[1]), seed=0)

    with ThreadPoolExecutor(len(jobs)) as pool:
        replies = list(pool.map(ask, jobs))
    for (model, _), got in zip(jobs, replies, strict=True):
        correct(got, fault, model)
        receipt = got.headers.get("x-outthink-receipt")
        if receipt is not None:
            received = proxy.get(f"/v1/receipts/{receipt}")
            assert received.status == 200
            assert received.json["stopped"]
    backend.routes[CHAT] = chat(["The answer is 4."])
    # A breaker may be open for a moment.
    until(lambda: proxy.chat("outthink/self-consistency@2", seed=0).status == 200, "an answer")


@pytest.mark.parametrize("streamed", [False, True])
def test_what_no_client_could_read_is_an_error_object(backend: ChatServer, streamed: bool) -> None:
    bad = ChatServer(whole(b"\x00\xff<html>no</html>", kind="text/html"))
    with bad, ProxyServer(bad.url) as proxy:
        got = proxy.chat("toy", stream=streamed)
        assert (got.status, got.error["code"]) == (502, "backend_error")
        record = proxy.get("/v1/receipts/" + got.headers["x-outthink-receipt"]).json
        assert (record["stopped"], record["tokens"]) == ("error", None)  # nobody knows what it has cost
        assert len(bad.calls) == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("hung before the head", 504, "backend_timeout"),
        ("killed before the head", 502, "backend_error"),
        ("killed in the middle", 502, "backend_error"),
    ],
)
@pytest.mark.parametrize("model", ["toy", "outthink/self-consistency@2"])
def test_a_strategy_fails_in_the_words_of_pass_through(
    backend: ChatServer, fault: str, status: int, code: str, model: str
) -> None:
    backend.routes[CHAT] = FAULTS[fault]
    patient = {"failures": 1000, "share": 1.0}  # no breaker shall have the last word
    with ProxyServer(backend.url, limits={"backend_seconds": 0.4}, pool=patient) as proxy:
        got = proxy.chat(model, seed=0)
    assert (got.status, got.error["code"]) == (status, code)
    assert "--" not in got.error["message"]  # flags are not for clients


def test_a_backend_that_rests_is_busy_for_strategies_as_well(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = whole({"error": {"message": "slow down"}}, 429, retry_after="30")
    assert proxy.chat("toy").status == 429
    for model in ("toy", "outthink/single"):
        got = proxy.chat(model)
        assert (got.status, got.error["code"]) == (429, "backend_busy")
        assert 1 < int(got.headers["retry-after"]) <= 30


def test_garbage_that_calls_itself_events_ends_in_an_error_object(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = stream(b"\x00\xff<html>no</html>")
    got = proxy.chat("toy", stream=True)
    assert (got.status, got.error["code"]) == (502, "backend_error")
    assert b"\xff" not in got.content


@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_in_other_words_keeps_its_status_and_becomes_an_object(
    backend: ChatServer, proxy: ProxyServer, streamed: bool
) -> None:
    for content, status in ((b"Internal Server Error", 500), (b"<html>no</html>", 404), (b"[]", 400), (b"", 418)):
        backend.routes[CHAT] = whole(content, status, kind="text/plain", retry_after="3")
        got = proxy.chat("toy", stream=streamed)
        assert (got.status, got.headers["retry-after"]) == (status, "3")
        assert str(status) in got.error["message"]
    own = b'{"error": {"message": "no", "extra": [1]}}'
    backend.routes[CHAT] = whole(own, 422)
    assert proxy.chat("toy", stream=streamed).content == own


@pytest.mark.parametrize("piece", [b"data: {}", b"d", b"\n\n", b": hi", b"event: x", b'{"a"', b" \r\ndata:"])
def test_a_stream_may_begin_in_any_cut(piece: bytes) -> None:
    assert begins_events(piece)
    assert not begins_events(b"<html>" + piece)


def test_a_backend_that_fails_at_random_is_asked_once_and_what_it_refuses_is_answered(backend: ChatServer) -> None:
    names = ("killed before the head", "500", "429", "503", "killed after the head")
    good, refused = whole(WHOLE), []

    def sometimes(seen: Any) -> Reply:
        if seen.number % 3:
            return good
        name = names[seen.number // 3 % len(names)]
        if name in ("429", "503"):
            refused.append(seen)
        return FAULTS[name]

    backend.routes[CHAT] = sometimes
    with ChatServer(whole(WHOLE)) as other, ProxyServer(backend.url, other.url, pool={"failures": 1000}) as proxy:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda at: proxy.chat("toy", f"question {at}").status, range(90)))
        assert set(statuses) <= {200, 500, 502}
        assert len(backend.calls) + len(other.calls) == 90 + len(refused)
        records = list(proxy.ledger.records.values())  # type: ignore[attr-defined]
        assert len(records) == 90
        assert sum(record.tokens or 0 for record in records) == 7 * statuses.count(200)
