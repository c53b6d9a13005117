"""A request that is refused leaves one line in the log: its status, code, path and key, and no secret."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.serving.ledger import DurableLedger, open_durable
from outthink.serving.observe import logs
from outthink.serving.observe.refused import RefusalLimit
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, Gate, chat, refusal
from support.ledgers import doing
from support.proxy_server import CHAT, ProxyServer
from support.waiting import until

SECRET = "ot-" + "s3cret" * 7


@contextmanager
def logged(proxy: ProxyServer, path: Path, level: str = "info") -> Iterator[list[dict[str, Any]]]:
    """What was logged within, a line each, once it is over."""
    lines: list[dict[str, Any]] = []
    written = proxy.app.watchers.add(logs.Logs(level, path))
    try:
        yield lines
    finally:
        written.close()
        lines += [json.loads(line) for line in path.read_text().splitlines()]


def raw(proxy: ProxyServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(b"HTTP/1.")


def test_each_refusal_has_a_line_and_each_answer_one(backend: ChatServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"

    async def keys(ledger: DurableLedger) -> list[Any]:
        poor = await ledger.add_key("poor", Terms(day=Budget(tokens=5)))
        narrow = await ledger.add_key("narrow", Terms(models=("other",)))
        return [await ledger.add_key("plain", Terms()), poor, narrow]

    (plain, free), (poor, spent), (narrow, listed) = doing(url, keys)
    by = {name: {"authorization": f"Bearer {secret}"} for name, secret in
          (("plain", free), ("poor", spent), ("narrow", listed), ("nobody", SECRET))}  # fmt: skip
    limits = {"body": 2000}
    with (
        ProxyServer(backend.url, ledger=open_durable(url), limits=limits) as proxy,
        logged(proxy, tmp_path / "log") as lines,
    ):
        proxy.chat("tiny", headers=by["plain"])
        proxy.chat("tiny")
        proxy.chat("tiny", headers=by["nobody"])
        proxy.chat("tiny", headers=by["poor"])
        proxy.chat("tiny", headers=by["narrow"])
        proxy.chat("absent", headers=by["plain"])
        proxy.chat("outthink/nonsense", headers=by["plain"])
        proxy.send("POST", CHAT, b"{", **by["plain"])
        proxy.send("POST", CHAT, b"x" * 3000, **by["plain"])
        proxy.send("POST", CHAT, b"{}", content_encoding="gzip", **by["plain"])
        proxy.send("PUT", CHAT, b"{}", **by["plain"])
        proxy.get(f"/v1/nowhere/{SECRET}?key={SECRET}", **by["plain"])
        proxy.get("/v1/receipts/none", **by["plain"])
        raw(proxy, b"no HTTP\r\n\r\n")
        backend.routes[CHAT] = refusal("no", 400)
        proxy.chat("tiny", headers=by["plain"])
        proxy.chat("outthink/single", headers=by["plain"])
    assert [
        (line["status"], line["code"], line["key_id"], line["path"]) for line in lines if line["message"] == "refused"
    ] == [
        (401, "invalid_api_key", None, CHAT),
        (401, "invalid_api_key", None, CHAT),
        (429, "insufficient_quota", poor.id, CHAT),
        (403, "model_not_allowed", narrow.id, CHAT),
        (404, "model_not_found", plain.id, CHAT),
        (400, "invalid_strategy", plain.id, CHAT),
        (400, "invalid_json", plain.id, CHAT),
        (413, "body_too_large", plain.id, CHAT),
        (415, "encoding", plain.id, CHAT),
        (405, "method_not_allowed", None, CHAT),
        (404, "not_found", None, "/v1/nowhere/***"),
        (404, "receipt_not_found", plain.id, "/v1/receipts/none"),
        (400, "bad_request", None, ""),
    ]
    assert [line["status"] for line in lines if line["message"] == "request"] == [200, 400, 400]
    text = (tmp_path / "log").read_text()
    assert not any(secret in text for secret in (SECRET, free, spent, listed))


def test_the_line_names_a_key_that_may_do_nothing_here(backend: ChatServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"

    async def keys(ledger: DurableLedger) -> list[Any]:
        made = [await ledger.add_key(name, Terms(metrics=name == "scraper")) for name in ("scraper", "gone")]
        await ledger.revoke_key("gone")
        return [*made, await ledger.add_key("late", Terms(expires=1.0))]

    made = doing(url, keys)
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy, logged(proxy, tmp_path / "log") as lines:
        for _, secret in made:
            proxy.chat("tiny", headers={"authorization": f"Bearer {secret}"})
            proxy.get(f"/v1/%6f{secret[1:]}")
    refused = [(line["status"], line["key_id"], line["path"]) for line in lines]
    assert refused[::2] == [(403, made[0][0].id, CHAT), (401, made[1][0].id, CHAT), (401, made[2][0].id, CHAT)]
    assert refused[1::2] == [(404, None, "/v1/***")] * 3


def test_who_is_turned_away_at_the_door_has_one_too(backend: ChatServer, tmp_path: Path) -> None:
    gate = Gate()
    backend.routes[CHAT] = chat(["4"], before=(gate,))
    places = {"concurrency": 1, "queue": 0}
    with ProxyServer(backend.url, admission=places) as proxy, logged(proxy, tmp_path / "log") as lines:
        proxy.abandon("tiny", lambda: proxy.chat("tiny").status == 429)
        gate.open()
        until(lambda: not proxy.app.admission.active)
    (line,) = {json.dumps(line | {"time": ""}) for line in lines if line["message"] == "refused"}
    assert json.loads(line) == {
        "time": "", "level": "info", "message": "refused", "status": 429, "code": "queue_full", "key_id": "anyone",
        "method": "POST", "path": CHAT,
    }  # fmt: skip


def test_a_flood_is_counted_and_hides_nothing_else(backend: ChatServer, tmp_path: Path) -> None:
    with ProxyServer(backend.url) as proxy, logged(proxy, tmp_path / "log") as lines:
        for _ in range(3000):
            proxy.app.watchers.refused(_refused(401))
        proxy.app.watchers.refused(_refused(403))
    of_kind = [line for line in lines if line["status"] == 401]
    singles = [line for line in of_kind if "requests" not in line]
    assert len(singles) < 1000
    assert len(singles) + sum(line.get("requests", 0) for line in of_kind) == 3000
    assert len([line for line in lines if line["status"] == 403]) == 1


def _refused(status: int) -> Any:
    from outthink.serving.watch import RefusedRequest

    return RefusedRequest(1.7e9, status, "code", None, "GET", "/")


def test_lines_that_had_no_room_are_counted_until_that_can_be_told(backend: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with ProxyServer(backend.url) as proxy:
        written = proxy.app.watchers.add(logs.Logs("info", path))
        path.unlink()
        path.mkdir()  # nothing can be written there
        assert [proxy.chat("tiny").status for _ in range(3)] == [200] * 3
        until(lambda: written.dropped == 3)
        assert proxy.chat("tiny").status == 200
        until(lambda: written.dropped == 4)
        path.rmdir()
        until(path.exists)
        written.close()
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["4 lines were dropped"]


def test_a_quiet_log_has_those_alone_that_are_our_fault(backend: ChatServer, tmp_path: Path) -> None:
    with ProxyServer(backend.url) as proxy, logged(proxy, tmp_path / "log", "warning") as lines:
        proxy.app.watchers.refused(_refused(401))
        proxy.app.watchers.refused(_refused(503))
    assert [line["status"] for line in lines] == [503]


@given(st.lists(st.tuples(st.integers(400, 599), st.sampled_from("abc"), st.floats(0, 3)), max_size=300), st.booleans())
def test_every_refusal_has_a_line_or_is_counted(asked: list[tuple[int, str, float]], crowd: bool) -> None:
    limit, at, lines, counted, kinds = RefusalLimit(), 1e9, 0, 0, set()
    for status, code, pause in asked * (20 if crowd else 1):
        at += 0 if crowd else pause
        lines += limit.take(status, code, at)
        counted += sum(count.requests for count in limit.counts(at))
        kinds.add((status, code))
    counted += sum(count.requests for count in limit.counts(at, now=True))
    assert lines + counted == len(asked) * (20 if crowd else 1)
    assert lines <= 500 * min(len(kinds), 101) + 20 * (at - 1e9) * 101
