"""Backends that take only so many calls: whoever asks waits for a place, and nobody is refused for want of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from support.chat_server import ChatServer, Gate, Hang, Reply, Seen, chat, models, refusal, whole
from support.ledgers import KeyRing
from support.proxy_server import CHAT, Got, ProxyServer
from support.waiting import until

LIMIT = 2
MODELS = ("toy", "small")
SIZES = (3, 5, 8, 16)
DELAY = 0.008
"""Seconds that every call takes at least."""


class Crowd:
    """Answers every seed differently, so that no vote is decided early, and counts who is there at once."""

    def __init__(self) -> None:
        self.most = 0
        self.calls: list[Seen] = []

    def __call__(self, seen: Seen) -> Reply:
        """An answer after a moment."""
        self.calls.append(seen)
        self.most = max(self.most, sum(call.at > seen.at - 0.9 * DELAY for call in self.calls))
        text = f"The answer is {seen.body.get('seed', 0)}."
        if seen.body.get("stream") is True:
            return chat([text], delay=DELAY)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        counts = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        made = whole({"id": "c", "object": "chat.completion", "model": "toy", "choices": [choice], "usage": counts})
        return Reply(made.steps, kind="application/json", before=(DELAY,))


@pytest.fixture
def crowd() -> Iterator[tuple[Crowd, ProxyServer]]:
    seen = Crowd()
    with (
        ChatServer(seen, routes={"/v1/models": models(*MODELS)}) as backend,
        ProxyServer(BackendSettings(url=backend.url, limit=LIMIT)) as proxy,
    ):
        yield seen, proxy


def together(jobs: list[Callable[[], Got]]) -> list[Got]:
    """Everybody at once."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        return [job.result(30) for job in [threads.submit(job) for job in jobs]]


@pytest.mark.parametrize("names", [MODELS[:1], MODELS], ids=["one-model", "two-models"])
def test_everybody_gets_a_place_in_the_end(crowd: tuple[Crowd, ProxyServer], names: tuple[str, ...]) -> None:
    seen, proxy = crowd
    asked = [(model, n) for model in names for n in SIZES]

    def strategy(model: str, n: int) -> Got:
        return proxy.chat(f"outthink/self-consistency@{n}", seed=100, outthink={"model": model, "answer": "number"})

    drawn = [lambda model=model, n=n: strategy(model, n) for model, n in asked]
    passed = [lambda at=at: proxy.chat(names[at % len(names)], stream=at % 3 == 0) for at in range(12)]
    got = together([*drawn, *passed])
    assert [item.status for item in got] == [200] * len(got)
    for (_, n), reply in zip(asked, got, strict=False):
        assert len(reply.json["outthink"]["receipt"]["entries"]) == n
    assert len(seen.calls) == sum(n for _, n in asked) + len(passed)
    assert seen.most <= LIMIT
    assert proxy.chat(names[-1]).status == 200


def test_calls_that_a_backend_refuses_wait_for_a_place_on_the_other() -> None:
    seen = Crowd()
    broken = Reply((), 429, before=(0.002,))
    with ChatServer(broken) as bad, ChatServer(seen) as good:
        sites = [BackendSettings(url=item.url, limit=LIMIT) for item in (bad, good)]
        with ProxyServer(*sites) as proxy:
            asked = [lambda: proxy.chat("outthink/self-consistency@8", seed=100, outthink={"answer": "number"})] * 3
            got = together([*asked, *[lambda: proxy.chat("toy")] * 8])
            assert [item.status for item in got] == [200] * len(got)
            assert [len(item.json["outthink"]["receipt"]["entries"]) for item in got[:3]] == [8] * 3
            assert bad.calls
            assert seen.most <= LIMIT


def test_who_gives_up_leaves_the_line() -> None:
    with (
        ChatServer(Reply((), before=(Hang(),)), routes={"/v1/models": models(*MODELS)}) as backend,
        ProxyServer(BackendSettings(url=backend.url, limit=1)) as proxy,
    ):
        only = proxy.pool.backends[0]
        for at, name in enumerate(MODELS):  # the second one waits for the place of the first, if that has it still
            proxy.abandon(name, lambda at=at: len(backend.calls) > at or only.waiting)
        until(lambda: (only.active, only.waiting) == (0, []), "the place")
        backend.routes[CHAT] = chat(["Hello"])
        assert proxy.chat("toy", stream=True).status == 200


OK = whole({"choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]})


def held(gate: Gate) -> Reply:
    """A reply that waits for the gate."""
    return Reply(OK.steps, kind=OK.kind, before=(gate,))


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@8"])
def test_a_free_place_at_a_backend_goes_to_the_key_that_has_the_fewest(model: str) -> None:
    gates = Gate(), Gate()
    with (
        ChatServer(lambda seen: held(gates[0] if "first" in str(seen.content) else gates[1])) as backend,
        ProxyServer(BackendSettings(url=backend.url, limit=2), ledger=KeyRing("a", "b")) as proxy,
        ThreadPoolExecutor(22) as threads,
    ):
        line = proxy.endpoints.backends.places("toy")

        def ask(key: str, asked: str, text: str) -> int:
            return proxy.chat(asked, text, headers={"authorization": f"Bearer {key}"}).status

        first = threads.submit(ask, "a", "toy", "first")
        until(lambda: len(backend.calls) == 1, "the first call")
        many = [threads.submit(ask, "a", model, "many") for _ in range(20)]
        until(lambda: len(backend.calls) == 2 and line.queued("a") >= 19, "those who wait")
        other = threads.submit(ask, "b", "toy", "other")
        until(lambda: line.queued("b"), "the other key's request")
        gates[0].open()
        assert first.result(60) == 200
        until(lambda: len(backend.calls) == 3, "the next call")
        assert b"other" in backend.calls[2].content
        gates[1].open()
        assert other.result(60) == 200
        assert {each.result(60) for each in many} == {200}


@pytest.mark.parametrize("model", ["toy", "outthink/single"])
def test_who_waits_is_served_by_a_backend_that_comes_up(model: str) -> None:
    gate = Gate()
    with (
        ChatServer(held(gate)) as one,
        ChatServer(OK, routes={"/v1/models": refusal("starting", 500)}) as other,
        ProxyServer(
            *[BackendSettings(url=each.url, limit=1) for each in (one, other)], pool={"interval": 0.05, "timeout": 0.5}
        ) as proxy,
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(proxy.chat, "toy")
        until(lambda: one.calls, "the first call")
        second = threads.submit(proxy.chat, model)
        until(lambda: proxy.endpoints.backends.places("toy").waiting == 1, "who waits")
        other.routes["/v1/models"] = models("toy")
        assert second.result(60).status == 200
        gate.open()
        assert first.result(60).status == 200


def test_who_waits_is_served_by_a_backend_whose_rest_ends() -> None:
    gate, slow_down = Gate(), whole({"error": {"message": "slow down"}}, 429, retry_after="0.5")
    with (
        ChatServer(held(gate), routes={"/v1/models": models("toy", "small")}) as one,
        ChatServer(slow_down) as other,
        ProxyServer(*[BackendSettings(url=each.url, limit=1) for each in (one, other)]) as proxy,
        ThreadPoolExecutor(3) as threads,
    ):
        first = threads.submit(proxy.chat, "small")
        until(lambda: one.calls, "the only call of the first backend")
        refused = threads.submit(proxy.chat, "toy")
        until(lambda: proxy.pool.backends[0].waiting, "a place on the first backend")
        other.routes[CHAT] = OK
        assert threads.submit(proxy.chat, "toy").result(60).status == 200
        gate.open()
        assert {first.result(60).status, refused.result(60).status} == {200}


@pytest.mark.parametrize("model", ["toy", "outthink/single", "outthink/self-consistency@3"])
def test_waiting_for_a_backend_that_serves_another_model_ends(model: str) -> None:
    gate = Gate()
    with (
        ChatServer(held(gate), routes={"/v1/models": models("toy", "small")}) as backend,
        ProxyServer(BackendSettings(url=backend.url, limit=1), admission={"queue_seconds": 0.2}) as proxy,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(proxy.chat, "small")
        until(lambda: backend.calls, "the only call")
        got = proxy.chat(model)
        assert (got.status, got.error["code"], got.headers["retry-after"]) == (429, "backend_busy", "1")
        gate.open()
        assert first.result(60).status == 200
