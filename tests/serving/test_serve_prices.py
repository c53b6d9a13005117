"""What backends cost: stated prices reach receipts, budgets and ceilings, in pass-through and in strategies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.economics.price import Price
from outthink.economics.tariff import Energy
from outthink.serving.ledger import DurableLedger, Rules, open_durable
from outthink.serving.pool import BackendSettings
from outthink.serving.pool.pool import DearestPrice
from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, Reply, Seen, chat, models, whole
from support.ledgers import doing
from support.proxy_server import Got, ProxyServer

PRICE = Price(1.0, 10.0)
USD, JOULES = (5 * 1.0 + 40 * 10.0) / 1e6, 5 * 0.5 + 40 * 2.0
"""Of one reply of the backend below."""


def answer(seen: Seen) -> Reply:
    """Streamed or not, as asked for."""
    if seen.body.get("stream"):
        return chat(["4"], counts=(5, 40))
    counts = {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}
    return whole({"choices": [{"index": 0, "message": {"content": "4"}, "finish_reason": "stop"}], "usage": counts})


@pytest.fixture
def backend() -> Iterator[ChatServer]:
    with ChatServer(answer, routes={"/v1/models": models("tiny")}) as server:
        yield server


def priced(backend: ChatServer, energy: Energy | None = None) -> BackendSettings:
    return BackendSettings(url=backend.url, price=PRICE, energy=energy)


def test_receipts_count_dollars_and_joules_at_what_the_operator_has_stated(backend: ChatServer) -> None:
    with ProxyServer(priced(backend, Energy(0.5, 2.0))) as proxy:
        passed = proxy.get("/v1/receipts/" + proxy.chat("tiny").headers["x-outthink-receipt"]).json
        drawn = proxy.chat("outthink/single").json["outthink"]["receipt"]
    assert (passed["usd"], passed["joules"]) == (pytest.approx(USD), pytest.approx(JOULES))
    assert (drawn["usd"], drawn["joules"]) == (pytest.approx(USD), pytest.approx(JOULES))


def keyed(folder: Path, terms: Terms) -> tuple[DurableLedger, dict[str, str]]:
    """A ledger with one key, and the header that shows it."""
    url = f"sqlite:///{folder}/ledger.db"

    async def add(ledger: DurableLedger) -> str:
        return (await ledger.add_key("a", terms))[1]

    secret = doing(url, add)
    return open_durable(url, Rules()), {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("model", ["tiny", "outthink/single"])
def test_a_budget_in_dollars_by_month_is_never_exceeded(backend: ChatServer, tmp_path: Path, model: str) -> None:
    ledger, by = keyed(tmp_path, Terms(month=Budget(usd=0.002)))
    with ProxyServer(priced(backend), ledger=ledger) as proxy:
        replies = [proxy.chat(model, headers=by, max_tokens=40) for _ in range(8)]
    served = [reply for reply in replies if reply.status == 200]
    assert served
    assert len(served) * USD <= 0.002
    assert replies[-1].status == 429
    assert replies[-1].error["code"] == "insufficient_quota"
    assert "retry-after" in replies[-1].headers


@pytest.mark.parametrize("ceiling", [Budget(usd=0.02), Budget(joules=3000.0)])
def test_a_ceiling_on_one_request_caps_what_says_no_maximum(
    backend: ChatServer, tmp_path: Path, ceiling: Budget
) -> None:
    ledger, by = keyed(tmp_path, Terms(ceiling=ceiling))
    with ProxyServer(priced(backend, Energy(0.5, 2.0)), ledger=ledger) as proxy:
        assert proxy.chat("tiny", headers=by).status == 200
        assert backend.calls[-1].body["max_tokens"] == proxy.limits.max_tokens  # else it could cost anything
        assert proxy.chat("tiny", headers=by, max_tokens=100_000).error["code"] == "ceiling"


@pytest.mark.parametrize("ceiling", [Budget(usd=0.001), Budget(joules=400.0), Budget(usd=0.001, joules=400.0)])
def test_what_says_no_maximum_is_cut_to_what_its_ceiling_can_pay(
    backend: ChatServer, tmp_path: Path, ceiling: Budget
) -> None:
    ledger, by = keyed(tmp_path, Terms(ceiling=ceiling))
    with ProxyServer(priced(backend, energy := Energy(0.5, 2.0)), ledger=ledger) as proxy:
        for more in ({}, {"n": 3}, {"thinking_budget": 20}):
            assert proxy.chat("tiny", headers=by, **more).status == 200
            sent = backend.calls[-1]
            generated = more.get("n", 1) * (sent.body["max_tokens"] + more.get("thinking_budget", 0))
            prompt = len(json.dumps({"model": "tiny", "messages": sent.body["messages"], **more}))
            parts = [PRICE.bound(prompt, generated) / ceiling.usd] if ceiling.usd else []
            parts += [energy.bound(prompt, generated) / ceiling.joules] if ceiling.joules else []
            assert 0.9 < max(parts) <= 1


def refused(got: Got, field: str, unit: str) -> None:
    assert got.status == 400
    assert (got.error["param"], got.error["code"]) == (field, "unsupported")
    assert got.error["message"].startswith(f"{field}: what tiny costs in {unit} is not known here")


def test_a_budget_that_nobody_can_count_is_refused_and_the_error_names_it(backend: ChatServer, tmp_path: Path) -> None:
    with ProxyServer(backend.url) as proxy:
        refused(proxy.chat("outthink/single", outthink={"budget": "usd=1"}), "outthink.budget", "dollars")
        refused(proxy.chat("outthink/single", outthink={"budget": "joules=1"}), "outthink.budget", "joules")
    ledger, by = keyed(tmp_path, Terms(ceiling=Budget(joules=1.0)))
    with ProxyServer(priced(backend), ledger=ledger) as proxy:
        refused(proxy.chat("tiny", headers=by), "model", "joules")
    assert not backend.calls


def test_where_backends_of_one_model_differ_strategies_are_charged_at_the_dearest(backend: ChatServer) -> None:
    with ChatServer(answer, routes={"/v1/models": models("tiny")}) as other:
        cheap = BackendSettings(url=other.url, price=Price(0.1, 1.0))
        with ProxyServer(cheap, priced(backend)) as proxy:
            assert proxy.chat("outthink/single").json["outthink"]["receipt"]["usd"] == pytest.approx(USD)
        with ProxyServer(other.url, priced(backend)) as proxy:  # one of them has told no price
            assert proxy.chat("outthink/single").json["outthink"]["receipt"]["usd"] is None


def test_the_dearest_of_several_prices_bounds_all_of_them_and_is_linear() -> None:
    one, other = Price(5.0, 1.0), Price(1.0, 4.0, cached_input=2.0)
    both = DearestPrice((one, other))
    for prompt, completion in ((0, 0), (1000, 0), (0, 1000), (1000, 50), (50, 100_000)):
        assert both.bound(prompt, completion) >= max(one.bound(prompt, completion), other.bound(prompt, completion))
        assert both.cost(prompt, 0, completion) == max(price.cost(prompt, 0, completion) for price in (one, other))
    steps = [both.bound(700, completion) for completion in (0, 1000, 2000, 5000)]
    assert steps[3] - steps[0] == pytest.approx(5 * (steps[1] - steps[0]))
    assert steps[2] - steps[1] == pytest.approx(steps[1] - steps[0])
