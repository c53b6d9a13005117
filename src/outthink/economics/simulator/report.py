"""What a simulation says of a plan: throughput and latencies at the planned rate, and the rate at which it saturates.

Knows how long a run must be and which part of it counts. Does not know how a server is simulated.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from outthink.economics.capacity.plan import Deployment, Objective
from outthink.economics.simulator.simulate import Router, ServerRules, SimulationRun, Spread, simulate
from outthink.economics.workload import Workload

_OVERLOAD = 1.3
"""Times the ceiling at which requests arrive to find the saturation."""
_SETTLED = 0.2
"""Share of a run after which the server, empty at first, counts as full."""


def rules_of(deployment: Deployment, **changes: Any) -> ServerRules:
    """A simulated server for a deployment.

    Args:
        changes: fields of ServerRules that a deployment does not have.
    """
    return ServerRules(
        memory=float("inf") if deployment.memory is None else deployment.memory,
        profile=deployment.profile,
        full=deployment.full,
        windowed=deployment.windowed,
        window=deployment.window,
        batch_tokens=deployment.batch_tokens,
        sequences=deployment.sequences,
        **changes,
    )


def saturation(workload: Workload, rules: ServerRules, rate: float, requests: int, seed: int = 0) -> float:
    """Requests a second that are done when more arrive than can be served.

    Args:
        rate: of one replica that no scheduler exceeds; arrivals come at 1.3 times of it for all.
        requests: that arrive.
    """
    arriving = _OVERLOAD * rate * rules.replicas
    drawn = workload.drawn(requests, arriving, seed)
    last = float(drawn.arrival[drawn.first_stages].max())
    return simulate(drawn, rules, until=last).throughput(_SETTLED * last, last)


def simulated(
    workload: Workload,
    deployment: Deployment,
    *,
    rate: float,
    replicas: int,
    requests: int,
    ceiling: float,
    timed: bool = False,
    preempt: str = "keep",
    router: Router = "round-robin",
    objective: Objective | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of `--simulate` (docs/contracts.md).

    Args:
        rate: requests a second in all, for arrivals that are drawn.
        timed: whether the workload's own arrivals are served, else `requests` drawn ones (Poisson).
        ceiling: requests a second of one replica that no scheduler exceeds.
    """
    rules = rules_of(deployment, preempt=preempt, router=router, replicas=replicas)
    served = workload.take(np.arange(requests)) if timed else workload.drawn(requests, rate, seed)
    run = simulate(served, rules)
    return {
        "requests": len(served),
        "replicas": replicas,
        "throughput_requests_per_second": run.throughput(),
        "saturation_requests_per_second": saturation(workload, rules, ceiling, requests, seed),
        "mean_queue": run.mean_queue,
        "ttft": Spread.of(run.ttft)._asdict(),
        "tpot": Spread.of(run.tpot)._asdict(),
        "e2e": Spread.of(run.e2e)._asdict(),
        "goodput_requests_per_second": None if objective is None else _goodput(run, objective),
        "preemptions": int(run.replicas["preemptions"].sum()),
        "wasted_tokens": int(run.replicas["wasted"].sum()),
        "iterations": int(run.replicas["iterations"].sum()),
    }


def _goodput(run: SimulationRun, objective: Objective) -> float:
    """Requests a second that met the targets."""
    met = np.ones(len(run.workload), bool)
    if objective.ttft is not None:
        met &= run.ttft <= objective.ttft
    if objective.tpot is not None:
        slow = run.pace > objective.tpot
        met &= np.bincount(run.workload.group[run.workload.stage], slow, met.size) == 0
    return float(met.sum() / run.end) if run.end else 0.0
