"""`outthink compare` on recorded samples, and `policy check`: whether a policy still tells the truth about itself.

Knows: which files can be replayed, what is replayed on each of them, predicted against realised accuracy, and drift of
the samples that a policy is fed with. Does not know how a strategy works, how problems are shared out over processes,
what a row says, or how a policy was made.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np

from outthink.controller.policy.arms import Task
from outthink.controller.policy.artefact import Policy
from outthink.core.errors import BadInput, Unsupported
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.calibration.contenders import NAME, AutoContender, add_columns, contenders, crossed, pool_of
from outthink.evaluation.calibration.regime import drift_values
from outthink.evaluation.dataset import SampleSet, open_source, regrade, replayable
from outthink.evaluation.replay import Lineup, Outcomes, Progress, ReplaySettings, replay, rerun
from outthink.evaluation.rows import Measured, Row, rows_of, rungs_of
from outthink.evaluation.sample_file import JsonObject
from outthink.evaluation.verify import Prescoring, prescored
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings(ReplaySettings):
    """How to compare.

    Args:
        regrade: the kind of answer to extract anew, None to take what is recorded.
        problems: file of the problems, None for the one beside each file of samples.
        scoring: how to score samples for strategies that need it, None to take what is recorded.
        policy: a calibrated policy to replay beside the strategies.
        cross_fit: fit its rules anew on the samples without each fold in turn, and replay them there.
        parameters: weights read per token by model, where a file does not say them, or others are wanted.
        unserved: what becomes of a strategy that a file's samples cannot serve: refused, or left out in one line.
    """

    regrade: str | None = None
    problems: Path | None = None
    scoring: Prescoring | None = None
    policy: Policy | None = None
    cross_fit: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)
    unserved: Literal["refused", "left out"] = "refused"
    by_problem: bool = False

    def about(self) -> dict[str, str]:
        """What a report must say about the run: time model, orders and calls in flight."""
        return {
            "time model": self.speed.told,
            "orders a problem": str(self.seeds),
            "ahead of stopping strategies": str(self.ahead),
        }


def compare(
    paths: Sequence[Path],
    specs: Sequence[Spec],
    settings: CompareSettings,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Replay every spec at every size on every file; one row each (keys: docs/contracts.md).

    Args:
        progress: called with (parts done, parts in all).
        say: receives one line for each file that is skipped or ladder that is cut.

    Raises BadInput if no file can be replayed, or a given n exceeds what is recorded.
    """
    files = open_files(paths, settings, say)
    policies = [policy_rungs(traces, settings, say) for traces in files]
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    def replayed(shown: Sequence[Sequence[str]]) -> list[list[Outcomes]]:
        rungs = [
            rungs_of(traces, _served(traces, specs, names, settings, once), once)
            for traces, names in zip(files, shown, strict=True)
        ]
        lineups = [
            Lineup(traces, ladder, autos, pool_of(traces, autos, files), traces.greedy)
            for traces, ladder, autos in zip(files, rungs, policies, strict=True)
        ]
        return replay(lineups, settings, progress)

    try:
        results = replayed([_telling(traces) for traces in files])
    except Unsupported:
        if settings.unserved == "refused":
            raise
        # Some samples lack what those of the one problem have: now all are asked.
        results = replayed([list(traces.problems) for traces in files])
    rows: list[Row] = []
    for traces, autos, outcomes in zip(files, policies, results, strict=True):
        measured = [Measured.of(outcome, settings.ahead) for outcome in outcomes]
        rows_of_file = rows_of(traces, measured, settings.seeds)
        add_columns(rows_of_file, autos, outcomes)
        rows += rows_of_file
    return rows


def open_files(paths: Sequence[Path], settings: CompareSettings, say: Callable[[str], None]) -> list[Traces]:
    """The files that can be replayed, their samples graded and scored as the settings want them; BadInput for none."""
    loaded = [_load(path, settings) for path in replayable(paths, say, "hold no replayable samples")]
    files = [graded for traces in loaded if (graded := _graded(traces, say)) is not None]
    if not files:
        names = [str(traces.path) for traces in loaded]
        raise BadInput("traces", names, "hold no graded samples", "grade them first: outthink verify")
    return files


def _telling(traces: Traces) -> list[str]:
    """A problem with answers: what a strategy needs of its samples it only says when it reads one."""
    problems = traces.problems
    return [next((name for name in problems if any(s.answer for s in problems[name].sampled)), next(iter(problems)))]


def _served(
    traces: Traces,
    specs: Sequence[Spec],
    names: Sequence[str],
    settings: CompareSettings,
    say: Callable[[str], None],
) -> Sequence[Spec]:
    """The strategies that the samples of these problems can serve, where others are to be left out."""
    if settings.unserved == "refused":
        return specs
    engine = ReplayEngine(traces.take(names), speed=settings.speed)
    kept, left = [], []
    for spec in specs:
        try:
            if traces.depth and (traces.answered or spec.strategy.votes == "none"):
                rerun(engine, [spec.sized(traces.depth) if spec.strategy.sized else spec], names, 1, settings.ahead)
            kept.append(spec)
        except Unsupported:
            left.append(f"{spec.canonical} (needs {spec.strategy.needs})")
    if left:
        say(f"{traces.path.name}: left out {', '.join(left)}")
    return kept


def policy_rungs(traces: Traces, settings: CompareSettings, say: Callable[[str], None]) -> list[AutoContender]:
    """The policy's rungs on a file, none without a policy."""
    if settings.policy is None:
        return []
    if not traces.answered:
        say(f"{traces.path.name}: its samples have no answers to vote on, which leaves out {NAME}")
        return []
    source = open_source(traces.path, traces, problems=settings.problems)
    if settings.cross_fit:
        return crossed(settings.policy, source, say)
    return contenders(settings.policy, source, say)


def _load(path: Path, settings: CompareSettings) -> Traces:
    """A file's samples, graded and scored as the settings want them."""
    text = settings.regrade is not None
    traces = load(path, text=text)
    traces.parameters = settings.parameters.get(traces.model, traces.parameters)
    if settings.scoring is not None:
        traces = prescored(traces, settings.scoring, text=text)
    return traces if settings.regrade is None else regrade(traces, settings.regrade, settings.problems)


def _graded(traces: Traces, say: Callable[[str], None]) -> Traces | None:
    """The problems all of whose rows are known to be right or wrong, None where there is none."""
    ungraded, count = traces.ungraded(), len(traces.problems)
    command = f"outthink verify {traces.path} --problems FILE --verifier exact (or code)"
    if len(ungraded) == count:
        say(f"skipped {traces.path}: nobody has told which of its samples are correct; grade them first: {command}")
        return None
    if ungraded:
        say(f"{traces.path.name}: left out {len(ungraded)} of {count} problems with ungraded samples; see {command}")
        unknown = set(ungraded)
        return traces.take([name for name in traces.problems if name not in unknown])
    return traces


_DRIFT_SPREADS = 0.25
"""Spreads that a mean may drift beyond chance before it is an alarm (4 standard errors)."""
_MOST_FALLBACKS = 0.5
_KEYS = [
    "traces",
    "model",
    "n",
    "problems",
    "accuracy",
    "predicted_accuracy",
    "fallback_rate",
    "tokens",
    "tokens_ratio",
    "predicted_low",
    "predicted_high",
    "promise",
    "loss",
    "loss_low",
    "loss_high",
    "promise_state",
    "promise_needed",
]


def check(
    policy: Policy,
    paths: Sequence[Path],
    *,
    orders: int = 5,
    problems: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> JsonObject:
    """Replay a policy on samples of problems that it has not seen.

    Returns `holds`, `state` (the worst verdict on a chosen rung), `policy`, `rows` (one a rung: accuracy with its
    prediction interval, the paired loss with its one-sided bounds at the promise's risk, and whether the promise is
    confirmed, open or broken) and `reasons` in words. It does not hold where the chosen rung's promise is broken, or
    most runs are outside the regime; drift is reported, no loss by itself.

    Raises BadInput for problems the policy was calibrated on, and as `compare` does.
    """
    settings = CompareSettings(seeds=orders, policy=policy, problems=problems)
    rows = compare(paths, [Spec.parse(BASELINE)], settings, say=say)
    checked, reasons = [], []
    for row in (row for row in rows if row["strategy"] == NAME):
        # Where most runs fell back there is nothing to judge: that is what has to be reported.
        outside = row["fallback_rate"] > _MOST_FALLBACKS or row["predicted_low"] is None
        checked.append({**{key: row[key] for key in _KEYS}, "holds": not outside and row["promise_state"] != "broken"})
        if outside:
            reasons.append(f"{row['traces']} n={row['n']}: {row['fallback_rate']:.0%} of the runs fell back")
        elif not row["predicted_low"] <= row["accuracy"] <= row["predicted_high"]:
            foretold = f"[{row['predicted_low']:.1%}, {row['predicted_high']:.1%}]"
            what = "these problems are not as hard as those of the calibration"
            reasons.append(f"{row['traces']} n={row['n']}: {row['accuracy']:.1%} is outside of {foretold}: {what}")
    if not checked:
        raise BadInput("policy", policy.id, "has no arm for these samples", "calibrate on samples of this model")
    for path in paths:
        source = open_source(path, problems=problems)
        for task in _same_data(policy.of_model(source.traces.model), source.traces.dataset):
            reasons += [f"{source.traces.name}: {line}" for line in _drift(task, source)]
    if (today := datetime.datetime.now(datetime.UTC).date().isoformat()) > policy.content["expires"]:
        reasons.append(f"the policy expired on {policy.content['expires']}, today is {today}")
    judged = [row for row in checked if row["n"] in _chosen(policy, row)] or checked
    holds = all(row["holds"] for row in judged)
    return {"holds": holds, "state": _state(judged), "policy": policy.id, "rows": checked, "reasons": reasons}


def _state(judged: Sequence[JsonObject]) -> str | None:
    """The worst verdict on the chosen arms; None where most runs fell back, or nothing is promised."""
    states = [row["promise_state"] if row["holds"] or row["promise_state"] == "broken" else None for row in judged]
    order = ("broken", None, "open", "confirmed")
    return min(states, key=order.index, default=None)


def _chosen(policy: Policy, row: Row) -> set[int]:
    """Sizes of the arms that meet the target for the model of a row; of all models where it is none of them."""
    return {task.chosen for task in policy.of_model(row["model"]) or policy.tasks}


def _same_data(tasks: Sequence[Task], dataset: str | None) -> Sequence[Task]:
    """The tasks of this data set, or all where it is none of theirs."""
    return [task for task in tasks if task.dataset == dataset] or tasks


def _drift(task: Task, source: SampleSet) -> list[str]:
    """Where the samples are unlike those of the calibration, in words."""
    lines = []
    for name, values in drift_values(source).items():
        if (expected := (task.other.get("drift") or {}).get(name)) is None:
            continue
        move = (float(np.mean(values)) - expected["mean"]) / max(expected["spread"], 1e-9)
        if abs(move) > _DRIFT_SPREADS + 4 / sqrt(len(values)):
            lines.append(
                f"{name.replace('_', ' ')} drifted: {np.mean(values):.3g}, expected {expected['mean']:.3g} "
                f"({move:+.1f} spreads)"
            )
    return lines
