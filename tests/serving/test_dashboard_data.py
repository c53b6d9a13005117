"""The dashboard's routes: who may read what, what is told of a request, and the headers of the page."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.dashboard import attach
from outthink.serving.ledger.memory import MemoryLedger
from outthink.serving.protocols import Key
from support.chat_server import ChatServer, Seen, chat, models, refusal
from support.policies import policy
from support.proxy_server import CHAT, ProxyServer
from support.waiting import until

DATA = ("live", "keys", "spend", "policy", "requests", "requests/rcpt-000000000000000000000000")
KEYS = {"admin": Key("k0", "operator", admin=True), "plain": Key("k1", "tenant")}


class Guarded(MemoryLedger):
    """Knows the keys above."""

    guarded = True

    async def authorise(self, bearer: str | None) -> Key | None:
        return KEYS.get(bearer or "")


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(routes={"/v1/models": models("tiny")}) as server:
        server.routes["/v1/chat/completions"] = lambda seen: chat([f"\\boxed{{{seen.body.get('seed', 0) % 4 // 3}}}"])
        yield server


@pytest.fixture
def proxy(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url) as running:
        attach(running.app, policy)
        yield running


@pytest.fixture
def guarded(backend: ChatServer) -> Iterator[ProxyServer]:
    with ProxyServer(backend.url, ledger=Guarded()) as running:
        attach(running.app)
        yield running


def data(proxy: ProxyServer, path: str, **headers: str) -> Any:
    got = proxy.get(f"/dashboard/api/{path}", **headers)
    assert got.status == 200, got.content
    return got.json


def test_the_page_is_for_everybody_and_holds_no_data(guarded: ProxyServer) -> None:
    got = guarded.get("/")
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    names = re.findall(r'(?:src|href)="([^"#:]+)"', got.content.decode())
    assert names == ["dashboard/style.css", "dashboard/app.js"]
    for file in (files("outthink.serving.dashboard") / "static").iterdir():
        if file.name != "index.html":
            asset = guarded.get(f"/dashboard/{file.name}")
            assert (asset.status, asset.content) == (200, file.read_bytes())
            assert asset.headers["x-content-type-options"] == "nosniff"


def test_the_page_lets_no_foreign_code_in(proxy: ProxyServer) -> None:
    got = proxy.get("/")
    policy = dict(part.split(" ", 1) for part in got.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in got.headers["content-security-policy"]
    text = got.content.decode()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)", text)


def test_no_script_ever_reads_markup() -> None:
    for file in (files("outthink.serving.dashboard") / "static").iterdir():
        if file.name.endswith(".js"):
            result = re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", file.read_text()
            )
            assert result is None, file.name


def test_files_that_are_known_are_not_sent_again(proxy: ProxyServer) -> None:
    tag = proxy.get("/dashboard/app.js").headers["etag"]
    got = proxy.get("/dashboard/app.js", if_none_match=tag)
    assert (got.status, got.content) == (304, b"")


@pytest.mark.parametrize("path", ["/dashboard/../proxy.py", "/dashboard/routes.py", "/dashboard/%2e%2e/routes.py"])
def test_nothing_but_the_page_is_served(proxy: ProxyServer, path: str) -> None:
    assert proxy.get(path).status == 404


@pytest.mark.parametrize("path", DATA)
def test_data_is_for_admins(guarded: ProxyServer, path: str) -> None:
    asked = f"/dashboard/api/{path}"
    assert (guarded.get(asked).status, guarded.get(asked).error["code"]) == (401, "invalid_api_key")
    assert guarded.get(asked, authorization="Bearer wrong").status == 401
    refused = guarded.get(asked, authorization="Bearer plain")
    assert (refused.status, refused.error["code"]) == (403, "admin_only")
    result = guarded.get(asked, authorization="Bearer admin")
    assert result.status == (404 if "rcpt" in path else 200)
    if result.status == 200:
        assert result.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", DATA)
def test_web_pages_cannot_read_an_open_proxy(proxy: ProxyServer, path: str) -> None:
    asked = f"/dashboard/api/{path}"
    assert proxy.get(asked, origin="http://evil.example").status == 403
    assert proxy.get(asked, host="evil.example").status == 403
    assert proxy.get(asked, host="localhost.evil.example").status == 403


def test_a_requests_story(proxy: ProxyServer) -> None:
    receipt = proxy.chat("outthink/self-consistency@4", seed=0, outthink={"answer": "number"}).json["outthink"][
        "receipt"
    ]
    story = data(proxy, f"requests/{receipt['id']}")
    assert story["done"] is True
    assert (story["answer"], story["record"]["stopped"]) == ("0", receipt["stopped"])
    assert story["reason"]
    (group,) = story["tree"]
    assert (group["role"], group["model"], len(group["calls"])) == ("policy", "tiny", 4)
    assert sum(group["counts"].values()) == 4
    assert group["tokens"] == receipt["tokens"] == story["record"]["tokens"]
    assert [call["number"] for call in group["calls"]] == [1, 2, 3, 4]
    remembered = story["remembered"]
    assert sum(remembered["counts"].values()) == 4
    assert remembered["leader"] == "0"


def test_an_unknown_part_makes_a_groups_tokens_unknown(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = lambda seen: chat(
        ["\\boxed{1}"], counts=None if seen.body["seed"] else (5, 2)
    )
    receipt = proxy.chat("outthink/self-consistency@2:ties=random", seed=0).json["outthink"]["receipt"]
    (group,) = data(proxy, f"requests/{receipt['id']}")["tree"]
    assert receipt["tokens"] is None
    assert group["tokens"] is None


def test_a_failed_request_shows_its_code_and_not_the_backends_words(backend: ChatServer, proxy: ProxyServer) -> None:
    backend.routes["/v1/chat/completions"] = refusal("no such thing", 400)
    got = proxy.chat("outthink/self-consistency@2")
    (row,) = data(proxy, "requests")["rows"]
    assert (row["stopped"], row["status"]) == ("error", got.status)
    assert "no such thing" in got.error["message"]
    assert data(proxy, f"requests/{row['id']}")["record"]["error"] == "400 backend_refused"


@pytest.mark.parametrize("number", ["nothing", "rcpt-000000000000000000000000", "..%2f..", "%00", "a" * 3000])
def test_a_request_that_nobody_knows(proxy: ProxyServer, number: str) -> None:
    got = proxy.get(f"/dashboard/api/requests/{number}")
    assert (got.status, got.error["param"]) == (404, "id")
    assert len(got.error["message"]) < 200


def test_search_and_its_pages(proxy: ProxyServer) -> None:
    ids = [proxy.chat("outthink/single").json["outthink"]["receipt"]["id"] for _ in range(53)]
    proxy.chat("tiny")
    first = data(proxy, "requests?strategy=single")
    assert (len(first["rows"]), first["more"]) == (50, True)
    rest = data(proxy, f"requests?strategy=single&before={first['rows'][-1]['id']}")
    assert (len(rest["rows"]), rest["more"]) == (3, False)
    assert [row["id"] for row in [*first["rows"], *rest["rows"]]] == ids[::-1]
    assert [row["id"] for row in data(proxy, f"requests?text={ids[7][-9:]}")["rows"]] == [ids[7]]
    assert [row["strategy"] for row in data(proxy, "requests?model=tiny")["rows"]] == ["pass-through"]
    began = data(proxy, f"requests/{ids[40]}")["record"]["started"]
    assert {row["id"] for row in data(proxy, f"requests?since={began!r}")["rows"]} >= set(ids[40:])
    assert data(proxy, "requests?until=1")["rows"] == []
    assert data(proxy, "requests?key=somebody")["rows"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("requests?since=yesterday", "since"),
        ("requests?until=nan", "until"),
        ("requests?since=-1", "since"),
        ("requests?before=1%20or%201", "before"),
        ("requests?text=" + "x" * 300, "text"),
        ("requests?model=%00", "model"),
        ("spend?by=colour", "by"),
        ("spend?since=inf", "since"),
    ],
)
def test_terms_that_cannot_be_used(proxy: ProxyServer, path: str, field: str) -> None:
    got = proxy.get(f"/dashboard/api/{path}")
    assert (got.status, got.error["param"]) == (400, field)


def test_spend_in_every_currency_with_what_is_unknown(backend: ChatServer, proxy: ProxyServer) -> None:
    proxy.chat("outthink/self-consistency@2:ties=random", seed=0)
    received = data(proxy, "spend?by=strategy")
    (row,) = received["rows"]
    assert (received["by"], row["group"], row["requests"]) == ("strategy", "self-consistency:n=2,ties=random", 1)
    assert (row["tokens"], row["unknown_tokens"]) == (14, 0)
    assert (row["usd"], row["unknown_usd"]) == (None, 1)
    assert (row["joules"], row["unknown_joules"]) == (None, 1)
    backend.routes["/v1/chat/completions"] = chat(["\\boxed{1}"], counts=None)
    proxy.chat("outthink/single", seed=0)
    for by in ("key", "day"):
        (row,) = data(proxy, f"spend?by={by}")["rows"]
        assert (row["requests"], row["tokens"], row["known_tokens"], row["unknown_tokens"]) == (2, None, 14, 1)
    assert len(data(proxy, "spend?by=model")["rows"]) == 2
    assert data(proxy, "spend?by=key&until=86400")["rows"] == []


def test_the_frontier_of_the_active_policy(proxy: ProxyServer, guarded: ProxyServer) -> None:
    received = data(proxy, "policy")["policy"]
    (task,) = received["tasks"]
    assert (task["model"], task["dataset"]) == ("tiny", "sums")
    points = [(point["n"], point["accuracy"], point["tokens"], point["chosen"]) for point in task["points"]]
    assert points == [(1, 0.5, 100.0, False), (2, 0.55, 200.0, False), (4, 0.6, 400.0, True), (8, 0.65, 800.0, False)]
    assert {fact["name"] for fact in received["facts"]} >= {"policy", "target", "created"}
    assert data(guarded, "policy", authorization="Bearer admin") == {"policy": None}


def test_the_live_board_follows_a_request_whose_client_leaves(backend: ChatServer, proxy: ProxyServer) -> None:
    def answer(seen: Seen) -> Any:
        return chat(["\\boxed{4}"], delay=0.0 if seen.body["seed"] < 2 else 30.0)

    backend.routes["/v1/chat/completions"] = answer
    client = http.client.HTTPConnection("127.0.0.1", proxy.port)
    body = {"model": "outthink/self-consistency@6", "seed": 0, "messages": [{"role": "user", "content": "2 + 2?"}]}
    client.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})

    def two() -> Any:
        rows = data(proxy, "live")["running"]
        return rows[0] if rows and rows[0]["counts"] == {"started": 4, "finished": 2} else None

    row = until(two)
    assert (row["model"], row["strategy"]) == ("outthink/self-consistency@6", "self-consistency:n=6")
    assert [sample["state"] for sample in row["samples"]] == ["finished"] * 2 + ["started"] * 4
    assert [sample["answer"] for sample in row["samples"][:3]] == ["4", "4", None]
    assert (row["votes"], row["leader"]) == ([{"answer": "4", "weight": 2.0}], "4")
    before = data(proxy, f"requests/{row['id']}")
    assert (before["done"], before["remembered"]["votes"]) == (False, row["votes"])
    client.close()
    story = until(lambda: (result := data(proxy, f"requests/{row['id']}"))["done"] and result)
    assert (story["record"]["stopped"], story["record"]["status"]) == ("interrupted", 499)
    assert story["tree"][0]["counts"] == {"finished": 2, "cancelled": 4}
    assert story["remembered"]["counts"] == {"started": 0, "finished": 2, "cancelled": 4}
    live = data(proxy, "live")
    assert (live["count"], live["running"], live["finished"][0]["id"]) == (0, [], row["id"])


def test_what_is_passed_through_is_shown_too(proxy: ProxyServer) -> None:
    proxy.chat("tiny")
    live = data(proxy, "live")
    assert (live["total"], live["finished"][0]["strategy"]) == (1, "pass-through")
