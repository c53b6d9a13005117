"""The proxy in front of several real backends that fail, recover, refuse and change what they serve."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

pytest.importorskip("aiohttp")

from outthink.core.errors import BadInput
from outthink.serving.pool import BackendPool, BackendSettings, PoolSettings
from outthink.serving.pool.pool import NoBackend, Resting
from outthink.serving.pool.transport import AiohttpTransport
from support.chat_server import ChatServer, Drop, Hang, Reply, chat, models, refusal, stream, whole
from support.proxy_server import CHAT, ProxyServer, all_brief
from support.waiting import until

pytestmark = pytest.mark.faults
OK = whole({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
WAIT = whole({"error": {"message": "slow down"}}, 429, retry_after="20")
QUICK = {"interval": 0.05, "timeout": 0.5, "open_seconds": 0.3, "failures": 2}


@contextmanager
def pair(first: Reply, second: Reply = OK) -> Iterator[tuple[ChatServer, ChatServer]]:
    with ChatServer(first) as one, ChatServer(second) as other:
        yield one, other


def calls(server: ChatServer) -> int:
    return len(server.calls)


def questions_until(proxy: ProxyServer, true: Callable[[], bool], **fields: object) -> int:
    """How many questions it took. Which backend a prompt prefers depends on their ports: no fixed few reach both."""
    for asked in range(1, 101):
        got = proxy.chat("toy", f"question {asked}", **fields)  # type: ignore[arg-type]
        assert got.status == 200, got.content
        if true():
            return asked
    raise AssertionError("a hundred questions were not enough")


@pytest.mark.parametrize(
    "wrong",
    [
        refusal("slow down", 429),
        whole({"error": {"message": "asleep"}}, 503, retry_after="1"),
        refusal("Loading model", 503, type="unavailable_error"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_request_that_was_not_begun_goes_to_another_backend(wrong: Reply, streamed: bool) -> None:
    good = chat(["Hello"]) if streamed else OK
    with pair(wrong, good) as (bad, other), ProxyServer(bad.url, other.url, pool={"failures": 50}) as proxy:
        asked = questions_until(proxy, lambda: calls(other) >= 6 and calls(bad) > 0, stream=streamed)
        assert calls(other) == asked
        assert 1 <= calls(bad) <= asked


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (refusal("out of memory", 500), 500),
        (refusal("asleep", 503), 503),
        (refusal("bad gateway", 502), 502),
        (stream(Drop(), before=(Drop(),)), 502),
        (whole(b"<html>no</html>", kind="text/html"), 502),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_what_may_have_been_begun_is_asked_of_nobody_else(
    wrong: Reply, status: int, streamed: bool, model: str
) -> None:
    with pair(wrong, wrong) as (one, other), ProxyServer(one.url, other.url) as proxy:
        got = proxy.chat(model, stream=streamed)
        assert got.status == (status if model == "toy" else 502)
        assert calls(one) + calls(other) == 1


def test_a_reply_that_has_begun_is_never_asked_for_again() -> None:
    half = stream(b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n', Drop())
    with pair(half, half) as (one, other), ProxyServer(one.url, other.url) as proxy:
        got = proxy.chat("toy", stream=True)
        assert got.events[-1]["error"]["code"] == "backend_error"
        assert calls(one) + calls(other) == 1


def test_the_last_backends_refusal_reaches_the_client() -> None:
    busy = refusal("no", 429)
    servers = [ChatServer(busy) for _ in range(3)]
    with servers[0], servers[1], servers[2], ProxyServer(*(server.url for server in servers)) as proxy:
        got = proxy.chat("toy")
        assert (got.status, got.json["error"]["message"], got.headers["retry-after"]) == (429, "no", "1")
        assert sum(map(calls, servers)) == 2


def test_samples_of_a_strategy_move_to_another_backend_at_once() -> None:
    with (
        pair(WAIT, chat(["The answer is 4."])) as (bad, good),
        ProxyServer(bad.url, good.url) as proxy,
    ):
        got = proxy.chat("outthink/self-consistency@4", outthink={"answer": "number"})
        assert got.json["outthink"]["receipt"]["answer"] == "4"
        assert calls(good) == 4


def test_a_backend_that_asks_for_a_pause_gets_it() -> None:
    wait = whole({"error": {"message": "slow down"}}, 429, retry_after="1")
    with pair(wait) as (busy, other), ProxyServer(busy.url, other.url) as proxy:
        questions_until(proxy, lambda: calls(busy) > 0)
        assert {proxy.chat("toy", str(at)).status for at in range(8)} == {200}
        assert calls(busy) == 1
        busy.routes[CHAT] = OK
        numbers = count()  # which backend a prompt prefers depends on their ports
        until(lambda: proxy.chat("toy", f"again {next(numbers)}").status == 200 and calls(busy) > 1, "its return")
    with ChatServer(wait) as busy, ProxyServer(busy.url) as proxy:
        assert proxy.chat("toy").status == 429
        got = proxy.chat("toy")
        assert (got.status, got.error["code"], got.headers["retry-after"], calls(busy)) == (429, "backend_busy", "1", 1)


def test_backends_come_go_and_change_their_models() -> None:
    with ChatServer(OK, routes={"/v1/models": models("late")}) as gone:
        port = gone.port
    with ChatServer(OK) as steady, ProxyServer(steady.url, f"http://127.0.0.1:{port}/v1", pool=QUICK) as proxy:
        received: list[tuple[str, bool]] = []
        proxy.pool._on_health_change = lambda url, well: received.append((url, well))
        assert proxy.get("/readyz").status == 200
        assert proxy.chat("late").status == 404
        with ChatServer(OK, routes={"/v1/models": models("late")}, port=port) as late:
            assert until(lambda: "late" in proxy.pool.names())
            assert proxy.chat("late").status == 200
            late.routes["/v1/models"] = models("late", "later")
            assert until(lambda: "later" in proxy.pool.names())
        assert until(lambda: len(received) == 2)
        got = proxy.chat("late")
        assert (got.status, got.error["code"]) == (503, "no_backend")
        assert proxy.chat("toy").status == 200
        assert received == [(f"http://127.0.0.1:{port}/v1", True), (f"http://127.0.0.1:{port}/v1", False)]


def test_no_backend_is_not_ready_and_says_so() -> None:
    with ProxyServer("http://127.0.0.1:9/v1") as proxy:
        assert proxy.get("/readyz").status == 503
        assert proxy.get("/healthz").status == 200
        assert proxy.chat("toy").error["code"] == "no_backend"


def test_one_failed_check_changes_nothing() -> None:
    with ChatServer(OK) as backend, ProxyServer(backend.url, pool={**QUICK, "down_after": 3}) as proxy:
        checks = iter([refusal("no", 500), refusal("no", 500)])
        backend.routes["/v1/models"] = lambda seen: next(checks, models("toy"))
        assert until(lambda: next(checks, None) is None)
        assert proxy.chat("toy").status == 200


def test_a_server_that_lists_no_models_is_asked_for_its_health() -> None:
    routes = {"/v1/models": refusal("none", 404), "/health": whole({"status": "ok"})}
    with ChatServer(OK, routes=routes) as backend:  # type: ignore[arg-type]
        with ProxyServer(BackendSettings(url=backend.url, models=("mine",))) as proxy:
            assert proxy.pool.names() == ("mine",)
            assert proxy.chat("mine").status == 200
        with ProxyServer(backend.url) as proxy:
            assert not proxy.pool.ready
            assert "404" in str(proxy.pool.backends[0].trouble)


def test_a_hung_check_is_a_failed_one() -> None:
    hung = {"/v1/models": stream(Hang(), before=(Hang(),))}
    with ChatServer(OK, routes=hung) as backend, ProxyServer(backend.url, pool={"timeout": 0.2}) as proxy:  # type: ignore[arg-type]
        assert not proxy.pool.ready
        assert "0.2 s" in str(proxy.pool.backends[0].trouble)


def test_requests_spread_by_weight() -> None:
    with ChatServer(OK) as one, ChatServer(OK) as other:
        settings = [BackendSettings(url=one.url, weight=3), BackendSettings(url=other.url)]
        with ProxyServer(*settings, pool={"affinity": False}) as proxy:
            for at in range(16):
                proxy.chat("toy", str(at))
            assert (calls(one), calls(other)) == (12, 4)


def test_equal_prompts_meet_one_cache_and_stay_when_another_backend_goes() -> None:
    with ChatServer(OK) as a, ChatServer(OK) as b, ChatServer(OK) as c:
        servers = (a, b, c)
        with ProxyServer(*(server.url for server in servers), pool=QUICK) as proxy:
            homes = []
            for prompt in range(48):
                before = [calls(server) for server in servers]
                for _ in range(3):
                    proxy.chat("toy", f"prompt {prompt}")
                grown = [calls(server) - was for server, was in zip(servers, before, strict=True)]
                assert sorted(grown) == [0, 0, 3]
                homes.append(servers[grown.index(3)])
            assert len(set(map(id, homes))) == 3
            lost = homes[0]
            lost.routes["/v1/models"] = refusal("no", 500)
            assert until(lambda: any(backend.health == "down" for backend in proxy.pool.backends))
            for prompt, home in enumerate(homes):
                before_home = calls(home)
                proxy.chat("toy", f"prompt {prompt}")
                assert calls(home) - before_home == (home is not lost)


def test_a_limit_holds_and_what_is_beyond_waits() -> None:
    most = 0
    slow = whole({"choices": []})

    def watch(_: object) -> Reply:
        nonlocal most
        most = max(most, proxy.pool.backends[0].active)
        return Reply((0.05, *slow.steps), kind="application/json")

    with ChatServer(watch) as backend, ProxyServer(BackendSettings(url=backend.url, limit=2)) as proxy:
        threads = [threading.Thread(target=lambda: done.append(proxy.chat("toy").status)) for _ in range(8)]
        done: list[int] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert done == [200] * 8
        assert most == 2


def chosen(pool: BackendPool, model: str = "m", **more: object) -> str:
    with pool.choose(model, **more) as lease:  # type: ignore[arg-type]
        return lease.url


def offline(*settings: BackendSettings, **more: object) -> BackendPool:
    """A pool whose backends are believed to be well."""
    pool = BackendPool(AiohttpTransport(), settings, PoolSettings(**more))  # type: ignore[arg-type]
    for backend in pool.backends:
        backend.models, backend.health = ("m",), "up"
        pool._changed(backend)
    return pool


def sites(count: int, **more: object) -> list[BackendSettings]:
    return [BackendSettings(url=f"http://192.0.2.{at}:8000", **more) for at in range(count)]  # type: ignore[arg-type]


def test_why_there_is_no_backend() -> None:
    pool = offline(*sites(2, limit=1))
    urls = [backend.url for backend in pool.backends]
    with pytest.raises(NoBackend, match="serves other"):
        pool.choose("other")
    with pytest.raises(NoBackend, match="healthy"):
        pool.choose("m", avoid=urls)
    with pool.choose("m"), pool.choose("m"), pytest.raises(Resting, match="all the calls"):
        pool.choose("m")
    with pool.choose("m"), pool.choose("m"):
        assert pool.choose("m", brief=True).url in urls
    assert pool.places("m") == 2
    pool.backends[0].rest(5.0, "m")
    assert pool.places("m") == 1
    pool.backends[1].rest(5.0, "m")
    with pytest.raises(Resting) as resting:
        pool.choose("m")
    assert 4.0 < (resting.value.retry_after or 0) <= 5.0
    assert offline(*sites(1)).places("m") is None


LISTS = {
    "too many": (models(*map(str, range(20_000))), "it lists 20000 models"),
    "without end": (stream(*[b'{"id":"x"},' * 10_000] * 100, Hang()), "longer than 4 MiB"),
    "slow": (stream(*[step for _ in range(100) for step in (b" ", 0.02)]), "nothing came within 0.5 s"),
    "a page": (whole("<html></html>", kind="text/html"), "something else than a list"),
    "elsewhere": (whole("", 302, location="http://127.0.0.1:1/v1/models"), "something else than a list"),
    "no rows": (whole({"data": [None]}), "something else than a list"),
    "deep": (whole("[" * 100_000), "something else than a list"),
    "none": (whole({"data": []}), "no models"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_is_none_costs_its_backend_alone(kind: str) -> None:
    told, trouble = LISTS[kind]
    with ChatServer(OK, routes={"/v1/models": told}) as bad, ChatServer(OK) as good:
        sites = [BackendSettings(url=each.url) for each in (bad, good)]
        with ProxyServer(*sites, pool={**QUICK, "interval": 0.05}, timed=True) as proxy:

            def ask() -> None:
                asked = len(bad.seen)
                until(lambda: len(bad.seen) > asked + 1, "another check")
                assert proxy.chat("toy").status == 200

            all_brief(proxy, ask)
            assert proxy.pool.backends[0].health == "down"
            assert trouble in (proxy.pool.backends[0].trouble or "")
            assert [row["id"] for row in proxy.get("/v1/models").json["data"]][:2] == ["toy", "outthink/auto"]


def test_many_models_are_listed_found_and_gone_without_holding_anybody_up() -> None:
    many = models("toy", *map(str, range(9_999)))
    with (
        ChatServer(OK) as backend,
        ProxyServer(backend.url, pool={**QUICK, "down_after": 99}, timed=True) as proxy,
    ):

        def ask() -> None:
            for listed, count in ((many, 10_000), (models("toy"), 1), (many, 10_000)):
                backend.routes["/v1/models"] = listed
                until(lambda count=count: len(proxy.pool.names()) == count, "the list")
                assert proxy.chat("toy").status == 200
            rows = proxy.get("/v1/models").json["data"]
            assert (rows[9_999]["id"], rows[10_000]["id"]) == ("9998", "outthink/auto")
            assert proxy.get("/v1/models/9998").json == rows[9_999]
            assert proxy.get("/v1/models/outthink/auto").json == rows[10_000]
            assert proxy.get("/v1/models/9999").status == 404

        all_brief(proxy, ask)


def test_a_lease_that_ends_without_a_word_is_no_verdict() -> None:
    pool = offline(*sites(1), failures=1)
    with pytest.raises(asyncio.CancelledError), pool.choose("m"):
        raise asyncio.CancelledError
    with pytest.raises(ConnectionResetError), pool.choose("m"):
        raise ConnectionResetError
    assert chosen(pool) == "http://192.0.2.0:8000/v1"
    assert pool.backends[0].active == 0


def test_a_check_that_breaks_does_not_end_the_checks() -> None:
    with ChatServer(OK) as backend, ProxyServer(backend.url, pool=QUICK) as proxy:

        def heard(url: str, well: bool) -> None:
            received.append(well)
            raise RuntimeError("a listener of ours is broken")

        received: list[bool] = []
        proxy.pool._on_health_change = heard
        backend.routes["/v1/models"] = refusal("no", 500)
        assert until(lambda: received == [False])
        backend.routes["/v1/models"] = models("toy")
        assert until(lambda: received == [False, True])
        assert proxy.chat("toy").status == 200


def test_who_comes_back_does_not_get_every_call() -> None:
    pool = offline(*sites(2), affinity=False)
    pool.backends[1].health = "down"
    pool._changed(pool.backends[1])
    for _ in range(50):
        chosen(pool)
    pool.backends[1].health = "up"
    pool._changed(pool.backends[1])
    got = [chosen(pool) for _ in range(10)]
    assert got.count(pool.backends[1].url) == 5


def test_a_backend_named_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="twice"):
        BackendPool(AiohttpTransport(), [*sites(1), BackendSettings(url="http://192.0.2.0:8000/v1/")])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (BackendSettings, "weight", 0),
        (BackendSettings, "limit", 0),
        (PoolSettings, "interval", 0),
        (PoolSettings, "down_after", 0),
        (PoolSettings, "share", 1.5),
        (PoolSettings, "window", 5000),
        (PoolSettings, "overload", 0.5),
        (PoolSettings, "slack", -1),
    ],
)
def test_settings_that_make_no_sense(kind: type, field: str, value: float) -> None:
    needed = {"url": "http://192.0.2.1"} if kind is BackendSettings else {}
    with pytest.raises(BadInput) as wrong:
        kind(**needed, **{field: value})
    assert wrong.value.field == field


def test_the_key_of_a_backend_is_sent_and_not_shown() -> None:
    with ChatServer(OK) as backend:
        settings = BackendSettings(url=backend.url, key="sesame")
        assert "sesame" not in repr(settings)
        with ProxyServer(settings) as proxy:
            proxy.chat("toy")
        assert {seen.headers.get("authorization") for seen in backend.seen} == {"Bearer sesame"}
