"""Capacity plans as `outthink plan --json` gives them, with a simulation and with strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outthink.economics.capacity.plan import Capacity, Deployment, Objective
from outthink.economics.capacity.report import CapacityPlan
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Workload

Values = dict[str, Any]


def plan(
    rate: float = 100.0, *, objective: Objective | None = None, notes: Sequence[str] = (), **deployment: float
) -> Values:
    """Three GPUs' worth of requests of 256 and 128 tokens; 48.45 a second are the ceiling of a replica."""
    profile = StepProfile(base=((0.0, 0.02),), chunk=256)
    server = Deployment(profile=profile, memory=40_000, **deployment)  # type: ignore[arg-type]
    capacity = Capacity(Workload.of_calls([256], [128]), server)
    return CapacityPlan(capacity=capacity, rate=rate, objective=objective, notes=notes).as_json()


def simulated(replicas: int = 3) -> Values:
    """What `--simulate` adds; every latency is 1.5 s on average, 1.25 s in the middle, 3.5 s at the end."""
    spread = {"mean": 1.5, "p50": 1.25, "p95": 3.5}
    return {
        "requests": 20_000,
        "replicas": replicas,
        "throughput_requests_per_second": 99.5,
        "saturation_requests_per_second": 45.0 * replicas,
        "mean_queue": 0.25,
        **dict.fromkeys(("ttft", "tpot", "e2e"), spread),
        "goodput_requests_per_second": None,
        "preemptions": 7,
        "wasted_tokens": 1234,
        "iterations": 1,
    }


def compared(*names: str, priced: bool = True) -> list[Values]:
    """Rows of `strategies`: sizes 1, 2 and 4 of each."""
    return [
        {
            "strategy": name,
            "n": n,
            "accuracy": 0.5 + 0.05 * n,
            "accuracy_low": 0.45 + 0.05 * n,
            "accuracy_high": 0.55 + 0.05 * n,
            "tokens": 100.0 * n,
            "g": 5000.0 * n,
            "effective_requests_per_second": 40.0 / n,
            "gpus": n,
            "gpus_exact": 0.75 * n - 0.01 * place,
            "usd_per_answer": 2e-5 * n if priced else None,
            "watts": 500.0 * n,
        }
        for place, name in enumerate(names)
        for n in (1, 2, 4)
    ]
