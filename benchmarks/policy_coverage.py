"""Does a policy know its own accuracy, and what does choosing cost?

    python benchmarks/policy_coverage.py

For each recorded file and 100 random splits: calibrate on half of the problems, at the size of the
target alone, and look whether the accuracy on the other half lies within the stated 95 % prediction
interval. As a control the same with the confidence interval of the mean, which leaves out the other
half's error. Then processor time of choosing: all decisions of a request with its text features, and
the memory of a loaded policy. Without the recorded files the exit code is 77.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common import NO_TRACES, load_average, parser, save, show, skip, target, traces
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Situation, plan
from outthink.core.request import Message, Request
from outthink.economics.tariff import Tariff
from outthink.evaluation.calibration.contenders import AutoContender, fit_source, held_out, lineup
from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.compare import CompareSettings
from outthink.evaluation.dataset import SampleSet, open_source
from outthink.evaluation.replay import Lineup, replay
from outthink.evaluation.rows import interval

SPLITS = 100
ORDERS = 1
SIZE = 32
FOLDS = 5
AIM = Target.parse(f"match=self-consistency@{SIZE}")
_MEMORY = """
import json, resource, sys
from pathlib import Path
import outthink.client
def kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
before = kilobytes()
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Situation, plan
from outthink.core.request import Message, Request
policy = Policy.load(Path(sys.argv[1]))
text = "How many legs do three cats have?"
request = Request(messages=(Message("user", text),), answer="number")
plan(policy, request, Situation(model=policy.tasks[0].model, question=text))
print(json.dumps([kilobytes() - before, sorted({"numpy", "sklearn", "lightgbm"} & set(sys.modules))]))
"""


@lru_cache(maxsize=1)
def _source(path: Path) -> SampleSet:
    return open_source(path)


def _measured(source: SampleSet, autos: list[AutoContender]) -> np.ndarray:
    settings = CompareSettings(seeds=ORDERS, workers=1, by_problem=True)
    (outcomes,) = replay([Lineup(source.traces, [], autos)], settings, None)
    return outcomes[0].values


def split(path: Path, seed: int) -> dict[str, Any]:
    """One random split: what the calibrated half foretells, and what the other half shows."""
    whole = _source(path)
    names = list(whole.traces.problems)
    order = np.random.default_rng(seed).permutation(len(names))
    half = len(names) // 2
    halves = ([names[i] for i in part] for part in (order[:half], order[half:]))
    here, there = (replace(whole, traces=whole.traces.take(half)) for half in halves)
    found = fit_source(here, AIM, FOLDS, seed, sizes=(SIZE,))
    calibration = _measured(here, lineup(here, found))
    known = held_out(calibration)
    low, high = known.predicted(len(there.traces.problems))
    mean_low, mean_high = interval(calibration[0])
    rules = type(found)(**{**vars_of(found), "folds": [(tuple(there.traces.problems), found.rules)]})
    shown = float(_measured(there, lineup(there, rules))[0].mean())
    return {
        "predicted": known.accuracy,
        "low": low,
        "high": high,
        "shown": shown,
        "within": bool(low <= shown <= high),
        "within_mean": bool(mean_low <= shown <= mean_high),
        "kind": next(iter(found.rules.values())).kind,
    }


def vars_of(found: Any) -> dict[str, Any]:
    """Fields of a frozen value."""
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def choosing(policy: Policy, source: SampleSet) -> dict[str, float]:
    """Processor milliseconds a request: the plan, the text's features and every decision of its rule."""
    model = source.traces.model
    taken, decisions = [], []
    for problem in source.traces.problems.values():
        text = (source.questions or {}).get(problem.problem, "")
        request = Request(messages=(Message("user", text or "?"),), answer=source.answer or "number")
        situation = Situation(model=model, tariff=Tariff.of(model), question=text or None)
        began = time.process_time()
        decided = plan(policy, request, situation)
        count = 0
        if decided.arm is not None:
            rule = decided.rule()
            samples = iter(problem.sampled)
            while (step := rule.next()) is not None:
                for sample, _ in zip(samples, range(step.n), strict=False):
                    count += 1
                    if rule.add(sample, step.model):
                        break
                else:
                    if count >= len(problem.sampled):
                        break
            rule.verdict()
        taken.append(1000 * (time.process_time() - began))
        decisions.append(count)
    return {
        "mean_ms": float(np.mean(taken)),
        "p99_ms": float(np.quantile(taken, 0.99)),
        "decisions": float(np.mean(decisions)),
    }


def main() -> int:
    """Measure everything and write results/coverage.json."""
    options = parser(__doc__)
    options.add_argument("--splits", type=int, default=SPLITS)
    chosen = options.parse_args()
    files = traces()
    if not files:
        return skip(NO_TRACES)
    busy = load_average()
    table, costs = [], []
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, path in files.items():
            began = time.monotonic()
            found = list(pool.map(split, [path] * chosen.splits, range(chosen.splits)))
            row = {
                "set": name,
                "splits": len(found),
                "within": sum(one["within"] for one in found),
                "within the mean's interval": sum(one["within_mean"] for one in found),
                "half-width": float(np.mean([(one["high"] - one["low"]) / 2 for one in found])),
                "bias": float(np.mean([one["shown"] - one["predicted"] for one in found])),
                "learned": sum(one["kind"] not in ("fixed", "adaptive") for one in found),
                "seconds": time.monotonic() - began,
            }
            table.append(row)
            show(name, [row])
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            policy = calibrate([path], CalibrationRecipe(target=AIM, orders=1))
            file = Path(folder) / "policy.json"
            policy.save(file)
            done = subprocess.run(
                [sys.executable, "-c", _MEMORY, str(file)], capture_output=True, text=True, check=True
            )
            kilobytes, heavy = json.loads(done.stdout)
            costs.append(
                {"set": name, **choosing(Policy.load(file), open_source(path)), "resident_mb": kilobytes / 1024}
                | {"file_mb": file.stat().st_size / 1e6, "heavy imports": len(heavy)}
            )
    show("choosing", costs)
    save(
        "coverage",
        settings={"splits": chosen.splits, "orders": ORDERS, "size": SIZE, "folds": FOLDS},
        targets=[
            *(
                target(f"{row['set']}: halves within the interval", ">= 90 of 100", row["within"], ok(row))
                for row in table
            ),
            *_costs(costs),
        ],
        load_before=busy,
        rows=table,
        choosing=costs,
    )
    return 0


def ok(row: dict[str, Any]) -> bool:
    """At least 90 of 100."""
    return bool(row["within"] >= 0.9 * row["splits"])


def _costs(costs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    slow, p99 = max(one["mean_ms"] for one in costs), max(one["p99_ms"] for one in costs)
    memory = max(one["resident_mb"] for one in costs)
    return [
        target("processor time of choosing a request, mean", "< 5 ms", round(slow, 2), slow < 5),
        target("processor time of choosing a request, p99", "< 5 ms", round(p99, 2), p99 < 5),
        target("memory of a loaded policy", "< 150 MB", round(memory, 1), memory < 150),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
