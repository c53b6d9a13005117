"""Budgets: what is reserved, what is refused, and how a request ends that has run out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outthink import Budget, Completion, EngineError, Fault, Price, Request, ScriptedEngine, Session, Speed, Unsupported
from outthink.economics.tariff import Energy
from support.runs import BYTE_BOUND, collect, question, virtual

WIDE = Speed(total=1e9, concurrency=64)
PRICE = Price(1.0, 4.0)


def engine(tokens: Any = 100, **options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(["1"], tokens=tokens, speed=WIDE, **options)


def caps(run: Any) -> list[int]:
    return [call.sampling.max_tokens for call in run.calls]


# Tokens


def test_the_first_call_reserves_bytes_and_later_ones_the_real_prompt() -> None:
    """Budget 600: the first call may take 600 - bound; it uses 20 + 100, the second may take 480 - 20."""
    run = virtual(collect(n=2, ahead=1), engine(), question(budget=Budget(tokens=600)))
    assert caps(run) == [600 - BYTE_BOUND, 600 - 120 - 20]


def test_a_prefix_counts_towards_the_bound() -> None:
    run = virtual(collect(prefix="é" * 10), engine(), question(budget=Budget(tokens=600)))
    assert caps(run) == [600 - BYTE_BOUND - 20]


def test_calls_wanted_together_share_what_is_left() -> None:
    run = virtual(collect(n=3, ahead=3), engine(), question(budget=Budget(tokens=3 * (BYTE_BOUND + 90) + 2)))
    assert caps(run) == [90, 90, 90]


def test_fewer_calls_start_where_shares_would_fall_below_min_tokens() -> None:
    """Room for two calls of 64 at the byte bound; the third waits for a settlement, which frees enough."""
    run = virtual(collect(n=3, ahead=3), engine(50), question(budget=Budget(tokens=3 * (BYTE_BOUND + 64) - 1)))
    assert len(run.calls) == 3
    assert run.runner.peak == 2
    assert min(caps(run)) >= 64
    assert run.session.stopped is None


@pytest.mark.parametrize(("min_tokens", "cap", "admitted"), [(64, 512, 64), (16, 512, 16), (64, 40, 40)])
def test_no_call_is_admitted_below_min_tokens(min_tokens: int, cap: int, admitted: int) -> None:
    def attempt(budget: int) -> Any:
        asked = question(budget=Budget(tokens=budget), min_tokens=min_tokens, max_tokens=cap)
        return virtual(collect(), engine(), asked)

    assert caps(attempt(BYTE_BOUND + admitted)) == [admitted]
    refused = attempt(BYTE_BOUND + admitted - 1)
    assert refused.calls == []
    assert refused.session.stopped == "budget:tokens"
    assert refused.value == []


def test_a_budget_that_ends_keeps_the_answers_so_far() -> None:
    run = virtual(collect(n=50, ahead=1), engine(), question(budget=Budget(tokens=1000)))
    assert len(run.value) == 8
    assert run.receipt.tokens == 960
    assert run.session.stopped == "budget:tokens"


def test_cancelled_tokens_are_spent_and_reservations_given_back() -> None:
    async def leave(session: Session, request: Request) -> tuple[float, float]:
        async for _ in session.sample(request, n=2, ahead=2, order="finished"):
            break
        session.sample(request)  # closes the stream
        return session.account.spent["tokens"], session.account.reserved["tokens"]

    run = virtual(leave, engine([100, 400]), question(budget=Budget(tokens=5000)))
    assert run.value == (2 * 120, 0)


# Dollars and joules


def test_dollars_are_never_exceeded_and_reported() -> None:
    run = virtual(collect(n=50, ahead=4), engine(), question(budget=Budget(usd=0.005)), price=PRICE)
    assert run.session.stopped == "budget:usd"
    made = sum(entry.completion_tokens or 0 for entry in run.entries)
    assert run.receipt.usd == pytest.approx((20 * len(run.entries) * 1 + made * 4) / 1e6)
    assert 0.0047 < run.receipt.usd <= 0.005  # what is left buys no call of 64 tokens


def test_free_output_is_limited_by_the_prompt_alone() -> None:
    run = virtual(collect(n=9, ahead=1), engine(), question(budget=Budget(usd=0.0002)), price=Price(1.0, 0.0))
    assert caps(run)[0] == 512
    assert run.receipt.usd is not None
    assert run.receipt.usd <= 0.0002
    assert run.session.stopped is None


def test_joules_are_never_exceeded() -> None:
    run = virtual(collect(n=50, ahead=2), engine(), question(budget=Budget(joules=900)), energy=Energy(0.5, 1.0))
    assert run.session.stopped == "budget:joules"
    assert run.receipt.joules == pytest.approx(110 * len(run.entries))
    assert run.receipt.joules <= 900


@pytest.mark.parametrize(("budget", "names"), [(Budget(usd=1), "price"), (Budget(joules=1), "joules a token")])
def test_a_currency_that_cannot_be_accounted_for_is_refused_before_any_call(budget: Budget, names: str) -> None:
    scripted = engine()
    with pytest.raises(Unsupported, match=names):
        virtual(collect(), scripted, question(budget=budget))
    assert scripted.calls == []


def test_rounding_at_the_edge_of_a_dollar_budget_neither_hangs_nor_overspends() -> None:
    """Budgets that hold exactly one smallest call, give or take a rounding error, at many prices."""
    for i in range(1, 60):
        price = Price(i / 7, i / 3)
        fixed = price.bound(BYTE_BOUND, 0)
        exact = fixed + 64 * (price.bound(BYTE_BOUND, 1000) - fixed) / 1000
        for budget in (exact, exact * (1 + 1e-15), exact * (1 - 1e-15), exact * (1 + 1e-9)):
            run = virtual(collect(n=2, ahead=1), engine(), question(budget=Budget(usd=budget)), price=price)
            assert run.error is None
            assert run.receipt.usd is not None
            assert run.receipt.usd <= budget * (1 + 1e-12)


# Seconds


def test_the_deadline_holds_exactly_in_virtual_time() -> None:
    run = virtual(collect(n=50, ahead=1), engine(), question(budget=Budget(seconds=7.3)))
    assert run.receipt.seconds == 7.3
    assert run.session.stopped == "budget:seconds"
    assert len(run.value) == 3
    assert run.count("cancelled") == 1
    assert run.entries[-1].cancelled_tokens == int((7.3 - 3 * 2.004 - 0.004) * 50)


def test_a_request_that_ends_in_time_does_not_wait_for_its_deadline() -> None:
    run = virtual(collect(), engine(), question(budget=Budget(seconds=100)))
    assert run.receipt.seconds == pytest.approx(2.004)
    assert run.session.stopped is None


def test_a_queue_starts_nothing_at_the_deadline() -> None:
    """Two places, six calls: what waits when time is up was never sent and costs nothing."""
    narrow = ScriptedEngine.sequence(["1"], tokens=500, speed=Speed(concurrency=2))

    async def both(session: Session, request: Request) -> None:
        async def branch(child: Session) -> None:
            async for _ in child.sample(request, n=3, ahead=3):
                pass

        await session.together(branch, branch)

    run = virtual(both, narrow, question(budget=Budget(seconds=5)))
    assert len(run.calls) == len(run.entries) == 2
    assert run.receipt.seconds == 5


# Unknown counts


def test_unknown_counts_are_settled_at_the_reservation() -> None:
    run = virtual(collect(n=9, ahead=1), engine(told=False), question(budget=Budget(tokens=1500)))
    per_call = BYTE_BOUND + 512
    assert caps(run) == [512, 512, 1500 - 2 * per_call - BYTE_BOUND]
    assert run.session.account.spent["tokens"] == run.receipt.at_most["tokens"] == 1500
    assert run.receipt.tokens is None
    assert run.session.stopped == "budget:tokens"


def test_unknown_counts_show_what_is_known() -> None:
    run = virtual(collect(), engine(told=False), price=PRICE)
    entry = run.entries[0]
    assert entry.estimated
    assert (entry.prompt_tokens, entry.completion_tokens) == (None, None)
    assert run.receipt.known["tokens"] == 7  # pieces of 16 tokens
    assert run.receipt.at_most["tokens"] == BYTE_BOUND + 512
    assert run.receipt.usd is None
    assert run.receipt.at_most["usd"] == PRICE.bound(BYTE_BOUND, 512)


def test_a_recording_without_prompt_counts_still_knows_its_completions() -> None:
    class Silent(ScriptedEngine):
        def outcome(self, call: Any) -> Any:
            done = super().outcome(call)
            return replace(done, sample=replace(done.sample, prompt_tokens=None))

    run = virtual(collect(), Silent(lambda call: Completion(answer="1", tokens=80)))
    assert run.entries[0].completion_tokens == 80
    assert run.entries[0].prompt_tokens is None
    assert run.receipt.tokens is None
    assert run.receipt.known["tokens"] == 80


# Nested budgets


def test_an_inner_budget_ends_the_inner_session_only() -> None:
    async def nested(session: Session, request: Request) -> tuple[int, Any, int, Any]:
        with session.within(Budget(tokens=400)) as inner:
            within = [sample async for sample in inner.sample(request, n=20, ahead=1)]
        after = [sample async for sample in session.sample(request, n=2, ahead=1)]
        return len(within), inner.stopped, len(after), session.stopped

    run = virtual(nested, engine(), question(budget=Budget(tokens=5000)))
    assert run.value == (3, "budget:tokens", 2, None)
    assert run.receipt.tokens == 5 * 120


def test_the_outer_budget_limits_the_inner_session() -> None:
    async def nested(session: Session, request: Request) -> int:
        with session.within(Budget(tokens=5000)) as inner:
            return len([sample async for sample in inner.sample(request, n=20, ahead=1)])

    run = virtual(nested, engine(), question(budget=Budget(tokens=400)))
    assert run.value == 3
    assert run.session.stopped == "budget:tokens"


def test_an_inner_deadline_counts_from_its_own_beginning() -> None:
    async def nested(session: Session, request: Request) -> tuple[float, int]:
        async for _ in session.sample(request):
            pass
        with session.within(Budget(seconds=5)) as inner:
            count = len([sample async for sample in inner.sample(request, n=20, ahead=1)])
        return session.runner.now(), count

    run = virtual(nested, engine(), question())
    assert run.value == (pytest.approx(2.004 + 5), 2)
    assert run.session.stopped is None


def test_leaving_an_inner_session_closes_its_stream() -> None:
    async def nested(session: Session, request: Request) -> int:
        with session.within(Budget(tokens=5000)) as inner:
            async for _ in inner.sample(request, n=4, ahead=4, order="finished"):
                break
        return session.account.outstanding

    run = virtual(nested, engine([50, 400]), question(budget=Budget(tokens=9000)))
    assert run.value == 0
    assert run.count("cancelled") == 2


# Retries under a budget


def failing(*attempts: Completion) -> ScriptedEngine:
    left = list(attempts)
    return ScriptedEngine(lambda call: left.pop(0), speed=WIDE)


def test_what_has_generated_is_not_tried_again() -> None:
    broken = failing(Completion(tokens=300, fault=Fault(200)))
    run = virtual(collect(), broken, question(budget=Budget(tokens=600)))
    assert isinstance(run.error, EngineError)
    assert run.receipt.tokens == 220
    assert caps(run) == [600 - BYTE_BOUND]


def test_a_call_refused_at_the_door_says_nothing_about_the_prompt() -> None:
    """Its entry has no tokens; the bound of the next call must not sink to that."""
    broken = failing(Completion(fault=Fault(0)), Completion(answer="1", tokens=400))
    run = virtual(collect(), broken, question(budget=Budget(tokens=300)))
    assert caps(run) == [300 - BYTE_BOUND] * 2
    assert run.receipt.tokens is not None
    assert run.receipt.tokens <= 300
