"""Bodies that would take too much memory or time are refused before they are decoded, and honest ones are not."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.http.fields import encode
from outthink.serving.failure import Failure
from outthink.serving.inbound import bodies
from outthink.serving.inbound.bodies import DEPTH, BodyScan
from support.chat_server import (
    DONE,
    ChatServer,
    Gate,
    Reply,
    Seen,
    chat,
    chunk,
    event,
    token,
    usage,
    whole,
)
from support.ledgers import KeyRing
from support.proxy_server import CHAT, ProxyServer, all_brief
from support.waiting import until

MIB = 1 << 20
VALUES = 1 << 20
OK = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=60,
)


def refused(content: bytes, cut: int = 50_000, values: int = VALUES) -> str | None:
    """The code with which a body is refused that comes in pieces of a size; None for one that is not."""
    scan = BodyScan(values)
    try:
        for at in range(0, len(content), cut):
            scan.feed(content[at : at + cut])
    except Failure as failure:
        return failure.code
    return None


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(JSON, st.integers(1, 40), st.booleans())
def test_no_cut_and_no_text_deceives(value: Any, cut: int, escaped: bool) -> None:
    content = json.dumps(value, ensure_ascii=escaped).encode()
    assert refused(content, cut) is None
    nested = b"[" * DEPTH + content + b"]" * DEPTH
    assert refused(nested, cut) == ("too_deep" if depth(value) else None)


DENSE = {
    "lists in lists": b"[[[]]],",
    "empty lists": b"[],",
    "lists of one": b"[300],",
    "empty objects": b"{},",
    "objects of one": b'{"a":1},',
    "objects in objects": b'{"a":{"a":{}}},',
    "letters": b'"a",',
    "short texts": b'"ab",',
    "umlauts": '"\u00fc",'.encode(),
    "numbers": b"300,",
    "fractions": b"0.5,",
    "small numbers": b"1,",
    "messages": b'{"role":"user","content":"a"},',
    "schemas": b'{"type":"object","properties":{"a":{"type":"string"}}},',
}


MEASURE = """
import gc, os, sys
from outthink.http.fields import decode
def said(name, file):
    return int(open(file).read().split(name)[1].split()[0]) * 1024
gc.disable()
content = sys.stdin.buffer.read()
open("/proc/self/clear_refs", "w").write("5")
before = said("VmRSS:", "/proc/self/status")
value = decode(content)
print(said("VmHWM:", "/proc/self/status") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the peak of a process")
@pytest.mark.parametrize("kind", DENSE)
def test_what_is_decoded_takes_twenty_times_its_size_at_most(kind: str) -> None:
    piece = DENSE[kind]
    content = b'{"model":"toy","x":[' + piece * (MIB // len(piece)) + b"0]}"
    if not refused(content):
        run = subprocess.run([sys.executable, "-c", MEASURE], input=content, capture_output=True, check=True)
        assert int(run.stdout) + 2 * len(content) <= 20 * len(content)


CODE = 'def f(x):\n    return {"a": [[1, 2], [3, {"b": {}}]]}[x]  # \\"{{[[\n'
HONEST: dict[str, Any] = {
    "tokens": {"prompt": list(range(300_000))},
    "many prompts of tokens": {"prompt": [[at, 7, 12] * 40 for at in range(4000)]},
    "inputs": {"input": [f"sentence {at} of many" for at in range(40_000)]},
    "code": {"messages": [{"role": "user", "content": CODE * 20_000}]},
    "a grid as text": {"messages": [{"role": "user", "content": json.dumps([[0] * 30] * 3000)}]},
    "messages": {"messages": [{"role": "user", "content": f"no {at}"} for at in range(4000)]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": f"no {at}"}]} for at in range(4000)]},
    "tools": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": f"f{at}",
                    "parameters": {"type": "object", "properties": {f"p{of}": {"type": "string"} for of in range(10)}},
                },
            }
            for at in range(1000)
        ]
    },
    "logit_bias": {"logit_bias": {str(at): -100 for at in range(50_000)}},
}


def spaced(value: Any) -> bytes:
    return json.dumps(value).encode()


def indented(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


@pytest.mark.parametrize("kind", HONEST)
@pytest.mark.parametrize("written", [encode, spaced, indented])
def test_honest_bodies_are_not_refused(kind: str, written: Callable[[Any], bytes]) -> None:
    assert refused(written({"model": "toy", **HONEST[kind]})) is None


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyServer]:
    def answer(seen: Seen) -> Reply:
        return chat(["4"]) if seen.body.get("stream") else OK

    with ChatServer(answer) as backend, ProxyServer(backend.url, limits={"body_seconds": 60.0}) as running:
        yield running


def nested(levels: int) -> Any:
    value: Any = "x"
    for at in range(levels):
        value = [value] if at % 2 else {"a": value}
    return value


@pytest.mark.parametrize("model", ["toy", "outthink/single", "unknown"])
@pytest.mark.parametrize("levels", [DEPTH + 1, 300, 1015, 5000])
@pytest.mark.parametrize("field", ["content", "tools", "x"])
def test_depth_beyond_the_limit_is_refused_everywhere(proxy: ProxyServer, model: str, levels: int, field: str) -> None:
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    if field == "content":
        body["messages"] = [{"role": "user", "content": ["DEEP"]}]
    else:
        body[field] = ["DEEP"]
    got = proxy.send("POST", CHAT, json.dumps(body).encode().replace(b'"DEEP"', deep))
    assert (got.status, got.error["code"], got.error["param"]) == (400, "too_deep", "body")


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_depth_within_the_limit_is_served(proxy: ProxyServer, model: str) -> None:
    assert proxy.chat(model, x=nested(DEPTH - 2)).status == 200


@pytest.mark.parametrize("kind", ["lists in lists", "objects of one", "letters"])
@pytest.mark.parametrize("chunked", [False, True])
def test_many_megabytes_of_small_values_are_refused_while_they_come(
    proxy: ProxyServer, kind: str, chunked: bool
) -> None:
    piece = DENSE[kind] * (MIB // len(DENSE[kind]))
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)

    def pieces() -> Iterator[bytes]:
        yield b'{"model":"unknown","messages":['
        for _ in range(31):
            yield piece
        yield b"0]}"

    try:
        headers = {} if chunked else {"content-length": str(len(piece) * 31 + 34)}
        try:
            connection.request("POST", CHAT, pieces(), headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before all of it was sent
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["error"]["code"]) == (400, "too_many_values")
    finally:
        connection.close()


def test_bodies_in_flight_are_bounded_and_one_key_leaves_room_for_others() -> None:
    gate = Gate()
    held = Reply(OK.steps, kind=OK.kind, before=(gate,))
    limits, admission = {"body": MIB, "bodies": 2 * MIB}, {"queue_seconds": 0.3}
    with (
        ChatServer(lambda seen: held if len(seen.content) > MIB // 2 else OK) as backend,
        ProxyServer(backend.url, ledger=KeyRing("a", "b"), limits=limits, admission=admission) as proxy,
    ):

        def ask(key: str, size: int) -> int:
            got = proxy.chat("toy", "x" * size, headers={"authorization": f"Bearer {key}"})
            if got.status == 503:
                assert (got.error["code"], got.error["param"]) == ("bodies_full", "body")
                assert int(got.headers["retry-after"]) >= 1
            return got.status

        statuses: list[int] = []
        first = threading.Thread(target=lambda: statuses.append(ask("a", MIB - 1000)))
        first.start()
        until(lambda: len(backend.calls) == 1, "the first")
        assert ask("a", MIB - 1000) == 503, "its key has its half"
        assert ask("a", 1000) == 200, "small ones need no room"
        second = threading.Thread(target=lambda: statuses.append(ask("b", MIB - 1000)))
        second.start()
        until(lambda: len(backend.calls) == 3, "another key's")
        gate.open()
        first.join(60)
        second.join(60)
        assert statuses == [200, 200]
        # A reply may be read before its request has given its room back.
        until(lambda: ask("a", MIB - 1000) == 200, "the room that was given back")


@pytest.mark.parametrize("content", ["x" * (MIB - 1000), "x" * (MIB - 1000) + '"'], ids=["read", "no JSON"])
def test_a_body_takes_its_room_until_it_is_let_go_though_its_client_has_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    began, gate = threading.Event(), threading.Event()

    def slowly(pieces: list[bytes]) -> tuple[bytes, dict[str, Any]]:
        began.set()
        assert gate.wait(60)
        return joined(pieces)

    joined = bodies._joined
    monkeypatch.setattr(bodies, "_joined", slowly)
    limits, admission = {"body": MIB, "bodies": 2 * MIB}, {"queue_seconds": 0.2}
    with (
        ChatServer(OK) as backend,
        ProxyServer(backend.url, ledger=KeyRing("a"), limits=limits, admission=admission) as proxy,
    ):
        body = f'{{"model": "toy", "messages": [{{"role": "user", "content": "{content}"}}]}}'.encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
            client.sendall(head.encode() + body)
            assert began.wait(60)
        until(lambda: proxy.app.admission.active == 0, "its end")
        assert proxy.chat("toy", "x" * (MIB - 1000), headers={"authorization": "Bearer a"}).status == 503
        gate.set()
        until(
            lambda: proxy.chat("toy", "x" * (MIB - 1000), headers={"authorization": "Bearer a"}).status == 200, "room"
        )
    assert not caplog.records


@pytest.mark.parametrize("size", [10, 100_000, 2 * MIB])
def test_long_messages_are_sent_whole_with_every_sample(proxy: ProxyServer, size: int) -> None:
    texts: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief.", "name": "\u00fc"},
        {"role": "user", "content": [{"type": "text", "text": 'a "word" \\ ' * (size // 11 + 1)}]},
    ]
    with ChatServer(chat(["The answer is 4."])) as backend, ProxyServer(backend.url) as own:
        for model, count in (("toy", 1), ("outthink/self-consistency@4", 4)):
            backend.seen.clear()
            assert own.chat(model, texts, seed=0, temperature=0.5, extra={"x": [1]}).status == 200
            assert len(backend.calls) <= count
            for seen in backend.calls:
                assert seen.body["messages"] == texts
                assert (seen.body["model"], seen.body["temperature"], seen.body["extra"]) == ("toy", 0.5, {"x": [1]})


def test_no_request_holds_the_event_loop_up() -> None:
    many = {"type": "object", "properties": {f"property_{at}": {"type": "integer"} for at in range(2000)}}
    ten = {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(10)}}
    tools = [{"type": "function", "function": {"name": f"f{at}", "parameters": ten}} for at in range(100)]
    large = [{"type": "function", "function": {"name": "f", "parameters": many}}]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": many}}
    with ChatServer(chat(["The answer is 4."])) as backend, ProxyServer(backend.url, timed=True) as proxy:
        assert proxy.chat("outthink/single", tools=tools[:1]).status == 200  # what is imported on first use is now
        names = {f"name_{at}": "x" for at in range(50_000)}

        def ask() -> None:
            for fields in ({"tools": large}, {"tools": tools}, {"response_format": form}, names):
                assert proxy.chat("outthink/self-consistency@2", **fields).status == 200
            assert proxy.send("POST", CHAT, b'{"model":"x","y":[' + b"[[[]]]," * MIB + b"0]}").status == 400

        all_brief(proxy, ask)


ODD = {
    "texts within each other": r"\text{" * 2000,
    "texts that close": r"\text{" * 2300 + "}" * 2300,
    "brackets": "[" * 16_000,
    "brackets that close": "[" * 8000 + "]" * 8000,
    "objects in objects": '{"a":' * 800,
    "letters": "A!" * 8000,
    "fewer letters": "A!" * 2000,
    "letters in a list": "A or B " * 2000,
    "dollars and colons": "$:" * 2000,
    "boxes": r"\boxed{" * 9000,
    "statements": "answer is " * 6000,
    "thoughts": "</think>" * 100_000,
}
ASKED: dict[str, dict[str, Any]] = {
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
    **{kind: {"outthink": {"answer": kind}} for kind in ("text", "number", "choice", "json", "math")},
}


@pytest.mark.parametrize("kind", ASKED)
def test_no_answer_holds_the_event_loop_up(kind: str) -> None:
    def answer(seen: Seen) -> Reply:
        return chat([ODD.get(seen.body["messages"][-1]["content"], "4")])

    with ChatServer(answer) as backend, ProxyServer(backend.url, timed=True) as proxy:
        assert proxy.chat("outthink/single", **ASKED[kind]).status == 200  # what is imported on first use is now

        def ask(name: str) -> None:
            assert proxy.chat("outthink/self-consistency@2", name, **ASKED[kind]).status == 200

        for name in ODD:
            all_brief(proxy, partial(ask, name))


def entries(count: int) -> dict[str, Any]:
    return {"content": [token("a", -1.0, [-2.0] * 20) for _ in range(count)]}


def in_one(delta: dict[str, Any], **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop", **more}]}) + usage(3, 4) + DONE


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HUGE = {
    "calls": in_one({"tool_calls": [{**CALL, "index": at, "id": f"c{at}"} for at in range(2000)]}),
    "calls without ids": in_one({"tool_calls": [{"function": CALL["function"]} for _ in range(2000)]}),
    "log-probabilities": in_one({"content": "4"}, logprobs=entries(1000)),
    "a text": in_one({"content": "x" * (2 * MIB)}),
    "details": in_one({"content": "4", "reasoning_details": [{"text": "x", "index": at} for at in range(2000)]}),
    "many events": b"".join(chunk("an error") for _ in range(5000)) + in_one({"content": "4"}),
    "comments": b": x\n\n" * 100_000 + in_one({"content": "4"}),
    "empty events": b"data: {}\n\n" * 20_000 + in_one({"content": "4"}),
    "blank lines": chunk("4") + b"\r" * MIB + in_one({"content": "4"}),
}


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@2"])
def test_no_reply_holds_the_event_loop_up(model: str) -> None:
    def answer(seen: Seen) -> Reply:
        return Reply((HUGE[seen.body["messages"][-1]["content"]],))

    with ChatServer(answer) as backend, ProxyServer(backend.url, timed=True) as proxy:
        proxy.chat(model, "a text")  # what is imported on first use is now

        def ask(name: str, streamed: bool) -> None:
            assert proxy.chat(model, name, stream=streamed, logprobs=True).status == 200

        for name in HUGE:
            for streamed in (False, True):
                all_brief(proxy, partial(ask, name, streamed))
