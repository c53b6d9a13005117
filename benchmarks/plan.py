"""How near capacity formulas and the simulator come to each other, how fast they are, and what two real traces need.

Measures: exact values of the queueing model; saturation over the ceiling M / (b E[g]) for fixed and mixed lengths,
where a preempted request keeps its tokens and where it restarts; the queue at 0.9 of the simulator's own saturation and
its slope at 1.1; request-iterations a processor second, compiling apart; a plan and a simulation of a million rows; and
the Azure arrival traces of 2023 on H100s by the data sheet: GPUs by formula, by simulation and by reservation, one
sample a request and eight that stop early. What a real engine does is measured by plan_engines.py.
Needs the extra plan; the traces need ../shared/data/arrivals and ../shared/data/traces. Three minutes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common import NO_TRACES, ROOT, Table, judged, load_average, parser, save_evidence, show
from common import traces as recorded
from outthink.economics.capacity.footprint import Footprint
from outthink.economics.capacity.plan import ATTAINED, Capacity, Deployment, Objective
from outthink.economics.capacity.report import CapacityPlan
from outthink.economics.capacity.trace import read_trace
from outthink.economics.gpus import find_gpu
from outthink.economics.roofline import kv_capacity, step_roofline
from outthink.economics.simulator.report import rules_of, saturation
from outthink.economics.simulator.simulate import ServerRules, SimulationRun, simulate
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Lengths, Workload, distributed
from outthink.engines.shapes import read_shape
from outthink.evaluation.compare import CompareSettings
from outthink.evaluation.replayed_calls.rows import call_columns
from outthink.evaluation.replayed_calls.run import replay_calls
from outthink.strategies import Spec

STEP = StepProfile(base=((0.0, 0.02),), chunk=256)
WORKLOADS = {
    "256 + 128": distributed(Lengths.parse("256", "prompt"), Lengths.parse("128", "output")),
    "64..512 + geometric(100)": distributed(
        Lengths.parse("uniform:64,512", "prompt"), Lengths.parse("geometric:100,600", "output")
    ),
}
REFERENCE = {
    ("256 + 128", 8000): (0.804, 0.978),
    ("256 + 128", 40_000): (0.830, 0.994),
    ("64..512 + geometric(100)", 8000): (0.955, 0.979),
    ("64..512 + geometric(100)", 40_000): (0.988, 0.996),
}
"""Saturation over the ceiling, restarted and kept, of an independent simulation of the same rules."""


def exact(targets: Table) -> Table:
    """Values with one right answer."""
    one, longer = (Workload.of_calls([256], [output]) for output in (128, 256))
    capacity = Capacity(one, Deployment(profile=STEP, memory=8000))
    shared = Footprint.of(Workload.of_calls([256] * 16, [128] * 16, stage=[0] * 16), 256)
    values = {
        "g(256, 128)": (capacity.held, 41_280.0),
        "g(256, 256)": (Footprint.of(longer, 256).held[0], 98_688.0),
        "g of 16 samples of one prompt": (shared.held[0], 165_120.0),
        "ceiling, requests/s": (round(capacity.ceiling, 2), 9.69),
        "reservation over ceiling": (round((capacity.reservation or 0) / capacity.ceiling, 4), 0.8333),
    }
    for name, (value, right) in values.items():
        targets.append(judged(f"{name}: off the exact value", abs(value - right), 0.0))
    return [{"kind": "exact", "name": name, "value": value, "exact": right} for name, (value, right) in values.items()]


def table(targets: Table) -> Table:
    """Saturation over the ceiling beside the published figures, with the spread over ten seeds."""
    rows = []
    for (name, memory), reference in REFERENCE.items():
        workload = WORKLOADS[name]
        capacity = Capacity(workload, Deployment(profile=STEP, memory=memory))
        for mode, aim, seconds in zip(("restart", "keep"), reference, _horizons(memory), strict=True):
            rules = ServerRules(memory=memory, profile=STEP, preempt=mode)
            found = [_from_empty(workload, rules, capacity.ceiling, seconds, seed) for seed in range(10)]
            mean = float(np.mean(found))
            # Of the mean over seeds, by resampling them.
            drawn = np.random.default_rng(0).choice(found, (10_000, len(found))).mean(axis=1)
            low, high = np.percentile(drawn, [2.5, 97.5])
            off = np.abs(drawn - aim)
            rows.append(
                {
                    "kind": "saturation",
                    "workload": name,
                    "memory": memory,
                    "preempt": mode,
                    "over_ceiling": mean,
                    "low": float(low),
                    "high": float(high),
                    "reference": aim,
                    "reservation": (capacity.reservation or 0) / capacity.ceiling,
                }
            )
            ends = np.percentile(off, [2.5, 97.5])
            label = f"{name}, M {memory:,}, {mode}: off the table"
            targets.append(judged(label, abs(mean - aim), 0.02, low=float(ends[0]), high=float(ends[1])))
    return rows


def _horizons(memory: int) -> tuple[int, int]:
    """Seconds of a run that restarts and of one that keeps, as the published table was made."""
    return (1500, 6000) if memory == 8000 else (400, 400)


def _from_empty(workload: Workload, rules: ServerRules, ceiling: float, seconds: float, seed: int) -> float:
    """Requests done a second over the ceiling, with arrivals at 1.3 times of it from an empty server."""
    drawn = workload.drawn(int(1.3 * ceiling * seconds), 1.3 * ceiling, seed)
    last = float(drawn.arrival[-1])
    return simulate(drawn, rules, until=last).throughput(0, last) / ceiling


_BACKLOG = 2000
"""Requests that wait when the growth of a queue begins to be measured."""


def queues(targets: Table) -> Table:
    """The queue below and above the simulator's own saturation."""
    rows = []
    for (name, memory), _ in REFERENCE.items():
        workload = WORKLOADS[name]
        for mode in ("restart", "keep"):
            rules = ServerRules(memory=memory, profile=STEP, preempt=mode)
            ceiling = Capacity(workload, Deployment(profile=STEP, memory=memory)).ceiling
            most = saturation(workload, rules, ceiling, 100_000)
            below = workload.drawn(100_000, 0.9 * most, 1)
            calm, half = simulate(below, rules), simulate(below.take(np.arange(50_000)), rules)
            above = workload.drawn(120_000, 1.1 * most, 2)
            # A server that has never been full may stay faster than a full one for a long time: requests of one length
            # that restart fall into step only once they overflow together. So a backlog is there from the start.
            times = np.concatenate([np.zeros(_BACKLOG), above.arrival[:-_BACKLOG]])
            last = float(times[-1])
            grown = simulate(above.arriving(times), rules, until=last)
            slope = (_left(grown) - _BACKLOG) / last / (0.1 * most)
            little = _little(simulate(below, rules))
            rows.append(
                {
                    "kind": "queue",
                    "workload": name,
                    "memory": memory,
                    "preempt": mode,
                    "saturation": most,
                    "mean_queue_at_0.9": calm.mean_queue,
                    "mean_queue_at_0.9_of_half_as_many": half.mean_queue,
                    "slope_at_1.1_over_expected": slope,
                    "littles_law_off": little,
                }
            )
            label = f"{name}, M {memory:,}, {mode}"
            targets.append(judged(f"{label}: slope of the queue at 1.1, off", abs(slope - 1), 0.1))
            targets.append(judged(f"{label}: Little's law, off", little, 0.01))
            targets.append(
                judged(
                    f"{label}: mean queue at 0.9 over that of half as many requests",
                    calm.mean_queue / max(half.mean_queue, 1e-9),
                    1.5,
                )
            )
    return rows


def _left(run: SimulationRun) -> int:
    """Requests that have arrived and are not done."""
    return int(np.isnan(run.closed).sum())


def _little(run: SimulationRun) -> float:
    """By how much calls inside over time differ from arrivals times the time of each."""
    times = (run.calls["finished"] - run.calls["launched"]).sum()
    return float(abs(run.inside_seconds / times - 1))


def speed(targets: Table) -> Table:
    """Request-iterations a processor second, warm, the building of the arrays included."""
    lone = WORKLOADS["256 + 128"].drawn(400_000, 1.0)
    random = np.random.default_rng(0)
    groups = 50_000
    of = np.repeat(np.arange(groups), 8)
    together = Workload.of_calls(
        np.repeat(random.integers(64, 512, groups), 8),
        np.minimum(random.geometric(1 / 150, of.size), 1000),
        stage=of,
        ahead=4,
        need=random.integers(2, 9, groups),
    )
    rows = []
    for name, workload, memory, floor in (("independent", lone, 400_000, 100e6), ("groups", together, 200_000, 60e6)):
        capacity = Capacity(workload, Deployment(profile=STEP, memory=memory))
        # At 1.02 of the ceiling memory overflows now and then: preemption is part of what is timed.
        arriving = workload.arriving(np.cumsum(random.exponential(1 / (1.02 * capacity.ceiling), len(workload))))
        rules = ServerRules(memory=memory, profile=STEP)
        found, run = [], simulate(arriving, rules)
        for _ in range(7):
            begin = time.process_time()
            run = simulate(arriving, rules)
            found.append(run.call_iterations / (time.process_time() - begin))
        half = arriving.take(np.arange(len(workload) // 2))
        begin = time.process_time()
        simulate(half, rules)
        halved = time.process_time() - begin
        rows.append(
            {
                "kind": "speed",
                "workload": name,
                "calls": int(workload.stage.size),
                "call_iterations": run.call_iterations,
                "a_second": float(np.median(found)),
                "preemptions": int(run.replicas["preemptions"].sum()),
                "cancelled": int((run.calls["state"] == 6).sum()),
                "seconds_of_half_over_half_the_seconds": halved / (run.call_iterations / np.median(found) / 2),
            }
        )
        targets.append(
            judged(
                f"{name}: request-iterations a second",
                float(np.median(found)),
                floor,
                better="higher",
                low=min(found),
                high=max(found),
            )
        )
    return rows


def million(targets: Table) -> Table:
    """A trace of a million rows, from the file to the plan, and through the simulator."""
    random = np.random.default_rng(0)
    count = 1_000_000
    columns = {
        "arrival": np.cumsum(random.exponential(0.02, count)),
        "prompt_tokens": random.integers(1, 2000, count),
        "output_tokens": np.minimum(random.geometric(1 / 200, count), 2000),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.parquet"
        pq.write_table(pa.table(columns), path)
        planned, simulated = [], []
        for _ in range(3):
            begin = time.process_time()
            trace = read_trace(path)
            Capacity(trace, Deployment(profile=STEP, memory=400_000)).ceiling  # noqa: B018 - timed
            planned.append(time.process_time() - begin)
            begin = time.process_time()
            run = simulate(trace, ServerRules(memory=400_000, profile=STEP, batch_tokens=2048, replicas=2))
            simulated.append(time.process_time() - begin)
    targets.append(
        judged("a million rows planned, s", float(np.median(planned)), 2.0, low=min(planned), high=max(planned))
    )
    targets.append(
        judged(
            "a million rows simulated, s", float(np.median(simulated)), 15.0, low=min(simulated), high=max(simulated)
        )
    )
    rows: dict[str, Any] = {"kind": "million rows", "planned": float(np.median(planned))}
    return [rows | {"simulated": float(np.median(simulated)), "call_iterations": run.call_iterations}]


ARRIVALS = Path(os.environ.get("OUTTHINK_ARRIVALS") or ROOT.parent / "shared" / "data" / "arrivals")
LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "torch_dtype": "bfloat16",
}
UTILISATION, BUDGET, HOURLY = 0.8, 2048, 2.5
TARGETS = Objective(ttft=1.0, tpot=0.05)
RECORDED_SAMPLES = "GSM8K 1.5B"
"""Where samples stop is drawn from these, as adaptive-consistency:n=8 stops there."""
TIMES = (1, 8, 32)
"""How many such services run side by side."""


def azure(targets: Table) -> Table:
    """GPUs that two production traces need, by three rules, with one sample a request and with eight that may stop."""
    rows: Table = []
    if RECORDED_SAMPLES not in recorded():
        print(f"skipped: the Azure traces; {NO_TRACES}", file=sys.stderr)
        return rows
    for path in sorted(ARRIVALS.glob("azure-2023-*.parquet")):
        trace = read_trace(path)
        for samples, ahead, workload in sampled(trace):
            deployment = h100(workload)
            capacity = Capacity(workload, deployment)
            rules, count = rules_of(deployment), len(workload)
            found = {
                policy: [
                    saturation(workload, replace(rules, scheduling=policy), capacity.ceiling, count, seed)
                    for seed in range(5)
                ]
                for policy in ("fcfs", "priority")
            }
            most = {policy: float(np.mean(each)) for policy, each in found.items()}
            row = {
                "kind": "azure",
                "trace": path.stem.removeprefix("azure-2023-"),
                "samples": samples,
                "in_flight": ahead,
                "ceiling": capacity.ceiling,
                "effective": capacity.effective,
                "saturation": most["fcfs"],
                "saturation_priority": most["priority"],
                "binding": capacity.binding,
                "output_tokens": capacity.written,
            }
            rows += [row | _needed(workload, capacity, times, most) for times in TIMES]
            if samples == "1":
                label = f"Azure {row['trace']}, 1 sample: saturation off the ceiling"
                targets.append(_off(label, found["fcfs"], capacity.ceiling))
            else:
                label = f"Azure {row['trace']}, {samples}, {ahead} in flight, begun first: saturation off the ceiling"
                why = (
                    "memory binds, and shared prompts are evicted between two samples: the ceiling counts them as held"
                )
                targets.append(_off(label, found["priority"], capacity.ceiling, why))
    return rows


def _off(label: str, found: list[float], ceiling: float, reason: str | None = None) -> dict[str, Any]:
    """How far saturation lies from the ceiling, over seeds."""
    off = [abs(each / ceiling - 1) for each in found]
    return judged(label, float(np.mean(off)), 0.1, low=min(off), high=max(off), reason=reason)


def _needed(workload: Workload, capacity: Capacity, times: int, most: dict[str, float]) -> dict[str, Any]:
    """GPUs for so many services, by formula, by simulation and by reservation."""
    rate = times * len(workload) / float(workload.arrival.max())
    values = CapacityPlan(capacity=capacity, rate=rate, utilisation=UTILISATION).as_json()
    by_simulation = {policy: math.ceil(rate / (UTILISATION * each) - 1e-9) for policy, each in most.items()}
    lone = workload.stage.size == len(workload)
    return {
        "services": times,
        "rate": rate,
        "gpus": values["gpus"],
        "gpus_simulated": by_simulation["fcfs"],
        "gpus_simulated_priority": by_simulation["priority"],
        "gpus_reservation": values["gpus_reservation"],
        "gpus_for_targets": fewest(workload, capacity.deployment, times, values["gpus"]) if lone else None,
        "usd_per_answer": values["usd_per_answer"],
        "watts": values["watts"],
    }


def sampled(trace: Workload) -> list[tuple[str, int, Workload]]:
    """The trace with one sample a request, with eight, and with eight that stop where recorded samples agreed."""
    of = np.repeat(np.arange(len(trace)), 8)
    every = Workload.of_calls(trace.prompt[of], trace.output[of], trace.arrival, stage=of)
    found = [("1", 1, trace), ("8", 8, every)]
    spec = Spec.parse("adaptive-consistency:n=8")
    for ahead in (8, 4, 1):
        settings = CompareSettings(seeds=1, ahead=ahead)
        (replayed,) = replay_calls([recorded()[RECORDED_SAMPLES]], [spec], settings)
        requests = Workload.of_columns(*call_columns(replayed.requests))
        found.append(("8, stopped early", ahead, trace.sampled_like(requests, seed=0)))
    return found


def h100(workload: Workload) -> Deployment:
    """One H100 with Llama-3-8B in bf16, by its data sheet."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(LLAMA_3_8B))
        model = read_shape(folder)
    gpu = find_gpu("h100")
    mean_prompt = float((workload.prompt.astype(float) ** 2).sum() / workload.prompt.sum())
    size, room = model.kv_size(), kv_capacity(model, gpu)
    return Deployment(
        profile=StepProfile(**asdict(step_roofline(model, gpu, mean_prompt=mean_prompt, chunk=BUDGET))),
        memory=room.bytes,
        full=round(size.full),
        batch_tokens=BUDGET,
        gpu_hour=HOURLY,
        watts=gpu.power,
    )


def fewest(workload: Workload, deployment: Deployment, times: int, begin: int) -> int:
    """GPUs at which 90 per cent of the requests meet the targets with the arrivals as they were, bursts and all."""
    count = len(workload)
    # Side by side, the same day of `times` services, each begun at another moment of it.
    shifts = np.linspace(0, float(workload.arrival.max()), times, endpoint=False)
    moved = np.concatenate([(workload.arrival + shift) % float(workload.arrival.max() + 1) for shift in shifts])
    order = np.argsort(moved, kind="stable")
    together = workload.take(order % count).arriving(moved[order])
    for gpus in range(max(1, begin // 2), 40 * begin):
        run = simulate(together, rules_of(deployment, replicas=gpus, router="least-loaded"))
        if np.mean(run.meets(TARGETS.ttft, TARGETS.tpot)) >= ATTAINED:
            return gpus
    return -1


def main() -> int:
    """Measure everything and write results/plan.json."""
    parser(__doc__).parse_args()
    before = load_average()
    targets: Table = []
    rows = exact(targets)
    for part in (table, queues, speed, million, azure):
        found = part(targets)
        show(part.__name__, found)
        rows += found
    save_evidence("plan", rows=rows, targets=targets, load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
