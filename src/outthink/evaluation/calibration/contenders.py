"""A policy as a contender of `compare`: which plan each problem gets, and what the policy predicted of it.

A policy is replayed as it stands on problems that it has not seen, or as its recipe: every problem by rules that were
fitted without its fold. Knows: refusals between calibration and evaluation, the regime of a whole file, folds,
prediction and fallback columns. Does not know how a plan is carried out, nor how a rule is fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from outthink.controller.cascade import Cascade
from outthink.controller.policy.arms import HeldOut, PolicyArm, Task
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import OUTSIDE, Plan, Situation, at_size, drawn_otherwise, fallback, find_task
from outthink.controller.policy.promise import Promise
from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.engines.traces import Traces
from outthink.evaluation.calibration.fit import FittedRules, StoppingSettings, fit
from outthink.evaluation.calibration.losses import judge
from outthink.evaluation.calibration.regime import regime_of
from outthink.evaluation.calibration.target import Target
from outthink.evaluation.dataset import SampleSet
from outthink.evaluation.replay import MEASURES, Array, Outcomes
from outthink.evaluation.rows import LADDER, Row, intervals
from outthink.evaluation.sample_file import JsonObject
from outthink.session.session import Session
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE

NAME = "auto"


@dataclass(frozen=True, slots=True)
class AutoContender:
    """One rung: the plan of each problem, and the arm that says what is expected and promised of problems like them."""

    n: int
    plans: Mapping[str, Plan]
    usual: PolicyArm | None
    policy: str
    judged: bool = False
    canonical: ClassVar[str] = NAME
    waits: ClassVar[bool] = True

    def __call__(self, session: Session, request: Request) -> Coroutine[Any, Any, Verdict]:
        """Carry out the plan of this problem."""
        return self.plans[request.problem or ""](session, request)

    def take(self, problems: Sequence[str]) -> AutoContender:
        """The same for some of the problems."""
        return replace(self, plans={name: self.plans[name] for name in problems})


def contenders(policy: Policy, source: SampleSet, say: Callable[[str], None]) -> list[AutoContender]:
    """A policy on samples that it has not seen, one contender a rung.

    BadInput where it has seen one of the problems, or was calibrated on another revision of the model.
    """
    traces = source.traces
    policy.check_revision(traces.model, source.revision)
    tasks = policy.of_model(traces.model)
    for task in tasks:
        _refuse_seen(task, source)
    situations = _situations(source)
    reason = _elsewhere(tasks, source)
    sizes = _sizes(tasks, traces.depth)
    if not sizes:
        raise BadInput("policy", policy.id, f"has no arm of at most {traces.depth} samples", "record more samples")
    flags = drawn_otherwise(policy.sampling(traces.model), source.sampling)
    plans: dict[int, dict[str, Plan]] = {n: {} for n in sizes}
    for name, situation in situations.items():
        near, why = (None, reason) if reason is not None else find_task(policy, situation, source.answer)
        for n in sizes:
            if near is not None and why is None:
                plans[n][name] = replace(at_size(near, n, situation, policy.id), flags=flags)
            else:
                plans[n][name] = fallback(policy, str(why), n)
    if reason is not None:
        say(f"{traces.path.name}: {OUTSIDE}: {reason}; adaptive-consistency instead")
    for line in flags:
        say(f"{traces.path.name}: {line}")
    if source.questions is None:
        say(f"{traces.path.name}: no problems file beside it, so only lengths and votes decide")
    return [AutoContender(n, of_size, _usual(of_size), policy.id) for n, of_size in plans.items()]


def _elsewhere(tasks: Sequence[Task], source: SampleSet) -> str | None:
    """Why the file as a whole is outside what was calibrated; None where a task fits, or no task is of this model."""
    reasons = []
    for task in tasks:
        regime = task.regime
        if source.questions is not None and regime.mean is not None:
            # All at once: one word problem may be at home among competition problems, a file of them is not.
            reason = regime.shifted([source.questions[name] for name in source.traces.problems])
        else:
            prompts = [problem.sampled[0].prompt_tokens for problem in source.traces.problems.values()]
            reason = regime.shifted_prompts([float(count) for count in prompts if count is not None])
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0] if reasons else None


def _situations(source: SampleSet) -> dict[str, Situation]:
    """What a request for each problem would know before it starts."""
    questions = source.questions
    return {
        name: Situation(
            model=source.traces.model,
            revision=source.revision,
            prompt_tokens=problem.sampled[0].prompt_tokens,
            question=None if questions is None else questions[name],
            verifier=source.traces.verifier,
        )
        for name, problem in source.traces.problems.items()
    }


def _refuse_seen(task: Task, source: SampleSet) -> None:
    """BadInput where a task was calibrated on one of these problems."""
    seen, marks = task.problems, source.problem_marks
    # The question's text where both have it: the same question may bear another name in another file.
    if source.question_marks and task.questions:
        seen, marks = task.questions, source.question_marks
    both = [name for name, mark in marks.items() if mark in seen]
    if both:
        raise BadInput(
            "traces",
            str(source.traces.path),
            f"holds {len(both)} of the problems that the policy was calibrated on ({both[0]}, ...)",
            "give other problems, or `outthink compare --cross-fit`",
        )


def _sizes(tasks: Sequence[Task], depth: int) -> list[int]:
    """Sizes at which every task of the model has an arm that the samples suffice for."""
    if not tasks:
        return [n for n in LADDER if n <= depth]
    shared = set.intersection(*({arm.n for arm in task.arms} for task in tasks))
    return [arm.n for arm in tasks[0].arms if arm.n in shared and _drawn(arm) <= depth]


def _drawn(arm: PolicyArm) -> int:
    """Samples of any one model that an arm draws at most."""
    return max(stage.n for stage in arm.rule.stages) if isinstance(arm.rule, Cascade) else arm.n


def _usual(plans: Mapping[str, Plan]) -> PolicyArm | None:
    """Most of the problems' arm; None where most fell back."""
    arms = Counter(id(plan.arm) for plan in plans.values())
    most, count = arms.most_common(1)[0]
    arm = next(plan.arm for plan in plans.values() if id(plan.arm) == most)
    return arm if 2 * count >= len(plans) else None


def pool_of(traces: Traces, autos: Sequence[AutoContender], files: Sequence[Traces]) -> tuple[Traces, ...]:
    """The samples of the further models that the plans draw from; BadInput where they are not among the files."""
    wanted = sorted({model for auto in autos for plan in auto.plans.values() for model in plan.models} - {traces.model})
    pool = []
    for model in wanted:
        fitting = [file for file in files if file.model == model and set(traces.problems) <= set(file.problems)]
        if not fitting:
            raise BadInput("traces", model, f"is in the policy, and has no samples of {traces.name}", "give its file")
        pool.append(fitting[0])
    return tuple(pool)


def add_columns(rows: Sequence[Row], autos: Sequence[AutoContender], outcomes: Sequence[Outcomes]) -> None:
    """Complete the policy's rows of one file: policy, prediction, promise, fallback rate, ratio of tokens."""
    by_size = {auto.n: auto for auto in autos}
    replayed = {outcome.spec.n: outcome for outcome in outcomes if isinstance(outcome.spec, AutoContender)}
    accuracies = {
        f"{outcome.spec.canonical}@{outcome.spec.n}": outcome.values[0]
        for outcome in outcomes
        if isinstance(outcome.spec, Spec)
    }
    # `tokens_ratio` is over self-consistency at 32 samples of the same run (docs/contracts.md).
    baseline = next((row for row in rows if row["strategy"] == BASELINE and row["n"] == LADDER[-1]), None)
    for row in rows:
        if row["strategy"] != NAME:
            continue
        auto, outcome, problems = by_size[row["n"]], replayed[row["n"]], row["problems"]
        counts = outcome.notes
        outside = {note: count for note, count in counts.items() if note.startswith(OUTSIDE)}
        runs, outside_runs = problems * row["seeds"], sum(outside.values())
        expected, promise = (auto.usual.held_out, auto.usual.promise) if auto.usual else (None, None)
        low, high = expected.predicted(problems) if expected else (None, None)
        row |= {
            "policy": auto.policy,
            "predicted_accuracy": expected.accuracy if expected else None,
            "predicted_low": low,
            "predicted_high": high,
            "predicted_problems": problems,
            "fallback_rate": outside_runs / runs,
            "tokens_ratio": _ratio(row["tokens"], baseline["tokens"] if baseline else None),
            **_promised(promise, outcome.values[0], accuracies),
        }
        row["notes"] = [note for note in counts if note not in outside and not note.startswith("policy ")]
        if outside:
            row["notes"].append(f"{outside_runs} of {runs} runs were {max(outside, key=outside.__getitem__)}")


def _promised(promise: Promise | None, accuracy: Array, accuracies: Mapping[str, Array]) -> JsonObject:
    """What these problems say of a promise: the paired loss with its one-sided bounds, and the verdict; null without a
    promise, or where what it is compared with was not replayed."""
    keys = ("loss", "loss_low", "loss_high", "promise_state", "promise_needed")
    aim = None if promise is None else _aim(promise.against, accuracies)
    if promise is None or aim is None:
        return dict.fromkeys(("promise", *keys))
    verdict = judge(aim - accuracy, promise)
    found = (verdict.loss, verdict.low, verdict.high, verdict.state, verdict.needed)
    return {"promise": promise.margin, **dict(zip(keys, found, strict=True))}


def _aim(against: str, accuracies: Mapping[str, Array]) -> Array | float | None:
    """Accuracy on each problem of what is to be matched, or the one to be reached."""
    kind, _, value = against.partition("=")
    return float(value) if kind == "accuracy" else accuracies.get(against)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


# Cross-fitted rules: their held-out figures come from the same replay as those of every strategy.


def fit_source(
    source: SampleSet, target: Target, folds: int, seed: int, sizes: Sequence[int] = LADDER, *, judged: bool = False
) -> FittedRules:
    """Rules for one file of samples at every size it allows: for new problems, and for each fold without it.

    Args:
        judged: where self-consistency is to be matched, rules compete too whose votes the samples' scores weigh.
    """
    depth = source.traces.depth
    fitting = tuple(n for n in sizes if n <= depth)
    settings = StoppingSettings(
        margin=target.margin,
        risk=target.risk,
        folds=folds,
        seed=seed,
        sizes=fitting,
        by=target.by,
        judged=int(target.value) if judged and target.kind == "match" and int(target.value) in fitting else None,
    )
    return fit(source.traces, settings)


def lineup(source: SampleSet, fitted: FittedRules, policy: str = "") -> list[AutoContender]:
    """One contender a rung whose rule for a problem was fitted on the other folds."""
    situations = _situations(source)
    regime = regime_of(source)
    plans: dict[int, dict[str, Plan]] = {n: {} for n in sorted(fitted.rules)}
    # The plans need a task with arms; what these did is measured by this very replay, so nothing is known of it yet.
    unmeasured = held_out(np.ones((len(MEASURES), 1)))
    for names, rules in fitted.folds:
        task = Task(
            model=source.traces.model,
            dataset=source.traces.dataset,
            answer=source.answer,
            arms=tuple(PolicyArm(n, rule, unmeasured) for n, rule in sorted(rules.items())),
            chosen=max(rules),
            regime=regime,
            problems=frozenset(),
            questions=frozenset(),
            other={},
        )
        for name in names:
            for n in plans:
                plans[n][name] = at_size(task, n, situations[name], policy)
    order = list(source.traces.problems)
    return [
        AutoContender(n, {name: by_problem[name] for name in order}, None, policy) for n, by_problem in plans.items()
    ]


def crossed(policy: Policy, source: SampleSet, say: Callable[[str], None]) -> list[AutoContender]:
    """The policy's recipe on its own problems: fitted anew without each fold, and replayed there.

    What the policy states of its arms stands beside it; on the same problems that is no prediction.
    """
    content = policy.content
    policy.check_revision(source.traces.model, source.revision)
    source.traces.need_counts(prompts=True)
    fitted = fit_source(source, Target.of(content["target"]), int(content["folds"]), int(content["seed"]))
    for note in fitted.notes:
        say(f"{source.traces.path.name}: {note}")
    tasks = policy.of_model(source.traces.model)
    stated = {arm.n: arm for arm in tasks[0].arms} if tasks else {}
    return [replace(auto, usual=stated.get(auto.n)) for auto in lineup(source, fitted, policy.id)]


def held_out(values: Array, prices: Callable[[float, float], float] | None = None) -> HeldOut:
    """Means and intervals of `values[measure, problem]`; `prices` gives dollars of prompt and generated tokens."""
    by_measure = dict(zip(MEASURES, values, strict=True))
    accuracy, tokens = by_measure["accuracy"], by_measure["tokens"]
    low, high = intervals(np.stack([accuracy, tokens]))

    def mean(name: str) -> float | None:
        value = float(by_measure[name].mean())
        return None if np.isnan(value) else round(value, 6)

    prompt = mean("prompt_tokens")
    return HeldOut(
        problems=values.shape[1],
        accuracy=float(accuracy.mean()),
        accuracy_low=float(low[0]),
        accuracy_high=float(high[0]),
        spread=float(accuracy.std()),
        tokens=float(tokens.mean()),
        tokens_low=float(low[1]),
        tokens_high=float(high[1]),
        prompt_tokens=prompt,
        samples=float(by_measure["samples"].mean()),
        seconds=mean("seconds"),
        flops=mean("flops"),
        usd=None if prices is None or prompt is None else prices(prompt, float(tokens.mean())),
        verifier_tokens=mean("verifier_tokens") or 0.0,
    )
