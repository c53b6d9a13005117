"""Whatever a strategy does with a pool: no budget is exceeded over all models, and every call is priced as its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outthink import Budget, Completion, Fault, Price, Request, ScriptedEngine, Session, Speed
from outthink.core.errors import EngineError, Unsupported
from outthink.economics.tariff import Energy, Tariff
from outthink.engines.protocol import Call
from support.pools import PoolRun, virtual_pool
from support.runs import question

MODELS = ("small", "middle", "large")
PRICES = {"small": Price(1.0, 4.0, 0.5), "middle": Price(20.0, 10.0), "large": Price(30.0, 90.0)}
ENERGIES = {"small": Energy(0.1, 1.0), "middle": Energy(2.0, 2.0), "large": Energy(1.0, 30.0)}
LIMITS = {
    "tokens": st.none() | st.integers(100, 8000),
    "seconds": st.none() | st.floats(0.5, 60),
    "usd": st.none() | st.floats(1e-4, 0.2),
    "joules": st.none() | st.floats(10, 50_000),
}
BUDGET = st.fixed_dictionaries(LIMITS).map(lambda limits: Budget(**limits))  # type: ignore[arg-type]
SETTINGS = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@dataclass(frozen=True)
class Plan:
    """Engines from one number; steps are (model, samples, in flight, samples to take) or a list of branches."""

    seed: int
    budget: Budget
    inner: Budget
    steps: tuple[Any, ...]


STEP = st.tuples(st.sampled_from(MODELS), st.integers(1, 7), st.integers(1, 7), st.none() | st.integers(1, 3))
PLANS = st.builds(
    Plan, st.integers(0, 9999), BUDGET, BUDGET, st.lists(STEP | st.lists(STEP, min_size=2, max_size=3), max_size=5)
)


def _engine(seed: int, model: str) -> ScriptedEngine:
    detail = random.Random(f"{seed}:{model}")
    received, faults = detail.random() < 0.7, detail.choice([0.0, 0.0, 0.3])

    def script(call: Call) -> Completion:
        draw = random.Random(f"{seed}:{model}:{call.index}")
        fault = Fault(draw.choice([0, 1, 40]), draw.random() < 0.3) if draw.random() < faults else None
        return Completion(answer=draw.choice(["1", "2", None]), tokens=draw.randint(1, 300), fault=fault)

    speed = Speed(total=detail.choice([60.0, 1e9]), concurrency=detail.randint(1, 6))
    return ScriptedEngine(script, model=model, told=received, speed=speed, prompt_tokens=detail.randint(1, 60))


def _play(plan: Plan) -> PoolRun:
    async def steps(session: Session, request: Request, given: Any) -> None:
        for step in given:
            if isinstance(step, list):
                await session.together(*(lambda child, item=item: steps(child, request, [item]) for item in step))
                continue
            model, n, ahead, leave = step
            taken = 0
            async for _ in session.on(model).sample(request, n=n, ahead=ahead):
                taken += 1
                if taken == leave:
                    break

    async def strategy(session: Session, request: Request) -> float:
        half = len(plan.steps) // 2
        with session.within(plan.inner) as inner:
            await steps(inner, request, plan.steps[:half])
        spent = len(session.ledger.entries)
        await steps(session, request, plan.steps[half:])
        return spent

    request = question(budget=plan.budget, max_tokens=random.Random(plan.seed).choice([40, 512]))
    engines = [_engine(plan.seed, model) for model in MODELS]
    return virtual_pool(strategy, engines, request, prices=PRICES, energies=ENERGIES, seed=plan.seed)


@SETTINGS
@given(PLANS)
def test_no_budget_is_exceeded_and_every_call_is_settled_at_its_own_price(plan: Plan) -> None:
    run = _play(plan)
    assert run.error is None or isinstance(run.error, EngineError)
    for currency in ("tokens", "usd", "joules"):
        limit, most = plan.budget.get(currency), run.receipt.at_most[currency]  # type: ignore[arg-type]
        assert limit is None or (most is not None and most <= limit * (1 + 1e-9))
    if plan.budget.seconds is not None:
        assert run.receipt.seconds <= plan.budget.seconds
    assert all(running.settled for running in run.launched)
    assert run.session.account.outstanding == 0
    assert not any(run.session.account.reserved.values())
    for entry in run.receipt.entries:
        tariff = Tariff.of(entry.model, price=PRICES[entry.model], energy=ENERGIES[entry.model])
        if entry.tokens is not None and entry.tokens:
            generated = (entry.completion_tokens or 0) + (entry.cancelled_tokens or 0)
            flops, usd, joules = tariff.charge(entry.prompt_tokens or 0, 0, generated)
            assert (entry.flops, entry.usd, entry.joules) == (flops, pytest.approx(usd), pytest.approx(joules))


@settings(SETTINGS, max_examples=60)
@given(PLANS)
def test_the_same_plan_gives_the_same_receipt(plan: Plan) -> None:
    assert _play(plan).receipt.json() == _play(plan).receipt.json()


def test_an_inner_budget_in_dollars_is_refused_where_a_model_has_no_price() -> None:
    async def strategy(session: Session, request: Request) -> None:
        with session.within(Budget(usd=1.0)) as inner:
            inner.on("large")

    error = virtual_pool(
        strategy, [_engine(0, model) for model in MODELS], prices={"small": PRICES["small"], "middle": PRICES["middle"]}
    ).error
    assert isinstance(error, Unsupported)
