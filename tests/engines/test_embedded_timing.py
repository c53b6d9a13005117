"""How soon the embedded model ends and stops, beside how long it takes to start and to write."""

from __future__ import annotations

import asyncio
import time

import pytest
from embedded_files import needs_model

from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call

pytestmark = [pytest.mark.timing, pytest.mark.embedded, needs_model]


def call(tokens: int) -> Call:
    return Call((Message("user", "Tell a long story."),), Sampling(max_tokens=tokens))


def test_closing_takes_a_fraction_of_opening() -> None:
    async def main() -> tuple[float, float]:
        engine, began = EmbeddedEngine(), time.monotonic()
        await engine.prepare(call(900))
        opened = time.monotonic()
        await engine.aclose()
        return opened - began, time.monotonic() - opened

    opening, closing = asyncio.run(main())
    assert closing < opening / 2


def test_leaving_frees_the_slot_before_the_story_would_have_ended() -> None:
    async def main() -> tuple[float, float]:
        engine = EmbeddedEngine(threads=1)
        try:
            await engine.prepare(call(900))
            began = time.monotonic()
            async for _ in engine.generate(call(100)):
                pass
            hundred = time.monotonic() - began
            events = engine.generate(call(900))
            await anext(events)
            await events.aclose()
            began = time.monotonic()
            assert engine._server is not None
            while any(
                slot["is_processing"] for slot in (await engine._server.client.server.fetch("/slots", root=True)).json()
            ):
                await asyncio.sleep(0.01)
            return hundred, time.monotonic() - began
        finally:
            await engine.aclose()

    hundred, freed = asyncio.run(main())
    assert freed < hundred
