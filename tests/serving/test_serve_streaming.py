"""Streams of strategies: tokens as they come, signs of life, the receipt on the finishing chunk."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from support.chat_server import DONE, ChatServer, Drop, Gate, Reply, Seen, chat, chunk, stream, usage, whole
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["The answer ", "is 4."])) as server:
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, limits={"progress_seconds": 0.1}) as running:
        yield running


def lines(proxy: ProxyServer, body: dict[str, Any]) -> Iterator[str]:
    """Events and comments as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    connection.request("POST", CHAT, json.dumps({"messages": [{"role": "user", "content": "Hi"}], **body}))
    reply = connection.getresponse()
    while line := reply.readline():
        if text := line.decode().strip():
            yield text
    connection.close()


def test_one_sample_streams_its_tokens_and_ends_with_the_receipt(proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/single", stream=True)
    assert got.text == "The answer is 4."
    *chunks, last, done = got.events
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["outthink"]["receipt"]["tokens"] == 7
    assert all("outthink" not in event for event in chunks)
    assert all(event["choices"] for event in chunks)
    assert len({event["id"] for event in [*chunks, last]}) == 1
    assert {event["object"] for event in chunks} == {"chat.completion.chunk"}


def test_a_usage_chunk_only_when_asked_for(proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/self-consistency@2", stream=True, stream_options={"include_usage": True})
    assert got.events[-2]["choices"] == []
    assert got.events[-2]["usage"]["total_tokens"] == 14
    assert "outthink" not in got.events[-2]


def test_tokens_come_one_by_one(backend: ChatServer, proxy: ProxyServer) -> None:
    gates = {"b": Gate(), "c": Gate()}
    steps = [step for text, gate in gates.items() for step in (gate, chunk(text))]
    backend.routes[CHAT] = stream(chunk("a"), *steps, chunk(finish="stop"), DONE)
    came = []
    for line in lines(proxy, {"model": "outthink/single", "stream": True}):
        for text, after in (("a", "b"), ("b", "c"), ("c", None)):
            if f'"content":"{text}"' in line:
                came.append(text)
                if after is not None:
                    gates[after].open()  # it was here before the next one was sent
    assert came == ["a", "b", "c"]


def test_parallel_samples_show_life_and_begin_once_decided(backend: ChatServer, proxy: ProxyServer) -> None:
    votes, last = Gate(), Gate()

    def answer(seen: Seen) -> Reply:
        gate = last if seen.body["seed"] == 3 else votes
        return stream(gate, chunk("\\boxed{7}"), chunk(finish="stop"), usage(5, 2), DONE)

    backend.routes[CHAT] = answer
    seen = []
    for line in lines(proxy, {"model": "outthink/self-consistency@4", "stream": True, "seed": 0}):
        seen.append(line)
        if [text.startswith(":") for text in seen].count(True) == 2:
            votes.open()
        if "boxed" in line:
            last.open()  # the answer has come without it
    comments = [line for line in seen if line.startswith(":")]
    assert len(comments) >= 2
    assert "samples" in comments[0]
    assert ["boxed" in line and "outthink" not in line.partition('"choices"')[2] for line in seen].count(True) == 1
    assert seen[-1] == "data: [DONE]"


def test_progress_as_reasoning_on_request(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = chat(["\\boxed{7}"], delay=0.35)
    got = proxy.chat("outthink/self-consistency@2", stream=True, outthink={"progress": "reasoning"})
    thoughts = [event["choices"][0]["delta"].get("reasoning_content") for event in got.events[:-1]]
    assert any(thoughts)
    assert got.text == "\\boxed{7}"


def test_tool_calls_stream(backend: ChatServer, proxy: ProxyServer) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    backend.routes[CHAT] = stream(chunk(delta={"tool_calls": [call]}), chunk(finish="tool_calls"), usage(3, 2), DONE)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for model in ("outthink/single", "outthink/self-consistency@3"):
        got = proxy.chat(model, stream=True, tools=tools)
        deltas = [event["choices"][0]["delta"] for event in got.events[:-1]]
        assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[call]]
        assert got.events[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert got.text == ""


def test_several_choices_in_a_stream(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = lambda seen: chat([f"\\boxed{{{seen.body['seed'] // 2}}}"])
    got = proxy.chat("outthink/self-consistency@3", stream=True, n=2, seed=0)
    ended = [event["choices"][0] for event in got.events[:-1] if event["choices"][0]["finish_reason"]]
    assert [choice["index"] for choice in ended] == [0, 1]
    assert got.text == "\\boxed{0}"


def test_an_error_before_the_first_event_has_its_status(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = whole({"error": {"message": "wrong model kind"}}, 400)
    got = proxy.chat("outthink/single", stream=True)
    assert got.status == 400
    assert "wrong model kind" in got.error["message"]


def test_a_stream_that_breaks_off_says_so_and_is_not_begun_again(backend: ChatServer, proxy: ProxyServer) -> None:
    replies = [stream(chunk("Hel"), Drop()), chat(["Hello"])]
    backend.routes[CHAT] = lambda seen: replies[min(len(backend.calls) - 1, 1)]
    got = proxy.chat("outthink/single", stream=True)
    assert got.events[-1] == "[DONE]"
    assert got.events[-2]["error"]["type"] == "server_error"
    contents = [event["choices"][0]["delta"].get("content") for event in got.events[:-2]]
    assert contents == ["", "Hel"]
