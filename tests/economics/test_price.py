"""Prices: user-given arithmetic, the published catalogue, and bounds that hold."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.economics import price as catalogue
from outthink.economics.price import CataloguePrice, Price, lookup

OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
DEEPSEEK = "https://api.deepseek.com/v1"


def test_parses_the_two_numbers_of_the_flag() -> None:
    assert Price.parse("0.15, 0.60") == Price(0.15, 0.60)
    assert Price.parse("0.15,0.60,0.075") == Price(0.15, 0.60, 0.075)
    assert Price.parse("0,0").cost(10, 0, 10) == 0


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "a,b", "-1,2", "nan,1", "inf,1", "1,"])
def test_refuses_what_is_no_price(text: str) -> None:
    with pytest.raises(BadInput, match="price"):
        Price.parse(text)


def test_costs_per_million_tokens() -> None:
    price = Price(2.0, 8.0, 0.5)
    assert price.cost(1_000_000, 0, 0) == 2.0
    assert price.cost(1_000_000, 1_000_000, 0) == 0.5
    assert price.cost(0, 0, 500_000) == 4.0
    assert Price(2.0, 8.0).cost(100, 100, 0) == Price(2.0, 8.0).cost(100, 0, 0)


@given(
    st.tuples(*[st.floats(0, 100)] * 3),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_cost_exceeds_the_bound(
    rates: tuple[float, float, float], prompt: int, completion: int, p: float, c: float, share: float
) -> None:
    price = Price(*rates)
    used = int(prompt * p)
    cost = price.cost(used, int(used * share), int(completion * c))
    assert cost <= price.bound(prompt, completion) * (1 + 1e-12)


def test_published_price_of_a_known_model() -> None:
    price = lookup("gpt-4o-mini", OPENAI)
    assert price is not None
    assert price.cost(1_000_000, 0, 0) == pytest.approx(0.15)
    assert price.cost(0, 0, 1_000_000) == pytest.approx(0.60)
    assert price.cost(1000, 1000, 0) < price.cost(1000, 0, 0)
    assert price.cost(10, 20, 0) == price.cost(10, 10, 0), "a server that counts too many cached tokens"


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("no-such-model", OPENAI),
        ("gpt-4o-mini", "http://localhost:8080/v1"),
        ("qwen2.5-coder-0.5b-instruct-q4", None),
        ("text-embedding-3-small", OPENAI),
        ("meta-llama/llama-3.2-3b-instruct:free", "https://openrouter.ai/api/v1"),
    ],
)
def test_unknown_is_none_and_never_zero(model: str, url: str | None) -> None:
    assert lookup(model, url) is None


def test_tiers_are_those_of_the_catalogue() -> None:
    price = lookup("gemini-2.5-pro", GOOGLE)
    assert price is not None
    below, above = price.cost(200_000, 0, 0), price.cost(200_001, 0, 0)
    assert above > 1.9 * below, "crossing a tier reprices all tokens"
    assert price.bound(200_001, 10) >= above
    assert price.bound(200_000, 0) == below


def _settled_at(price: CataloguePrice, hour: int, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(catalogue, "_now", lambda: datetime(2026, 10, 5, hour, 10, tzinfo=UTC))
    return price.cost(1000, 0, 1000)


def test_a_reservation_outlives_a_change_of_price_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    price = lookup("deepseek-chat", DEEPSEEK)
    assert price is not None
    by_hour = [_settled_at(price, hour, monkeypatch) for hour in range(24)]
    if min(by_hour) == max(by_hour):
        pytest.skip("the installed snapshot has no price by the hour any more")
    for hour in range(24):
        monkeypatch.setattr(catalogue, "_now", lambda hour=hour: datetime(2026, 10, 5, hour, 10, tzinfo=UTC))
        assert price.bound(1000, 1000) >= max(by_hour)


@pytest.mark.parametrize(("model", "url"), [("gpt-4o-mini", OPENAI), ("gemini-2.5-pro", GOOGLE)])
def test_no_published_cost_exceeds_its_bound(model: str, url: str) -> None:
    price = lookup(model, url)
    assert price is not None
    for prompt in (0, 1, 200_000, 200_001, 300_000):
        bound = price.bound(prompt, 1000)
        for used in (0, prompt // 2, prompt):
            for cached in (0, used // 2, used):
                assert price.cost(used, cached, 999) <= bound


def test_the_catalogue_is_loaded_on_first_use_and_offline() -> None:
    script = (
        "import sys, socket\n"
        "import outthink.economics.tariff as t\n"
        "assert 'genai_prices' not in sys.modules\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "assert t.lookup('gpt-4o-mini', 'https://api.openai.com/v1').cost(1000, 0, 0) > 0\n"
        "import threading; assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
