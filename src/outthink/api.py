"""The main path: request, controller, strategy, session, engine, answer and receipt.

Knows: how the parts are put together for one request. Every part is a room of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from outthink.controller import choose
from outthink.controller.online.lessons import Lessons
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan as Planned
from outthink.controller.policy.plan import Situation
from outthink.controller.policy.plan import plan as plan_for
from outthink.controller.verifier import open_verifier
from outthink.core.errors import BadInput, EngineError
from outthink.core.receipt import Receipt, Result, Verdict
from outthink.core.request import AnswerKind, AnswerReader, Budget, Message, Request, Sampling
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy, Tariff
from outthink.engines.locate import locate
from outthink.engines.protocol import Call, Engine
from outthink.engines.simulated import Simulated, is_simulated
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.runner import Member, Observer, Runner
from outthink.session.session import Session
from outthink.session.store import ResponseCache
from outthink.session.virtual import VirtualRunner
from outthink.session.virtual import drive as drive_virtual
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier

Prompt = str | Sequence[Message | Mapping[str, Any]]
StrategyFunction = Callable[[Session, Request], Coroutine[Any, Any, Verdict]]
AUTO = "auto"


class Auto(NamedTuple):
    """A policy decides, once the engine has told its model's name."""

    policy: Policy
    planned: Callable[[Planned], None] | None
    lessons: Lessons | None


Plan = Spec | StrategyFunction | Planned


class Costs(NamedTuple):
    """What the user says a call costs."""

    price: Pricing | None
    energy: Energy | None


class Further(NamedTuple):
    """A model of the pool besides the first one."""

    engine: Engine
    costs: Costs
    store: ResponseCache | None

    def member(self, runner: Runner) -> Member:
        """It as the session knows it, once its engine has told its model's name."""
        return Member(runner, _tariff(self.engine, self.costs), self.store)


async def ask(
    prompt: Prompt,
    *,
    model: str | Engine | Sequence[str | Engine] = "embedded",
    strategy: str | Spec | StrategyFunction | None = None,
    budget: Budget | str | None = None,
    answer: AnswerKind | AnswerReader = "text",
    system: str | None = None,
    max_tokens: int = 512,
    temperature: float = 0.8,
    seed: int | None = None,
    ahead: int = 4,
    price: Pricing | Sequence[Pricing | None] | None = None,
    energy: Energy | Sequence[Energy | None] | None = None,
    cache: bool = False,
    observer: Observer | None = None,
    opened: Callable[[Session], None] | None = None,
    verifier: Verifier | str | None = None,
    reasoning_effort: str | None = None,
    thinking_tokens: int | None = None,
    policy: Policy | Path | str | None = None,
    planned: Callable[[Planned], None] | None = None,
    learn: Path | str | None = None,
) -> Result:
    """Answer one request within its budget.

    Args:
        prompt: a question, or messages in OpenAI's form.
        model: `embedded`, a server's URL, a GGUF file, or an engine; several of them make a pool, of
            which a strategy draws from the first unless it says `session.on(name)`.
        strategy: `name:k=v,...`, your own async function (session, request) -> Verdict, `auto` to let
            `policy` decide, or None for the default of the answer kind.
        budget: ceilings for the whole request, e.g. `tokens=4000,seconds=20`.
        answer: kind of answer, or a function from completion text to canonical answer.
        max_tokens: cap of one completion.
        ahead: calls in flight for strategies that may stop early.
        price: dollars per million tokens; wins over published prices. A list for a pool.
        energy: joules per token, bounds from above. A list for a pool.
        cache: reuse samples of earlier runs with the same prompt, parameters and seed.
        opened: receives the session before it starts, to stop it from outside.
        verifier: judges candidates for strategies that need one: a verifier, or what `--verifier`
            takes (docs/verifiers.md). One that was opened here is closed here.
        reasoning_effort: low, medium, high or what the server calls it, where it has that.
        thinking_tokens: cap of the thinking alone, 0 for none, where the server has that.
        policy: what `outthink calibrate` made, or its file; for the strategy `auto` (docs/policy.md).
        planned: receives what `auto` decided, with its reasons, before the first call.
        learn: log of earlier outcomes that draws among the policy's arms (docs/online.md).

    Raises BadInput, Unsupported or EngineError; never for a budget that ends: the result says so.
    """
    request = Request.of(
        prompt,
        system=system,
        answer=answer,
        budget=Budget.parse(budget) if isinstance(budget, str) else budget or Budget(),
        sampling=Sampling(
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning_effort=reasoning_effort,
            thinking_tokens=thinking_tokens,
        ),
        seed=seed,
    )
    plan = _wanted(request, strategy, policy, planned, learn)
    _check_verifier(plan, verifier)
    given = [model] if isinstance(model, str) or not isinstance(model, Sequence) else list(model)
    costs = _costs(given, price, energy)
    engines = [locate(one) if isinstance(one, str) else one for one in given]
    engine = engines[0]
    judge = open_verifier(verifier, answer=answer, engine=engine) if isinstance(verifier, str) else verifier
    stores = [ResponseCache.default(one.model) if cache else None for one in engines]
    others = [Further(*one) for one in zip(engines, costs, stores, strict=True)][1:]
    options = {"ahead": ahead, "seed": seed, "cache": stores[0], "observer": observer, "verifier": judge}
    try:
        if is_simulated(engine) and all(is_simulated(one) for one in engines):
            decided = await _decided(plan, request, engines[0], costs[0], ahead, others)
            return _noted(plan, _virtual(request, decided, engine, costs[0], options, opened, others))
        return _noted(plan, await _live(request, plan, engine, costs[0], options, opened, others))
    finally:
        _close(*stores, plan.lessons if isinstance(plan, Auto) else None)
        if isinstance(verifier, str) and (close := getattr(judge, "aclose", None)) is not None:
            await close()
        for one, opened_here in zip(engines, given, strict=True):
            if isinstance(opened_here, str):
                await one.aclose()


def _costs(
    models: Sequence[str | Engine],
    price: Pricing | Sequence[Pricing | None] | None,
    energy: Energy | Sequence[Energy | None] | None,
) -> list[Costs]:
    """What each model costs; BadInput for a number of prices that is not that of the models."""
    if not models:
        raise BadInput("model", [], "is empty", "give at least one")
    found = []
    for field, told in (("price", price), ("energy", energy)):
        each: list[Any] = list(told) if isinstance(told, Sequence) else [told]
        if told is None:
            each *= len(models)
        if len(each) != len(models):
            problem = f"is given for {len(each)} of {len(models)} models"
            raise BadInput(field, told, problem, "give one for each, in their order")
        found.append(each)
    return [Costs(*one) for one in zip(*found, strict=True)]


def _wanted(
    request: Request,
    strategy: str | Spec | StrategyFunction | None,
    policy: Policy | Path | str | None,
    planned: Callable[[Planned], None] | None,
    learn: Path | str | None,
) -> Plan | Auto:
    """What is to run; BadInput for `auto` without a policy, or a policy or log without `auto`."""
    if strategy == AUTO:
        if policy is None:
            raise BadInput("policy", None, "is missing, and auto needs one", "make one with `outthink calibrate`")
        lessons = None if learn is None else Lessons(Path(learn))
        return Auto(policy if isinstance(policy, Policy) else Policy.load(policy), planned, lessons)
    if policy is not None:
        raise BadInput("policy", str(getattr(policy, "id", policy)), "goes with the strategy auto", "ask for auto")
    if learn is not None:
        raise BadInput("learn", str(learn), "goes with the strategy auto", "ask for auto")
    return strategy if callable(strategy) and not isinstance(strategy, Spec) else choose(request, strategy)


async def _decided(
    plan: Plan | Auto,
    request: Request,
    engine: Engine,
    costs: Costs,
    ahead: int,
    others: Sequence[Further],
) -> Plan:
    """What runs on this engine, now that its model is known."""
    if not isinstance(plan, Auto):
        return plan
    counted = None
    if (count := getattr(engine, "count_prompt", None)) is not None:
        try:
            counted = await count(Call(request.messages, request.sampling, problem=request.problem))
        except EngineError:
            counted = None  # the length stays unknown; its first real call will tell what is wrong
    users = [message.text for message in request.messages if message.role == "user"]
    speed = getattr(engine, "speed", None)
    situation = Situation(
        model=engine.model,
        revision=getattr(engine, "revision", None),
        tariff=_tariff(engine, costs),
        prompt_tokens=counted,
        question=users[-1] if users else None,
        prefill=getattr(speed, "prefill", None),
        ahead=ahead,
        concurrency=engine.concurrency,
        pool=tuple(other.engine.model for other in others),
    )
    found = plan_for(plan.policy, request, situation)
    if plan.lessons is not None:
        found = plan.lessons.choose(plan.policy, found)
    if plan.planned is not None:
        plan.planned(found)
    return found


def _close(*kept: ResponseCache | Lessons | None) -> None:
    for one in kept:
        if one is not None:
            one.close()


def _noted(plan: Plan | Auto, result: Result) -> Result:
    """The result, once the log of outcomes knows what it has cost."""
    if isinstance(plan, Auto) and plan.lessons is not None:
        plan.lessons.spent(result.receipt)
    return result


def _check_verifier(plan: Plan | Auto, verifier: Verifier | str | None) -> None:
    """Refuse a strategy that cannot run without a verifier before anything is started."""
    if verifier is None and isinstance(plan, Spec) and plan.strategy.needs_verifier:
        name = plan.strategy.name
        raise BadInput("verifier", None, f"is missing, and {name} needs one", "give --verifier NAME|PATH|URL")


async def _live(
    request: Request,
    wanted: Plan | Auto,
    engine: Engine,
    costs: Costs,
    options: dict[str, Any],
    opened: Callable[[Session], None] | None,
    others: Sequence[Further] = (),
) -> Result:
    """One request on real engines. The deadline covers getting them ready."""
    runner = LiveRunner(engine)
    began = runner.now()
    try:
        async with asyncio.timeout(request.budget.seconds) as deadline:
            for one in (engine, *(other.engine for other in others)):
                await one.prepare(Call(request.messages, request.sampling))
            if (ready := getattr(options["verifier"], "prepare", None)) is not None:
                await ready()  # a judge learns its model's name, by which it is charged
            plan = await _decided(wanted, request, engine, costs, options["ahead"], others)
    except TimeoutError:
        if not deadline.expired():
            raise
        late = Receipt((), runner.now() - began, ("the engine was not ready before the deadline",))
        return Result(None, "", _name(wanted), engine.model, "budget:seconds", late)
    pool = [other.member(LiveRunner(other.engine, beside=runner)) for other in others]
    session = Session(runner, _tariff(engine, costs), budget=request.budget, began=began, pool=pool, **options)
    if opened is not None:
        opened(session)
    verdict = await drive_live(plan(session, request), session, runner)
    if verdict.answer is None and not verdict.text and runner.partial:
        verdict = _salvaged(runner, request)
    for one in (engine, *(other.engine for other in others)):
        for note in getattr(one, "notes", ()):
            session.note(note)
    return _result(verdict, plan, session)


def _virtual(
    request: Request,
    plan: Plan,
    engine: Simulated,
    costs: Costs,
    options: dict[str, Any],
    opened: Callable[[Session], None] | None,
    others: Sequence[Further] = (),
) -> Result:
    """One request on recorded or scripted samples, in virtual time."""
    runner = VirtualRunner(engine)
    pool = [other.member(VirtualRunner(cast(Simulated, other.engine), beside=runner)) for other in others]
    session = Session(runner, _tariff(engine, costs), budget=request.budget, pool=pool, **options)
    if opened is not None:
        opened(session)
    return _result(drive_virtual(plan(session, request), session, runner), plan, session)


def _tariff(engine: Engine | Simulated, costs: Costs) -> Tariff:
    """What the engine's calls cost; an engine that has read its own weights knows their number best."""
    tariff = Tariff.of(engine.model, url=getattr(engine, "url", None), price=costs.price, energy=costs.energy)
    return replace(tariff, parameters=getattr(engine, "parameters", None) or tariff.parameters)


def _salvaged(runner: LiveRunner, request: Request) -> Verdict:
    """Nothing finished: the longest unfinished text, and its answer only where it was stated as one."""
    reading = runner.reader(request.answer).read_now(runner.partial)
    stated = request.answer == "text" or reading.rule in ("boxed", "answer-is")
    return Verdict(reading.answer if stated else None, runner.partial)


def _result(verdict: Verdict, plan: Plan, session: Session) -> Result:
    for note in getattr(session.verifier, "notes", ()):
        session.note(note)
    stopped = session.stopped or verdict.stopped
    return Result(verdict.answer, verdict.text, _name(plan), ",".join(session.pool), stopped, session.receipt())


def _name(plan: Plan | Auto) -> str:
    if isinstance(plan, (Auto, Planned)):
        return AUTO
    return str(plan) if isinstance(plan, Spec) else getattr(plan, "__name__", "custom")
