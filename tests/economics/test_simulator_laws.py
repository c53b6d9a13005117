"""Laws that every run of the simulated server obeys, and the published saturation of its rules."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.economics.simulator.simulate import ServerRules, SimulationRun, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import LAUNCHED, Lengths, Workload, distributed
from support.drawn_workloads import drawn_groups, drawn_server
from support.naive_server import DELIVERED

SEEDS = st.integers(0, 2**32 - 1)
SEVERAL = settings(max_examples=150, deadline=None)
STEP = StepProfile(base=((0, 0.02),), chunk=256)
FIXED = distributed(Lengths.parse("256", "prompt"), Lengths.parse("128", "output"))
MIXED = distributed(Lengths.parse("uniform:64,512", "prompt"), Lengths.parse("geometric:100,600", "output"))
Preemption = Literal["keep", "restart"]


def ceiling(workload: Workload, memory: int) -> float:
    """Requests a second that no scheduler exceeds: memory over the mean of what a request holds, summed over steps."""
    chunks = -(-workload.prompt // 256)
    reading = 256 * chunks * (chunks - 1) // 2 + workload.prompt
    held = reading + workload.output * workload.prompt + workload.output * (workload.output + 1) / 2
    return float(memory / (0.02 * (held @ workload.weight) / workload.weight.sum()))


def overloaded(workload: Workload, memory: int, preempt: Preemption, seconds: float) -> tuple[SimulationRun, float]:
    top = ceiling(workload, memory)
    drawn = workload.drawn(int(1.3 * top * seconds), 1.3 * top)
    rules = ServerRules(memory=memory, profile=STEP, preempt=preempt)
    return simulate(drawn, rules, until=float(drawn.arrival[-1])), top


@pytest.mark.parametrize(
    ("workload", "memory", "seconds", "restart", "keep"),
    [
        (FIXED, 8_000, (1_500, 6_000), 0.804, 0.978),
        (FIXED, 40_000, (400, 400), 0.830, 0.994),
        (MIXED, 8_000, (1_500, 6_000), 0.955, 0.979),
        (MIXED, 40_000, (400, 400), 0.988, 0.996),
    ],
)
def test_saturation(workload: Workload, memory: int, seconds: tuple[int, int], restart: float, keep: float) -> None:
    preempt: Preemption
    for preempt, time, share in (("restart", seconds[0], restart), ("keep", seconds[1], keep)):
        run, top = overloaded(workload, memory, preempt, time)
        assert run.throughput() / top == pytest.approx(share, abs=0.02)
        assert run.replicas["preemptions"][0] > 0


def test_the_queue_is_bounded_below_saturation_and_grows_by_what_is_too_much_above_it() -> None:
    run, _ = overloaded(MIXED, 40_000, "keep", 2_000)
    effective = run.throughput(run.end / 4)
    rules = ServerRules(memory=40_000, profile=STEP)
    below = simulate(MIXED.drawn(100_000, 0.9 * effective, 1), rules)
    assert below.mean_queue / (0.9 * effective) < 1.0  # seconds that a request waits
    drawn = MIXED.drawn(100_000, 1.1 * effective, 2)
    above = simulate(drawn, rules, until=float(drawn.arrival[-1]))
    left = np.isnan(above.closed).sum() / above.end
    assert left == pytest.approx(len(drawn) / above.end - effective, rel=0.1)


@SEVERAL
@given(SEEDS, st.integers(1, 40))
def test_calls_there_summed_over_time_are_their_times_there_summed(seed: int, most: int) -> None:
    draw = random.Random(seed)
    workload = drawn_groups(draw, most)
    run = simulate(workload, drawn_server(draw, workload))
    there = run.calls["launched"] >= 0
    spent = (run.calls["finished"] - run.calls["launched"])[there].sum()
    waited = (run.calls["admitted"] - run.calls["launched"])[run.calls["admitted"] >= 0].sum()
    assert run.inside_seconds == pytest.approx(spent)
    assert 0 <= run.queued_seconds <= run.inside_seconds
    assert run.queued_seconds >= waited * (1 - 1e-9)
    assert not any(run.replicas[name].any() for name in ("used", "idle", "queued", "active", "writing"))


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(0.5, 0.95), st.sampled_from([1, 16]))
def test_littles_law_where_the_run_is_cut(seed: int, share: float, block: int) -> None:
    rate = share * ceiling(MIXED, 40_000)
    drawn = MIXED.drawn(20_000, rate, seed % 1000)
    run = simulate(drawn, ServerRules(memory=40_000, profile=STEP, block=block), until=float(drawn.arrival[-1]))
    inside = run.inside_seconds / run.end
    assert inside == pytest.approx(len(drawn) / run.end * np.nanmean(run.e2e), rel=0.01)


@SEVERAL
@given(SEEDS)
def test_what_is_read_in_launch_order_depends_on_no_server(seed: int) -> None:
    draw = random.Random(seed)
    workload = drawn_groups(draw, 6)
    workload = replace(workload, rule=np.full_like(workload.rule, LAUNCHED))
    place = np.arange(workload.stage.size) - workload.starts[workload.stage]
    consumed = place < workload.need[workload.stage]
    for _ in range(3):
        ahead = np.array([draw.randint(1, int(size)) for size in workload.sizes])
        run = simulate(replace(workload, ahead=ahead), drawn_server(draw, workload))
        assert run.stages["consumed"].tolist() == workload.need.tolist()
        assert (run.calls["state"][consumed] == DELIVERED).all()


def served(count: int, memory: int, seed: int = 3, **rules: object) -> SimulationRun:
    drawn = MIXED.drawn(count, 1.0, seed).arriving(np.zeros(count))
    return simulate(drawn, replace(ServerRules(memory=memory, profile=STEP), **rules))  # type: ignore[arg-type]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["keep", "restart"]), st.sampled_from([1, 16]))
def test_twice_the_memory_serves_a_backlog_sooner(seed: int, preempt: str, block: int) -> None:
    ends = [served(1_000, memory, seed, preempt=preempt, block=block).end for memory in (4_000, 8_000, 16_000)]
    assert ends == sorted(ends, reverse=True)


@pytest.mark.parametrize(
    ("preempt", "chunk", "prompts", "outputs", "sizes", "ends"),
    [
        ("restart", 8, [6, 1, 4], [3, 3, 1], (10, 11), (0.14, 0.16)),
        ("keep", 4, [3, 2, 4, 12], [1, 1, 4, 2], (14, 18), (0.18, 0.2)),
    ],
)
def test_a_little_more_memory_may_serve_later(
    preempt: Preemption,
    chunk: int,
    prompts: list[int],
    outputs: list[int],
    sizes: tuple[int, int],
    ends: tuple[float, float],
) -> None:
    """As with Graham's anomalies of list scheduling: what is admitted sooner is preempted, and read again.

    So twice the memory and a long backlog are held as a law, not each byte.
    """
    few = Workload.of_calls(prompts, outputs, 0.0)
    rules = [ServerRules(memory=size, profile=STEP, chunk=chunk, preempt=preempt) for size in sizes]
    assert [simulate(few, each).end for each in rules] == pytest.approx(ends)


def test_work_is_linear_in_the_requests() -> None:
    few, many = (served(count, 20_000) for count in (5_000, 20_000))
    assert many.call_iterations / few.call_iterations == pytest.approx(4, rel=0.03)
    assert many.replicas["iterations"][0] / few.replicas["iterations"][0] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("router", ["round-robin", "least-loaded"])
def test_replicas_share_a_backlog(router: str) -> None:
    assert served(4_000, 8_000, replicas=4, router=router).end < served(4_000, 8_000).end / 3.5
