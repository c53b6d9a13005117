"""The virtual clock and the simulated server take the same time for the same groups: two programs, one step profile."""

from __future__ import annotations

import numpy as np
import pytest

from outthink.economics.simulator.simulate import ServerRules, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload
from outthink.engines.traces import ReplayEngine, load
from outthink.evaluation.compare import CompareSettings
from outthink.evaluation.replay import MEASURES, rerun
from outthink.evaluation.replayed_calls.rows import call_columns
from outthink.evaluation.replayed_calls.run import replay_calls
from outthink.strategies import Spec
from support.recorded import DEMO, needs_demo

GROUPS = 300
PROFILE = StepProfile(
    base=((0.0, 0.004), (64.0, 0.005), (1024.0, 0.03)),
    per_sequence=1e-4,
    per_context=2e-7,
    per_prefill=1e-5,
    chunk=64,
    concurrency=64,
)
SAMPLES = DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet"


@needs_demo
@pytest.mark.parametrize(
    ("strategy", "ahead"),
    [("adaptive-consistency:n=16", 1), ("adaptive-consistency:n=16", 8), ("short-m-of-k:n=8", 8)],
)
def test_a_group_takes_the_same_time_on_both(strategy: str, ahead: int) -> None:
    spec, recorded = Spec.parse(strategy), load(SAMPLES)
    problems = list(recorded.problems)[:GROUPS]
    assert len(problems) == GROUPS
    (clock,) = rerun(ReplayEngine(recorded, speed=PROFILE), [spec], problems, 1, ahead)
    virtual = clock.values[MEASURES.index("seconds")]
    (replayed,) = replay_calls([SAMPLES], [spec], CompareSettings(seeds=1, ahead=ahead, speed=PROFILE))
    requests = [request for request in replayed.requests if request.problem in set(problems)]
    # Each group has the server to itself: a request of a session waits for nobody else's.
    workload = Workload.of_columns(*call_columns(requests)).arriving(1e4 * np.arange(GROUPS))
    simulated = simulate(workload, ServerRules(memory=1e12, profile=PROFILE)).e2e
    assert simulated.mean() == pytest.approx(virtual.mean(), rel=0.02)
    assert np.percentile(simulated, 95) == pytest.approx(np.percentile(virtual, 95), rel=0.02)
    assert simulated == pytest.approx(virtual, rel=1e-6)
