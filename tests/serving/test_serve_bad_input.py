"""Bad requests get an error object that names the field; the proxy goes on serving."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from support.chat_server import ChatServer, chat
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyServer]:
    limits = {"body": 1 << 20, "body_seconds": 0.3, "idle_seconds": 1.0, "messages": 1000}
    with ChatServer(chat(["The answer is 4."])) as backend, ProxyServer(backend.url, limits=limits) as running:
        yield running


def raw(proxy: ProxyServer, request: bytes, *, wait: float = PATIENCE) -> bytes:
    """What comes back for bytes on the wire."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=wait) as connection:
        connection.sendall(request)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
                if b"\r\n\r\n" in got and got.rstrip().endswith(b"}"):
                    break
        except TimeoutError:
            pass
        return got


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"null", b'{"model": "toy"', b"\xff\xfe{}"])
def test_bodies_that_are_no_object(proxy: ProxyServer, content: bytes) -> None:
    got = proxy.send("POST", CHAT, content)
    assert got.status == 400
    assert got.error["param"] == "body"
    assert got.error["code"] == "invalid_json"


def test_invalid_utf8_is_named(proxy: ProxyServer) -> None:
    got = proxy.send("POST", CHAT, b'{"model": "toy", "messages": [{"role": "user", "content": "\xc3\x28"}]}')
    assert "UTF-8" in got.error["message"]


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("model", {"messages": HELLO}),
        ("model", {"model": 7, "messages": HELLO}),
        ("model", {"model": "gpt-none", "messages": HELLO}),
        ("model", {"model": "outthink/", "messages": HELLO, "x": 1}),
        ("model", {"model": "outthink/nonsense", "messages": HELLO}),
        ("model", {"model": "outthink/self-consistency@-4", "messages": HELLO}),
        ("model", {"model": "outthink/self-consistency@1e9", "messages": HELLO}),
        ("model", {"model": "outthink/self-consistency@100000", "messages": HELLO}),
        ("model", {"model": "outthink/../../etc/passwd", "messages": HELLO}),
        ("messages", {"model": "outthink/single"}),
        ("messages", {"model": "outthink/single", "messages": []}),
        ("messages", {"model": "outthink/single", "messages": "Hello"}),
        ("messages", {"model": "outthink/single", "messages": HELLO * 10_000}),
        ("messages", {"model": "toy", "messages": HELLO * 10_000}),
        ("messages[0]", {"model": "outthink/single", "messages": [{}]}),
        ("messages[1].content", {"model": "outthink/single", "messages": [*HELLO, {"role": "user", "content": 7}]}),
        ("temperature", {"model": "outthink/single", "messages": HELLO, "temperature": -1}),
        ("temperature", {"model": "outthink/single", "messages": HELLO, "temperature": "hot"}),
        ("top_p", {"model": "outthink/single", "messages": HELLO, "top_p": 2}),
        ("max_tokens", {"model": "outthink/single", "messages": HELLO, "max_tokens": 0}),
        ("n", {"model": "outthink/single", "messages": HELLO, "n": 1000}),
        ("seed", {"model": "outthink/single", "messages": HELLO, "seed": "x"}),
        ("stop", {"model": "outthink/single", "messages": HELLO, "stop": [1]}),
        ("stream", {"model": "outthink/single", "messages": HELLO, "stream": "yes"}),
        ("stream_options", {"model": "outthink/single", "messages": HELLO, "stream_options": 3}),
        ("outthink", {"model": "outthink/single", "messages": HELLO, "outthink": "tokens=1"}),
        ("outthink.colour", {"model": "outthink/single", "messages": HELLO, "outthink": {"colour": 1}}),
        ("outthink.budget", {"model": "outthink/single", "messages": HELLO, "outthink": {"budget": "tokens=-5"}}),
        ("outthink.budget", {"model": "outthink/single", "messages": HELLO, "outthink": {"budget": {"tokens": -5}}}),
        ("outthink.budget", {"model": "outthink/single", "messages": HELLO, "outthink": {"budget": {"euro": 5}}}),
        ("outthink.budget", {"model": "outthink/single", "messages": HELLO, "outthink": {"budget": 5}}),
        ("outthink.strategy", {"model": "outthink/auto", "messages": HELLO, "outthink": {"strategy": "x"}}),
        ("outthink.answer", {"model": "outthink/auto", "messages": HELLO, "outthink": {"answer": "x"}}),
        ("outthink.model", {"model": "outthink/auto", "messages": HELLO, "outthink": {"model": 7}}),
        ("outthink.model", {"model": "outthink/auto", "messages": HELLO, "outthink": {"model": "gpt-none"}}),
        ("outthink.strategy", {"model": "toy", "messages": HELLO, "outthink": {"strategy": "esc@100000"}}),
        ("outthink.budget", {"model": "outthink/single", "messages": HELLO, "outthink": {"budget": "usd=1"}}),
        ("outthink.verifier", {"model": "outthink/beam", "messages": HELLO}),
        ("tools", {"model": "outthink/single", "messages": HELLO, "tools": "f"}),
        ("tools[0]", {"model": "outthink/single", "messages": HELLO, "tools": [{"type": "function"}]}),
        ("response_format", {"model": "outthink/single", "messages": HELLO, "response_format": "json"}),
        (
            "response_format.json_schema.schema",
            {
                "model": "outthink/single",
                "messages": HELLO,
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}},
            },
        ),
        (  # too large to be read in place
            "tools[0].function.parameters",
            {
                "model": "outthink/single",
                "messages": HELLO,
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"type": "nothing", "title": "x" * 10_000}},
                    }
                ],
            },
        ),
    ],
)
def test_the_field_is_named(proxy: ProxyServer, field: str, body: dict[str, Any]) -> None:
    got = proxy.send("POST", CHAT, body)
    assert got.status in (400, 404), got.content
    assert got.error["param"] == field
    assert got.error["type"] == "invalid_request_error"


def test_headers_are_checked_like_the_body(proxy: ProxyServer) -> None:
    got = proxy.chat("toy", headers={"x-outthink-budget": "tokens=-1"})
    assert got.error["param"] == "x-outthink-budget"
    got = proxy.chat("toy", headers={"x-outthink-strategy": "nonsense"})
    assert got.error["param"] == "x-outthink-strategy"
    got = proxy.chat("toy", headers={"x-outthink-strategy": "esc@100000"})
    assert got.error["param"] == "x-outthink-strategy"


def test_endpoints_without_strategies_name_what_asked_for_one(proxy: ProxyServer) -> None:
    for field, body, headers in (
        ("model", {"model": "outthink/auto"}, {}),
        ("outthink", {"model": "toy", "outthink": {"budget": "tokens=9"}}, {}),
        ("x-outthink-budget", {"model": "toy"}, {"x-outthink-budget": "tokens=9"}),
        ("x-outthink-strategy", {"model": "toy"}, {"x-outthink-strategy": "esc"}),
    ):
        got = proxy.send("POST", "/v1/completions", {"prompt": "Hello", **body}, **headers)
        assert (got.status, got.error["param"]) == (400, field)


def test_bodies_that_are_too_long(proxy: ProxyServer) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 52428800\r\n\r\n" % CHAT.encode()
    assert b" 413 " in raw(proxy, head + b"{")
    chunked = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode()
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    assert b"body_too_large" in raw(proxy, chunked + piece * 2)
    assert proxy.get("/healthz").status == 200


def test_a_body_that_trickles_is_given_up(proxy: ProxyServer) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{" % CHAT.encode()
    assert b" 408 " in raw(proxy, head)


def test_a_head_that_trickles_is_given_up(proxy: ProxyServer) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert connection.recv(100) == b""


def test_a_first_head_has_less_time_than_a_kept_connection() -> None:
    limits = {"head_seconds": 0.4, "idle_seconds": 2 * PATIENCE}
    with ChatServer(chat(["Hello"])) as backend, ProxyServer(backend.url, limits=limits) as proxy:
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address, timeout=PATIENCE) as kept:
            for _ in range(2):
                kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert kept.recv(4096).startswith(b"HTTP/1.1 200")
                with socket.create_connection(address, timeout=PATIENCE) as silent:  # while the other one rests
                    assert silent.recv(100) == b""


def test_compressed_bodies_are_refused(proxy: ProxyServer) -> None:
    got = proxy.send("POST", CHAT, gzip.compress(b"{}"), content_encoding="gzip")
    assert (got.status, got.error["param"]) == (415, "Content-Encoding")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/../healthz", "//healthz", "/v1/chat/completions/", "/%2e%2e/x", "/v1\x0b"]
)
def test_paths_that_are_not_served(proxy: ProxyServer, path: str) -> None:
    got = raw(proxy, b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    assert got[8:13] in (b" 404 ", b" 400 ")
    assert b'"error"' in got


@pytest.mark.parametrize(
    "request_",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx-a: " + b"a" * 20000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http(proxy: ProxyServer, request_: bytes) -> None:
    got = raw(proxy, request_, wait=3)
    assert got == b"" or (b" 400 " in got and json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"])
    assert proxy.get("/healthz").status == 200


def test_nothing_of_a_request_becomes_a_header(proxy: ProxyServer) -> None:
    got = proxy.chat("outthink/single\r\nset-cookie: a=b")
    assert got.status == 400
    assert "set-cookie" not in got.headers


def test_web_pages_and_other_names_need_a_key(proxy: ProxyServer) -> None:
    assert proxy.get("/v1/models", Origin="https://evil.example").status == 403
    assert proxy.get("/v1/models", Host="evil.example:80").status == 403
    assert proxy.get("/v1/models", Origin="http://localhost:3000").status == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "messages",
    "n",
    "stop",
    "tools",
    "response_format",
    "outthink",
    "seed",
    "top_p",
    "logprobs",
    "stream_options",
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_odd_values_never_break_it(proxy: ProxyServer, fields: dict[str, Any]) -> None:
    got = proxy.send("POST", CHAT, {"model": "outthink/self-consistency@2", "messages": HELLO, **fields})
    assert got.status in (200, 400), got.content
    if got.status == 400:
        assert got.error["param"]
