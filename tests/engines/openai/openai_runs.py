"""Short ways to run an engine in these tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from outthink.core.request import Message, Sampling
from outthink.engines.openai import OpenAIEngine
from outthink.engines.protocol import Call, Delta, Event, Finish
from support.chat_server import Answer, ChatServer, Seen, whole
from support.fake_transport import FakeReply, FakeTransport


def ask(text: str = "Hi", *, most: int = 64, **fields: Any) -> Call:
    """A call with one user message."""
    sampling = fields.pop("sampling", None) or Sampling(max_tokens=most)
    return Call((Message("user", text),), sampling, **fields)


async def collect(engine: OpenAIEngine, call: Call) -> list[Event]:
    """All events of a completion."""
    return [event async for event in engine.generate(call)]


def run(
    answer: Answer,
    call: Call | None = None,
    *,
    routes: dict[str, Answer] | None = None,
    **options: Any,
) -> tuple[list[Event], list[Seen], OpenAIEngine]:
    """Run one call against a scripted server: its events, the chat requests and the engine."""
    with ChatServer(answer, routes=routes) as server:
        engine = OpenAIEngine(server.url, options.pop("model", "toy"), memory=options.pop("memory", None), **options)

        async def main() -> list[Event]:
            try:
                return await collect(engine, call or ask())
            finally:
                await engine.aclose()

        return asyncio.run(main()), server.calls, engine


def text(events: list[Event]) -> str:
    """The new text of a completion."""
    return "".join(event.text for event in events if isinstance(event, Delta))


def thought(events: list[Event]) -> str:
    """The reasoning of a completion."""
    return "".join(event.reasoning for event in events if isinstance(event, Delta))


def deltas(events: list[Event]) -> list[Delta]:
    """The deltas of a completion."""
    return [event for event in events if isinstance(event, Delta)]


def finish(events: list[Event]) -> Finish:
    """The last event, which must be the only Finish."""
    last = events[-1]
    assert isinstance(last, Finish)
    assert not any(isinstance(event, Finish) for event in events[:-1])
    return last


def fake(answer: Callable[[str, str, dict[str, Any]], FakeReply], **options: Any) -> tuple[OpenAIEngine, FakeTransport]:
    """An engine over a transport without a network."""
    transport = FakeTransport(answer)
    engine = OpenAIEngine("http://fake.test", options.pop("model", "toy"), memory=None, transport=transport, **options)
    return engine, transport


NOT_FOUND = whole({"detail": "Not Found"}, 404)
