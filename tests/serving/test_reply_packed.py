"""Compressed replies of backends on all paths, and clients that wait to be asked for their body."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.protocols import Key
from support.chat_server import DONE, ChatServer, chunk, refusal, stream, usage, whole
from support.ledgers import Charging
from support.proxy_server import CHAT, ProxyServer
from support.waiting import PATIENCE

COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
MESSAGE = {"role": "assistant", "content": "Hello"}
REPLY = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": COUNTS}
PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    ledger = Charging(10_000, Key("daily", limited=True))
    with ProxyServer(backend.url, ledger=ledger, limits={"body": 1 << 20}) as running:
        yield running


@pytest.mark.parametrize("encoding", PACKERS)
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_replies_that_come_compressed_are_unpacked_and_counted(
    backend: ChatServer, proxy: ProxyServer, encoding: str, model: str
) -> None:
    pack, headers = PACKERS[encoding], {"Authorization": "Bearer daily"}
    backend.routes[CHAT] = whole(pack(json.dumps(REPLY).encode()), content_encoding=encoding)
    got = proxy.chat(model, headers=headers)
    assert got.json["choices"][0]["message"]["content"] == "Hello"
    assert "content-encoding" not in got.headers
    assert proxy.ledger.records[got.headers["x-outthink-receipt"]].tokens == 7  # type: ignore[attr-defined]
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    events = [chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage(5, 2), DONE]
    pieces = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in events]
    named = (("content-encoding", encoding),)
    backend.routes[CHAT] = stream(*pieces, packer.flush(), headers=named, together=False)
    got = proxy.chat(model, headers=headers, stream=True)
    assert got.text == "Hello"
    assert "content-encoding" not in got.headers
    assert proxy.ledger.records[got.headers["x-outthink-receipt"]].tokens == 7  # type: ignore[attr-defined]
    told = json.dumps({"error": {"message": "max_tokens is odd", "param": "max_tokens"}}).encode()
    backend.routes[CHAT] = whole(pack(told), 400, content_encoding=encoding)
    for streamed in (False, True):
        got = proxy.chat(model, headers=headers, stream=streamed)
        assert got.status == 400
        assert "max_tokens is odd" in got.json["error"]["message"]
        assert "content-encoding" not in got.headers


@pytest.mark.parametrize("status", [400, 429, 503])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("broken", [lambda body: body[:-12], lambda body: body[:12] + b"?" * 20])
def test_a_refusal_that_cannot_be_unpacked_has_its_status(
    backend: ChatServer, proxy: ProxyServer, broken: Callable[[bytes], bytes], streamed: bool, status: int
) -> None:
    packed = broken(gzip.compress(json.dumps({"error": {"message": "no" * 99}}).encode()))
    backend.routes[CHAT] = whole(packed, status, content_encoding="gzip")
    for model in ("toy", "outthink/single"):
        got = proxy.chat(model, headers={"Authorization": "Bearer daily"}, stream=streamed)
        assert got.status == (502 if (model, status) == ("outthink/single", 503) else status)
        assert got.error["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_nobody_can_unpack_is_an_error_that_the_client_can_read(
    backend: ChatServer, proxy: ProxyServer, streamed: bool
) -> None:
    backend.routes[CHAT] = whole(b"\x28\xb5\x2f\xfd" + bytes(range(99)), content_encoding="zstd")
    for model in ("toy", "outthink/single"):
        got = proxy.chat(model, headers={"Authorization": "Bearer daily"}, stream=streamed)
        assert (got.status, got.error["code"]) == (502, "backend_error")
        assert "content-encoding" not in got.headers


def test_a_body_that_grows_without_bound_is_refused(backend: ChatServer, proxy: ProxyServer) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    backend.routes[CHAT] = whole(packed, content_encoding="gzip")
    got = proxy.chat("toy", headers={"Authorization": "Bearer daily"})
    assert (got.status, got.error["code"]) == (502, "backend_error")


class Client:
    """A client that sends its head first."""

    def __init__(self, proxy: ProxyServer, *lines: str, path: str = CHAT, key: str = "daily") -> None:
        self._socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
        head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *lines]
        self._socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        self._file = self._socket.makefile("rb")

    def head(self) -> tuple[int, dict[str, str]]:
        """The next status and its headers."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def body(self, headers: dict[str, str]) -> Any:
        return json.loads(self._file.read(int(headers["content-length"])))

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def body(size: int = 0) -> bytes:
    return json.dumps({"model": "toy", "messages": [{"role": "user", "content": "x" * size}]}).encode()


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "expect: 100-Continue", "EXPECT: 100-CONTINUE"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_waits_is_asked_for_its_body(
    backend: ChatServer, proxy: ProxyServer, expect: str, chunked: bool
) -> None:
    backend.routes[CHAT] = whole(REPLY)
    content = body(300_000)
    client = Client(proxy, expect, "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}")
    assert client.head() == (100, {})
    client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content) if chunked else content)
    status, headers = client.head()
    assert (status, client.body(headers)) == (200, REPLY)
    client.close()


REFUSED = {
    "no key": (401, {"key": "nobody"}),
    "no path": (404, {"path": "/v1/nothing"}),
    "too long": (413, {"length": 2 << 20}),
    "compressed": (415, {"more": "Content-Encoding: gzip"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_refused_without_its_body(proxy: ProxyServer, case: str) -> None:
    status, told = REFUSED[case]
    more = [str(told["more"])] if "more" in told else []
    length = told.get("length", 1000)
    where = {name: str(told[name]) for name in ("key", "path") if name in told}
    client = Client(proxy, "Expect: 100-continue", f"Content-Length: {length}", *more, **where)
    got, headers = client.head()
    assert got == status
    assert client.body(headers)["error"]["message"]
    # What follows could be the body or another request, so nothing may follow.
    assert headers["connection"] == "close"
    client.close()


def test_too_long_a_body_in_chunks_is_refused_while_it_comes(proxy: ProxyServer) -> None:
    client = Client(proxy, "Expect: 100-continue", "Transfer-Encoding: chunked")
    assert client.head()[0] == 100
    client.send(b"%x\r\n%s\r\n" % (2 << 20, b"x" * (2 << 20)))
    assert client.head()[0] == 413
    client.close()


def test_a_refusal_from_the_backend_comes_after_the_body(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = refusal("no")
    content = body()
    client = Client(proxy, "Expect: 100-continue", f"Content-Length: {len(content)}")
    assert client.head()[0] == 100
    client.send(content)
    assert client.head()[0] == 400
    client.close()


def test_a_body_that_came_with_its_head_is_not_asked_for(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes[CHAT] = whole(REPLY)
    content = body()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer daily\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
