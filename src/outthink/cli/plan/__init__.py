"""`outthink plan`: how many GPUs a workload needs, by formula and by simulation.

Knows flags, and where a plan is shown or written. Does not know how a workload is read (`sources`), what a server is
made of (`deployment`), or how any figure is computed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import refuse_below_one, refuse_unwritable, write_whole
from outthink.cli.plan.deployment import ChosenServer, chosen_server, deployment_arguments
from outthink.cli.plan.sources import chosen_workload, workload_arguments
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra

if TYPE_CHECKING:
    from outthink.economics.capacity.report import CapacityPlan
    from outthink.economics.workload import Workload
    from outthink.evaluation.rows import Row

_EPILOG = """outthink plan --prompt-tokens 256 --output-tokens 128 --kv-tokens 40000 --step-seconds 0.02 --rate 10
outthink plan --trace requests.parquet --model DIR --gpu h100 --gpu-hour 2.5 --slo ttft=0.5,tpot=0.05 --html plan.html
outthink plan --strategy adaptive-consistency:n=16 --traces samples.parquet --rate 2 --model DIR --gpu h100
lengths: 256, uniform:64,512 or geometric:100,600 (mean, longest)"""
_SIMULATED = 20_000
"""Requests of a simulation where nothing says how many."""


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    workload_arguments(parser.add_argument_group("workload").add_argument)
    deployment_arguments(parser.add_argument_group("server").add_argument)
    add = parser.add_argument_group("plan").add_argument
    add("--gpus", type=int, default=None, metavar="N", help="say whether so many are stable (default: one replica)")
    add("--utilisation", type=float, metavar="SHARE", help="of the effective rate to be used (default 0.8)")
    add("--slo", metavar="TARGETS", help="seconds that 90 %% of the requests must keep, ttft=0.5,tpot=0.05")
    add("--gpu-hour", type=float, metavar="USD", help="dollars that one GPU costs in an hour")
    add = parser.add_argument_group("simulation").add_argument
    add("--simulate", action="store_true", help="also run it through a simulated server (needs the extra plan)")
    add("--requests", type=int, metavar="N", help=f"requests to simulate (default: the trace's, else {_SIMULATED:,})")
    add("--preempt", choices=("keep", "restart"), default="keep", help="what a call that loses its memory keeps")
    add("--router", choices=("round-robin", "least-loaded", "prefix-aware"), default="round-robin", help="of replicas")
    about = "calls as they come, or those of requests that have begun first (default fcfs)"
    add("--scheduling", choices=("fcfs", "priority"), default="fcfs", help=about)
    add("--seed", type=int, default=0, help="of arrivals and draws (default 0)")
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--html", type=Path, metavar="FILE", help="write the plan as a page")


def run_plan(chosen: argparse.Namespace) -> int:
    """Plan, and simulate if asked to."""
    from outthink.cli.plan.shown import show
    from outthink.economics.capacity.plan import Capacity, Objective
    from outthink.economics.capacity.report import CapacityPlan

    refuse_below_one(chosen, "requests")
    if chosen.simulate:
        need_extra("plan", "--simulate", "numba")
    if chosen.html is not None:
        refuse_unwritable(chosen, "html")
        if chosen.strategy:  # nothing else of the page is drawn
            need_extra("report", "--html", str(chosen.html), load=False)
    objective = Objective.parse(chosen.slo) if chosen.slo else None
    server = chosen_server(chosen)
    requested = chosen_workload(chosen)
    deployment, notes = server.deployment(requested.workload)
    settings = server.settings
    plan = CapacityPlan(
        capacity=Capacity(requested.workload, deployment),
        rate=requested.rate,
        utilisation=settings.utilisation,
        gpus=settings.gpus or deployment.gpus,
        objective=objective,
        notes=(*requested.notes, *notes),
    )
    values = plan.as_json()
    if requested.strategies:
        values["strategies"] = [_compared(server, plan, *each) for each in requested.strategies]
    if chosen.simulate:
        values["simulated"] = _simulated(chosen, plan, settings.gpus, requested.timed)
    if chosen.html is not None:
        from outthink.evaluation.report.capacity import render

        write_whole(chosen.html, render(values))
    if chosen.json:
        print(json.dumps(values, indent=1, allow_nan=False))
    else:
        show(values)
    return 0


def _compared(server: ChosenServer, plan: CapacityPlan, row: Row, workload: Workload) -> Row:
    """What the same rate needs under another strategy or size, beside its accuracy."""
    from outthink.economics.capacity.plan import Capacity

    capacity = Capacity(workload, server.deployment(workload)[0])
    values = replace(plan, capacity=capacity).as_json()
    found = {"tokens": values["output_tokens"]}
    found |= {key: values[key] for key in ("g", "effective_requests_per_second", "gpus", "gpus_exact")}
    # Of parts of GPUs, so that strategies differ by what they take and not by how it is rounded.
    exact = values["gpus_exact"]
    hour, watts = capacity.deployment.gpu_hour, capacity.deployment.watts
    found["usd_per_answer"] = None if hour is None else hour * exact / 3600 / plan.rate
    found["watts"] = None if watts is None else watts * exact * plan.utilisation
    return {**row, **found}


def _simulated(chosen: argparse.Namespace, plan: CapacityPlan, gpus: int | None, timed: bool) -> Row:
    """What happens on so many replicas as are asked about, or as are planned."""
    from outthink.economics.simulator.report import simulated

    size = plan.capacity.deployment.gpus
    count = chosen.requests or (len(plan.capacity.workload) if timed else _SIMULATED)
    if timed and count > len(plan.capacity.workload):
        problem = f"is more than the trace has ({len(plan.capacity.workload):,})"
        raise BadInput("--requests", count, problem, "leave it out, or give fewer")
    return simulated(
        plan.capacity.workload,
        plan.capacity.deployment,
        rate=plan.rate,
        replicas=gpus // size if gpus else plan.replicas,
        requests=count,
        timed=timed,
        ceiling=plan.capacity.ceiling,
        preempt=chosen.preempt,
        router=chosen.router,
        scheduling=chosen.scheduling,
        objective=plan.objective,
        seed=chosen.seed,
    )
