"""More requests than places, and the end of a proxy while requests run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from support.chat_server import DONE, ChatServer, Gate, Hang, Reply, chat, chunk, stream, whole
from support.proxy_server import Got, ProxyServer
from support.waiting import until


def held(gate: Gate) -> Reply:
    """A whole reply that waits for the gate."""
    return Reply((gate, b'{"choices": []}'), kind="application/json")


@contextmanager
def sent(proxy: ProxyServer, count: int, gate: Gate, **fields: Any) -> Iterator[list[Got]]:
    """So many requests at once, and the list that their replies go to; at the end all that is held goes on."""
    got: list[Got] = []
    threads = [threading.Thread(target=lambda: got.append(proxy.chat("toy", **fields))) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield got
    finally:
        gate.open()
        for thread in threads:
            thread.join()


def test_beyond_places_and_line_is_429_with_a_time_to_come_back() -> None:
    settings, gate = {"concurrency": 2, "queue": 2}, Gate()
    with ChatServer(held(gate)) as backend, ProxyServer(backend.url, admission=settings) as proxy:
        with sent(proxy, 7, gate) as got:
            until(lambda: len(got) == 3)
        assert sorted(item.status for item in got) == [200] * 4 + [429] * 3
        for entry in got:
            if entry.status == 429:
                assert entry.error["code"] == "queue_full"
                assert 1 <= int(entry.headers["retry-after"]) <= 60
        assert proxy.chat("toy").status == 200
        assert proxy.app.admission.active == proxy.app.admission.waiting == 0


def test_a_full_proxy_still_answers_what_costs_nothing() -> None:
    settings, gate = {"concurrency": 1, "queue": 0}, Gate()
    with ChatServer(held(gate)) as backend, ProxyServer(backend.url, admission=settings) as proxy, sent(proxy, 1, gate):
        until(lambda: backend.calls)
        assert proxy.chat("toy").status == 429
        assert [proxy.get(path).status for path in ("/healthz", "/readyz", "/v1/models")] == [200] * 3


def test_a_client_that_leaves_the_line_gives_its_place_up() -> None:
    settings, gate = {"concurrency": 1, "queue": 1}, Gate()
    with ChatServer(held(gate)) as backend, ProxyServer(backend.url, admission=settings) as proxy:
        with sent(proxy, 1, gate):
            until(lambda: backend.calls)
            proxy.abandon("toy", lambda: proxy.app.admission.waiting)
            until(lambda: proxy.app.admission.waiting == 0)
        assert len(backend.calls) == 1


def test_stopping_is_told_first_refuses_what_is_new_and_lets_the_rest_end() -> None:
    gate = Gate()
    slow = stream(chunk("The"), gate, chunk(" answer"), chunk(finish="stop"), DONE)
    limits = {"stop_seconds": 60.0, "drain_seconds": 1.0}
    with ChatServer(slow) as backend, ProxyServer(backend.url, limits=limits) as proxy:
        stop = threading.Thread(target=proxy.stop)
        with sent(proxy, 1, gate, stream=True) as running:
            until(lambda: backend.calls)
            stop.start()
            until(lambda: proxy.get("/readyz").status == 503)
            assert proxy.get("/v1/models").status == 200
            until(lambda: proxy.app.closed)
            got = proxy.chat("toy")
            assert (got.status, got.error["code"], got.headers["connection"]) == (503, "stopping", "close")
            assert int(got.headers["retry-after"]) >= 1
        stop.join()
        assert running[0].text == "The answer"
        assert running[0].events[-1] == "[DONE]"
        with pytest.raises(ConnectionError):
            proxy.get("/healthz")


def test_who_waits_in_line_is_told_when_it_stops() -> None:
    gate, limits = Gate(), {"stop_seconds": 60.0}
    with (
        ChatServer(held(gate)) as backend,
        ProxyServer(backend.url, limits=limits, admission={"concurrency": 1}) as proxy,
    ):
        stop = threading.Thread(target=proxy.stop)
        with sent(proxy, 3, gate) as got:
            until(lambda: backend.calls and proxy.app.admission.waiting == 2)
            stop.start()
            until(lambda: len(got) == 2)
        stop.join()
        assert sorted(item.status for item in got) == [200, 503, 503]


@pytest.mark.parametrize("already", [True, False])
def test_a_second_signal_ends_the_wait_for_load_balancers_and_for_requests(already: bool) -> None:
    slow, limits = stream(b'data: {"choices": []}\n\n', Hang()), {"stop_seconds": 3600.0, "drain_seconds": 3600.0}
    with ChatServer(slow) as backend, ProxyServer(backend.url, limits=limits) as proxy:

        def ask() -> None:
            with suppress(OSError, HTTPException):
                proxy.chat("toy", stream=True)

        client, stop = threading.Thread(target=ask), threading.Thread(target=proxy.stop)
        client.start()
        until(lambda: backend.calls)
        if already:
            stop.start()
            until(lambda: proxy.app.stopping)
        proxy.hurry()
        if not already:  # the signal comes before anything waits
            stop.start()
        stop.join()
        assert proxy.app.closed
        client.join()
        assert [record.stopped for record in proxy.ledger.records.values()] == ["interrupted"]  # type: ignore[attr-defined]


def test_what_does_not_end_in_time_is_ended_and_settled() -> None:
    with (
        ChatServer(stream(b'data: {"choices": []}\n\n', Hang())) as backend,
        ProxyServer(backend.url, limits={"stop_seconds": 0.2}) as proxy,
    ):

        def ask() -> None:
            with suppress(OSError, HTTPException):
                proxy.chat("toy", stream=True)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: backend.calls)
        proxy.stop()
        thread.join()
        assert [record.stopped for record in proxy.ledger.records.values()] == ["interrupted"]  # type: ignore[attr-defined]
        assert backend.calls[0].gone.wait(60)


def test_a_backends_limit_is_shared_by_all_kinds_of_requests() -> None:
    most = 0

    def count(seen: Any) -> Reply:
        nonlocal most
        most = max(most, proxy.pool.backends[0].active)
        return chat(["The answer is 4."], delay=0.03) if seen.body.get("stream") else whole({"choices": []})

    got: list[Got] = []
    voting = {"outthink": {"answer": "number"}, "model": "outthink/self-consistency@6"}
    counts = {"/tokenize": whole({"tokens": [1, 2, 3]})}
    with (
        ChatServer(count, routes=counts) as backend,  # type: ignore[arg-type]
        ProxyServer(BackendSettings(url=backend.url, limit=3)) as proxy,
    ):
        jobs = [
            *(threading.Thread(target=lambda: got.append(proxy.chat(**voting))) for _ in range(3)),  # type: ignore[arg-type]
            *(threading.Thread(target=lambda: proxy.chat("toy")) for _ in range(6)),
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(10)
        assert most == 3
        assert [item.json["outthink"]["receipt"]["answer"] for item in got] == ["4"] * 3
        for entry in got:  # nobody was sent away only to come back
            assert len(entry.json["outthink"]["receipt"]["entries"]) <= 6


def test_connections_on_which_nothing_is_asked_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("resource"), "getrlimit", lambda which: (40, 40))
    gate = Gate()
    with (
        ChatServer(held(gate)) as backend,
        ProxyServer(backend.url) as proxy,
        ExitStack() as stack,
        sent(proxy, 1, gate) as got,
    ):
        until(lambda: backend.calls, "a running request")
        kept = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
        for _ in range(2):
            kept.request("GET", "/healthz")
            assert kept.getresponse().read() == b'{"status":"ok"}'
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=20)) for _ in range(60)
            ]
            silent[-1].sendall(b"GET /healthz HTTP/1.1\r\nx-begun: ")
            assert proxy.get("/healthz").status == 200
            assert silent[0].recv(1) == b""
        kept.close()
    assert [each.status for each in got] == [200]
