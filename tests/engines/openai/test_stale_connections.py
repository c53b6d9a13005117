"""A server that closes kept connections without saying so must not cost a sample, and none may be paid for twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from outthink.core.request import Message, Sampling
from outthink.engines.openai import OpenAIEngine
from outthink.engines.protocol import Call, Finish
from support.chat_server import ChatServer, chat
from support.waiting import eventually

pytestmark = pytest.mark.faults


def test_requests_on_connections_that_were_closed_meanwhile_are_sent_again(tmp_path) -> None:
    call = Call((Message("user", "x"),), Sampling())

    async def one(engine: OpenAIEngine) -> bool:
        async with aclosing(engine.generate(call)) as events:
            return any([isinstance(event, Finish) async for event in events])

    async def go(server: ChatServer) -> int:
        engine = OpenAIEngine(server.url, "toy", memory=None)
        done = 0
        try:
            for _ in range(10):
                done += sum(await asyncio.gather(*(one(engine) for _ in range(4))))
                server.hang_up()  # while the client believes that it can use them again
                await eventually(lambda: not server.open)
        finally:
            await engine.aclose()
        return done

    with ChatServer(chat()) as server:
        assert asyncio.run(go(server)) == 40
