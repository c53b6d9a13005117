"""Clients that do not read what they have asked for lose their place, and others never wait for them without end."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from support.chat_server import ChatServer, Seen, chat, chunk, stream, whole
from support.ledgers import KeyRing
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import until

pytestmark = pytest.mark.faults
LONG = stream(*[chunk("x" * 250_000)] * 120, b"data: [DONE]\n\n")  # more than all buffers on the way hold
OK = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})


def answer(seen: Seen) -> object:
    """Long where it is asked for by name."""
    return LONG if b"much" in seen.content else (chat(["4"]) if seen.body.get("stream") else OK)


@contextmanager
def unread(proxy: ProxyServer, count: int, *, key: str = "", model: str = "toy") -> Iterator[list[socket.socket]]:
    """Clients that ask for a long stream and read nothing of it."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
            body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "much"}]})
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            clients.append(client)
        until(lambda: proxy.app.admission.active == count, "the clients' places")
        yield clients


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_who_reads_nothing_for_its_time_loses_its_place(model: str) -> None:
    settings = {"admission": {"concurrency": 4, "queue_seconds": 60.0}, "limits": {"write_seconds": 0.3}}
    with ChatServer(answer) as backend, ProxyServer(backend.url, **settings) as proxy, unread(proxy, 4, model=model):
        assert proxy.chat("toy").status == 200
        until(lambda: proxy.app.admission.active == 0, "the end of all")
        until(lambda: len(proxy.ledger.records) == 5, "all records")  # type: ignore[attr-defined]
        stopped = sorted(record.stopped for record in proxy.ledger.records.values())  # type: ignore[attr-defined]
        assert stopped == ["finished", *["interrupted"] * 4]


def test_one_keys_unread_streams_leave_places_for_others() -> None:
    settings = {"admission": {"concurrency": 4}, "limits": {"write_seconds": 60.0}}
    keys = KeyRing("a", "b")
    with (
        ChatServer(answer) as backend,
        ProxyServer(backend.url, ledger=keys, **settings) as proxy,
        unread(proxy, 3, key="a"),
    ):
        for streamed in (False, True):
            assert proxy.chat("toy", stream=streamed, headers={"authorization": "Bearer b"}).status == 200
        until(lambda: proxy.app.admission.active == 3, "the others' end")


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@3"])
def test_waiting_for_a_turn_at_a_backend_ends(model: str) -> None:
    settings = {"admission": {"queue_seconds": 0.3}, "limits": {"write_seconds": 60.0}}
    with ChatServer(answer) as backend:
        limited = BackendSettings(url=backend.url, limit=2)
        with ProxyServer(limited, **settings) as proxy, unread(proxy, 2):
            until(lambda: proxy.pool.backends[0].active == 2, "both calls")
            got = proxy.chat(model)
            assert (got.status, got.error["code"], got.headers["retry-after"]) == (429, "backend_busy", "1")
            assert len(backend.calls) == 2


def test_calls_of_one_request_that_wait_for_each_other_are_not_late() -> None:
    with ChatServer(chat(["The answer is 4."], delay=0.1)) as backend:
        one = BackendSettings(url=backend.url, limit=1)
        with ProxyServer(one, admission={"queue_seconds": 0.35}) as proxy:
            assert proxy.chat("outthink/self-consistency@6").status == 200
            assert len(backend.calls) >= 4


def asked(path: str, body: dict[str, str]) -> bytes:
    """A request as it is sent."""
    content = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n{content}".encode()


def test_a_slow_reader_gets_everything() -> None:
    with (
        ChatServer(answer) as backend,
        ProxyServer(backend.url, limits={"write_seconds": 5.0}) as proxy,
        unread(proxy, 1) as (client,),
    ):
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n") and (piece := client.recv(1 << 20)):
            received += piece
        assert received.count(b"data: ") == 121


def test_who_reads_a_whole_reply_slowly_gets_all_of_it() -> None:
    size, pause = 32 << 20, Event()
    long = whole({"data": [{"embedding": "x" * size}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    with (
        ChatServer(routes={"/v1/embeddings": long}) as backend,
        ProxyServer(backend.url, limits={"write_seconds": 0.8}) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client,
    ):
        client.sendall(asked("/v1/embeddings", {"model": "toy", "input": "a"}))
        received = 0
        while received < size and (piece := client.recv(1 << 20)):
            received += len(piece)
            pause.wait(len(piece) / (16 << 20))  # about two seconds in all
        assert received >= size


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps what it has taken")
def test_a_connection_whose_last_reply_is_not_read_ends() -> None:
    short = whole({"data": [{"embedding": "x" * 50_000}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    with (
        ChatServer(routes={"/v1/embeddings": short}) as backend,
        ProxyServer(backend.url, limits={"write_seconds": 0.5, "idle_seconds": 0.5}) as proxy,
        socket.socket() as client,
    ):

        def unsent() -> int:
            assert proxy.app._listener is not None
            [connection] = proxy.app._listener._server.connections
            return connection.transport.get_write_buffer_size()  # type: ignore[union-attr]

        def gone() -> bool:
            try:
                client.send(b"\r\n")
            except ConnectionError:
                return True
            return False

        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", proxy.port))
        for count in range(1, 1000):
            client.sendall(asked("/v1/embeddings", {"model": "toy", "input": "a"}))
            until(lambda count=count: len(proxy.ledger.records) == count, "the reply")  # type: ignore[attr-defined]
            if unsent():
                break
        until(gone, "the end of its connection")


def embed(proxy: ProxyServer) -> Got:
    return proxy.send("POST", "/v1/embeddings", {"model": "toy", "input": "a"})


def test_whole_replies_in_flight_are_bounded() -> None:
    """Clients that are slow to take theirs keep others waiting, not the memory of all."""
    long = whole({"data": [{"embedding": "x" * (12 << 20)}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    short = whole({"data": [{"embedding": "x"}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    unread: list[socket.socket] = []
    with (
        ChatServer(routes={"/v1/embeddings": long}) as backend,
        ProxyServer(backend.url, limits={"replies": 30 << 20}, admission={"queue_seconds": 0.3}) as proxy,
    ):
        for _ in range(2):  # each takes 12 MiB of 30
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", proxy.port))
            client.sendall(asked("/v1/embeddings", {"model": "toy", "input": "a"}))
            unread.append(client)
        until(lambda: len(proxy.ledger.records) == 2, "two replies")
        got = embed(proxy)
        assert (got.status, got.error["code"]) == (503, "replies_full")
        assert proxy.ledger.records[got.headers["x-outthink-receipt"]].tokens is None
        backend.routes["/v1/embeddings"] = short
        assert embed(proxy).status == 200, "short ones need no room"
        backend.routes["/v1/embeddings"] = long
        for client in unread:
            client.close()
        until(lambda: embed(proxy).status == 200, "room")
        for _ in range(4):
            assert embed(proxy).status == 200, "who has read gives room"


def test_whole_replies_of_unknown_length_do_not_wait_for_each_other() -> None:
    long = whole({"data": [{"embedding": "x" * (6 << 20)}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    with (
        ChatServer(routes={"/v1/embeddings": long}) as backend,
        ProxyServer(backend.url, limits={"replies": 20 << 20}) as proxy,
        ThreadPoolExecutor(16) as clients,
    ):
        assert {got.status for got in clients.map(lambda _: embed(proxy), range(16))} == {200}


def test_an_idle_connection_keeps_no_reply() -> None:
    long = whole({"data": [{"embedding": "x" * (8 << 20)}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    with ChatServer(routes={"/v1/embeddings": long}) as backend, ProxyServer(backend.url) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port)
        tracemalloc.start()
        try:
            for _ in range(2):
                client.request("POST", "/v1/embeddings", b'{"model": "toy", "input": "a"}')
                assert len(client.getresponse().read()) > 8 << 20
            until(lambda: tracemalloc.get_traced_memory()[0] < 12 << 20, "the backend's alone")
        finally:
            tracemalloc.stop()
        client.close()
