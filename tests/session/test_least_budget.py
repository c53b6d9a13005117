"""A budget that admits no call says what the least is that works, and that amount does work."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outthink as ot

CURRENCIES = ("tokens", "usd", "joules")


def ask(budget: dict[str, float], prompt: str = "What is 17 * 23?", **options: object) -> ot.Result:
    """One request to an engine that answers 391 in 20 tokens."""
    engine = ot.ScriptedEngine.sequence(["391"], tokens=20)
    costs = {"price": ot.Price.parse("0.7,2.3"), "energy": ot.Energy.parse("0.03,0.17")}
    given = {"model": engine, "answer": "number", "budget": budget, **costs, **options}
    return asyncio.run(ot.ask(prompt, **given))


def least(result: ot.Result) -> dict[str, float]:
    """What the receipt's notes name, by currency."""
    found = re.findall(r"(\w+)=\S+ is below the least that works here: ([^;\s]+)", " ".join(result.receipt.notes))
    return {name: float(amount) for name, amount in found}


@pytest.mark.parametrize("currency", CURRENCIES)
def test_the_least_that_is_named_works_and_is_the_least(currency: str) -> None:
    refused = ask({currency: 10 if currency == "tokens" else 1e-9})
    assert (refused.answer, refused.stopped, refused.receipt.entries) == (None, f"budget:{currency}", ())
    (amount,) = least(refused).values()
    enough = ask({currency: amount})
    assert enough.answer == "391"
    assert not least(enough)
    assert not ask({currency: amount - 1 if currency == "tokens" else amount * 0.98}).receipt.entries


def test_tokens_are_the_prompts_bound_and_the_least_completion() -> None:
    # 16 bytes of question, 16 a message, 64 a chat; a completion has 64 tokens at least, or the cap.
    assert least(ask({"tokens": 10})) == {"tokens": 16 + 16 + 64 + 64}
    assert least(ask({"tokens": 10}, max_tokens=5)) == {"tokens": 16 + 16 + 64 + 5}


def test_every_currency_that_is_short_is_named() -> None:
    told = least(ask({"tokens": 10, "usd": 1e-9, "joules": 1000.0}))
    assert set(told) == {"tokens", "usd"}
    assert ask({**told, "joules": 1000.0}).answer == "391"


def test_a_budget_that_has_bought_something_is_not_called_too_small() -> None:
    result = ask({"tokens": 400}, strategy="self-consistency:n=16")
    assert result.stopped == "budget:tokens"
    assert result.receipt.entries
    assert not least(result)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(min_size=1, max_size=200).filter(str.strip),
    cap=st.integers(1, 600),
    price=st.tuples(st.floats(0, 100), st.floats(0, 100)),
)
def test_the_named_amounts_always_work(text: str, cap: int, price: tuple[float, float]) -> None:
    options = {"max_tokens": cap, "price": ot.Price.parse(f"{price[0]:.6f},{price[1]:.6f}")}
    told = least(ask({"tokens": 1, "usd": 1e-15}, text, **options))
    enough = ask({"usd": 1e9, **told}, text, **options)
    assert enough.receipt.entries
