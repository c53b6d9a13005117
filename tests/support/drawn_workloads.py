"""Small workloads and servers drawn at random, with everything that a server's rules know."""

from __future__ import annotations

import random

import numpy as np

from outthink.economics.simulator.simulate import ROUTERS, ServerRules
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import ANY, LAUNCHED, Workload

# Sums of these are exact, so that two ways of adding them agree to the last digit.
PROFILES = (
    StepProfile(base=((0, 0.25),), chunk=4, judge=4),
    StepProfile(base=((0, 0.5), (8, 1.5)), per_sequence=0.125, per_context=1 / 64, per_prefill=0.25, chunk=3, judge=2),
)


def drawn_groups(draw: random.Random, most: int) -> Workload:
    """Groups of stages of calls: shared and cached prompts, both rules, calls in flight, verifiers, priorities."""
    calls: dict[str, list[int]] = {name: [] for name in ("stage", "prompt", "shared", "cached", "output", "verifier")}
    stages: dict[str, list[int]] = {name: [] for name in ("group", "after", "ahead", "rule", "need", "priority")}
    late = draw.choice([0, 4, 16])
    arrival: list[float] = []
    for group in range(draw.randint(1, most)):
        common, first = draw.choice([0, 1, 4, 7, 16]), len(stages["group"])
        for place in range(draw.randint(1, 3)):
            count = draw.randint(1, 4 if common else 2)
            row = {
                "group": group,
                "after": first + draw.randrange(place) if place else -1,
                "ahead": draw.randint(1, count),
                "rule": draw.choice([LAUNCHED, ANY]),
                "need": draw.randint(1, count),
                "priority": draw.choice([0, 0, 0, 1, 2]),
            }
            arrival.append(draw.randint(0, late) / 4)
            for name, value in row.items():
                stages[name].append(value)
            same = draw.random() < 0.5
            for _ in range(count):
                shared = common if draw.random() < 0.85 else draw.randint(0, common)
                prompt = common if common and same and shared == common else shared + draw.randint(not shared, 12)
                values = {
                    "stage": len(stages["group"]) - 1,
                    "prompt": prompt,
                    "shared": shared,
                    "cached": draw.randint(0, prompt) if place else 0,
                    "output": draw.randint(1, 14),
                    "verifier": draw.choice([0, 0, 1, 4]),
                }
                for name, value in values.items():
                    calls[name].append(value)
    columns = {name: np.array(values, np.int64) for name, values in (calls | stages).items()}
    weight = np.ones(int(columns["group"][-1]) + 1)
    return Workload(**columns, arrival=np.array(arrival), weight=weight)


def drawn_server(draw: random.Random, workload: Workload) -> ServerRules:
    """Replicas with hardly more memory than the longest call takes, so that calls are preempted."""
    block = draw.choice([1, 1, 4, 16])
    full, windowed = draw.choice([(1, 0), (1, 0), (1, 1), (3, 1), (1, 7)])
    window = draw.randint(1, 20) if windowed else 0
    longest = int((workload.prompt + workload.output).max())
    least = block * (full * -(-longest // block) + windowed * -(-min(longest, window) // block))
    return ServerRules(
        memory=least + draw.randint(0, draw.choice([0, least // 2, 2 * least])),
        profile=draw.choice(PROFILES),
        full=full,
        windowed=windowed,
        window=window,
        block=block,
        chunk=draw.choice([None, 1, 2, 5, 64]),
        batch_tokens=draw.choice([None, None, 1, 2, 6, 12]),
        sequences=draw.choice([None, None, None, 1, 2, 5]),
        preempt=draw.choice(["keep", "restart"]),
        scheduling=draw.choice(["fcfs", "fcfs", "priority"]),
        replicas=draw.choice([1, 1, 2, 3]),
        router=draw.choice(ROUTERS),
        judge=draw.choice([None, 0.5, 8.0]),
    )
