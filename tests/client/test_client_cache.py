"""Cached responses belong to one model at one address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import outthink as ot
from support.chat_server import ChatServer, chat, models


def test_a_cache_of_responses_is_kept_under_the_whole_address_and_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    async def twice(model: str | Callable[[], ot.Engine]) -> None:
        async with ot.Client(model=model, answer="number", cache=True, seed=1) as client:
            for _ in range(2):
                assert (await client.ask("What is 17 * 23?", strategy="single")).answer == "391"

    other_path = {"/other/v1/chat/completions": chat("391"), "/other/v1/models": models("toy")}
    with ChatServer(chat("391"), routes=other_path) as server, ChatServer(chat("391")) as other:
        for _ in range(2):
            asyncio.run(twice(server.url))
        assert len(server.calls) == 1
        asyncio.run(twice(lambda: ot.OpenAIEngine(server.url, "toy")))  # the same server and model, named this time
        assert len(server.calls) == 1
        asyncio.run(twice(lambda: ot.OpenAIEngine(server.url, "toy-2")))
        assert len(server.calls) == 2
        asyncio.run(twice(server.url.replace("/v1", "/other/v1")))
        assert len(server.calls) == 3
        for _ in range(2):
            asyncio.run(twice(lambda: ot.OpenAIEngine(other.url, "toy")))
        assert len(other.calls) == 1
        for calls, user, term in ((4, "u:p@", ""), (5, "v:p@", ""), (6, "", "?deployment=b"), (6, "", "")):
            asyncio.run(twice(server.url.replace("//", f"//{user}") + term))
            assert len(server.calls) == calls
        server.routes["/v1/models"] = models("another")  # the first model of the server is another one now
        asyncio.run(twice(server.url))
        assert len(server.calls) == 7
