"""What a request gets: the arm that fits it, or a stated fallback, and never a silent one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.client import ask
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import OUTSIDE, Plan, Situation, explained, plan, predicted_usage
from outthink.core.errors import BadInput
from outthink.core.receipt import Result
from outthink.core.request import Budget, Message, Request
from outthink.core.sample import Candidate
from outthink.economics.latency import DeadlineTooShort
from outthink.economics.price import Price
from outthink.economics.tariff import Tariff
from outthink.engines.scripted import Completion, ScriptedEngine
from outthink.verifiers.checks import FunctionVerifier
from outthink.verifiers.protocol import Score
from support.policies import carrying, content, policy, regime
from support.samples import question

TEXT = question(3)
STRANGE = (
    r"Prove that $\int_0^1 x^2 \, dx = \frac{1}{3}$ and that $\sqrt{2}$ is irrational, \emph{please}; $a^2+b^2=c^2$."
)
TARIFF = Tariff("tiny", Price(10.0, 20.0))


def planned(budget: Budget | None = None, answer: Any = "number", made: Policy | None = None, **situation: Any) -> Plan:
    known = {"model": "tiny", "question": TEXT, "prompt_tokens": 20, "tariff": TARIFF} | situation
    request = Request(messages=(Message("user", TEXT),), answer=answer, budget=budget or Budget())
    return plan(made or policy(), request, Situation(**known))


def test_without_a_budget_it_meets_the_target() -> None:
    result = planned()
    assert (result.name, result.flags) == ("fixed@4", ())
    assert [option.usage["tokens"] for option in result.options] == [120.0, 240.0, 480.0, 960.0]
    assert [option.usage["usd"] for option in result.options] == pytest.approx([0.0022 * n for n in (1, 2, 4, 8)])


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget(tokens=480), "fixed@4"),
        (Budget(tokens=479), "fixed@2"),
        (Budget(seconds=5.0), "fixed@2"),
        (Budget(usd=0.0025), "fixed@1"),
        (Budget(tokens=100000, seconds=100.0, usd=1.0), "fixed@4"),
        (Budget(tokens=300, usd=0.0025), "fixed@1"),
    ],
)
def test_the_most_accurate_arm_within_every_ceiling(budget: Budget, name: str) -> None:
    result = planned(budget)
    assert (result.name, result.flags) == (name, ())


@given(st.integers(120, 3000))
@settings(deadline=None)
def test_more_budget_is_never_less_accurate(tokens: int) -> None:
    less, more = planned(Budget(tokens=tokens)), planned(Budget(tokens=2 * tokens))
    assert less.arm is not None
    assert more.arm is not None
    assert less.arm.held_out.accuracy <= more.arm.held_out.accuracy
    assert less.arm.held_out.cost("tokens") <= tokens


def test_a_budget_that_no_arm_meets_takes_the_cheapest_and_says_so() -> None:
    result = planned(Budget(tokens=100, seconds=1.0))
    assert result.name == "fixed@1"
    assert result.flags == (
        "no arm of the policy fits the budget (tokens, seconds); the cheapest runs under the hard ceiling",
    )


def test_unknown_prices_are_unknown_and_not_zero() -> None:
    result = planned(tariff=Tariff("tiny"))
    assert all(option.usage["usd"] is None and option.usage["joules"] is None for option in result.options)
    assert "usd unknown" in explained(result)[-2]


def test_a_ceiling_in_a_currency_that_is_unknown_is_not_said_to_hold() -> None:
    result = planned(Budget(tokens=480, usd=1.0), tariff=Tariff("tiny"))
    assert "what it takes of the budget in usd is unknown" in result.why
    assert "within the budget" not in result.why
    assert planned(Budget(tokens=480, usd=1.0)).why.endswith("within the budget")


def test_samples_drawn_otherwise_are_flagged() -> None:
    pool = [{"model": "tiny", "revision": None, "sampling": {"temperature": 0.6, "top_p": 1.0, "max_tokens": 64}}]
    result = planned(made=policy(pool=pool))
    assert result.name == "fixed@4"
    (flag,) = result.flags
    assert "temperature 0.8 instead of 0.6" in flag


@pytest.mark.parametrize(
    ("situation", "part"),
    [
        ({"model": "large"}, "the model large is not among the calibrated ones"),
        ({"question": "Why?"}, "a question of 4 characters is outside the calibrated 40 to 160"),
        ({"question": STRANGE}, "unlike the calibrated ones"),
        ({"question": None, "prompt_tokens": 500}, "a prompt of 500 tokens"),
    ],
)
def test_outside_the_regime(situation: dict[str, Any], part: str) -> None:
    result = planned(**situation)
    assert result.arm is None
    assert result.name == "adaptive-consistency:n=4"
    assert result.flags[0].startswith(OUTSIDE)
    assert part in result.flags[0]


def test_the_kind_of_answer_belongs_to_the_regime() -> None:
    assert planned(answer="choice").name == "adaptive-consistency:n=4"
    assert planned(answer="text").name == "single"
    assert planned(answer=str.strip).name == "fixed@4"


def test_a_model_is_known_by_its_name_on_a_server() -> None:
    assert planned(model="Tiny-Instruct.gguf").name == "fixed@4"


def test_without_the_question_it_goes_by_lengths_and_says_so() -> None:
    result = planned(question=None)
    assert result.name == "fixed@4"
    assert "not at hand" in result.flags[0]


def test_another_revision_is_refused() -> None:
    with pytest.raises(BadInput, match="tiny at r1"):
        planned(made=policy(revision="r1"), revision="r2")
    assert planned(made=policy(revision="r1"), revision=None).name == "fixed@4"


def test_a_deadline_shorter_than_reading_the_prompt_is_refused() -> None:
    with pytest.raises(DeadlineTooShort):
        planned(Budget(seconds=0.01), prompt_tokens=20, prefill=1000.0)
    assert planned(Budget(seconds=0.03), prompt_tokens=20, prefill=1000.0).flags


def test_idle_places_are_filled_before_the_size_is_cut() -> None:
    result = planned(Budget(seconds=2.5), concurrency=8)
    assert (result.name, result.ahead) == ("fixed@4", 4)
    assert result.why.endswith("with 4 calls in flight for the deadline")
    assert planned(Budget(seconds=2.5), concurrency=2).name == "fixed@2"
    assert planned(concurrency=8).ahead is None


def test_calls_in_flight_that_may_be_cancelled_are_expected() -> None:
    arm = policy().tasks[0].arm(8)
    stopping = replace(arm, held_out=replace(arm.held_out, samples=4.0, tokens=400.0, prompt_tokens=80.0))
    situation = Situation(model="tiny")
    tokens = [predicted_usage(stopping, situation, ahead)["tokens"] for ahead in (1, 3, 5, 9)]
    assert tokens == [480.0, 480 + 2 * (20 + 50), 480 + 4 * (20 + 50), 480 + 4 * (20 + 50)]


def test_the_nearer_of_two_tasks_is_taken() -> None:
    values = content()
    other = dict(values["tasks"][0], dataset="proofs", answer=None, chosen=2)
    other["regime"] = regime(mean=tuple(value + 1 for value in regime().mean or ()), distance=1e9).json()
    both = policy(tasks=[other, values["tasks"][0]])
    result = planned(made=both)
    assert result.task is not None
    assert result.task.dataset == "sums"


def cascade(model: str) -> dict[str, Any]:
    """Two own samples, and two of `model` where they disagree."""
    own = {"model": None, "n": 2, "tau": 1.0, "signal": "agreement", "keep": 0.0, "rule": {"kind": "fixed"}}
    return {"kind": "cascade", "stages": [own, own | {"model": model}]}


def test_the_reason_is_that_of_the_task_with_this_kind_of_answer() -> None:
    other = content(regime=regime(answer="math", characters=(1000.0, 2000.0)))["tasks"]
    both = content()
    result = planned(made=Policy.of(both | {"tasks": [*both["tasks"], *other]}), answer="math")
    assert "outside the calibrated 1,000 to 2,000" in result.flags[0]


def test_arms_whose_models_are_not_at_hand_are_not_considered() -> None:
    made = policy(rule=cascade("large"))
    assert planned(made=made).flags[0].endswith("its models are not all in the pool; adaptive-consistency instead")
    result = planned(made=made, pool=("large",))
    assert (result.name, result.models) == ("cascade@4", ("large",))


def test_ask_draws_from_the_pool() -> None:
    large = ScriptedEngine.sequence(["7"], model="large", prompt_tokens=20)
    result = answered([engine(), large], policy=policy(rule=cascade("large")))
    assert [entry.model for entry in result.receipt.entries] == ["tiny", "tiny", "large", "large"]
    assert result.answer == "7"


def test_explained_names_what_it_believed_considered_and_chose() -> None:
    lines = explained(planned(Budget(tokens=300)))
    assert lines[0] == f"policy {policy().id}"
    assert any(line.startswith("believed: question of") for line in lines)
    assert sum(line.startswith("considered: fixed@") for line in lines) == 4
    assert sum("exceeds tokens" in line for line in lines) == 2
    assert lines[-1] == "chose: fixed@2, because it is the most accurate one that the budget allows"


def engine(tokens: int = 100, **options: Any) -> ScriptedEngine:
    def script(call: Any) -> Completion:
        return Completion(answer="7" if call.index % 4 else "8", tokens=tokens)

    return ScriptedEngine(script, model="tiny", prompt_tokens=20, **options)


def answered(model: Any, **options: Any) -> Result:
    options = {"answer": "number", "policy": policy(), "strategy": "auto", "prompt": TEXT} | options
    return asyncio.run(ask(options.pop("prompt"), model=model, **options))


@pytest.mark.parametrize("live", [False, True])
def test_ask_carries_it_out(live: bool) -> None:
    received: list[Plan] = []
    scripted = engine(tokens=3)
    made = policy(regime=regime(sample_tokens=(1.0, 200.0)))
    result = answered(scripted.live() if live else scripted, policy=made, planned=received.append)
    assert (result.answer, result.strategy, result.stopped) == ("7", "auto", "finished")
    assert len(result.receipt.entries) == 4
    assert result.receipt.notes == (f"policy {made.id}: fixed@4",)
    assert received[0].name == "fixed@4"


def test_the_receipt_says_where_the_policy_was_not_followed() -> None:
    result = answered(engine(), prompt=STRANGE)
    assert result.receipt.notes[0].endswith(": adaptive-consistency:n=4")
    assert result.receipt.notes[1].startswith(OUTSIDE)


def test_odd_samples_are_left_to_adaptive_consistency_with_their_votes() -> None:
    values = content()
    values["tasks"][0]["chosen"] = 8
    result = answered(engine(tokens=400), policy=policy(tasks=values["tasks"]), ahead=1)
    assert "a sample of 400 tokens on average is outside" in result.receipt.notes[1]
    assert 4 < len(result.receipt.entries) <= 8
    same = answered(engine(tokens=400), strategy="adaptive-consistency:n=8", policy=None, ahead=1)
    assert (result.answer, len(result.receipt.entries)) == (same.answer, len(same.receipt.entries))


def test_hard_ceilings_hold_whatever_the_plan_expects() -> None:
    result = answered(engine(tokens=500), budget="tokens=480", ahead=1)
    assert result.receipt.tokens is not None
    assert result.receipt.tokens <= 480


def test_auto_needs_a_policy_and_a_policy_needs_auto() -> None:
    with pytest.raises(BadInput, match="auto needs one"):
        answered(engine(), policy=None)
    with pytest.raises(BadInput, match="goes with the strategy auto"):
        answered(engine(), strategy="single")


def test_the_same_seed_gives_the_same_plan_and_receipt() -> None:
    first, second = (answered(engine(), budget="tokens=900", seed=1) for _ in range(2))
    assert first.json() == second.json()


@pytest.mark.parametrize(
    ("at_hand", "name", "flag"),
    [
        ("wise-1", "linear-gain@4+verifier", None),
        (None, "fixed@4", "the verifier wise-1 is left out: none is at hand"),
        ("other-2", "fixed@4", "the verifier wise-1 is left out: other-2 is at hand"),
    ],
)
def test_the_judged_arm_needs_its_own_verifier(at_hand: str | None, name: str, flag: str | None) -> None:
    result = planned(made=carrying("wise-1"), verifier=at_hand)
    assert result.name == name
    assert [line for line in result.flags if flag and flag in line] == list(result.flags)
    if flag is None:
        step = result.rule().next()
        assert step is not None
        assert step.judged.ratio == 0.5


def test_what_judging_takes_counts_against_a_budget() -> None:
    made = carrying("wise-1")
    usage = {option.arm.name: option.usage["tokens"] for option in planned(made=made, verifier="wise-1").options}
    assert usage["linear-gain@4+verifier"] == (usage["fixed@4"] or 0) + 50
    assert planned(Budget(tokens=529), made=made, verifier="wise-1").name == "fixed@4"
    assert planned(Budget(tokens=530), made=made, verifier="wise-1").name == "linear-gain@4+verifier"


class Dear(FunctionVerifier):
    """Reads tokens that nobody knows the price of."""

    parameters = 10

    def bound(self, request: Request, candidate: Candidate) -> int:
        return 50

    async def score(self, request: Request, candidates: Any) -> list[Score]:
        return [Score((0.9,), 50) for _ in candidates]


@pytest.mark.parametrize(("budget", "judged"), [("tokens=5000", True), ("tokens=5000,usd=1", False)])
def test_a_verifier_without_a_price_is_left_out_under_a_dollar_budget(budget: str, judged: bool) -> None:
    engine = ScriptedEngine.sequence(["7"], tokens=100, model="tiny")
    verifier = Dear(lambda request, text: 1.0, name="wise-1")
    asked = ask(
        TEXT,
        model=engine,
        answer="number",
        strategy="auto",
        policy=carrying("wise-1"),
        verifier=verifier,
        budget=budget,
        price=Price(10.0, 20.0),
    )
    receipt = asyncio.run(asked).receipt
    assert any(entry.role == "verifier" for entry in receipt.entries) is judged
    assert any("budget's currency is unknown" in note for note in receipt.notes) is not judged
