"""What one request gets: the arm of a policy that fits its budget, or a stated fallback, with the reasons.

Knows: the policy, the regime, budgets and predicted usage. Does not know how a rule decides, nor how
a session carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from outthink.controller.policy.arms import PolicyArm, Task
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.rules import Guarded
from outthink.controller.router.artefact import of
from outthink.controller.router.text import hand_features
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import CURRENCIES, Currency, Request
from outthink.economics.latency import DeadlineTooShort
from outthink.economics.tariff import Tariff
from outthink.session.session import Session
from outthink.strategies import Spec, defaults
from outthink.strategies.voting import Rule, allocate

OUTSIDE = "outside the policy's regime"
"""How the receipt's note begins where the policy was not followed."""
_EVEN = 0.002
"""Accuracies closer than this are even; then the cheaper arm is taken."""
_DRAWN = ("temperature", "top_p", "top_k", "min_p")
"""Parts of a sampling that change what is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of the engine and of the request on it; None where it is not known.

    Args:
        tariff: prices the predicted tokens.
        prompt_tokens: of one call.
        question: the text that features are read from.
        prefill: tokens a second at which the engine reads a prompt.
        ahead: calls that the session has in flight unless told otherwise.
        concurrency: calls that the engine runs at once.
        pool: further models that can be drawn from.
        verifier: id of the session's verifier, None where none is at hand.
    """

    model: str
    revision: str | None = None
    tariff: Tariff | None = None
    prompt_tokens: int | None = None
    question: str | None = None
    prefill: float | None = None
    ahead: int = 1
    concurrency: int = 1
    pool: tuple[str, ...] = ()
    verifier: str | None = None

    @property
    def features(self) -> list[float] | None:
        """Hand features of the question."""
        return None if self.question is None else hand_features(self.question)


@dataclass(frozen=True, slots=True)
class Option:
    """An arm that was considered: what it is expected to use here, and what of the budget it would break.

    `ahead` is how many calls it would have in flight: more than usual where a deadline wants it.
    """

    arm: PolicyArm
    usage: dict[str, float | None]
    exceeds: tuple[Currency, ...]
    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A decision with its reasons; call it with a session and a request to carry it out.

    Args:
        policy: id of the policy.
        arm: what was chosen, None for the fallback.
        why: reason for the choice, in words.
        flags: what the receipt must say beside it.
        believed: what it took for granted of the request, in words.
        n: samples at most.
        spec: the strategy of the fallback, empty where an arm was chosen.
        ahead: calls in flight, None for the session's own number.
    """

    policy: str
    arm: PolicyArm | None
    n: int
    why: str
    spec: str = ""
    task: Task | None = None
    options: tuple[Option, ...] = ()
    flags: tuple[str, ...] = ()
    believed: tuple[str, ...] = ()
    features: Sequence[float] | None = None
    ahead: int | None = None

    @property
    def name(self) -> str:
        """Arm and size."""
        return self.arm.name if self.arm is not None else self.spec

    @property
    def note(self) -> str:
        """What the receipt says of it."""
        return f"policy {self.policy}: {self.name}"

    @property
    def models(self) -> tuple[str, ...]:
        """Further models that its rule draws from, by name."""
        return self.arm.rule.models if self.arm is not None else ()

    def rule(self, tell: Callable[[str], None] = lambda reason: None) -> Rule:
        """The rule of the chosen arm for one request, guarded by the regime; `tell` hears why it was left."""
        if self.arm is None or self.task is None:
            raise BadInput("plan", self.name, "has no rule", "it is a fallback: call the plan")
        rule = self.arm.rule.start(self.arm.n, self.features)
        return Guarded(rule, self.arm.n, self.task.regime, tell, self.ahead)

    async def __call__(self, session: Session, request: Request) -> Verdict:
        """Carry it out; the receipt names the policy and says where it was left."""
        session.note(self.note)
        for flag in self.flags:
            session.note(flag)
        if self.arm is None:
            return await Spec.parse(self.spec)(session, request)
        left = self.rule(lambda reason: session.note(f"{OUTSIDE}: {reason}; {defaults.COUNTED} went on"))
        return await allocate(session, request, rule=left)


def plan(policy: Policy, request: Request, situation: Situation) -> Plan:
    """Decide for one request.

    Without a budget it takes the arm that meets the policy's target; under one, the most accurate arm
    whose expected usage fits every ceiling, the cheaper of equals. Where none fits, the cheapest arm
    runs under the hard ceiling, and is flagged. Outside the regime it is adaptive-consistency.

    Raises BadInput for a model of another revision, DeadlineTooShort where reading the prompt alone would
    take longer.
    """
    policy.check_revision(situation.model, situation.revision)
    _check_deadline(request, situation)
    task, reason = find_task(policy, situation, request.answer)
    if task is None or reason is not None:
        return fallback(policy, str(reason), (task or policy.tasks[0]).chosen, request.answer)
    return _within(policy, task, request, situation)


def find_task(policy: Policy, situation: Situation, answer: defaults.Answer = None) -> tuple[Task | None, str | None]:
    """The task whose regime holds a request, the nearest of several; with a reason where none does.

    Without a task the model is not among the calibrated ones.
    """
    tasks = policy.of_model(situation.model)
    if not tasks:
        known = ", ".join(sorted({task.model for task in policy.tasks}))
        return None, f"the model {situation.model} is not among the calibrated ones ({known})"
    reasons = [(task.regime.outside(situation.question, situation.prompt_tokens, answer), task) for task in tasks]
    inside = [(reason, task) for reason, task in reasons if reason is None]
    same_kind = [(reason, task) for reason, task in reasons if answer in (None, task.regime.answer)]
    # Where no task holds it, the reason told is that of the nearest one, not of the first in the file.
    near = inside or same_kind or reasons
    if len(near) > 1 and (features := situation.features) is not None:
        near = [min(near, key=lambda item: item[1].regime.far(features))]
    reason, task = near[0]
    return task, reason


def arms_at_hand(task: Task, situation: Situation) -> list[PolicyArm]:
    """The arms of a task that draw from no other model than can be drawn from."""
    at_hand = {task.model, situation.model, *situation.pool}  # a server may know the model by another name
    return [arm for arm in task.arms if set(arm.rule.models) <= at_hand]


def at_size(task: Task, n: int, situation: Situation, policy: str = "") -> Plan:
    """The arm of size n of a task, for comparisons; BadInput for a size that was not calibrated."""
    judged, _ = judged_arm(task, situation)
    arm = judged if judged is not None and judged.n == n else task.arm(n)
    return Plan(policy=policy, arm=arm, n=n, why="it was asked for", task=task, features=situation.features)


def judged_arm(task: Task, situation: Situation) -> tuple[PolicyArm | None, tuple[str, ...]]:
    """The arm that the verifier at hand weighs the votes of, and a line where it is left out for want of its own."""
    judged = task.judged
    if judged is None:
        return None, ()
    if situation.verifier == judged.verifier:
        return judged.arm, ()
    here = "none is at hand" if situation.verifier is None else f"{situation.verifier} is at hand"
    return None, (f"the policy's arm with the verifier {judged.verifier} is left out: {here}",)


def fallback(policy: Policy, reason: str, n: int, answer: defaults.Answer = None) -> Plan:
    """Adaptive-consistency, or one sample for free text, on which votes cannot agree; flagged with the reason."""
    spec = defaults.fallback(answer, n)
    flag = f"{OUTSIDE}: {reason}; {spec.partition(':')[0]} instead"
    return Plan(policy=policy.id, arm=None, n=n, why=reason, spec=spec, flags=(flag,), believed=(reason,))


def _within(policy: Policy, task: Task, request: Request, situation: Situation) -> Plan:
    """The choice among the arms of a task whose regime holds the request."""
    features = situation.features
    arms = arms_at_hand(task, situation)
    if not arms:
        return fallback(policy, "its models are not all in the pool", task.chosen, request.answer)
    judged, missed = judged_arm(task, situation)
    options = tuple(_option(arm, request, situation) for arm in (*arms, *([judged] if judged else [])))
    fitting = [option for option in options if not option.exceeds]
    meets = [option for option in fitting if option.arm is judged or option.arm.n == task.chosen]
    target = meets[-1] if meets else None
    flags = (*drawn_otherwise(policy.sampling(task.model), asdict(request.sampling)), *missed)
    if target is not None:
        chosen, why = target, f"it meets the policy's target at the least {policy.by}"
        unknown = [name for name in request.budget.limited if target.usage[name] is None]
        if unknown:
            why += f"; what it takes of the budget in {' and '.join(unknown)} is unknown"
        elif request.budget.limited:
            why += ", within the budget"
    elif fitting:
        best = max(option.arm.held_out.accuracy for option in fitting)
        even = [option for option in fitting if option.arm.held_out.accuracy >= best - _EVEN]
        chosen = min(even, key=lambda option: option.usage["tokens"] or 0.0)
        why = "it is the most accurate one that the budget allows"
    else:
        # Arms are sorted by size: the first needs the least.
        chosen, why = options[0], "no arm fits the budget, and this one needs the least"
        broken = ", ".join(dict.fromkeys(name for option in options for name in option.exceeds))
        flags = (*flags, f"no arm of the policy fits the budget ({broken}); the cheapest runs under the hard ceiling")
    if chosen.ahead > situation.ahead:
        why += f", with {chosen.ahead} calls in flight for the deadline"
    if situation.question is None:
        flags = (*flags, "the question's text is not at hand: lengths and votes decide alone")
    return Plan(
        policy=policy.id,
        arm=chosen.arm,
        n=chosen.arm.n,
        why=why,
        task=task,
        options=options,
        flags=flags,
        believed=_believed(task, situation, features),
        features=features,
        ahead=chosen.ahead if chosen.ahead > situation.ahead else None,
    )


def drawn_otherwise(calibrated: JsonObject | None, here: JsonObject | None) -> tuple[str, ...]:
    """A line where samples are drawn in another way than the calibration's, as far as both are known."""
    before, now = calibrated or {}, here or {}
    changed = [name for name in _DRAWN if name in before and name in now and before[name] != now[name]]
    if not changed:
        return ()
    changes = ", ".join(f"{name.replace('_', '-')} {now[name]} instead of {before[name]}" for name in changed)
    return (f"samples are not drawn as in the policy's calibration ({changes}): its figures may not hold",)


def _option(arm: PolicyArm, request: Request, situation: Situation) -> Option:
    """An arm at the session's calls in flight; at more where only so the deadline holds, before a smaller arm."""
    seconds = request.budget.seconds
    ahead, most = situation.ahead, min(situation.concurrency, arm.n)
    usage = predicted_usage(arm, situation, ahead)
    while seconds is not None and ahead < most and (usage["seconds"] or 0.0) > seconds:
        ahead = min(2 * ahead, situation.concurrency)
        usage = predicted_usage(arm, situation, ahead)
    # Unknown usage excludes no arm: `why` says so, and a budget that cannot be accounted for is refused by the session.
    exceeds = tuple(
        name
        for name in CURRENCIES
        if (ceiling := request.budget.get(name)) is not None and (usage[name] or 0.0) > ceiling
    )
    return Option(arm, usage, exceeds, ahead)


def predicted_usage(arm: PolicyArm, situation: Situation, ahead: int = 1) -> dict[str, float | None]:
    """Expected tokens, seconds, usd, joules and flops of an arm here; None where unknown, never zero.

    The prompt's tokens are this request's where they are known, read once a sample. Held-out figures
    are those of one call in flight. With more of them a rule that stops early cancels the rest, half
    written on average, and time is shared among as many as run at once.
    """
    held = arm.held_out
    wide = max(1.0, min(ahead, held.samples))
    lost = max(0.0, min(ahead - 1, arm.n - held.samples))
    prompt = held.prompt_tokens if situation.prompt_tokens is None else held.samples * situation.prompt_tokens
    usage: dict[str, float | None] = dict.fromkeys((*CURRENCIES, "flops"))
    usage["seconds"] = None if held.seconds is None else held.seconds / wide
    if prompt is None:
        return usage
    prompt *= 1 + lost / held.samples
    made = held.tokens * (1 + lost / held.samples / 2)
    usage["tokens"] = prompt + made + held.verifier_tokens
    # What a verifier costs beside tokens is not in the policy: unknown is not zero.
    if situation.tariff is not None and not held.verifier_tokens:
        charged = situation.tariff.charge(round(prompt), 0, round(made))
        usage["flops"], usage["usd"], usage["joules"] = charged
    return usage


def _believed(task: Task, situation: Situation, features: Sequence[float] | None) -> tuple[str, ...]:
    lines = [f"like the questions of {task.dataset or 'the calibration'}, on which {task.model} was calibrated"]
    if situation.question is not None and features is not None and task.regime.distance is not None:
        far = task.regime.far(features)
        lines.append(
            f"question of {len(situation.question)} characters, distance {far:.2f} (at most {task.regime.distance:.2f})"
        )
    if situation.prompt_tokens is not None:
        lines.append(f"prompt of {situation.prompt_tokens} tokens")
    if situation.question is not None and task.other.get("difficulty") is not None:
        # What the policy's difficulty heads say of a question, before any sample.
        lines += of(task.other["difficulty"]).predict(situation.question).lines()
    return tuple(lines)


def _check_deadline(request: Request, situation: Situation) -> None:
    seconds, tokens, rate = request.budget.seconds, situation.prompt_tokens, situation.prefill
    if seconds is not None and tokens is not None and rate is not None and seconds < tokens / rate:
        raise DeadlineTooShort(seconds, tokens / rate)


def explained(plan: Plan) -> list[str]:
    """What it believed, what it considered and why it chose, a line each."""
    lines = [f"policy {plan.policy}"]
    lines += [f"believed: {line}" for line in plan.believed]
    for option in plan.options:
        held = option.arm.held_out
        line = (
            f"considered: {option.arm.name}: accuracy {held.accuracy:.1%} [{held.accuracy_low:.1%}, "
            f"{held.accuracy_high:.1%}], {_usage(option.usage)}"
        )
        lines.append(line + (f"; exceeds {', '.join(option.exceeds)}" if option.exceeds else ""))
    lines.append(f"chose: {plan.name}, because {plan.why}")
    return lines + [f"note: {flag}" for flag in plan.flags]


def _usage(usage: Mapping[str, float | None]) -> str:
    shown = {"tokens": ",.0f", "seconds": ".1f", "usd": ".6f", "joules": ".1f", "flops": ".3g"}
    known = {name: "unknown" if (value := usage[name]) is None else format(value, form) for name, form in shown.items()}
    return ", ".join(f"{name} {value}" for name, value in known.items())
