"""The accuracy/cost frontier of a policy, as the dashboard draws it.

Knows: a policy's rungs and controls with their held-out figures. Draws nothing and decides nothing.
"""

from __future__ import annotations

from typing import Any

from outthink.controller.policy.artefact import HeldOut, Policy, Task
from outthink.evaluation.report.html import about, policy_remarks


def frontier(policy: Policy) -> dict[str, Any]:
    """Facts, remarks, and a task's points in the order of its sizes; costs are means per problem."""
    return {
        "facts": [{"name": name, "value": value} for name, value in about(policy).items()],
        "remarks": policy_remarks(policy),
        "tasks": [_task(task) for task in policy.tasks],
    }


def _task(task: Task) -> dict[str, Any]:
    points = [_point("policy", arm.name, arm.n, arm.held_out, chosen=arm.n == task.chosen) for arm in task.arms]
    for control in task.other.get("controls", ()):
        name, held = f"{control['strategy']}@{control['n']}", HeldOut.of(control["held_out"])
        points.append(_point(str(control["strategy"]), name, control["n"], held, chosen=False))
    return {"model": task.model, "dataset": task.dataset, "points": points}


def _point(series: str, name: str, n: int, held: HeldOut, *, chosen: bool) -> dict[str, Any]:
    return {
        "series": series,
        "name": name,
        "n": n,
        "chosen": chosen,
        "accuracy": held.accuracy,
        "low": held.accuracy_low,
        "high": held.accuracy_high,
        "tokens": held.tokens,
        "flops": held.flops,
        "usd": held.usd,
        "seconds": held.seconds,
        "samples": held.samples,
        "problems": held.problems,
    }
