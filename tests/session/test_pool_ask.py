"""Several models behind `ask`: a strategy of one's own draws from any of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outthink import BadInput, Price, Request, ScriptedEngine, Session, Speed, Verdict, ask

QUICK = Speed(stream=50_000, total=1e9, prefill=1e9)


def engines() -> list[ScriptedEngine]:
    return [
        ScriptedEngine.sequence(["1", "2"], tokens=50, model="small", speed=QUICK),
        ScriptedEngine.sequence(["2"], tokens=90, model="large", speed=QUICK),
    ]


async def cautious(session: Session, request: Request) -> Verdict:
    """Two small samples; the large model decides where they differ."""
    first = [sample async for sample in session.sample(request, n=2)]
    if first[0].answer == first[1].answer:
        return Verdict(first[0].answer, first[0].text)
    async for sample in session.on("large").sample(request, n=1):
        return Verdict(sample.answer, sample.text)
    return Verdict(None, "")


def run(models: Any, **options: Any) -> Any:
    return asyncio.run(ask("How many?", model=models, strategy=cautious, answer="number", **options))


@pytest.mark.parametrize("live", [False, True])
def test_one_request_on_two_models(live: bool) -> None:
    pool = [engine.live() for engine in engines()] if live else engines()
    result = run(pool, price=[Price(1.0, 1.0), Price(10.0, 10.0)])
    assert (result.answer, result.model) == ("2", "small,large")
    assert [entry.model for entry in result.receipt.entries] == ["small", "small", "large"]
    assert result.receipt.tokens == 2 * 70 + 110
    assert result.receipt.usd == pytest.approx((2 * 70 + 10 * 110) / 1e6)


def test_the_budget_holds_for_both_models() -> None:
    result = run(engines(), budget="tokens=220")
    assert result.stopped == "budget:tokens"
    assert [entry.model for entry in result.receipt.entries] == ["small", "small"]


def test_one_price_for_two_models_is_refused() -> None:
    with pytest.raises(BadInput, match="price"):
        run(engines(), price=Price(1.0, 1.0))


def test_no_model_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="model"):
        run([])


def test_the_first_model_is_the_sessions_own() -> None:
    result = asyncio.run(ask("How many?", model=engines(), strategy="self-consistency:n=2", answer="number"))
    assert {entry.model for entry in result.receipt.entries} == {"small"}
