"""Backends that take only so many calls: whoever asks waits for a place, and nobody is refused for want of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from support.chat_server import ChatServer, Hang, Reply, Seen, chat, models, whole
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
