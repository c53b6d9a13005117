"""Whatever an engine does and a strategy tries: no budget is exceeded and every call is accounted for."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.chaos import run, run_live
from support.chaos_plans import Plan, plans

pytestmark = pytest.mark.faults
EXAMPLES = int(os.environ.get("OUTTHINK_EXAMPLES", "1500"))
UNHURRIED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)


@UNHURRIED
@given(plans())
def test_every_virtual_run_keeps_its_budgets_and_accounts_for_every_call(plan: Plan) -> None:
    report = run(plan)
    assert report.broken == []


@settings(UNHURRIED, max_examples=EXAMPLES // 3)
@given(plans(judged=True))
def test_every_judged_run_keeps_its_budgets_and_accounts_for_every_token_of_the_verifier(plan: Plan) -> None:
    report = run(plan)
    assert report.broken == []


@settings(UNHURRIED, max_examples=EXAMPLES // 10)
@given(plans())
def test_the_same_plan_gives_the_same_receipt(plan: Plan) -> None:
    assert run(plan) == run(plan)


@settings(UNHURRIED, max_examples=20, phases=[Phase.generate])  # time is real here: shrinking is slow
@given(st.lists(plans() | plans(judged=True), min_size=10, max_size=10))
def test_live_runs_leak_no_task_and_no_generator(batch: list[Plan]) -> None:
    async def all_of_them() -> None:
        seen: list[AsyncGenerator[Any, Any]] = []
        known = sys.get_asyncgen_hooks()

        def begun(generator: AsyncGenerator[Any, Any]) -> None:
            seen.append(generator)
            if known.firstiter is not None:
                known.firstiter(generator)

        sys.set_asyncgen_hooks(firstiter=begun)
        for plan in batch:
            report = await run_live(plan)
            assert report.broken == []
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert all(generator.ag_frame is None for generator in seen)  # type: ignore[attr-defined]

    asyncio.run(all_of_them())


def test_the_plans_reach_every_kind_of_end() -> None:
    """A generator that never runs out of budget, fails or finishes would prove nothing."""
    ends: Counter[str] = Counter()

    @settings(UNHURRIED, max_examples=1500, derandomize=True)
    @given(plans())
    def look(plan: Plan) -> None:
        ends[run(plan).outcome] += 1

    look()
    wanted = {"finished", "interrupted", "refused", "EngineError", "Abandoned", "error"}
    wanted |= {f"budget:{currency}" for currency in ("tokens", "seconds", "usd", "joules")}
    assert wanted <= set(ends), ends
