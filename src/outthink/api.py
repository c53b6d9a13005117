"""The main path: request, controller, strategy, session, engine, answer and receipt.

Knows: how the parts are put together for one request. Every part is a room of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from outthink.controller import choose
from outthink.controller.verifier import open_verifier
from outthink.core.budget import Budget
from outthink.core.errors import BadInput
from outthink.core.message import Message
from outthink.core.receipt import Receipt
from outthink.core.request import AnswerKind, AnswerReader, Request
from outthink.core.result import Result, Verdict
from outthink.core.sampling import Sampling
from outthink.economics.energy import Energy
from outthink.economics.price import Pricing
from outthink.economics.tariff import Tariff
from outthink.engines.locate import locate
from outthink.engines.protocol import Call, Engine
from outthink.engines.simulated import Simulated, is_simulated
from outthink.session.cache import ResponseCache
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.protocols import Observer
from outthink.session.session import Session
from outthink.session.virtual import VirtualRunner
from outthink.session.virtual import drive as drive_virtual
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier

Prompt = str | Sequence[Message | Mapping[str, Any]]
StrategyFunction = Callable[[Session, Request], Coroutine[Any, Any, Verdict]]
Plan = Spec | StrategyFunction


class Costs(NamedTuple):
    """What the user says a call costs."""

    price: Pricing | None
    energy: Energy | None


async def ask(
    prompt: Prompt,
    *,
    model: str | Engine = "embedded",
    strategy: str | Spec | StrategyFunction | None = None,
    budget: Budget | str | None = None,
    answer: AnswerKind | AnswerReader = "text",
    system: str | None = None,
    max_tokens: int = 512,
    temperature: float = 0.8,
    seed: int | None = None,
    ahead: int = 4,
    price: Pricing | None = None,
    energy: Energy | None = None,
    cache: bool = False,
    observer: Observer | None = None,
    opened: Callable[[Session], None] | None = None,
    verifier: Verifier | str | None = None,
    reasoning_effort: str | None = None,
    thinking_tokens: int | None = None,
) -> Result:
    """Answer one request within its budget.

    Args:
        prompt: a question, or messages in OpenAI's form.
        model: `embedded`, a server's URL, a GGUF file, or an engine.
        strategy: `name:k=v,...`, your own async function (session, request) -> Verdict, or None
            for the default of the answer kind.
        budget: ceilings for the whole request, e.g. `tokens=4000,seconds=20`.
        answer: kind of answer, or a function from completion text to canonical answer.
        max_tokens: cap of one completion.
        ahead: calls in flight for strategies that may stop early.
        price: dollars per million tokens; wins over published prices.
        energy: joules per token, bounds from above.
        cache: reuse samples of earlier runs with the same prompt, parameters and seed.
        opened: receives the session before it starts, to stop it from outside.
        verifier: judges candidates for strategies that need one: a verifier, or what `--verifier`
            takes (docs/verifiers.md). One that was opened here is closed here.
        reasoning_effort: low, medium, high or what the server calls it, where it has that.
        thinking_tokens: cap of the thinking alone, 0 for none, where the server has that.

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
    plan = strategy if callable(strategy) and not isinstance(strategy, Spec) else choose(request, strategy)
    _check_verifier(plan, verifier)
    engine = locate(model) if isinstance(model, str) else model
    judge = open_verifier(verifier, answer=answer, engine=engine) if isinstance(verifier, str) else verifier
    store = ResponseCache.default(engine.model) if cache else None
    options = {"ahead": ahead, "seed": seed, "cache": store, "observer": observer, "verifier": judge}
    try:
        if is_simulated(engine):
            return _virtual(request, plan, engine, Costs(price, energy), options, opened)
        return await _live(request, plan, engine, Costs(price, energy), options, opened)
    finally:
        if store is not None:
            store.close()
        if isinstance(verifier, str) and (close := getattr(judge, "aclose", None)) is not None:
            await close()
        if isinstance(model, str):
            await engine.aclose()


def _check_verifier(plan: Plan, verifier: Verifier | str | None) -> None:
    """Refuse a strategy that cannot run without a verifier before anything is started."""
    if verifier is None and isinstance(plan, Spec) and plan.strategy.needs_verifier:
        name = plan.strategy.name
        raise BadInput("verifier", None, f"is missing, and {name} needs one", "give --verifier NAME|PATH|URL")


async def _live(
    request: Request,
    plan: Plan,
    engine: Engine,
    costs: Costs,
    options: dict[str, Any],
    opened: Callable[[Session], None] | None,
) -> Result:
    """One request on a real engine. The deadline covers getting the engine ready."""
    runner = LiveRunner(engine)
    began = runner.now()
    try:
        async with asyncio.timeout(request.budget.seconds) as deadline:
            await engine.prepare(Call(request.messages, request.sampling))
            if (ready := getattr(options["verifier"], "prepare", None)) is not None:
                await ready()  # a judge learns its model's name, by which it is charged
    except TimeoutError:
        if not deadline.expired():
            raise
        late = Receipt((), runner.now() - began, ("the engine was not ready before the deadline",))
        return Result(None, "", _name(plan), engine.model, "budget:seconds", late)
    session = Session(runner, _tariff(engine, costs), budget=request.budget, began=began, **options)
    if opened is not None:
        opened(session)
    verdict = await drive_live(plan(session, request), session, runner)
    if verdict.answer is None and not verdict.text and runner.partial:
        verdict = _salvaged(runner, request)
    for note in getattr(engine, "notes", ()):
        session.note(note)
    return _result(verdict, plan, session)


def _virtual(
    request: Request,
    plan: Plan,
    engine: Simulated,
    costs: Costs,
    options: dict[str, Any],
    opened: Callable[[Session], None] | None,
) -> Result:
    """One request on recorded or scripted samples, in virtual time."""
    runner = VirtualRunner(engine)
    session = Session(runner, _tariff(engine, costs), budget=request.budget, **options)
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
    return Result(verdict.answer, verdict.text, _name(plan), session.tariff.model, stopped, session.receipt())


def _name(plan: Plan) -> str:
    return str(plan) if isinstance(plan, Spec) else getattr(plan, "__name__", "custom")
