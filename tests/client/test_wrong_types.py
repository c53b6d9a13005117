"""Options of the wrong type are refused in one line that names them, before anything is drawn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import outthink as ot


def engine() -> ot.ScriptedEngine:
    return ot.ScriptedEngine.sequence(["4"] * 9, tokens=5)


@pytest.mark.parametrize(
    "prompt", [None, 3, float("nan"), b"hi", {"role": "user"}, [{"role": "user", "content": 3}], [5]]
)
def test_prompts(prompt) -> None:
    with pytest.raises(ot.BadInput, match=r"prompt|messages"):
        ot.ask_sync(prompt, model=engine())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [1.5, "x", None, True]),
        ("temperature", ["x", None, True]),
        ("seed", ["x", 1.5, True]),
        ("ahead", ["x", None, 1.5]),
        ("thinking_tokens", ["x", 1.5]),
        ("system", [3, b"x"]),
        ("reasoning_effort", [3]),
        ("answer", [["number"], 3, None]),
        ("strategy", [5]),
        ("policy", [5]),
        ("cache", ["x", None]),
        ("price", ["1,2", 5]),
        ("energy", ["1,2", 5]),
        ("observer", [5]),
        ("opened", [5]),
        ("planned", [5]),
    ],
)
def test_options(name, values) -> None:
    for value in values:
        with pytest.raises(ot.BadInput, match=rf"^{name}") as refused:
            ot.ask_sync("2 + 2?", **{"model": engine(), "answer": "number", name: value})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("model", [5, None, object(), [engine(), 5], lambda: 5, Path("/none.gguf")])
def test_models(model) -> None:
    with pytest.raises(ot.BadInput, match=r"^model"):
        ot.ask_sync("2 + 2?", model=model)


def test_a_strategy_that_is_none() -> None:
    async def number(session, request):
        return 3

    for strategy, problem in ((lambda session, request: None, "no async function"), (number, "gave no Verdict")):
        with pytest.raises(ot.BadInput, match=problem):
            ot.ask_sync("2 + 2?", model=engine(), strategy=strategy)


@pytest.mark.parametrize("prompts", [None, "one question", 5])
def test_a_batch_is_a_list(prompts) -> None:
    with pytest.raises(ot.BadInput, match=r"^prompts"):
        asyncio.run(ot.ask_batch(prompts, model=engine()))


def test_a_journal_may_be_named_by_text(tmp_path) -> None:
    result = asyncio.run(ot.ask_batch(["2 + 2?"], model=engine(), at_most=2, journal=str(tmp_path / "journal")))
    assert result.results[0].answer == "4"
    assert (tmp_path / "journal").exists()


def test_a_nested_budget_is_written_as_any_other() -> None:
    async def nested(session, request):
        with session.within({"tokens": 1}) as inner:
            samples = [sample async for sample in inner.sample(request)]
        return ot.Verdict(str(len(samples)), "")

    assert ot.ask_sync("2 + 2?", model=engine(), strategy=nested).answer == "0"
