"""A policy as a contender of `compare`: which plan each problem gets, and what the policy foretold.

Knows: refusals between calibration and evaluation, the regime of a whole file, prediction and fallback
columns. Does not know how a plan is carried out, nor how folds are fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from outthink.controller.policy.artefact import HeldOut, Policy, PolicyArm, Task
from outthink.controller.policy.plan import OUTSIDE, Plan, Situation, at_size, drawn_otherwise, fallback, find_task
from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.source import Source
from outthink.evaluation.rows import LADDER
from outthink.session.session import Session
from outthink.strategies.defaults import BASELINE, COUNTED

NAME = "auto"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AutoContender:
    """One rung: the plan of each problem, and what the policy expects of problems like them."""

    n: int
    plans: Mapping[str, Plan]
    expected: HeldOut | None
    policy: str
    canonical: ClassVar[str] = NAME
    waits: ClassVar[bool] = True

    def __call__(self, session: Session, request: Request) -> Coroutine[Any, Any, Verdict]:
        """Carry out the plan of this problem."""
        return self.plans[request.problem or ""](session, request)

    def take(self, problems: Sequence[str]) -> AutoContender:
        """The same for some of the problems."""
        return AutoContender(self.n, {name: self.plans[name] for name in problems}, self.expected, self.policy)


def contenders(policy: Policy, source: Source, say: Callable[[str], None]) -> list[AutoContender]:
    """A policy on samples that it has not seen, one contender a rung.

    BadInput where it has seen one of the problems, or was calibrated on another revision of the model.
    """
    traces = source.traces
    policy.check_revision(traces.model, source.revision)
    tasks = policy.of_model(traces.model)
    for task in tasks:
        refuse_seen(task, source)
    situations = situations_of(source)
    reason = _elsewhere(tasks, source)
    sizes = _sizes(policy, tasks, traces.depth)
    if not sizes:
        raise BadInput("policy", policy.id, f"has no arm of at most {traces.depth} samples", "record more samples")
    odd = drawn_otherwise(policy.sampling(traces.model), source.sampling)
    found: dict[int, dict[str, Plan]] = {n: {} for n in sizes}
    for name, situation in situations.items():
        near, why = (None, reason) if reason is not None else find_task(policy, situation, source.answer)
        for n in sizes:
            if near is not None and why is None:
                found[n][name] = replace(at_size(near, n, situation, policy.id), flags=odd)
            else:
                found[n][name] = fallback(policy, str(why), n)
    if reason is not None:
        say(f"{traces.path.name}: {OUTSIDE}: {reason}; {COUNTED} instead")
    for line in odd:
        say(f"{traces.path.name}: {line}")
    if source.questions is None:
        say(f"{traces.path.name}: no problems file beside it, so only lengths and votes decide")
    return [AutoContender(n, plans, _expected(plans), policy.id) for n, plans in found.items()]


def _elsewhere(tasks: Sequence[Task], source: Source) -> str | None:
    """Why the file as a whole is outside what was calibrated; None where a task fits, or no task is of this model."""
    reasons = []
    for task in tasks:
        regime = task.regime
        if source.questions is not None and regime.mean is not None:
            reason = regime.shifted([source.questions[name] for name in source.traces.problems])
        else:
            prompts = [one.sampled[0].prompt_tokens for one in source.traces.problems.values()]
            reason = regime.shifted_prompts([float(count) for count in prompts if count is not None])
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0] if reasons else None


def situations_of(source: Source) -> dict[str, Situation]:
    """What a request for each problem would know before it starts."""
    questions = source.questions
    return {
        name: Situation(
            model=source.traces.model,
            revision=source.revision,
            prompt_tokens=problem.sampled[0].prompt_tokens,
            question=None if questions is None else questions[name],
        )
        for name, problem in source.traces.problems.items()
    }


def refuse_seen(task: Task, source: Source) -> None:
    """BadInput where a task was calibrated on one of these problems."""
    asked = source.question_marks
    seen, marks = (task.questions, asked) if asked and task.questions else (task.problems, source.problem_marks)
    both = [name for name, mark in marks.items() if mark in seen]
    if both:
        raise BadInput(
            "traces",
            str(source.traces.path),
            f"holds {len(both)} of the problems that the policy was calibrated on ({both[0]}, ...)",
            "give other problems, or `outthink compare --cross-fit`",
        )


def _sizes(policy: Policy, tasks: Sequence[Task], depth: int) -> list[int]:
    arms = (tasks or policy.tasks)[0].arms
    if not tasks:
        return [n for n in LADDER if n <= depth]
    return [arm.n for arm in arms if _drawn(arm) <= depth and all(any(a.n == arm.n for a in t.arms) for t in tasks)]


def _drawn(arm: PolicyArm) -> int:
    """Samples of any one model that an arm draws at most."""
    return max((int(stage.n) for stage in getattr(arm.rule, "stages", ())), default=arm.n)


def _expected(plans: Mapping[str, Plan]) -> HeldOut | None:
    """What most of the problems' arm did in calibration; None where most fell back."""
    arms = Counter(id(plan.arm) for plan in plans.values())
    most, count = arms.most_common(1)[0]
    arm = next(plan.arm for plan in plans.values() if id(plan.arm) == most)
    return arm.held_out if arm is not None and 2 * count >= len(plans) else None


def pool_of(traces: Traces, autos: Sequence[AutoContender], files: Sequence[Traces]) -> tuple[Traces, ...]:
    """The samples of the further models that the plans draw from; BadInput where they are not among the files."""
    wanted = sorted({model for auto in autos for plan in auto.plans.values() for model in plan.models} - {traces.model})
    found = []
    for model in wanted:
        fitting = [one for one in files if one.model == model and set(traces.problems) <= set(one.problems)]
        if not fitting:
            raise BadInput("traces", model, f"is in the policy, and has no samples of {traces.name}", "give its file")
        found.append(fitting[0])
    return tuple(found)


def add_columns(rows: Sequence[Row], autos: Sequence[AutoContender], notes: Mapping[int, Counter[str]]) -> None:
    """Complete the policy's rows of one file: policy, prediction, fallback rate, ratio of tokens."""
    by_size = {auto.n: auto for auto in autos}
    baseline = next((row for row in rows if row["strategy"] == BASELINE and row["n"] == LADDER[-1]), None)
    for row in rows:
        if row["strategy"] != NAME:
            continue
        auto, heard, problems = by_size[row["n"]], notes[row["n"]], row["problems"]
        left = {note: count for note, count in heard.items() if note.startswith(OUTSIDE)}
        runs = problems * row["seeds"]
        low, high = auto.expected.predicted(problems) if auto.expected else (None, None)
        row |= {
            "policy": auto.policy,
            "predicted_accuracy": auto.expected.accuracy if auto.expected else None,
            "predicted_low": low,
            "predicted_high": high,
            "predicted_problems": problems,
            "fallback_rate": sum(left.values()) / runs,
            "tokens_ratio": row["tokens"] / baseline["tokens"] if baseline and baseline["tokens"] else None,
        }
        row["notes"] = [note for note in heard if note not in left and not note.startswith("policy ")]
        if left:
            row["notes"].append(f"{sum(left.values())} of {runs} runs were {max(left, key=left.__getitem__)}")
