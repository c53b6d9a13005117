"""Backends at their worst: every client gets an answer or a correct error object, and the books stay right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, Drop, Hang, Reply, chat, chunk, refusal, stream, usage, whole
from support.proxy_server import CHAT, Got, ProxyServer

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
        passed_on = model == "toy" and fault.startswith(("429", "5", "400"))
        if not passed_on:
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
            told = proxy.get(f"/v1/receipts/{receipt}")
            assert told.status == 200
            assert told.json["stopped"]
    backend.routes[CHAT] = chat(["The answer is 4."])
    until = time.monotonic() + 5  # a breaker may be open for a moment
    while (got := proxy.chat("outthink/self-consistency@2", seed=0)).status != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert got.status == 200, got.content


def test_a_backend_that_fails_at_random_loses_no_request(backend: ChatServer) -> None:
    faults = [FAULTS[name] for name in ("killed before the head", "500", "429", "503", "killed after the head")]
    good = whole(WHOLE)

    def sometimes(seen: Any) -> Reply:
        return faults[seen.number // 3 % len(faults)] if seen.number % 3 == 0 else good

    backend.routes[CHAT] = sometimes
    with ChatServer(whole(WHOLE)) as other, ProxyServer(backend.url, other.url, pool={"failures": 1000}) as proxy:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: proxy.chat("toy").status, range(90)))
        assert set(statuses) == {200}
        confirmed = sum(seen.sent for seen in (*backend.calls, *other.calls))
        records = list(proxy.ledger.records.values())  # type: ignore[attr-defined]
        assert len(records) == 90
        assert sum(record.tokens for record in records) == 7 * 90
        assert confirmed >= 90
