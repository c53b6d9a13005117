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


def test_how_to_draw_is_said_alike_to_one_question_and_to_a_batch() -> None:
    drawn: list[ot.Sampling] = []

    def script(call: ot.Call) -> ot.Completion:
        drawn.append(call.sampling)
        return ot.Completion(answer="391", tokens=5)

    how = {"temperature": 0.5, "max_tokens": 60, "reasoning_effort": "low", "thinking_tokens": 20}
    with ot.SyncClient(ot.ScriptedEngine(script), answer="number", **how) as client:
        client.ask(PROMPT, strategy="single")
        client.ask_batch([PROMPT], at_most=1)
        client.ask_batch([PROMPT], at_most=1, thinking_tokens=10)
    first, batch, other = drawn
    assert (batch.reasoning_effort, batch.thinking_tokens, batch.temperature) == ("low", 20, 0.5)
    assert first == batch
    assert other.thinking_tokens == 10


@pytest.mark.parametrize("strategy", ["beam:n=4", "mcts:n=4", "dvts:n=4"])
def test_a_verifier_that_a_strategy_cannot_use_is_refused_before_anything_is_drawn(strategy: str) -> None:
    engine = scripted()
    with pytest.raises(ot.BadInput, match=r"'logprob' judges finished samples, and .* scores unfinished ones"):
        ot.ask_sync(PROMPT, model=engine, answer="number", strategy=strategy, verifier="logprob")
    assert engine.calls == []
