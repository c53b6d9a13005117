"""What a caller states of a model counts, and what is no such thing is refused by its field."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outthink as ot

PROMPT = "What is 17 * 23?"


def scripted() -> ot.ScriptedEngine:
    """An engine that nothing is known of."""
    return ot.ScriptedEngine.sequence(["391"])


def test_stated_parameters_decide_the_flops() -> None:
    async def asked(**options: Any) -> ot.Receipt:
        return (await ot.ask(PROMPT, model=scripted(), answer="number", strategy="single", **options)).receipt

    receipt = asyncio.run(asked(parameters=1_000_000))
    assert receipt.flops == 2 * 1_000_000 * receipt.tokens
    assert asyncio.run(asked()).flops is None, "nothing is known of a scripted model"


@pytest.mark.parametrize("size", [0, -5, 0.5, True, "7B"])
def test_parameters_are_a_count(size: Any) -> None:
    with pytest.raises(ot.BadInput, match=r"parameters: .* is no number of weights; give a whole number above 0"):
        asyncio.run(ot.ask(PROMPT, model=scripted(), parameters=size))


def test_the_model_may_stand_first_without_its_name() -> None:
    with ot.SyncClient(scripted(), answer="number") as client:
        assert client.ask(PROMPT).answer == "391"
    with pytest.raises(ot.BadInput, match="model: 'embedded' is a second one; give several as one list"):
        ot.Client("data/model.gguf", model="embedded")
