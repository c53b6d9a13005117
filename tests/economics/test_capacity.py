"""The capacity plan's formulas: exact values, ceilings, what binds, groups, windows, latencies, money."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.economics.capacity.footprint import Footprint
from outthink.economics.capacity.plan import Capacity, Deployment, Objective
from outthink.economics.capacity.report import CapacityPlan
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import ANY, Lengths, Workload, distributed

STEP = StepProfile(base=((0.0, 0.02),), chunk=256)


def held(prompt: int, output: int, chunk: int, window: int = 0) -> float:
    """The growth rule, token by token."""
    most = window or 1 << 60
    read = [min(k * chunk, prompt) for k in range(1, -(-prompt // chunk) + 1)]
    return float(sum(min(tokens, most) for tokens in [*read, *range(prompt + 1, prompt + output + 1)]))


@pytest.mark.parametrize(("prompt", "output", "g"), [(256, 128, 41_280), (256, 256, 98_688)])
def test_what_one_request_holds(prompt: int, output: int, g: int) -> None:
    assert Footprint.of(Workload.of_calls([prompt], [output]), 256).held.tolist() == [g]


def test_samples_of_one_prompt_hold_it_once() -> None:
    group = Footprint.of(Workload.of_calls([256] * 16, [128] * 16, stage=[0] * 16), 256)
    assert group.held.tolist() == [165_120]
    assert group.read.tolist() == [256]
    assert 16 * 41_280 == 660_480


def test_published_values_of_the_fixed_load() -> None:
    small = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=8000))
    assert small.ceiling == pytest.approx(9.69, abs=0.005)
    assert small.reservation is not None
    assert small.reservation / small.ceiling == pytest.approx(0.8333, abs=5e-5)
    doubled = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=16_000))
    assert doubled.ceiling == pytest.approx(2 * small.ceiling)


def test_mixed_lengths_are_exact_expectations() -> None:
    prompt, output = (
        Lengths.parse("uniform:64,512", "--prompt-tokens"),
        Lengths.parse("geometric:100,600", "--output-tokens"),
    )
    capacity = Capacity(distributed(prompt, output), Deployment(profile=STEP, memory=8000))
    assert round(capacity.held) == 38_996
    assert capacity.ceiling == pytest.approx(10.257, abs=0.001)


def test_a_plan_has_the_documented_figures() -> None:
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=40_000))
    values = CapacityPlan(capacity=capacity, rate=10.0).as_json()
    assert values["g"] == 41_280
    assert values["ceiling_requests_per_second"] == pytest.approx(48.45, abs=0.005)
    assert values["reservation_requests_per_second"] == pytest.approx(40.375, abs=0.0005)
    assert values["delta"] == pytest.approx(0.0096)
    assert values["effective_requests_per_second"] == pytest.approx(47.98, abs=0.005)
    assert (values["utilisation"], values["gpus"], values["gpus_reservation"], values["stable"]) == (0.8, 1, 1, True)
    assert values["batch_at_saturation"] == pytest.approx(125.0)
    assert values["binding"] == "memory"
    assert values["usd_per_hour"] is values["usd_per_answer"] is values["watts"] is None


LENGTHS = st.lists(st.tuples(st.integers(1, 700), st.integers(1, 300)), min_size=1, max_size=8)


@settings(deadline=None)
@given(calls=LENGTHS, chunk=st.integers(1, 400), window=st.integers(0, 500))
def test_lone_requests_follow_the_growth_rule(calls: list[tuple[int, int]], chunk: int, window: int) -> None:
    prompt, output = zip(*calls, strict=True)
    found = Footprint.of(Workload.of_calls(prompt, output), chunk, window)
    assert found.held == pytest.approx([held(*call, chunk) for call in calls])
    if window:
        assert found.held_windowed == pytest.approx([held(*call, chunk, window) for call in calls])
    assert found.lifetime == pytest.approx([-(-tokens // chunk) + longest for tokens, longest in calls])


@st.composite
def groups(draw: st.DrawFn) -> tuple[int, list[int], int, int, int]:
    """Prompt, outputs, in flight, needed and rule of one group."""
    outputs = draw(st.lists(st.integers(1, 60), min_size=2, max_size=9))
    size = len(outputs)
    rule = draw(st.sampled_from([0, ANY]))
    return draw(st.integers(1, 90)), outputs, draw(st.integers(1, size)), draw(st.integers(1, size)), rule


def by_iterations(
    prompt: int, outputs: list[int], ahead: int, need: int, rule: int, chunk: int
) -> tuple[float, int, int]:
    """What a group holds, how long, and what it writes, iteration by iteration."""
    reading = -(-prompt // chunk)
    begin = dict.fromkeys(range(ahead), reading)  # the iteration behind which each writes
    done: set[int] = set()
    total, step, written = 0.0, 0, 0
    while True:
        step += 1
        inside = [call for call in begin if call not in done]
        total += min(step * chunk, prompt)
        for call in inside:
            total += max(0, step - begin[call])
            written += step > begin[call]
        ended = [call for call in inside if step - begin[call] == outputs[call]]
        done.update(ended)
        for _ in ended:
            if len(begin) < len(outputs):
                begin[len(begin)] = step + 1  # one iteration for the last token of the prompt
        enough = len(done) >= need if rule == ANY else all(call in done for call in range(need))
        if enough:
            return total, step, written


@settings(max_examples=300, deadline=None)
@given(group=groups(), chunk=st.integers(1, 100))
def test_groups_follow_the_growth_rule(group: tuple[int, list[int], int, int, int], chunk: int) -> None:
    prompt, outputs, ahead, need, rule = group
    size = len(outputs)
    workload = Workload.of_calls([prompt] * size, outputs, stage=[0] * size, ahead=ahead, need=need, rule=rule)
    found = Footprint.of(workload, chunk)
    total, lifetime, written = by_iterations(prompt, outputs, ahead, need, rule, chunk)
    assert found.held[0] == pytest.approx(total)
    assert found.lifetime[0] == lifetime
    assert found.written[0] == written


@settings(deadline=None)
@given(calls=LENGTHS, memory=st.integers(1_500, 100_000))
def test_more_memory_never_lowers_a_ceiling(calls: list[tuple[int, int]], memory: int) -> None:
    prompt, output = zip(*calls, strict=True)
    workload = Workload.of_calls(prompt, output)
    profile = StepProfile(base=((0.0, 0.01), (64.0, 0.01), (1000.0, 0.1)), per_context=1e-6)
    less, more = (Capacity(workload, Deployment(profile=profile, memory=tokens)) for tokens in (memory, 2 * memory))
    assert more.ceiling >= less.ceiling
    assert more.delta < less.delta


def test_the_lowest_ceiling_binds() -> None:
    workload = Workload.of_calls([256], [128])
    flat = {"profile": STEP, "memory": 40_000.0}
    assert Capacity(workload, Deployment(**flat)).binding == "memory"
    slots = Capacity(workload, Deployment(**flat, sequences=10))
    assert (slots.binding, slots.batch) == ("sequences", 10)
    assert slots.ceiling == pytest.approx(10 / (0.02 * 129))
    steep = StepProfile(base=((0.0, 0.001), (1000.0, 1.0)), chunk=256)
    assert Capacity(workload, Deployment(profile=steep, memory=40_000.0)).binding == "compute"
    assert Capacity(workload, Deployment(**flat, batch_tokens=8)).binding == "compute"
    by_token = StepProfile(base=((0.0, 0.0),), per_sequence=0.02, per_prefill=0.02, chunk=256)
    capacity = Capacity(workload, Deployment(profile=by_token, sequences=4))
    assert capacity.binding == "compute"
    alone = 256 * 0.02 + 129 * 0.02
    assert capacity.times(1e-6)["e2e"]["p50"] == pytest.approx(alone * 129.5 / 129)


def test_slots_alone_are_enough_to_plan_with() -> None:
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, sequences=4))
    values = CapacityPlan(capacity=capacity, rate=1.0).as_json()
    assert values["binding"] == "sequences"
    assert values["kv_tokens"] is values["reservation_requests_per_second"] is values["gpus_reservation"] is None
    assert values["effective_requests_per_second"] == pytest.approx(4 / (0.02 * 129))


def test_a_load_below_the_ceiling_has_littles_batch() -> None:
    profile = StepProfile(base=((0.0, 0.01), (100.0, 0.05)), per_context=1e-6, chunk=256)
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=profile, memory=40_000))
    batch = capacity.batch_at(3.0)
    assert batch == pytest.approx(3.0 * capacity.step(batch) * 129, rel=1e-6)
    assert capacity.times(3.0)["e2e"]["mean"] == pytest.approx(129.5 * capacity.step(batch))
    assert capacity.batch_at(1e9) == capacity.batch


def test_goodput_keeps_the_targets_and_no_more() -> None:
    profile = StepProfile(base=((0.0, 0.01), (100.0, 0.05)), chunk=256)
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=profile, memory=40_000))
    good = capacity.goodput(Objective.parse("tpot=0.02"))
    assert 0 < good < capacity.effective
    assert capacity.step(capacity.batch_at(good)) == pytest.approx(0.02, rel=1e-3)
    assert capacity.goodput(Objective.parse("tpot=0.001")) == 0
    assert capacity.goodput(Objective.parse("ttft=1000,tpot=10")) == capacity.effective
    plan = CapacityPlan(capacity=capacity, rate=2 * good, objective=Objective(tpot=0.02))
    assert plan.as_json()["slo"]["gpus"] >= 2


def test_the_slo_of_several_samples_is_that_of_the_answer() -> None:
    samples = Workload.of_calls([64] * 8, [100] * 8, stage=[0] * 8)
    capacity = Capacity(samples, Deployment(profile=STEP, memory=40_000))
    assert capacity.times(0.1)["ttft"]["mean"] == pytest.approx(capacity.times(0.1)["e2e"]["mean"])
    assert capacity.goodput(Objective(ttft=1.0)) == 0


def test_dollars_and_watts_follow_gpus_and_load() -> None:
    deployment = Deployment(profile=STEP, memory=40_000, gpu_hour=2.0, watts=700.0)
    plan = CapacityPlan(capacity=Capacity(Workload.of_calls([256], [128]), deployment), rate=100.0)
    values = plan.as_json()
    assert values["gpus"] == 3
    assert values["usd_per_hour"] == pytest.approx(6.0)
    assert values["usd_per_answer"] == pytest.approx(6.0 / 360_000)
    assert values["usd_per_million_tokens"] == pytest.approx(6.0 / 360_000 / 128 * 1e6)
    assert values["watts"] == pytest.approx(2100 * 100 / (3 * values["effective_requests_per_second"]))
    assert values["watts_source"] == "modelled"
    prices = [at["usd_per_million_tokens"] for at in values["by_utilisation"]]
    assert prices == sorted(prices, reverse=True)
    assert math.isclose(prices[0], 10 * prices[-1], rel_tol=1e-9)


def test_stable_means_below_the_effective_rate_of_the_gpus() -> None:
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=40_000))
    for rate, gpus, stable in ((47.9, 1, True), (48.0, 1, False), (95.9, 2, True)):
        assert CapacityPlan(capacity=capacity, rate=rate, gpus=gpus).as_json()["stable"] is stable


def test_sensitivity_of_a_flat_step() -> None:
    capacity = Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=1e9))
    changes = capacity.sensitivity()
    assert changes["step_seconds"] == pytest.approx(1 / 1.2, rel=1e-3)
    assert changes["kv_tokens"] == pytest.approx(1.2, rel=1e-3)
    assert changes["output_tokens"] < 1
    assert changes["prompt_tokens"] < 1


def test_stages_hold_what_they_continue() -> None:
    one = Workload.of_calls([64, 64], [32, 16], stage=[0, 0])
    two = Workload(
        stage=np.array([0, 0, 1]),
        prompt=np.array([64, 64, 96]),
        shared=np.array([64, 64, 64]),
        cached=np.array([0, 0, 96]),
        output=np.array([32, 16, 10]),
        verifier=np.zeros(3, np.int64),
        group=np.array([0, 0]),
        arrival=np.zeros(2),
        after=np.array([-1, 0]),
        ahead=np.array([2, 1]),
        rule=np.zeros(2, np.int64),
        need=np.array([2, 1]),
        priority=np.zeros(2, np.int64),
        weight=np.ones(1),
    )
    first, both = Footprint.of(one, 256), Footprint.of(two, 256)
    # The second stage reads nothing new: one iteration, then 10 tokens behind 96; the shared prompt stays all along.
    assert both.lifetime[0] == first.lifetime[0] + 11
    assert both.held[0] == first.held[0] + 11 * 64 + sum(range(33, 43)) + 0 * 32
    assert both.read[0] == 64


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Deployment(profile=STEP), "kv_tokens"),
        (lambda: Deployment(profile=STEP, memory=-1), "kv_tokens"),
        (lambda: Deployment(profile=STEP, memory=10, gpu_hour=float("nan")), "gpu_hour"),
        (
            lambda: Capacity(Workload.of_calls([256], [128]), Deployment(profile=STEP, memory=300)),
            "longest request of 384",
        ),
        (lambda: Capacity(Workload.of_calls([0], [128]), Deployment(profile=STEP, memory=300)), "prompt_tokens"),
        (lambda: Capacity(Workload.of_calls([], []), Deployment(profile=STEP, memory=300)), "holds nothing"),
        (lambda: Objective.parse("ttft=x"), "--slo"),
        (lambda: Objective.parse("latency=1"), "--slo"),
        (lambda: Objective.parse("ttft=0"), "--slo"),
        (lambda: Lengths.parse("uniform:5,2", "--prompt-tokens"), "--prompt-tokens"),
        (lambda: Lengths.parse("0", "--output-tokens"), "--output-tokens"),
        (lambda: Lengths.parse("normal:1,2", "--output-tokens"), "--output-tokens"),
    ],
)
def test_bad_input_names_its_field(make: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()  # type: ignore[operator]
