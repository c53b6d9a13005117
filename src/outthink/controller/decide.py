"""What runs for a request: the strategy that was asked for, the default of its kind, or what a policy says.

Knows: how a strategy may be named, what goes together, and what of an engine a policy wants to know. Does
not start engines, build sessions, or know how a policy decides.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from outthink.controller.online.feedback import RequestFeedback
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan, Situation, plan
from outthink.controller.router.chooser import ModelChooser
from outthink.controller.router.predictor import Predictor
from outthink.core.errors import BadInput, EngineError
from outthink.core.receipt import Receipt, Verdict
from outthink.core.request import Budget, Request
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine
from outthink.session.session import Session
from outthink.strategies import Spec
from outthink.strategies.defaults import fallback
from outthink.verifiers.protocol import Verifier

StrategyFunction = Callable[[Session, Request], Coroutine[Any, Any, Verdict]]
Runnable = Spec | StrategyFunction | Plan
"""What is called with a session and a request."""
AUTO = "auto"
_AHEAD = 4  # of stopping strategies, live; in replay it is 1 (docs/contracts.md, compare)


@dataclass(frozen=True, slots=True)
class Auto:
    """A policy decides, once the engine has told its model's name.

    Args:
        planned: receives what was decided, with its reasons.
        feedback: log of earlier outcomes that draws among the policy's arms.
    """

    policy: Policy
    planned: Callable[[Plan], None] | None = None
    feedback: RequestFeedback | None = None

    def spent(self, receipt: Receipt) -> None:
        """Tell the log what the request has cost."""
        if self.feedback is not None:
            self.feedback.spent(receipt)

    def close(self) -> None:
        """Close the log."""
        if self.feedback is not None:
            self.feedback.close()


def default_strategy(request: Request) -> Spec:
    """One sample for free text and adaptive voting for the rest.

    Free text has no canonical form that two completions are likely to share, so votes cannot pay.
    """
    return _default(request.answer == "text")


@cache  # every request without a strategy asks for it
def _default(text: bool) -> Spec:
    return Spec.parse(fallback("text" if text else None))


def read_strategy(
    request: Request,
    strategy: str | Spec | StrategyFunction | None = None,
    *,
    policy: Policy | Path | str | None = None,
    planned: Callable[[Plan], None] | None = None,
    learn: Path | str | None = None,
    verifier: object = None,
) -> Spec | StrategyFunction | Auto:
    """What is asked for, checked before anything is started.

    Args:
        strategy: `name:k=v,...`, a function, `auto` to let `policy` decide, None for the default.
        verifier: whatever judges, None for nothing.

    Raises BadInput for `auto` without a policy, a policy or log without `auto`, and a strategy that needs a
    verifier where there is none.
    """
    if strategy == AUTO:
        if policy is None:
            raise BadInput("policy", None, "is missing, and auto needs one", "make one with `outthink calibrate`")
        feedback = None if learn is None else RequestFeedback(Path(learn))
        return Auto(policy if isinstance(policy, Policy) else Policy.load(policy), planned, feedback)
    if policy is not None:
        name = policy.id if isinstance(policy, Policy) else policy
        raise BadInput("policy", str(name), "goes with the strategy auto", "ask for auto")
    if learn is not None:
        raise BadInput("learn", str(learn), "goes with the strategy auto", "ask for auto")
    if strategy is None:
        return default_strategy(request)
    if callable(strategy) and not isinstance(strategy, Spec):
        return strategy
    # The proxy reads its texts by itself: what comes over the wire imports nothing (docs/contracts.md).
    spec = strategy if isinstance(strategy, Spec) else Spec.parse(strategy, importing=True)
    if verifier is None and spec.strategy.needs_verifier:
        name = spec.strategy.name
        raise BadInput("verifier", None, f"is missing, and {name} needs one", "give --verifier NAME|PATH|URL")
    return spec


def read_router(
    router: Predictor | Path | str | None,
    names: Mapping[str, str] | None = None,
    point: str | None = None,
    *,
    policies: Sequence[Policy] = (),
) -> ModelChooser | None:
    """Who chooses the model of each request; None where nobody does.

    Args:
        names: what the router's models are called at hand, where that differs.
        point: an operating point in place of the router's own.
        policies: those that decide the rest.

    Raises BadInput for an unusable router, names or a point without one, and a policy that chooses among models too.
    """
    if router is None:
        for field, given in (("router map", names), ("operating point", point)):
            if given:
                raise BadInput(field, given, "goes with a router", "give --router, or leave it out")
        return None
    for policy in policies:
        need_one_chooser(router.id[:12] if isinstance(router, Predictor) else str(router), policy)
    return ModelChooser(router, names, point)


def need_one_chooser(router: str, policy: Policy) -> None:
    """Refuse a policy that chooses among models, where a router does that already. Raises BadInput."""
    drawn = {name for task in policy.tasks for arm in task.arms for name in arm.rule.models if name != task.model}
    if models := sorted(drawn):
        problem = f"is not asked: the policy {policy.id[:12]} chooses among models itself ({', '.join(models)})"
        raise BadInput("router", router, problem, "leave out the router or the policy")


def need_same_verifier(verifier: str, policy: Policy) -> None:
    """Refuse a policy that was calibrated with another verifier than the one that judges here. Raises BadInput."""
    if others := sorted(policy.verifiers - {verifier}):
        problem = f"is not what the policy {policy.id[:12]} was calibrated with ({', '.join(others)})"
        remedy = "take that one, or calibrate again with this one (outthink calibrate --verifier)"
        raise BadInput("verifier", verifier, problem, remedy)


def unaccounted(verifier: Verifier, budget: Budget) -> str | None:
    """Why a verifier cannot judge under a budget, in a line: it limits a currency in which that has no price.

    A policy then does without; None where it can judge.
    """
    if verifier.parameters == 0:
        return None
    tariff = Tariff.of(verifier.model)
    bounds = (budget.usd, tariff.usd_bound(1, 1)), (budget.joules, tariff.joules_bound(1, 1))
    if all(ceiling is None or bound is not None for ceiling, bound in bounds):
        return None
    return f"what the verifier {verifier.id} costs in the budget's currency is unknown, so it does not judge"


def question_of(request: Request) -> str | None:
    """What the user has asked last: the text that features are read from."""
    return next((message.text for message in reversed(request.messages) if message.role == "user"), None)


def need_fitting(spec: Spec, verifier: Verifier | None) -> None:
    """Refuse a verifier that the strategy cannot use, before anything is drawn. Raises BadInput."""
    if verifier is not None and verifier.kind == "confidence" and spec.judges and spec.strategy.extends:
        problem = f"judges finished samples, and {spec.strategy.name} scores unfinished ones"
        raise BadInput("verifier", verifier.id, problem, "give a check, a judge or a reward model")


async def decide(
    request: Request,
    asked: Spec | StrategyFunction | Auto,
    engine: Engine,
    tariff: Tariff,
    *,
    ahead: int = _AHEAD,
    pool: Sequence[str] = (),
    verifier: str | None = None,
) -> Runnable:
    """What runs on an engine that is ready.

    Args:
        ahead: calls that the session has in flight unless told otherwise.
        pool: further models that can be drawn from.
        verifier: id of the session's verifier, None where none is at hand.

    Raises BadInput and DeadlineTooShort as the policy does.
    """
    if not isinstance(asked, Auto):
        return asked
    situation = await situation_of(request, engine, tariff, ahead=ahead, pool=pool)
    decided = plan(asked.policy, request, replace(situation, verifier=verifier))
    if asked.feedback is not None:
        decided = asked.feedback.choose(asked.policy, decided)
    # After the draw, so that what is told is what runs.
    if asked.planned is not None:
        asked.planned(decided)
    return decided


async def situation_of(
    request: Request, engine: Engine, tariff: Tariff, *, ahead: int = _AHEAD, pool: Sequence[str] = ()
) -> Situation:
    """What a policy may know of a request and the engine that it would run on."""
    try:
        counted = await engine.count_prompt(Call(request.messages, request.sampling, problem=request.problem))
    except EngineError:
        counted = None  # the length stays unknown; its first real call will tell what is wrong
    return Situation(
        model=engine.model,
        revision=engine.revision,
        tariff=tariff,
        prompt_tokens=counted,
        question=question_of(request),
        prefill=engine.speed.prefill if engine.speed is not None else None,
        ahead=ahead,
        concurrency=engine.concurrency,
        pool=tuple(pool),
    )


def name_of(runs: Runnable | Auto) -> str:
    """What a result says that has run."""
    if isinstance(runs, (Auto, Plan)):
        return AUTO
    return str(runs) if isinstance(runs, Spec) else getattr(runs, "__name__", "custom")
