"""What a simulation says of a plan: throughput and latencies at the planned rate, and the rate at which it saturates.

Knows how long a run must be and which part of it counts. Does not know how a server is simulated.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from outthink.economics.capacity.plan import Deployment, Objective
from outthink.economics.capacity.report import Values
from outthink.economics.simulator.simulate import Router, ServerRules, Spread, simulate
from outthink.economics.workload import Workload

_OVERLOAD = 1.3
"""Times the ceiling at which requests arrive to find the saturation."""
_SETTLED = 0.2
"""Share of a run after which the server, empty at first, counts as full."""


def rules_of(
    deployment: Deployment,
    *,
    preempt: Literal["keep", "restart"] = "keep",
    scheduling: Literal["fcfs", "priority"] = "fcfs",
    replicas: int = 1,
    router: Router = "round-robin",
) -> ServerRules:
    """A simulated server for a deployment, and what else `ServerRules` wants to know."""
    return ServerRules(
        memory=float("inf") if deployment.memory is None else deployment.memory,
        profile=deployment.profile,
        full=deployment.full,
        windowed=deployment.windowed,
        window=deployment.window,
        batch_tokens=deployment.batch_tokens,
        sequences=deployment.sequences,
        preempt=preempt,
        scheduling=scheduling,
        replicas=replicas,
        router=router,
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
    preempt: Literal["keep", "restart"] = "keep",
    router: Router = "round-robin",
    scheduling: Literal["fcfs", "priority"] = "fcfs",
    objective: Objective | None = None,
    seed: int = 0,
) -> Values:
    """The figures of `--simulate` (docs/contracts.md).

    Args:
        rate: requests a second in all, for arrivals that are drawn.
        timed: whether the workload's own arrivals are served, else `requests` drawn ones (Poisson).
        ceiling: requests a second of one replica that no scheduler exceeds.
    """
    rules = rules_of(deployment, preempt=preempt, router=router, scheduling=scheduling, replicas=replicas)
    served = workload.take(np.arange(requests)) if timed else workload.drawn(requests, rate, seed)
    run = simulate(served, rules)
    goodput = None
    if objective is not None and run.end:
        goodput = float(run.meets(objective.ttft, objective.tpot).sum() / run.end)
    return {
        "requests": len(served),
        "replicas": replicas,
        "throughput_requests_per_second": run.throughput(),
        "saturation_requests_per_second": saturation(workload, rules, ceiling, requests, seed),
        "mean_queue": run.mean_queue,
        "ttft": Spread.of(run.ttft)._asdict(),
        "tpot": Spread.of(run.tpot)._asdict(),
        "e2e": Spread.of(run.e2e)._asdict(),
        "goodput_requests_per_second": goodput,
        "preemptions": int(run.replicas["preemptions"].sum()),
        "wasted_tokens": int(run.replicas["wasted"].sum()),
        "iterations": int(run.replicas["iterations"].sum()),
    }
