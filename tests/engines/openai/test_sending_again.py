"""A sample is asked for again only where the server cannot have begun it, and at most twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.errors import EngineError
from outthink.core.request import Budget, Message, Request, Sampling
from outthink.economics.tariff import Tariff
from outthink.engines.openai import OpenAIEngine
from outthink.session.calls import Retries
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.session import Session
from support.chat_server import ChatServer, Drop, chat, models, stream
from support.hostile_server import ACTS, CUTS, FAILURES, REFUSALS, HostileServer

pytestmark = pytest.mark.faults
QUICK = Retries(first=0.001, longest=1.0)


def ask(
    server: Any, wanted: int, ahead: int = 4, *, rounds: int = 1, idle: bool = False, model: str | None = "toy"
) -> list[Any]:
    """Samples of each round, or the error it ended in, and the receipts; with `idle` connections close in between."""

    async def main() -> list[Any]:
        engine = OpenAIEngine(server.url, model, memory=None, idle_timeout=5.0)
        got: list[Any] = []
        try:
            for _ in range(rounds):
                opened = open_session(
                    [Source(engine, Tariff.of("toy"))],
                    budget=Budget(tokens=100_000),
                    options=SessionOptions(retries=QUICK),
                )
                session = opened.session

                async def collect(session: Session = session) -> list[Any]:
                    request = Request(
                        messages=(Message("user", "2 + 2?"),), sampling=Sampling(max_tokens=64), answer="number"
                    )
                    return [sample async for sample in session.sample(request, n=wanted, ahead=ahead)]

                try:
                    got.append((await opened.run(collect()), session.receipt()))
                except EngineError as error:
                    got.append((error, session.receipt()))
                if idle:
                    server.hang_up()
                    while server.open:
                        await asyncio.sleep(0)
            return got
        finally:
            await engine.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize("act", [*FAILURES, *CUTS])
def test_what_may_have_been_begun_is_sent_once(act: str) -> None:
    with HostileServer(*[act] * 9) as server:
        (error, _), *_ = ask(server, 1)
        assert isinstance(error, EngineError)
        assert server.read == 1


@pytest.mark.parametrize("act", [act for act in REFUSALS if "later" not in act])
@pytest.mark.parametrize("times", [1, 2, 3, 9])
def test_what_was_refused_unread_is_sent_at_most_twice_more(act: str, times: int) -> None:
    with HostileServer(*[act] * times) as server:
        (samples, _), *_ = ask(server, 1)
        assert server.read == min(times + 1, 3)
        assert isinstance(samples, EngineError) == (times > 2)


@pytest.mark.parametrize("act", ["429 later", "503 later"])
def test_who_is_asked_to_wait_for_too_long_does_not_ask_again(act: str) -> None:
    with HostileServer(act) as server:
        (error, _), *_ = ask(server, 1)
        assert isinstance(error, EngineError)
        assert (server.read, error.retry_after) == (1, 30)


@pytest.mark.parametrize("act", ["read, then closed", "read, then reset", "head, then closed"])
def test_a_call_that_was_lost_after_it_was_sent_has_an_unknown_cost(act: str) -> None:
    with HostileServer(act) as server:
        (_, receipt), *_ = ask(server, 1)
    (entry,) = receipt.entries
    assert (entry.status, entry.estimated, receipt.tokens) == ("failed", True, None)
    assert entry.reserved_tokens >= 64


def test_a_refused_call_costs_nothing() -> None:
    with HostileServer("429") as server:
        (_, receipt), *_ = ask(server, 1)
    assert [entry.tokens for entry in receipt.entries] == [0, 7]


def test_connections_that_the_server_has_closed_while_they_were_idle_cost_no_sample() -> None:
    with HostileServer() as server:
        got = ask(server, 4, rounds=6, idle=True)
        assert [len(samples) for samples, _ in got] == [4] * 6
        assert server.read == 24


@pytest.mark.parametrize("first", [False, True])
def test_a_kept_connection_on_which_a_request_was_read_and_dropped_is_none_that_was_stale(first: bool) -> None:
    script = ["read, then closed"] if first else ["good", "read, then closed"]
    with HostileServer(*script) as server:
        got = ask(server, 1, rounds=2)
        assert server.read == 2
        assert [isinstance(result, EngineError) for result, _ in got] == [first, not first]


def test_a_list_of_models_that_was_dropped_is_asked_for_again_and_costs_nothing() -> None:
    broken = iter([stream(Drop(), before=(Drop(),)), stream(Drop(), before=(Drop(),))])
    with ChatServer(chat(["4"]), routes={"/v1/models": lambda seen: next(broken, None) or models("toy")}) as server:
        (samples, receipt), *_ = ask(server, 1, model=None)
        *failed, last = (entry.tokens for entry in receipt.entries)
        assert (set(failed), last, len(samples), len(server.calls)) == ({0}, 7, 1, 1)


def test_a_server_that_nobody_reaches_is_asked_three_times() -> None:
    with HostileServer() as server:
        pass
    (error, receipt), *_ = ask(server, 1)
    assert isinstance(error, EngineError)
    assert [entry.tokens for entry in receipt.entries] == [0] * 3


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(st.sampled_from(ACTS), max_size=8),
    doors=st.lists(st.booleans(), max_size=4),
    partial=st.lists(st.sampled_from([False, False, True]), max_size=4),
    wanted=st.integers(1, 4),
    ahead=st.integers(1, 4),
)
def test_no_server_reads_more_than_the_samples_and_what_it_refused(
    script: list[str], doors: list[bool], partial: list[bool], wanted: int, ahead: int
) -> None:
    with HostileServer(*script, doors=tuple(doors), partial=tuple(partial)) as server:
        (samples, _), *_ = ask(server, wanted, ahead)
        assert server.read <= wanted + server.refused
        assert server.read <= 3 * wanted
        if set(script) <= {"good"} and not any(doors) and not any(partial):
            assert len(samples) == wanted
