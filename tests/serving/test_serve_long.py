"""Long requests and replies take their memory once, and hold up nobody: what is long is done beside the event loop."""

from __future__ import annotations

import http.client
import json
import re
import sys
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from support.chat_server import DONE, ChatServer, Reply, Seen, chat, event, token, usage, whole
from support.proxy_process import serving
from support.proxy_server import CHAT, ProxyServer, all_brief

MIB = 1 << 20
LONG: dict[str, dict[str, Any]] = {
    "documents": {"documents": [{"text": "word " * MIB}, {"text": "\u00fc" * MIB}]},
    "two fields": {"metadata": {"a": "b" * MIB}, "logit_bias": {str(at): -1 for at in range(50_000)}, "x": [1]},
    "tools": {
        "tools": [{"type": "function", "function": {"name": f"f{at}", "description": "x" * 500}} for at in range(999)]
    },
    "messages, too": {"documents": ["x" * MIB], "messages": [{"role": "user", "content": "y" * MIB}]},
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("length", ["max_tokens", "max_completion_tokens"])
def test_long_fields_are_sent_whole_with_every_sample(kind: str, length: str) -> None:
    asked = {"messages": [{"role": "user", "content": "Hello"}], **LONG[kind]}
    with ChatServer(chat(["The answer is 4."])) as backend:
        settings = BackendSettings(url=backend.url, fields=FieldSettings(length_name=length))
        with ProxyServer(settings) as proxy:
            body = {"model": "outthink/self-consistency@3", "max_tokens": 7, "temperature": 0.5, **asked}
            assert proxy.send("POST", CHAT, body).status == 200
        assert len(backend.calls) >= 2  # they may agree before the third is sent
        for seen in backend.calls:
            assert {name: seen.body[name] for name in asked} == asked
            assert (seen.body["model"], seen.body[length], seen.body["temperature"]) == ("toy", 7, 0.5)


def peak(process: int) -> int:
    """Bytes that a process has had at most."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process has had at most")
@pytest.mark.parametrize("field", ["messages", "metadata", "documents", "tools", "stop", "unknown"])
def test_a_body_of_64_samples_takes_20_times_its_size(field: str) -> None:
    text = "word " * (MIB // 5)
    parts = {
        "messages": [{"role": "user", "content": text}],
        "metadata": {"a": text},
        "documents": [text],
        "tools": [{"type": "function", "function": {"name": "f", "description": text}}],
        "stop": [text[:4000]] * 64,
        "unknown": {"a": [{"b": text}]},
    }
    with (
        ChatServer(chat(["4"])) as backend,
        serving("--model", backend.url) as (process, url),
        closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection,
    ):

        def ask(fields: dict[str, Any]) -> None:
            body = {"model": "outthink/self-consistency@64", "messages": [{"role": "user", "content": "Hi"}], **fields}
            connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
            reply = connection.getresponse()
            assert (reply.status, bool(reply.read())) == (200, True)

        ask({})  # what is imported and connected on first use is now
        before = peak(process.pid)
        ask({field: parts[field]})
        assert peak(process.pid) - before < 20 * MIB


def told(**message: Any) -> dict[str, Any]:
    """A whole reply with one choice, and more in it."""
    more = message.pop("more", {})
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


FUNCTION = {"name": "f", "arguments": '{"a":1}'}
CALLS = [{"id": f"c{at}", "type": "function", "function": FUNCTION} for at in range(20_000)]
REPLIES = {
    "text": told(content="x y " * (5 * MIB)),
    "halves of characters": told(content="\ud800x" * (MIB // 8)),
    "calls": told(content=None, tool_calls=CALLS),
    "parts": told(content="4", reasoning_details=[{"type": "t", "index": at, "text": "x"} for at in range(50_000)]),
    "numbers": told(content="4", blob=list(range(500_000))),
    "log-probabilities": told(content="4", more={"logprobs": {"content": [token("a", -1.0, [-2.0] * 5)] * 20_000}}),
    "names": told(content="4", **{f"u{at}": "x" for at in range(50_000)}),
}


def as_stream(reply: dict[str, Any]) -> Reply:
    """The same in one event."""
    choice = {**reply["choices"][0]}
    return Reply((event({"choices": [{"delta": choice.pop("message"), **choice}]}), usage(3, 4), DONE))


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@2"])
def test_no_long_reply_holds_the_event_loop_up(model: str) -> None:
    replies = {
        (name, streamed): as_stream(reply) if streamed else whole(reply)
        for name, reply in REPLIES.items()
        for streamed in (False, True)
    }

    def answer(seen: Seen) -> Reply:
        return replies[seen.body["messages"][-1]["content"], seen.body.get("user") == "stream"]

    with ChatServer(answer) as backend, ProxyServer(backend.url, timed=True) as proxy:
        proxy.chat(model, "names")  # what is imported on first use is now

        def ask(name: str, streamed: bool, asked: bool) -> None:
            user = "stream" if streamed else "whole"
            assert proxy.chat(model, name, stream=asked, logprobs=True, user=user).status == 200

        for name, streamed in replies:
            for asked in (False, True):
                all_brief(proxy, partial(ask, name, streamed, asked))


NUMBERS = [0] * 700_000
NAMES = {f"name {at}": "x" for at in range(100_000)}
REQUESTS: dict[str, tuple[int, dict[str, Any]]] = {
    "outthink": (400, {"outthink": NUMBERS}),
    "model": (400, {"model": NUMBERS}),
    "a model's name": (400, {"model": "outthink/" + "x " * (8 * MIB)}),
    "a model's size": (400, {"model": "outthink/single@" + "9" * (8 * MIB)}),
    "a strategy": (400, {"outthink": {"strategy": "single:" + "k=v," * (2 * MIB)}}),
    "a budget": (400, {"outthink": {"budget": "tokens=1," * MIB}}),
    "names of a budget": (400, {"outthink": {"budget": NAMES}}),
    "an answer": (400, {"outthink": {"answer": "x " * (8 * MIB)}}),
    "messages": (400, {"messages": NAMES}),
    "a message": (200, {"messages": [{"role": "user", "content": "Hello", **NAMES}]}),
    "a part": (
        200,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": [0] * 4096}] * 150}]},
    ),
    "stop": (400, {"stop": ["x " * MIB] * 8}),
    "a count": (400, {"n": " " * (8 * MIB) + "x"}),
    "tools": (400, {"tools": {"a": NUMBERS}}),
    "passed names": (200, {"model": "toy", **NAMES}),
    "passed holders": (200, {"model": "toy", "options": NAMES}),
    "passed values": (200, {"model": "toy", "x": [{"name": "a long text, as they are"}] * 50_000}),
}


def test_no_long_request_holds_the_event_loop_up() -> None:
    with ChatServer(chat(["4"])) as backend, ProxyServer(backend.url, timed=True) as proxy:
        assert proxy.chat("outthink/single").status == 200  # what is imported on first use is now
        keys = count()

        def ask(name: str, status: int, fields: dict[str, Any]) -> None:
            body = {"model": "outthink/single", "messages": [{"role": "user", "content": "Hello"}], **fields}
            got = proxy.send("POST", CHAT, body, idempotency_key=f"{name} {next(keys)}")
            assert got.status == status, (name, got.content[:200])
            assert status == 200 or len(got.error["message"]) < 600

        for name, (status, fields) in REQUESTS.items():
            all_brief(proxy, partial(ask, name, status, fields))


def refused(**error: Any) -> bytes:
    return json.dumps({"error": {"message": "no", **error}}).encode()


REFUSALS = {
    "words": refused(message="x y " * (2 * MIB)),
    "words that are read": refused(message="x y " * 200_000),
    "a code": refused(code="requested 1 " * 70_000),
    "digits": refused(code="7" * 900_000),
    "a parameter": refused(param="a./[" * 200_000),
    "a detail": json.dumps({"detail": [{"loc": ["body", "a"] * 50_000, "msg": "x"}]}).encode(),
    "names": refused(message=None, **NAMES),
    "objects": b'{"error":[' + b'{"a":1},' * (2 * MIB) + b"0]}",
    "plain text": b"x y " * (8 * MIB),
    "events": b"data: x\n\n" * 100_000,
    "fields": b"error: {}\n" * 90_000,
    "ends of lines": b"\r" * 900_000,
    "brackets": b"[" * 900_000,
}


@pytest.mark.parametrize("model", ["toy", "outthink/self-consistency@2"])
@pytest.mark.parametrize("status", [400, 503])
def test_no_long_refusal_holds_the_event_loop_up(model: str, status: int) -> None:
    replies = {name: whole(content, status) for name, content in REFUSALS.items()}
    with (
        ChatServer(lambda seen: replies[seen.body["messages"][-1]["content"]]) as backend,
        ProxyServer(backend.url, timed=True) as proxy,
    ):
        proxy.chat(model, "plain text")  # what is imported on first use is now

        def ask(name: str, streamed: bool) -> None:
            assert proxy.chat(model, name, stream=streamed).status in (status, 502)

        for name in REFUSALS:
            for streamed in (False, True):
                all_brief(proxy, partial(ask, name, streamed))


OWN = "sk-Zx81-kq0PLm55-RtYw9aBc-7dEfG"
WRITTEN = ("\\n\u00e9%41&amp;", '"a":"b",', "%", "\\", "&#", "\n", "\U0001f600", OWN[:7], f"no {OWN} ")


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_no_masked_reply_holds_the_event_loop_up(model: str) -> None:
    replies = [told(content=text * (MIB // len(text))) for text in WRITTEN]

    def answer(seen: Seen) -> Reply:
        reply = replies[int(seen.body["messages"][-1]["content"])]
        return as_stream(reply) if seen.body.get("user") == "stream" else whole(reply)

    with ChatServer(answer) as backend:
        settings = BackendSettings(url=backend.url, key=OWN)
        with ProxyServer(settings, timed=True) as proxy:
            proxy.chat(model, "0")  # what is imported on first use is now

            def ask(at: int, kind: str) -> None:
                got = proxy.chat(model, str(at), stream=kind == "stream", user=kind)
                assert (got.status, b"sk-Zx81-kq0PLm55" in got.content) == (200, False)

            for at in range(len(replies)):
                for kind in ("stream", "whole"):
                    all_brief(proxy, partial(ask, at, kind))
