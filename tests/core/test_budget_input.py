"""Budgets as users write them: what is wrong, where, and what to do about it."""

from __future__ import annotations

import pytest

from outthink import BadInput, Budget


def test_all_four_currencies_are_read() -> None:
    assert Budget.parse("tokens=4000, seconds=20,usd=0.5,joules=9") == Budget(
        tokens=4000, seconds=20, usd=0.5, joules=9
    )
    assert Budget.parse("dollars=1") == Budget(usd=1)
    assert Budget.parse("tokens=1e4").tokens == 10_000
    assert isinstance(Budget.parse("tokens=4000").tokens, int)


def test_currencies_with_a_ceiling_are_listed() -> None:
    budget = Budget(tokens=5, joules=2.0)
    assert budget.limited == ("tokens", "joules")
    assert budget.get("seconds") is None
    assert budget.get("joules") == 2.0


@pytest.mark.parametrize(
    ("text", "field", "value", "remedy"),
    [
        ("", "budget", "", "tokens=4000"),
        (" , ", "budget", " , ", "tokens=4000"),
        ("euros=3", "budget", "euros=3", "usd"),
        ("tokens", "budget", "tokens", "tokens=4000"),
        ("tokens=", "budget tokens", "", "tokens=4000"),
        ("tokens=many", "budget tokens", "many", "tokens=4000"),
        ("tokens=1.5", "budget tokens", "1.5", "round"),
        ("tokens=0", "budget tokens", "0", "more than 0"),
        ("seconds=-1", "budget seconds", "-1", "leave it out"),
        ("seconds=nan", "budget seconds", "nan", "more than 0"),
        ("usd=inf", "budget usd", "inf", "more than 0"),
        ("usd=1,dollars=2", "budget", "dollars=2", "once"),
    ],
)
def test_an_error_names_field_value_and_remedy(text: str, field: str, value: str, remedy: str) -> None:
    with pytest.raises(BadInput) as caught:
        Budget.parse(text)
    assert caught.value.field == field
    assert value in str(caught.value)
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_boolean_is_no_amount() -> None:
    with pytest.raises(BadInput):
        Budget(tokens=True)
