"""Deadlines in real time: how long after one the answers are here, as a share of what was given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

import outthink as ot
from outthink import ScriptedEngine, Speed
from outthink.engines.protocol import Call, Delta, Event
from support.runs import PROMPT

pytestmark = pytest.mark.timing
SLOW = Speed(stream=100, total=1e9, prefill=5e6, concurrency=16)


def timed(model: Any, **options: Any) -> tuple[ot.Result, float]:
    """A result, and the seconds that it took beyond those of a request that is answered at once."""

    async def run() -> tuple[ot.Result, float]:
        began = time.monotonic()
        await ot.ask(PROMPT, model=ScriptedEngine.sequence(["391"], speed=SLOW), answer="number")
        at_once, began = time.monotonic() - began, time.monotonic()
        result = await ot.ask(PROMPT, model=model, answer="number", **options)
        return result, time.monotonic() - began - at_once

    return asyncio.run(run())


def test_ask_returns_shortly_after_its_deadline_with_the_answers_so_far() -> None:
    engine = ScriptedEngine.sequence(["391"], tokens=[20, 9000], speed=SLOW).live()
    options = {"strategy": "self-consistency:n=2", "budget": "seconds=1", "max_tokens": 9000}
    result, took = timed(engine, **options)
    assert (result.answer, result.stopped) == ("391", "budget:seconds")
    assert result.receipt.seconds >= 1
    assert took <= 1.25  # the contract: a quarter of a second late at most
    assert [entry.status for entry in result.receipt.entries] == ["finished", "cancelled"]
    assert result.receipt.tokens is not None


class Clinging(ScriptedEngine):
    """An engine whose calls take half a minute to end when they are cancelled."""

    async def generate(self, call: Call) -> AsyncIterator[Event]:
        """A word every 20 ms."""
        try:
            while True:
                yield Delta("word ", tokens=1)
                await asyncio.sleep(0.02)
        finally:
            await asyncio.sleep(30)


def test_an_engine_that_does_not_let_go_cannot_hold_up_a_deadline() -> None:
    engine = Clinging(lambda call: ot.Completion(answer="391"), speed=SLOW).live()
    result, took = timed(engine, strategy="self-consistency:n=3", budget="seconds=1")
    assert took <= 1.25
    assert result.stopped == "budget:seconds"
    assert len(result.receipt.entries) == 3
