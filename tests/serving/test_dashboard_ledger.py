"""The dashboard over a database with real keys: names, sums, pages, and what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.dashboard import attach
from outthink.serving.ledger import Rules, open_durable
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, chat, models
from support.proxy_server import ProxyServer


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["\\boxed{4}"]), routes={"/v1/models": models("tiny")}) as server:
        yield server


def test_keys_spend_and_stories_of_a_database(backend: ChatServer, ledger_url: str, tmp_path: Path) -> None:
    def started() -> ProxyServer:
        return ProxyServer(backend.url, ledger=open_durable(ledger_url, spool=tmp_path, refresh=0.05))

    def data(path: str, secret: str) -> Any:
        got = proxy.get(f"/dashboard/api/{path}", authorization=f"Bearer {secret}")
        assert got.status == 200, got.content
        return got.json

    with started() as proxy:
        attach(proxy.app)
        operator, admin = proxy.do(proxy.ledger.add_key("operator", Terms(admin=True)))
        tenant, plain = proxy.do(proxy.ledger.add_key("tenant", Terms()))
        sent = {"authorization": f"Bearer {plain}"}
        ids = [
            proxy.chat(
                "outthink/self-consistency@2:ties=random", seed=0, headers=sent, outthink={"answer": "number"}
            ).headers["x-outthink-receipt"]
            for _ in range(3)
        ]
        assert proxy.get("/dashboard/api/spend").status == 401
        assert proxy.get("/dashboard/api/spend", **sent).error["code"] == "admin_only"
        names = {row["id"]: row["name"] for row in data("keys", admin)["keys"]}
        assert names == {operator.id: "operator", tenant.id: "tenant"}
        assert plain not in proxy.get("/dashboard/api/keys", authorization=f"Bearer {admin}").content.decode()
        (row,) = data("spend?by=key", admin)["rows"]
        assert (row["group"], row["requests"], row["tokens"], row["usd"]) == (tenant.id, 3, 42, None)
        assert data(f"requests/{ids[0]}", admin)["remembered"]["leader"] == "4"
    with started() as proxy:
        attach(proxy.app)
        assert [row["id"] for row in data(f"requests?key={tenant.id}", admin)["rows"]] == ids[::-1]
        assert [row["id"] for row in data(f"requests?before={ids[1]}", admin)["rows"]] == [ids[0]]
        story = data(f"requests/{ids[0]}", admin)
        assert (story["remembered"], story["answer"], story["tree"][0]["counts"]) == (None, "4", {"finished": 2})


def test_what_was_sent_is_told_only_where_it_is_stored(backend: ChatServer, tmp_path: Path) -> None:
    for logs_content in (False, True):
        url, rules = f"sqlite:///{tmp_path / str(logs_content)}", Rules(logs_content=logs_content)
        with ProxyServer(backend.url, ledger=open_durable(url, rules, spool=tmp_path)) as proxy:
            attach(proxy.app)
            number = proxy.chat("outthink/single", "x" * 30_000 + "the end").headers["x-outthink-receipt"]
            got = proxy.get(f"/dashboard/api/requests/{number}")
            assert ("xxxxx" in got.content.decode()) == logs_content
            assert len(got.content) < 40_000
            if logs_content:
                assert got.json["sent"].endswith("letters)")
                assert "boxed" in got.json["reply"]
                for model in ("tiny", "outthink/single"):
                    streamed = proxy.chat(model, stream=True).headers["x-outthink-receipt"]
                    assert "boxed" in proxy.get(f"/dashboard/api/requests/{streamed}").json["reply"]


def test_content_is_deleted_by_those_who_may_see_the_receipt(backend: ChatServer, tmp_path: Path) -> None:
    ledger = open_durable(f"sqlite:///{tmp_path}/ledger.db", Rules(logs_content=True), spool=tmp_path)
    with ProxyServer(backend.url, ledger=ledger) as proxy:
        attach(proxy.app)
        by = {
            name: {"authorization": "Bearer " + proxy.do(ledger.add_key(name, Terms(admin=name == "admin")))[1]}
            for name in ("admin", "tenant", "other")
        }
        for deleting in ("tenant", "admin"):
            number = proxy.chat("outthink/single", "a needle", headers=by["tenant"]).headers["x-outthink-receipt"]
            path = f"/v1/receipts/{number}"
            assert proxy.send("DELETE", f"{path}/content").status == 401
            assert proxy.send("DELETE", f"{path}/content", **by["other"]).error["code"] == "receipt_not_found"
            assert "needle" in proxy.get(f"/dashboard/api/requests/{number}", **by["admin"]).json["sent"]
            assert proxy.send("DELETE", f"{path}/content", **by[deleting]).json["deleted"] is True
            assert proxy.send("DELETE", f"{path}/content", **by[deleting]).json["deleted"] is False
            story = proxy.get(f"/dashboard/api/requests/{number}", **by["admin"]).json
            assert (story["sent"], story["reply"], story["answer"]) == (None, None, None)
            assert not proxy.get("/dashboard/api/requests?text=needle", **by["admin"]).json["rows"]
            assert proxy.get(path, **by["tenant"]).status == 200
            for method, wrong in (("DELETE", path), ("GET", f"{path}/content")):
                assert proxy.send(method, wrong, **by["tenant"]).error["code"] == "method_not_allowed"
