"""Who comes in: keys that are wanted though the ledger holds none, requests from elsewhere, and what a key may see."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from outthink.core.errors import BadInput
from outthink.serving.guard import Guard, Marker, forwarded_by, is_loopback
from outthink.serving.ledger import open_durable
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, chat, models
from support.ledgers import connected, doing, rows
from support.proxy_server import ProxyServer
from support.waiting import until

FORWARDED = """
Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Server X-Forwarded-Prefix
X-Forwarded-Scheme X-Forwarded-Ssl X-Forwarded-By X-Forwarded X-Real-IP X-Real-Port Via CF-Connecting-IP
CF-Connecting-IPv6 CF-Ray CF-Visitor CDN-Loop True-Client-IP X-Client-IP Client-IP Fly-Client-IP Fastly-Client-IP
X-Cluster-Client-IP X-Original-Forwarded-For X-Original-Host X-Original-URL X-Envoy-External-Address
X-Envoy-Internal X-Azure-ClientIP X-Azure-SocketIP X-ARR-SSL X-Appengine-User-IP X-Amz-Cf-Id CloudFront-Forwarded-Proto
X-Nf-Client-Connection-IP DO-Connecting-IP X-ProxyUser-IP WL-Proxy-Client-IP Proxy-Client-IP X-Remote-IP X-Remote-Addr
Remote-Addr X-Originating-IP Incap-Client-IP X-Sucuri-ClientIP Ali-CDN-Real-IP Forwarded-For X-Forward-For
Front-End-Https X-Url-Scheme X-Varnish X-Vercel-Forwarded-For X_Forwarded_For Surrogate-Capability X-IP X-True-IP
X-LB-IP X-Auth-Request-User Remote-User X-SSL-Client-Verify SSL-Client-Cert X-Client-Cert X-Kong-Request-Id
X-Consumer-Username X-Host-Override X-Goog-IAP-JWT-Assertion X-Served-By L5d-Client-Id X-Nf-Request-Id
"""
PLAIN = """
Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Encoding Content-Length
Content-Type Cookie Expect Idempotency-Key Keep-Alive OpenAI-Beta OpenAI-Organization OpenAI-Project Pragma Referer TE
Traceparent Tracestate Transfer-Encoding Upgrade-Insecure-Requests User-Agent X-Api-Key X-Outthink-Budget
X-Outthink-Strategy X-Request-ID X-Stainless-Arch X-Stainless-Lang X-Stainless-Retry-Count X-Stainless-Runtime
X-Title HTTP-Referer X-MS-Client-Request-Id Api-Key Baggage B3 X-B3-TraceId Priority Sec-Fetch-Site DNT Range X-Tip
X-Client-Id X-User-Agent
"""


ELSEWHERE = """
127.example.com 127.0.0.1.example.com localhost.example.com 0.0.0.0 :: 0 127.0.0.256 ::ffff:8.8.8.8 127. localhost4
fe80::1 169.254.0.1 1.127.0.0
"""


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(chat(["4"]), routes={"/v1/models": models("tiny", "other")}) as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def by(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def key(url: str, name: str = "a", **terms: object) -> dict[str, str]:
    """A new key, as a header."""
    return by(doing(url, lambda ledger: ledger.add_key(name, Terms(**terms)))[1])


@pytest.mark.parametrize("header", FORWARDED.split())
def test_what_another_server_passes_on_needs_a_key(proxy: ProxyServer, header: str) -> None:
    for name in (header, header.lower(), header.upper()):
        got = proxy.send("GET", "/v1/models", None, **{name: "203.0.113.9"})
        assert (got.status, got.error["code"]) == (401, "invalid_api_key")
        assert name.replace("_", "-").lower() in got.error["message"].lower()
    assert proxy.send("GET", "/v1/models", None, **{header: "a", "authorization": "Bearer any"}).status == 401


@pytest.mark.parametrize("header", PLAIN.split())
def test_what_programs_send_themselves_does_not(header: str) -> None:
    assert forwarded_by([header, header.lower(), header.upper()]) is None


def test_only_probes_come_through_other_servers_without_one(proxy: ProxyServer) -> None:
    through = {"X_Forwarded_For": "203.0.113.9"}
    assert [proxy.get(path, **through).status for path in ("/healthz", "/readyz", "/openapi.json")] == [200] * 3
    assert proxy.chat("tiny", headers=through).status == 401


def test_with_a_key_it_does_not_matter_who_passes_it_on(backend: ChatServer, url: str) -> None:
    known = key(url)
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        assert proxy.get("/v1/models", Via="1.1 a", Origin="https://a.example", **known).status == 200


def test_open_asks_nobody_but_web_pages(backend: ChatServer, url: str) -> None:
    known = key(url, models=("other",))
    with ProxyServer(backend.url, ledger=open_durable(url), guard=Guard("open")) as proxy:
        assert proxy.chat("tiny").status == 200
        assert proxy.chat("tiny", headers=by("any")).status == 200
        assert proxy.chat("tiny", headers={"X_Forwarded_For": "203.0.113.9"}).status == 200
        assert proxy.chat("tiny", headers=by("ot-" + "x" * 43)).status == 401  # meant to be a key, and is none
        assert proxy.chat("tiny", headers=known).status == 403  # whoever shows a key has its rights
        assert proxy.chat("tiny", headers={"Origin": "https://evil.example"}).status == 403


def test_required_needs_one_before_there_is_one(backend: ChatServer, url: str) -> None:
    with ProxyServer(backend.url, ledger=open_durable(url), guard=Guard("required")) as proxy:
        assert proxy.chat("tiny").status == proxy.chat("tiny", headers=by("any")).status == 401
        assert proxy.get("/healthz").status == 200
        known = by(proxy.do(proxy.ledger.add_key("a", Terms()))[1])
        assert proxy.chat("tiny", headers=known).status == 200


def test_a_marker_keeps_an_emptied_ledger_closed(backend: ChatServer, url: str, tmp_path: Path) -> None:
    marker = Marker(tmp_path / "beside", tmp_path / "state" / "keys" / "it")
    known = key(url)
    with ProxyServer(backend.url, ledger=open_durable(url), guard=Guard("auto", marker)) as proxy:
        assert proxy.chat("tiny", headers=known).status == 200
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in marker.paths)
    for path in tmp_path.glob("ledger.sqlite*"):
        path.unlink()
    with ProxyServer(backend.url, ledger=open_durable(url), guard=Guard("auto", marker)) as proxy:
        assert proxy.chat("tiny").status == proxy.chat("tiny", headers=known).status == 401
    with ProxyServer(backend.url, ledger=open_durable(url), guard=Guard("open", marker)) as proxy:
        assert proxy.chat("tiny").status == 200


def test_keys_that_vanish_while_it_runs_open_nothing(backend: ChatServer, url: str) -> None:
    known = key(url)
    with ProxyServer(backend.url, ledger=open_durable(url, refresh=0.01)) as proxy:
        assert proxy.chat("tiny", headers=known).status == 200
        database = connected(url)
        database.execute("DELETE FROM keys")
        database.close()
        until(lambda: proxy.chat("tiny", headers=known).status == 401)
        assert proxy.chat("tiny").status == 401


def test_a_ledger_that_is_truncated_while_it_runs_opens_nothing(backend: ChatServer, url: str, tmp_path: Path) -> None:
    known = key(url)
    with ProxyServer(backend.url, ledger=open_durable(url, refresh=0.01, absent="correct it")) as proxy:
        assert proxy.chat("tiny", headers=known).status == 200
        os.truncate(tmp_path / "ledger.sqlite", 0)
        for _ in range(20):
            for headers in ({}, by("any"), by("ot-" + "x" * 43)):
                got = proxy.get("/v1/models", **headers)
                assert (got.status, got.error["code"]) == (401, "invalid_api_key")
        got = proxy.get("/v1/receipts/rcpt-" + "0" * 24, **known)
        assert got.status in (404, 503)
        assert str(tmp_path) not in got.content.decode()


@pytest.mark.parametrize("guarded", [False, True])
def test_a_ledger_that_is_replaced_while_it_runs_is_the_one_that_counts(
    backend: ChatServer, url: str, tmp_path: Path, guarded: bool
) -> None:
    old = key(url) if guarded else {}
    with ProxyServer(backend.url, ledger=open_durable(url, refresh=0.01)) as proxy:
        assert proxy.chat("tiny", headers=old).status == 200
        for path in tmp_path.glob("ledger.sqlite*"):
            if path.is_file():
                path.unlink()
        new = key(url)
        until(lambda: proxy.get("/v1/models").status == proxy.get("/v1/models", **old).status == 401)
        until(lambda: proxy.chat("tiny", headers=new).headers["x-outthink-receipt"] in receipts(url))


def receipts(url: str) -> list[str]:
    return [number for (number,) in rows(url, "SELECT id FROM requests")]


def test_a_marker_that_cannot_be_written_costs_no_request(
    backend: ChatServer, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    known = key(url)
    guard = Guard("auto", Marker(tmp_path / "file" / "beneath"))
    with ProxyServer(backend.url, ledger=open_durable(url), guard=guard) as proxy:
        assert [proxy.chat("tiny", headers=known).status for _ in range(2)] == [200, 200]
    (line,) = [line for line in caplog.messages if "remembered" in line]
    assert 'keys = "required"' in line


def test_a_key_for_metrics_reads_metrics_alone(backend: ChatServer, url: str) -> None:
    pytest.importorskip("prometheus_client")
    scraping, plain, admin = key(url, "scraping", metrics=True), key(url, "plain"), key(url, "admin", admin=True)
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        from outthink.serving.observe import metrics

        metrics.attach(proxy.app, proxy.endpoints.backends.policies)
        number = proxy.chat("tiny", headers=plain).headers["x-outthink-receipt"]
        assert [proxy.get("/metrics", **who).status for who in (scraping, plain, admin, {})] == [200, 403, 200, 401]
        assert proxy.get("/healthz", **scraping).status == 200
        for path in ("/v1/models", "/v1/models/tiny", f"/v1/receipts/{number}"):
            got = proxy.get(path, **scraping)
            assert (got.status, got.json["error"]["code"]) == (403, "metrics_only")
        for model in ("tiny", "outthink/single"):
            got = proxy.chat(model, headers=scraping)
            assert (got.status, got.error["code"]) == (403, "metrics_only")
    assert len(backend.calls) == 1


def test_a_key_for_metrics_has_no_other_right() -> None:
    for more in ({"admin": True}, {"strategy": "single"}, {"models": ("tiny",)}):
        with pytest.raises(BadInput, match="metrics"):
            Terms(metrics=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("listed", [("tiny",), ("outthink/auto",), ("tiny", "outthink/greedy")])
def test_a_keys_own_strategy_is_not_refused_by_its_own_list(
    backend: ChatServer, url: str, listed: tuple[str, ...]
) -> None:
    known = key(url, models=listed, strategy="self-consistency@2")
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        for asked in ("outthink/auto", "outthink/self-consistency:n=2"):
            got = proxy.chat(asked, headers=known)
            assert (got.status, got.json["outthink"]["receipt"]["strategy"]) == (200, "self-consistency:n=2")
        assert proxy.chat("outthink/self-consistency@3", headers=known).status == 403
        assert proxy.chat("outthink/single", headers=known).status == 403


def test_a_strategy_draws_from_the_model_that_its_key_lists(backend: ChatServer, url: str) -> None:
    known = key(url, models=("other", "outthink/single"))
    with ProxyServer(backend.url, ledger=open_durable(url)) as proxy:
        assert proxy.chat("outthink/single", headers=known).status == 200
    assert [seen.body["model"] for seen in backend.calls] == ["other"]


@given(st.ip_addresses())
def test_addresses_are_compared_as_numbers(address: object) -> None:
    plain = ip_address(str(address))
    mapped = getattr(plain, "ipv4_mapped", None)
    assert is_loopback(str(address)) == (mapped or plain).is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "LOCALHOST", "localhost."]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    Guard("auto").check_host(host, guarded=False)


@pytest.mark.parametrize("host", [*ELSEWHERE.split(), "", "127.0.0.1 "])
def test_everything_else_is_reachable_from_elsewhere(host: str) -> None:
    assert not is_loopback(host)
    for guard, guarded in ((Guard("auto"), False), (Guard("required"), False), (Guard("open"), True)):
        with pytest.raises(BadInput, match="reachable from elsewhere"):
            guard.check_host(host, guarded)
    Guard("auto").check_host(host, guarded=True)


@pytest.mark.parametrize(
    "host", ["127.example.com", "127.0.0.1.evil.example", "localhost.evil.example", "evil", "0.0.0.0"]
)
def test_names_that_only_look_like_this_machine_need_a_key(proxy: ProxyServer, host: str) -> None:
    assert proxy.get("/v1/models", Host=host).status == 403
    assert proxy.get("/v1/models", Origin=f"http://{host}:8000").status == 403


def test_a_second_host_or_origin_is_looked_at_as_well(proxy: ProxyServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    connection.putrequest("GET", "/v1/models")
    for value in ("http://localhost", "http://evil.example"):
        connection.putheader("Origin", value)
    connection.endheaders()
    assert connection.getresponse().status in (400, 403)
    connection.close()
