"""The embedded model stays warm between questions, and grows for a longer one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

import outthink as ot

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from embedded_files import needs_model

pytestmark = [pytest.mark.embedded, needs_model]


async def begun(session: ot.Session, request: ot.Request) -> ot.Verdict:
    """One call that is stopped as soon as it has begun."""
    async for _ in session.sample(request, watch=lambda progress: "stop"):
        pass
    return ot.Verdict(None, "begun")


def test_the_second_question_finds_the_model_ready_and_a_longer_one_restarts_it() -> None:
    engine = ot.EmbeddedEngine(threads=1)

    async def run() -> list[int | None]:
        numbers = []
        async with ot.Client(model=lambda: engine) as client:
            for most in (4, 4, 1500, 4):
                result = await client.ask("Hi?", strategy=begun, max_tokens=most)
                assert [entry.status for entry in result.receipt.entries] == ["stopped"]
                numbers.append(engine.pid)
        assert engine.pid is None  # opened by the client, so closed by it
        return numbers

    first, second, longer, last = asyncio.run(run())
    assert first == second != longer == last
