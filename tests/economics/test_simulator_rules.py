"""The compiled simulator against a naive one that counts everything anew in each iteration."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.economics.simulator.simulate import ServerRules, SimulationRun, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import ANY, Workload
from support.drawn_workloads import drawn_groups, drawn_server
from support.naive_server import CANCELLED, DELIVERED, FINISHED, NaiveRun

SEEDS = st.integers(0, 2**32 - 1)
SEVERAL = settings(max_examples=120, deadline=None)


def compiled_state(run: SimulationRun) -> dict[str, Any]:
    calls = {name: run.calls[name].tolist() for name in ("state", "launched", "admitted", "first", "finished")}
    stages = {name: run.stages[name].tolist() for name in ("opened", "closed")}
    counts = ("preemptions", "wasted", "read", "written", "iterations", "busy", "used", "idle")
    servers = {name: run.replicas[name].tolist() for name in counts}
    seconds = {"queued_seconds": run.queued_seconds, "inside_seconds": run.inside_seconds}
    return {**calls, **stages, **servers, **seconds}


def naive_state(run: NaiveRun) -> dict[str, Any]:
    calls = {
        name: [getattr(call, name) for call in run.calls]
        for name in ("state", "launched", "admitted", "first", "finished")
    }
    stages = {name: [getattr(stage, name) for stage in run.stages] for name in ("opened", "closed")}
    counts = ("preemptions", "wasted", "read", "written", "iterations", "busy")
    servers = {name: [getattr(server, name) for server in run.servers] for name in counts}
    servers |= {"used": [server.used() for server in run.servers]}
    servers |= {"idle": [server.held() - server.used() for server in run.servers]}
    seconds = {"queued_seconds": run.queued_seconds, "inside_seconds": run.inside_seconds}
    return {**calls, **stages, **servers, **seconds}


def agree(workload: Workload, rules: ServerRules, until: float = float("inf")) -> SimulationRun:
    run = simulate(workload, rules, until=until)
    assert compiled_state(run) == naive_state(NaiveRun(workload, rules, until))
    return run


@SEVERAL
@given(SEEDS, st.integers(1, 4))
def test_compiled_is_naive(seed: int, most: int) -> None:
    draw = random.Random(seed)
    workload = drawn_groups(draw, most)
    run = agree(workload, drawn_server(draw, workload))
    assert not np.isnan(run.closed).any()
    assert not run.replicas["used"].any()
    assert not run.replicas["idle"].any()


@SEVERAL
@given(SEEDS, st.integers(0, 200))
def test_compiled_is_naive_where_it_is_cut(seed: int, eighths: int) -> None:
    draw = random.Random(seed)
    workload = drawn_groups(draw, 4)
    agree(workload, drawn_server(draw, workload), eighths / 8)


# Each of these was once otherwise.

STEP = StepProfile(base=((0, 0.25),), chunk=8, judge=4)
SERVER = ServerRules(memory=1000, profile=STEP)


def test_a_call_lives_for_its_chunks_and_its_tokens() -> None:
    run = agree(Workload.of_calls([20], [5]), SERVER)
    assert run.calls["first"].tolist() == [0.25 * (3 + 1)]
    assert run.calls["finished"].tolist() == [0.25 * (3 + 5)]


def test_calls_that_end_together_are_all_finished_before_their_stage_closes() -> None:
    run = agree(Workload.of_calls([8] * 3, [4, 4, 9], stage=[0] * 3, need=1, rule=ANY), replace(SERVER, chunk=64))
    assert run.calls["state"].tolist() == [DELIVERED, CANCELLED, CANCELLED]  # siblings begin a step behind the first
    two = agree(Workload.of_calls([8] * 3, [9, 4, 4], stage=[0] * 3, need=1, rule=ANY), SERVER)
    assert two.calls["state"].tolist() == [CANCELLED, DELIVERED, FINISHED]
    assert two.calls["finished"].tolist() == [1.5, 1.5, 1.5]
    assert two.replicas["wasted"].tolist() == [5 + 4]


def test_nothing_is_launched_by_a_stage_that_closes_in_the_same_instant() -> None:
    shared = Workload.of_calls([8] * 5, [9, 4, 4, 4, 4], stage=[0] * 5, ahead=3, need=2, rule=ANY)
    assert (agree(shared, SERVER).calls["launched"] >= 0).tolist() == [True, True, True, False, False]


def test_a_call_preempted_with_its_last_token_is_done() -> None:
    run = agree(Workload.of_calls([4, 4], [6, 2]), replace(SERVER, memory=11))
    assert run.replicas["preemptions"].tolist() == [1]
    assert run.calls["first"].tolist() == [0.5, 0.5]
    assert run.calls["finished"].tolist() == [0.25 * 7, 0.75]


def test_a_first_token_that_is_kept_is_noted_in_the_iteration_that_wrote_it() -> None:
    run = agree(Workload.of_calls([4, 4], [5, 3]), replace(SERVER, memory=9))
    assert run.calls["first"].tolist() == [0.5, 0.5]
    assert run.calls["finished"][1] > run.calls["finished"][0]


def test_samples_that_wait_for_their_prompt_take_nothing_of_the_batch() -> None:
    rules = replace(SERVER, batch_tokens=12)
    sampled = Workload.of_calls([64] * 4 + [4], [3] * 5, [0, 0.1], stage=[0] * 4 + [1])
    assert agree(sampled, rules).calls["admitted"].tolist() == [0.0, 0.0, 0.0, 0.0, 0.25]


def test_samples_that_wait_for_their_prompt_count_as_sequences() -> None:
    rules = replace(SERVER, profile=replace(STEP, per_sequence=1.0))
    run = agree(Workload.of_calls([8] * 4, [1] * 4, stage=[0] * 4), rules)
    # The first reads; it writes while the others compute their last token; these write.
    assert run.replicas["busy"].tolist() == [0.25 * 3 + 4 + 4 + 3]


def test_a_group_in_which_one_call_shares_nothing_keeps_its_prompt_in_memory() -> None:
    group = replace(Workload.of_calls([10] * 3, [5] * 3, stage=[0] * 3), shared=np.array([10, 10, 0]))
    run = agree(group, SERVER, until=0.75)
    assert run.replicas["used"].tolist() == [(10 + 2 + 1) + 12]
    less = replace(group, shared=np.array([10, 10, 4]))  # and one that shares less reads it all, too
    assert compiled_state(agree(less, SERVER)) == compiled_state(agree(group, SERVER))


def test_verifiers_that_end_together_are_heard_in_launch_order() -> None:
    outputs = [9, 4, 4, 4, 4]
    group = Workload.of_calls([8] * 5, outputs, stage=[0] * 5, need=2, rule=ANY, verifier=2)
    run = agree(group, SERVER)
    assert run.calls["state"].tolist() == [CANCELLED, DELIVERED, DELIVERED, FINISHED, FINISHED]


def test_a_group_stays_where_its_prompt_is() -> None:
    """A call without the prompt that runs elsewhere does not take the group along."""
    calls = Workload.of_calls([8] * 4, [4, 4, 4, 1], [0.1, 0.0, 0.0, 0.0])
    chain = replace(
        calls,
        group=np.array([0, 0, 0, 1]),
        after=np.array([-1, 0, 1, -1]),
        shared=np.array([8, 0, 8, 0]),
        weight=np.ones(2),
    )
    run = agree(chain, replace(SERVER, replicas=2, router="prefix-aware"))
    assert run.calls["replica"].tolist() == [1, 0, 1, 0]
