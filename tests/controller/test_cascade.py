"""Cascades: who answers, what is bought, and what becomes of the votes of earlier stages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from outthink import BadInput, Completion, ScriptedEngine, Speed
from outthink.controller.cascade import Cascade, Stage
from outthink.controller.policy.rules import COEFFICIENTS, LinearGain, Scale, Sway
from outthink.core.sample import Sample
from outthink.strategies.voting import allocate
from support.pools import PoolRun, read_rule, virtual_pool
from support.runs import Budget, question

FIXED = read_rule({"kind": "fixed"})
WIDE = Speed(total=1e9, concurrency=64)
UNIT = Scale((-0.5, 0.5), (5.0, 1.0), (100.0, 50.0))


def constant(gain: float, price: float, horizon: int = 8) -> LinearGain:
    """A rule that expects the same gain whatever it sees: below its price it stops after one sample."""
    return LinearGain(UNIT, horizon, Sway(), (gain, *[0.0] * (COEFFICIENTS - 1)), price)


def engine(model: str, answers: Sequence[str | None], **options: Any) -> ScriptedEngine:
    return ScriptedEngine.sequence(answers, model=model, speed=WIDE, **options)


def run(cascade: Cascade, small: Sequence[str | None], large: Sequence[str | None], **options: Any) -> PoolRun:
    async def strategy(session: Any, request: Any) -> Any:
        return await allocate(session, request, rule=cascade.start(100, None))

    engines = [engine("small", small), engine("large", large, tokens=300)]
    return virtual_pool(strategy, engines, ahead=options.pop("ahead", 1), **options)


def two(tau: float, *, n: int = 4, last: int = 3, **options: Any) -> Cascade:
    return Cascade((Stage(None, n, FIXED, tau, **options), Stage("large", last, FIXED)))


def bought(result: PoolRun) -> tuple[int, int]:
    assert result.error is None
    return len(result.of("small")), len(result.of("large"))


def test_agreement_leaves_at_the_first_stage() -> None:
    result = run(two(0.75), ["1", "1", "2", "1"], ["9"])
    assert result.value.answer == "1"
    assert bought(result) == (4, 0)


def test_disagreement_goes_on_and_everything_is_charged() -> None:
    result = run(two(1.0, n=2), ["1", "2"], ["9"])
    assert result.value.answer == "9"
    assert bought(result) == (2, 3)
    assert result.receipt.tokens == 2 * 120 + 3 * 320


def test_a_stage_that_can_no_longer_agree_is_left_at_once() -> None:
    assert bought(run(two(1.0, n=8), ["1", "2", "1"], ["9"])) == (2, 3)
    assert bought(run(two(0.75, n=8), [None, "1", "1", "2", "1", "3"], ["9"])) == (6, 3)


def test_what_is_in_flight_then_is_cancelled() -> None:
    result = run(two(1.0, n=8), ["1", "2"], ["9"], ahead=8)
    assert [entry.status for entry in result.of("small")].count("cancelled") == 0  # equal lengths: all had ended
    slow = [100, 100, *[400] * 6]

    async def strategy(session: Any, request: Any) -> Any:
        return await allocate(session, request, rule=two(1.0, n=8).start(100, None))

    result = virtual_pool(strategy, [engine("small", ["1", "2"], tokens=slow), engine("large", ["9"])], ahead=8)
    assert [entry.status for entry in result.of("small")].count("cancelled") == 6
    assert result.value.answer == "9"


def test_tau_0_always_leaves_and_above_1_never_starts() -> None:
    assert bought(run(two(0.0), [None], ["9"])) == (4, 0)
    assert bought(run(two(1.01), ["1"], ["9"])) == (0, 3)
    assert bought(run(two(math.inf), ["1"], ["9"])) == (0, 3)


def test_dropped_votes_do_not_count_and_kept_ones_do() -> None:
    small, large = ["1", "1", "2"], ["2", "1", "9"]
    rule = constant(1.0, 0.0)
    dropped = Cascade((Stage(None, 3, FIXED, 0.9), Stage("large", 3, rule)))
    kept = Cascade((Stage(None, 3, FIXED, math.inf, keep=0.9), Stage("large", 3, rule)))
    assert run(dropped, small, large).value.answer == "2"  # three answers tie: all alike, the first one
    assert run(kept, small, large).value.answer == "1"


def test_the_second_stage_may_stop_early() -> None:
    cascade = Cascade((Stage(None, 2, FIXED, 1.0), Stage("large", 8, constant(0.1, 0.2))))
    result = run(cascade, ["1", "2"], ["9"])
    assert bought(result) == (2, 1)
    assert result.value.stopped == "consensus"


def test_confidence_and_scores_are_signals_too() -> None:
    sure = [Sample(i, "", answer, "boxed", 9, mean_logprob=lp, scores=(0.1, score)) for i, (answer, lp, score) in
            enumerate([("1", -0.1, 0.9), ("1", -0.3, 0.7), ("2", -5.0, 0.0)])]  # fmt: skip
    bare = [Sample(0, "", "1", "boxed", 9)]
    confidence, score = Stage(None, 3, FIXED, signal="confidence"), Stage(None, 3, FIXED, signal="score")
    assert confidence.measure(sure) == pytest.approx(math.exp(-0.2))
    assert score.measure(sure) == pytest.approx(0.8)
    assert Stage(None, 3, FIXED).measure(sure) == pytest.approx(2 / 3)
    assert confidence.measure(bare) == score.measure(bare) == confidence.measure([]) == 0.0


def test_three_models_in_order() -> None:
    async def strategy(session: Any, request: Any) -> Any:
        stages = (Stage(None, 2, FIXED, 1.0), Stage("middle", 2, FIXED, 1.0), Stage("large", 1, FIXED))
        return await allocate(session, request, rule=Cascade(stages).start(100, None))

    engines = [engine("small", ["1", "2"]), engine("middle", ["3", "3"]), engine("large", ["9"])]
    result = virtual_pool(strategy, engines, ahead=1)
    assert result.value.answer == "3"
    assert [entry.model for entry in result.receipt.entries] == ["small"] * 2 + ["middle"] * 2


def test_the_size_bounds_all_stages_together() -> None:
    rule = two(1.0, n=2, last=8).start(5, None)
    bought = []
    while (step := rule.next()) is not None:
        bought.append((step.model, step.n))
        for i in range(step.n):
            rule.add(Sample(i, "", str(i), "boxed", 9), step.model)
    assert bought == [(None, 2), ("large", 3)]


def test_a_budget_that_ends_in_the_second_stage_leaves_the_first_ones_answer() -> None:
    request = question(budget=Budget(tokens=560), max_tokens=300, min_tokens=290)
    result = run(two(1.0, n=2), ["1", "2"], ["9"], request=request)
    assert result.session.stopped == "budget:tokens"
    assert result.value.answer in ("1", "2")
    assert result.receipt.tokens is not None
    assert result.receipt.tokens <= 560


def test_an_unreadable_last_stage_leaves_the_answer_of_the_one_before() -> None:
    assert run(two(1.0, n=2), ["1", "2"], [None]).value.answer == "1"


def test_a_strong_model_that_is_down_leaves_the_weak_answer() -> None:
    from outthink import Fault

    down = ScriptedEngine(lambda call: Completion(fault=Fault(fatal=True)), model="large", speed=WIDE)

    async def strategy(session: Any, request: Any) -> Any:
        return await allocate(session, request, rule=two(1.0, n=2).start(100, None))

    result = virtual_pool(strategy, [engine("small", ["1", "2"]), down], ahead=1)
    assert result.value.answer == "1"
    assert "failed" in result.receipt.notes[0]


def test_json_keeps_everything() -> None:
    cascade = Cascade(
        (
            Stage(None, 1, FIXED, 0.8, "confidence"),
            Stage("middle", 4, constant(0.3, 0.1), math.inf, keep=0.5),
            Stage("large", 16, constant(0.2, 0.1)),
        )
    )
    text = json.dumps(cascade.json())
    again = read_rule(json.loads(text))
    assert json.dumps(again.json()) == text
    assert again.models == ("middle", "large")


@pytest.mark.parametrize(
    "broken", [{"stages": []}, {"stages": [{}]}, {"stages": [{"model": None, "n": 0}]}, {"stages": 3}, {}]
)
def test_malformed_cascades_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        read_rule({"kind": "cascade", **broken})


def test_stages_that_cannot_be_are_refused() -> None:
    for wrong in ({"n": 0}, {"tau": -1.0}, {"tau": math.nan}, {"signal": "mood"}, {"keep": -0.1}):
        with pytest.raises(BadInput):
            Stage(**{"model": None, "n": 2, "rule": FIXED, **wrong})
    with pytest.raises(BadInput, match="keep"):
        Cascade((Stage(None, 2, FIXED, keep=1.0), Stage("large", 2, FIXED)))
