"""Whether a policy still tells the truth about itself, on new samples.

Knows: predicted against realised accuracy, and drift of the samples it is fed with. Does not know how
either was made.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from outthink.controller.policy.artefact import Policy, Task
from outthink.core.errors import BadInput
from outthink.evaluation.auto import NAME
from outthink.evaluation.calibration.source import Source, open_source
from outthink.evaluation.compare import CompareSettings, compare
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE

_DRIFT = 0.25
"""Spreads that a mean may drift beyond chance before it is an alarm (4 standard errors)."""
_FIRST = 8
"""Samples of a problem that its agreement is measured on."""
_MOST_FALLBACKS = 0.5
_KEYS = (
    "traces",
    "model",
    "n",
    "problems",
    "accuracy",
    "predicted_accuracy",
    "fallback_rate",
    "tokens",
    "tokens_ratio",
)


def check(
    policy: Policy,
    paths: Sequence[Path],
    *,
    orders: int = 5,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Replay a policy on samples of problems that it has not seen.

    Returns `holds`, `policy`, `rows` (one a rung: accuracy, its prediction interval, whether it holds)
    and `reasons` in words. Coverage is lost where the chosen rung's accuracy lies outside its prediction
    interval, on either side, or most runs are outside the regime; drift is reported, no loss by itself.

    Raises BadInput for problems the policy was calibrated on, and as `compare` does.
    """
    rows = compare(paths, [Spec.parse(BASELINE)], CompareSettings(seeds=orders, policy=policy), say=say)
    found, reasons = [], []
    for row in (row for row in rows if row["strategy"] == NAME):
        low, high = row["predicted_low"], row["predicted_high"]
        left = row["fallback_rate"] > _MOST_FALLBACKS or low is None
        kept = not left and low <= row["accuracy"] <= high
        found.append({key: row[key] for key in _KEYS})
        found[-1] |= {"predicted_low": low, "predicted_high": high, "holds": kept}
        if left:
            reasons.append(f"{row['traces']} n={row['n']}: {row['fallback_rate']:.0%} of the runs fell back")
    if not found:
        raise BadInput("policy", policy.id, "has no arm for these samples", "calibrate on samples of this model")
    for path in paths:
        source = open_source(path)
        for task in _same_data(policy.of_model(source.traces.model), source.traces.dataset):
            reasons += [f"{source.traces.name}: {line}" for line in drift(task, source)]
    if (today := datetime.datetime.now(datetime.UTC).date().isoformat()) > policy.content["expires"]:
        reasons.append(f"the policy expired on {policy.content['expires']}, today is {today}")
    judged = [row for row in found if row["n"] in _chosen(policy, row)] or found
    return {"holds": all(row["holds"] for row in judged), "policy": policy.id, "rows": found, "reasons": reasons}


def _chosen(policy: Policy, row: Mapping[str, Any]) -> set[int]:
    """Sizes of the arms that meet the target for the model of a row; of all models where it is none of them."""
    return {task.chosen for task in policy.of_model(row["model"]) or policy.tasks}


def _same_data(tasks: Sequence[Task], dataset: str | None) -> Sequence[Task]:
    """The tasks of this data set, or all where it is none of theirs."""
    return [task for task in tasks if task.dataset == dataset] or tasks


def drift(task: Task, source: Source) -> list[str]:
    """Where the samples are unlike those of the calibration, in words."""
    problems = list(source.traces.problems.values())
    seen = {
        "agreement": [agreement([sample.answer for sample in one.sampled]) for one in problems],
        "sample_tokens": [float(np.mean([sample.tokens or 0 for sample in one.sampled])) for one in problems],
    }
    lines = []
    for name, values in seen.items():
        expected = task.other["drift"][name]
        move = (float(np.mean(values)) - expected["mean"]) / max(expected["spread"], 1e-9)
        if abs(move) > _DRIFT + 4 / sqrt(len(values)):
            lines.append(
                f"{name.replace('_', ' ')} drifted: {np.mean(values):.3g}, expected {expected['mean']:.3g} "
                f"({move:+.1f} spreads)"
            )
    return lines


def agreement(answers: Sequence[str | None]) -> float:
    """Share of the first samples behind their most frequent answer; of more samples it would be smaller."""
    first = answers[:_FIRST]
    known = [answer for answer in first if answer is not None]
    return max(map(known.count, set(known)), default=0) / len(first)
