"""What a request takes is freed when it ends, however it ends, and not when garbage is collected.

A body that waited for that would count for nothing and still take its room, and to collect what hundreds of requests
have left holds the event loop up for a tenth of a second.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import (
    DONE,
    ChatServer,
    Drop,
    Hang,
    Reply,
    Seen,
    chat,
    chunk,
    event,
    refusal,
    stream,
    usage,
    whole,
)
from support.proxy_server import CHAT, ProxyServer, left_to_collect
from support.waiting import PATIENCE, until

OK = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    def answer(seen: Seen) -> Reply:
        return chat(["4"]) if seen.body.get("stream") else OK

    with ChatServer(answer) as backend, ProxyServer(backend.url) as running:
        yield running


REQUESTS: dict[str, dict[str, Any]] = {
    "passed": {"model": "toy"},
    "streamed": {"model": "toy", "stream": True},
    "one sample": {"model": "outthink/single"},
    "a vote": {"model": "outthink/self-consistency@5"},
    "a vote, streamed": {"model": "outthink/self-consistency@5", "stream": True},
    "rounds": {"model": "outthink/adaptive-consistency@5"},
    "by the policy": {"model": "outthink/auto"},
    "several choices": {"model": "outthink/self-consistency@5", "n": 2},
    "within seconds": {"model": "outthink/self-consistency@5", "outthink": {"budget": {"seconds": 60}}},
    "refused: no model": {"model": "unknown"},
    "refused: a field": {"model": "outthink/single", "max_tokens": 0},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_one_that_ends_well_or_is_refused(proxy: ProxyServer, kind: str) -> None:
    fields = {"model": "toy", **REQUESTS[kind]}
    status = 200 if not kind.startswith("refused") else 404 if fields["model"] == "unknown" else 400
    assert proxy.chat(**fields).status == status
    with left_to_collect(proxy) as left:
        for _ in range(5):
            assert proxy.chat(**fields).status == status
    assert not left


KINDS = ("passed", "streamed", "one sample", "a vote", "a vote, streamed")
FAILED: dict[str, Reply] = {
    "refused": refusal("something else"),
    "overloaded": refusal("too many", 503),
    "dropped": Reply(steps=(Drop(),)),
    "broken off": stream(chunk("The"), Drop()),
    "an error in it": stream(chunk("The"), event({"error": {"message": "out of memory"}})),
    "garbled": stream(b"data: {no\n\n"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reply", FAILED)
def test_one_that_fails(kind: str, reply: str) -> None:
    fields = {"model": "toy", **REQUESTS[kind]}
    with ChatServer(lambda seen: FAILED[reply]) as backend, ProxyServer(backend.url) as proxy:
        proxy.chat(**fields)
        with left_to_collect(proxy) as left:
            for _ in range(5):
                proxy.chat(**fields)
    assert not left


SAMPLE = stream(chunk("4"), event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), usage(3, 4), DONE)


@pytest.mark.parametrize("reply", FAILED)
def test_a_vote_of_which_one_sample_fails(reply: str) -> None:
    def answer(seen: Seen) -> Reply:
        return FAILED[reply] if seen.body["seed"] == 8 else SAMPLE

    with ChatServer(answer) as backend, ProxyServer(backend.url) as proxy:
        for _ in range(2):  # what is imported on first use is by the second
            with left_to_collect(proxy) as left:
                assert proxy.chat("outthink/self-consistency@3", seed=7).status in (200, 400)
    assert not left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begun", [False, True])
def test_one_whose_client_leaves(kind: str, begun: bool) -> None:
    body = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], **REQUESTS[kind]}
    silent = stream(chunk("4"), Hang()) if begun else Reply((), before=(Hang(),))
    sent = json.dumps(body).encode()
    with ChatServer(lambda seen: silent) as backend, ProxyServer(backend.url) as proxy:
        for _ in range(2):
            backend.calls.clear()
            with left_to_collect(proxy) as left:
                with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}\r\n\r\n"
                    client.sendall(head.encode() + sent)
                    until(lambda: backend.calls)
                assert all(seen.gone.wait(PATIENCE) for seen in backend.calls)
    assert not left
