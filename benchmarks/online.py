"""What learning from feedback costs and gains, by replay of recorded samples.

Measures: mean regret a request (the arm's mean of accuracy - price x TFLOP on the traffic at hand,
against the best arm's) of Thompson sampling without and with forgetting, of the arm that calibration
likes best, and of uniform exploration. Arms: two models, one to 16 samples.
Scenarios: `calibrated` (calibrated on half of GSM8K, 1,000 requests from the other half),
`miscalibrated` (calibrated on MATH, 1,000 GSM8K requests) and `drift` (calibrated on GSM8K; 600
GSM8K requests, then 600 of MATH). Every run resamples the problems and their order; intervals are the
2.5 and 97.5 percentiles over runs, those of the mean difference to the calibrated arm are bootstrapped
over runs. Checks that a log replays to the state that it was lived through with, also after a torn line.
Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; about three minutes on two idle cores.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common import NO_TRACES, Replay, Table, load_average, parser, save, show, skip, target, traces
from outthink.controller.online import Arm, Learner, Posterior, Settings
from outthink.evaluation.rows import interval

ARMS = (
    ("0.5B", "self-consistency:n=8"),
    ("1.5B", "single"),
    ("1.5B", "self-consistency:n=4"),
    ("1.5B", "adaptive-consistency:n=16"),
    ("1.5B", "self-consistency:n=16"),
)
SEEDS, PRICE = 4, 0.02
MEMORIES = {"thompson": None, "thompson, memory 400": 400.0, "thompson, memory 100": 100.0}
POLICIES = (*MEMORIES, "calibrated arm", "uniform")
Array = np.ndarray


@dataclass(frozen=True)
class Traffic:
    """What every arm would have got, (arm, problem): mean accuracy over seeds, and TFLOP."""

    name: str
    right: Array
    cost: Array

    def take(self, columns: Array) -> Traffic:
        """Some of the problems."""
        return Traffic(self.name, self.right[:, columns], self.cost[:, columns])

    @property
    def utility(self) -> Array:
        """Mean of every arm."""
        return np.asarray(self.right.mean(axis=1) - PRICE * self.cost.mean(axis=1))


def calibrate(traffic: Traffic) -> list[Arm]:
    """Arms as a policy states them: mean with its interval over problems, and cost."""
    arms = []
    for (model, strategy), right, cost in zip(ARMS, traffic.right, traffic.cost, strict=True):
        low, high = interval(right)
        arms.append(Arm(f"{model} {strategy}", float(right.mean()), low, high, float(cost.mean())))
    return arms


def outcomes() -> dict[str, Traffic]:
    """Replay every arm on both data sets."""
    paths, found = traces(), {}
    with Replay() as replay:
        for dataset in ("GSM8K", "MATH"):
            right, cost = [], []
            for model in ("0.5B", "1.5B"):
                specs = [strategy for size, strategy in ARMS if size == model]
                results = replay(paths[f"{dataset} {model}"], specs, seeds=SEEDS)
                right += [results[name]["accuracy"] for name in specs]
                cost += [results[name]["flops"] / 1e12 for name in specs]
            found[dataset] = Traffic(dataset, np.array(right), np.array(cost))
    return found


def one_run(job: tuple[int, list[Arm], list[tuple[Traffic, int]]]) -> dict[str, list[float]]:
    """Regret of every policy in every phase of one run."""
    seed, arms, phases = job
    rng = np.random.default_rng(seed)
    posteriors = {
        policy: Posterior(arms, Settings(price=PRICE, seed=seed, memory=memory)) for policy, memory in MEMORIES.items()
    }
    fixed = int(np.argmax([arm.mean - PRICE * arm.cost for arm in arms]))
    regret: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for phase, (traffic, requests) in enumerate(phases):
        utility = traffic.utility
        drawn = rng.integers(traffic.right.shape[1], size=requests)
        lost = dict.fromkeys(POLICIES, 0.0)
        for place, problem in enumerate(drawn):
            for policy in POLICIES:
                arm = fixed if policy == "calibrated arm" else int(rng.integers(len(arms)))
                if policy in posteriors:
                    arm = posteriors[policy].place[posteriors[policy].choose(f"{phase}:{place}")[0]]
                cost = float(traffic.cost[arm, problem])
                right = bool(rng.random() < traffic.right[arm, problem])
                if policy in posteriors:
                    posteriors[policy].learn(arms[arm].name, right, cost)
                lost[policy] += float(utility.max() - utility[arm])
        for policy in POLICIES:
            regret[policy].append(lost[policy] / requests)
    return regret


def scenarios(found: dict[str, Traffic]) -> dict[str, tuple[list[Arm], list[tuple[Traffic, int]]]]:
    """What is calibrated on what, and the traffic that comes."""
    gsm, maths = found["GSM8K"], found["MATH"]
    order = np.random.default_rng(0).permutation(gsm.right.shape[1])
    first, second = gsm.take(order[::2]), gsm.take(order[1::2])
    return {
        "calibrated": (calibrate(first), [(second, 1000)]),
        "miscalibrated": (calibrate(maths), [(second, 1000)]),
        "drift": (calibrate(first), [(second, 600), (maths, 600)]),
    }


def rows_of(name: str, phases: list[tuple[Traffic, int]], runs: list[dict[str, list[float]]]) -> Table:
    """Mean regret of every policy in every phase, and how it differs from the calibrated arm's."""
    rows = []
    for phase, (traffic, requests) in enumerate(phases):
        table = {policy: np.array([run[policy][phase] for run in runs]) for policy in POLICIES}
        for policy, values in table.items():
            less = values - table["calibrated arm"]
            low, high = interval(less)
            rows.append(
                {
                    "scenario": name,
                    "traffic": traffic.name,
                    "requests": requests,
                    "policy": policy,
                    "regret": values.mean(),
                    "low": np.quantile(values, 0.025),
                    "high": np.quantile(values, 0.975),
                    "less_than_calibrated": less.mean(),
                    "less_low": low,
                    "less_high": high,
                }
            )
    return rows


def replayed(arms: list[Arm]) -> dict[str, Any]:
    """A log of 200 requests with undo and a torn line: live and replayed state, and what a choice takes."""
    with tempfile.TemporaryDirectory() as folder:
        path, verdicts = Path(folder) / "log.jsonl", random.Random(0)
        live = Learner(path, "sha256:benchmark", arms, Settings(price=PRICE))
        began = time.perf_counter()
        for i in range(200):
            live.choose(f"r{i}")
            live.learn(f"r{i}", verdicts.random() < 0.6, 5.0)
        each = (time.perf_counter() - began) / 200
        live.revert(120)
        state = live.state()
        live.close()
        with path.open("a") as file:
            file.write('{"n": 402, "kind": "outc')
        again = Learner(path)
        equal, said = again.state() == state, len(again.notes)
        again.close()
    return {"equal": equal, "torn_line_said": said == 1, "ms_a_choice_and_outcome": 1000 * each}


def main() -> int:
    """Measure and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=40, help="runs a scenario (default 40)")
    runs = arguments.parse_args().runs
    if len(traces()) < 4:
        return skip(NO_TRACES)
    before = load_average()
    found = outcomes()
    plans = scenarios(found)
    rows: Table = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name, (arms, phases) in plans.items():
            rows += rows_of(name, phases, list(pool.map(one_run, [(seed, arms, phases) for seed in range(runs)])))
    log = replayed(plans["calibrated"][0])
    show("mean regret a request", rows)
    arms_rows = [
        {"arm": f"{model} {strategy}"} | {f"{key} {part}": float(values[i].mean())}
        for i, (model, strategy) in enumerate(ARMS)
        for key, traffic in found.items()
        for part, values in (("accuracy", traffic.right), ("TFLOP", traffic.cost))
    ]
    by = {(row["scenario"], row["traffic"], row["policy"]): row for row in rows}
    save(
        "online",
        settings={"runs": runs, "seeds": SEEDS, "price": PRICE},
        targets=targets_of(by, log),
        load_before=before,
        rows=rows,
        arms=arms_rows,
        log=log,
    )
    return 0


def targets_of(by: dict[tuple[str, str, str], dict[str, Any]], log: dict[str, Any]) -> list[dict[str, Any]]:
    """What learning should do."""
    found = [target("a replayed log gives the live state", "equal", log["equal"], log["equal"])]
    for scenario, traffic, policy, other in (
        ("calibrated", "GSM8K", "thompson", "uniform"),
        ("miscalibrated", "GSM8K", "thompson", "calibrated arm"),
        ("drift", "MATH", "thompson", "calibrated arm"),
        ("drift", "MATH", "thompson, memory 400", "calibrated arm"),
        ("drift", "MATH", "thompson, memory 400", "thompson"),
    ):
        mine, theirs = (by[scenario, traffic, name]["regret"] for name in (policy, other))
        text = f"{mine:.4f} against {theirs:.4f}"
        found.append(target(f"{scenario}, {traffic}: {policy} loses less than {other}", "less", text, mine < theirs))
    return found


if __name__ == "__main__":
    sys.exit(main())
