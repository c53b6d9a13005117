"""How soon the engine lets go of a connection, and how long it waits for a server that is slow."""

from __future__ import annotations

import asyncio
import time

import pytest
from openai_runs import ask, collect, run, text

from outthink.engines.openai import OpenAIEngine
from support.chat_server import DONE, ChatServer, Hang, Reply, chat, chunk, stream
from support.waiting import PATIENCE, at_once, eventually, exchange

pytestmark = pytest.mark.timing


@pytest.mark.parametrize("reply", [stream(chunk("A"), chunk("B"), Hang()), Reply((), before=(Hang(),))])
def test_a_cancelled_call_closes_its_connection_at_once(reply: Reply) -> None:
    with ChatServer(reply) as server:

        async def main(before: int) -> float:
            engine = OpenAIEngine(server.url, "toy", memory=None)
            task = asyncio.create_task(collect(engine, ask()))
            await eventually(lambda: len(server.calls) > before)
            await asyncio.sleep(0.05)  # in the middle of what it waits for
            cancelled = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.calls[-1].gone.wait, PATIENCE)
            await engine.aclose()
            return cancelled

        def latest() -> float:
            cancelled = asyncio.run(main(len(server.calls)))
            return (server.calls[-1].gone_at or PATIENCE) - cancelled

        assert at_once(server.port, latest)


def test_bytes_keep_a_slow_server_alive() -> None:
    reply = stream(*(step for _ in range(14) for step in (0.1, b": ping\n\n")), chunk("A", finish="stop"), DONE)
    assert text(run(reply, idle_timeout=1.0)[0]) == "A"


def test_the_scripted_server_is_fast_enough_for_load_tests() -> None:
    async def client(port: int, requests: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}")
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def main(port: int) -> None:
        await asyncio.gather(*(client(port, 50) for _ in range(8)))

    with ChatServer(chat([" word"] * 20)) as server:

        def ratio() -> float:
            alone, started = exchange(server.port), time.monotonic()
            asyncio.run(main(server.port))
            return (time.monotonic() - started) / (400 * alone)

        # The best of five: other work may take the cores in the middle of one.
        assert any(ratio() < 1 for _ in range(5)), "no faster than one new connection after another"
