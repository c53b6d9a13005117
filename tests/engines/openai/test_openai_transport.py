"""The seam to the network: cancellation, event loops, connections, time-outs, and a transport of one's own."""

from __future__ import annotations

import asyncio
import gc
import gzip
from typing import Any

import pytest
from openai_runs import ask, collect, fake, finish, run, text

from outthink.core.errors import EngineError
from outthink.engines.openai import OpenAIEngine
from outthink.engines.protocol import Delta, Engine
from outthink.http.transport import HttpxTransport, Timeouts, TransportFault
from support.chat_server import DONE, ChatServer, Gate, Hang, Reply, chat, chunk, models, stream, whole
from support.fake_transport import FakeReply
from support.waiting import PATIENCE, eventually

ENDLESS = stream(chunk("A"), chunk("B"), Hang())
SILENT = Reply((), before=(Hang(),))


def test_it_is_an_engine() -> None:
    engine: Engine = OpenAIEngine("http://h", "toy", memory=None, concurrency=7)
    assert (engine.model, engine.concurrency) == ("toy", 7)
    assert engine.features.full_logprobs is False


def test_closing_the_iterator_closes_the_connection() -> None:
    with ChatServer(ENDLESS) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            events = engine.generate(ask())
            assert isinstance(await anext(events), Delta)
            await events.aclose()
            assert await asyncio.to_thread(server.calls[0].gone.wait, PATIENCE)
            await engine.aclose()

        asyncio.run(main())


@pytest.mark.parametrize("reply", [ENDLESS, SILENT])
def test_cancelling_the_task_closes_the_connection(reply: Reply) -> None:
    with ChatServer(reply) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            task = asyncio.create_task(collect(engine, ask()))
            await eventually(lambda: server.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.calls[0].gone.wait, PATIENCE)
            await engine.aclose()

        asyncio.run(main())


def test_leaving_the_loop_of_one_leaves_the_others_alone() -> None:
    def answer(seen: Any) -> Reply:
        return ENDLESS if seen.body.get("seed") == 1 else chat(["A"] * 5, delay=0.02)

    with ChatServer(answer) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            rest = [asyncio.create_task(collect(engine, ask(seed=seed))) for seed in (2, 3)]
            async for _ in engine.generate(ask(seed=1)):
                break
            assert [text(await task) for task in rest] == ["AAAAA", "AAAAA"]
            await engine.aclose()

        asyncio.run(main())


def test_connections_are_used_again() -> None:
    with ChatServer(chat(), routes={"/v1/models": models("a", "b")}) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, memory=None)
            for _ in range(5):
                await collect(engine, ask())
            assert engine.model == "a"
            await engine.aclose()

        asyncio.run(main())
        assert server.connections == 1
        assert server.calls[0].body["model"] == "a"


def test_as_many_at_once_as_are_asked_for() -> None:
    gate = Gate()
    with ChatServer(stream(gate, chunk("A"), chunk(finish="stop"), DONE)) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None, concurrency=128)
            tasks = [asyncio.create_task(collect(engine, ask())) for _ in range(128)]
            await eventually(lambda: server.most_at_once == 128)
            gate.open()
            await asyncio.gather(*tasks)
            await engine.aclose()

        asyncio.run(main())


def test_an_engine_lives_through_several_event_loops() -> None:
    with ChatServer(chat()) as server:
        engine = OpenAIEngine(server.url, memory=None)
        for _ in range(3):
            assert text(asyncio.run(collect(engine, ask()))) == "Hello world"
        gc.collect()  # a connection that was not closed would warn here, and warnings are errors
        assert server.connections == 3


def test_calls_of_different_loops_at_once() -> None:
    with ChatServer(chat(delay=0.01)) as server:
        engine = OpenAIEngine(server.url, memory=None)

        async def main() -> list[str]:
            def other() -> str:
                return text(asyncio.run(collect(engine, ask())))

            runs = [asyncio.to_thread(other) for _ in range(4)]
            return [text(await collect(engine, ask())), *await asyncio.gather(*runs)]

        assert asyncio.run(main()) == ["Hello world"] * 5


def test_an_engine_may_be_used_after_closing() -> None:
    with ChatServer(chat()) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            for _ in range(2):
                await collect(engine, ask())
                await engine.aclose()
            await engine.aclose()

        asyncio.run(main())


def test_a_server_that_closes_idle_connections() -> None:
    with ChatServer(chat()) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            await collect(engine, ask())
            server.hang_up()
            await eventually(lambda: not server.open)
            assert text(await collect(engine, ask())) == "Hello world"
            await engine.aclose()

        asyncio.run(main())
        assert server.connections == 2


def test_a_server_that_closes_unannounced_gets_a_connection_for_each_request() -> None:
    with ChatServer(chat(headers=(("server", "llama.cpp"),))) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            for _ in range(3):
                await collect(engine, ask())
            await engine.aclose()

        asyncio.run(main())
        assert [seen.headers["connection"] for seen in server.calls] == ["keep-alive", "close", "close"]


def test_compressed_bodies_are_read() -> None:
    body = gzip.compress(chunk("A") + chunk(finish="stop") + DONE)
    events, calls, _ = run(Reply((body[:20], body[20:]), headers=(("content-encoding", "gzip"),)))
    assert text(events) == "A"
    assert calls[0].headers["accept-encoding"] == "identity"


def test_user_and_password_of_the_url_are_sent() -> None:
    with ChatServer(chat()) as server:
        engine = OpenAIEngine(server.url.replace("//", "//me:pw@"), "toy", memory=None)
        asyncio.run(collect(engine, ask()))
        assert server.calls[0].headers["authorization"].startswith("Basic ")
        assert "pw" not in engine.url


def test_a_connection_that_cannot_be_made_in_time() -> None:
    async def main() -> None:
        transport = HttpxTransport(1, secure=False, proxies=False)
        with pytest.raises(TransportFault) as caught:
            # An address that is reserved for documentation: nothing answers there.
            await transport.open("GET", "http://192.0.2.1:9/", {}, None, Timeouts(connect=0.05))
        assert caught.value.kind in ("connect", "idle")
        await transport.aclose()

    asyncio.run(main())


def test_another_transport_takes_the_place_of_the_network() -> None:
    body = chunk("A") + chunk("B", finish="stop") + DONE

    def answer(method: str, url: str, sent: dict[str, Any]) -> FakeReply:
        return FakeReply([body[:7], body[7:90], body[90:]])

    engine, transport = fake(answer, api_key="k", idle_timeout=3.0)

    async def main() -> None:
        events = await collect(engine, ask())
        assert text(events) == "AB"
        assert finish(events).finish_reason == "stop"
        await engine.aclose()

    asyncio.run(main())
    method, url, headers, sent = transport.sent[0]
    assert (method, url) == ("POST", "http://fake.test/v1/chat/completions")
    assert headers["authorization"] == "Bearer k"
    assert sent["model"] == "toy"
    assert transport.timeouts == Timeouts(10.0, 3.0)
    assert transport.replies[0].closed
    assert transport.closed


def test_a_fault_of_another_transport_is_worded() -> None:
    engine, transport = fake(lambda *_: FakeReply([chunk("A"), TransportFault("idle")]))
    with pytest.raises(EngineError, match="sent nothing for 60 s"):
        asyncio.run(collect(engine, ask()))
    assert transport.replies[0].closed


@pytest.mark.parametrize("listed", [["first", "second"], []])
def test_the_first_model_of_the_list(listed: list[str]) -> None:
    with ChatServer(chat(), routes={"/v1/models": models(*listed)}) as server:
        engine = OpenAIEngine(server.url, memory=None)
        assert engine.model == server.url
        if listed:
            asyncio.run(engine.prepare(ask()))
            asyncio.run(engine.prepare(ask()))
            assert engine.model == "first"
            assert len(server.seen) == 1
        else:
            with pytest.raises(EngineError, match="serves no model") as caught:
                asyncio.run(engine.prepare(ask()))
            assert caught.value.fatal


@pytest.mark.parametrize(("meta", "parameters"), [({"n_params": 134_515_008}, 134_515_008), ({"n_params": "?"}, None)])
def test_parameters_that_the_list_tells(meta: dict[str, Any], parameters: int | None) -> None:
    listed = whole({"object": "list", "data": [{"id": "toy", "meta": meta}, {"id": "other", "meta": None}]})
    with ChatServer(chat(), routes={"/v1/models": listed}) as server:
        engine = OpenAIEngine(server.url, memory=None)
        assert engine.parameters is None
        asyncio.run(engine.prepare(ask()))
        assert (engine.parameters, engine.parameters_told) == (parameters, True)


def test_many_calls_look_the_model_up_once() -> None:
    with ChatServer(chat(), routes={"/v1/models": models("toy")}) as server:

        async def main() -> None:
            engine = OpenAIEngine(server.url, memory=None)
            await asyncio.gather(*(collect(engine, ask()) for _ in range(8)))
            await engine.aclose()

        asyncio.run(main())
        assert [seen.path for seen in server.seen].count("/v1/models") == 1


def test_a_server_without_a_list_of_models() -> None:
    with ChatServer(chat()) as server:
        del server.routes["/v1/models"]
        engine = OpenAIEngine(server.url, memory=None)
        asyncio.run(collect(engine, ask()))
        assert server.calls[0].body["model"] == "default"
