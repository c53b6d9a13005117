"""Many requests under one budget: the next sample goes where it gains most.

Knows: how the parts are put together for a batch, and its journal. The main path of a single
request is in `api`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outthink.answers import reader_for
from outthink.api import Prompt
from outthink.controller.allocation import Allocation, Belief, Checked, GainTable, Voted
from outthink.controller.verifier import open_verifier
from outthink.core.errors import BadInput
from outthink.core.receipt import Entry, Receipt, Result
from outthink.core.request import AnswerKind, AnswerReader, Budget, Request, Sampling
from outthink.core.sample import Sample
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy, Tariff
from outthink.engines.locate import locate
from outthink.engines.protocol import Call, Engine
from outthink.engines.simulated import is_simulated
from outthink.session.batch import Batch
from outthink.session.budget import byte_bound
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.runner import Observer
from outthink.session.session import Session
from outthink.session.store import Journal, SampleStore
from outthink.session.virtual import VirtualRunner
from outthink.session.virtual import drive as drive_virtual
from outthink.verifiers.protocol import Verifier

NAME = "allocation"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One result a request, in the order given, and the receipt of them all."""

    results: tuple[Result, ...]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class _Plan:
    """What `ask_batch` has been told, checked."""

    requests: tuple[Request, ...]
    beliefs: tuple[Belief, ...]
    budget: Budget
    worth: float | None
    exact: bool


async def ask_batch(
    prompts: Sequence[Prompt],
    *,
    budget: Budget | str | None = None,
    model: str | Engine = "embedded",
    answer: AnswerKind | AnswerReader = "number",
    gains: GainTable | None = None,
    verifier: Verifier | str | None = None,
    prior: tuple[float, float] = (1.0, 1.0),
    at_most: int = 32,
    worth: float | None = None,
    ids: Sequence[str] | None = None,
    system: str | None = None,
    max_tokens: int = 512,
    temperature: float = 0.8,
    seed: int | None = None,
    price: Pricing | None = None,
    energy: Energy | None = None,
    journal: Path | None = None,
    observer: Observer | None = None,
    opened: Callable[[Session], None] | None = None,
) -> BatchResult:
    """Answer many requests within one budget for all of them.

    Each request is answered by majority vote, or, with an exact verifier, by the first sample that
    passes. The next sample always goes to the request where it is expected to gain most per unit of cost.

    Args:
        prompts: questions, or messages in OpenAI's form.
        budget: ceilings for the whole batch, e.g. `tokens=40000`.
        gains: what samples gain, measured on recorded ones (`evaluation.gains.measure_gains`); without
            it the answer that the model prefers is taken to be right.
        verifier: an exact check (see `--verifier`); None to vote.
        prior: pseudo-counts (passed, failed) of the Beta prior over each request's success, with a verifier.
        at_most: samples a request.
        worth: the most that one more right answer may cost, in the budget's currency; requests that
            promise less are closed. None: the budget is spent as long as anything can gain.
        ids: a name for each request; samples are saved and replayed under it. Default: its number.
        journal: file that keeps finished samples: the same call goes on from there after a kill, and
            what was spent before counts against the budget.

    Raises BadInput, Unsupported or EngineError; never for a budget that ends: the results say so.
    """
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
    names = [str(i) for i in range(len(prompts))] if ids is None else list(ids)
    _check(prompts, names, at_most, answer, verifier)
    requests = tuple(
        Request.of(prompt, system=system, answer=_own(answer), sampling=sampling, seed=seed, problem=name)
        for prompt, name in zip(prompts, names, strict=True)
    )
    engine = locate(model) if isinstance(model, str) else model
    async with AsyncExitStack() as stack:
        if isinstance(model, str):
            stack.push_async_callback(engine.aclose)
        judge = open_verifier(verifier, answer=answer, engine=engine) if isinstance(verifier, str) else verifier
        if judge is not None and judge.kind != "exact":
            raise BadInput(
                "verifier", judge.id, "is no exact check", "use exact, schema or code, or leave it out to vote"
            )
        plan = _Plan(
            requests,
            tuple(Checked(prior, at_most) if judge is not None else Voted(gains, at_most) for _ in requests),
            Budget.parse(budget) if isinstance(budget, str) else budget or Budget(),
            worth,
            judge is not None,
        )
        store = None if journal is None else _open(journal, engine, requests)
        if store is not None:
            stack.callback(store.close)
        tariff = Tariff.of(engine.model, url=getattr(engine, "url", None), price=price, energy=energy)
        tariff = replace(tariff, parameters=getattr(engine, "parameters", None) or tariff.parameters)
        options = {"seed": seed, "observer": observer, "verifier": judge}
        return await _run(plan, engine, tariff, store, options, opened)


def _own(answer: AnswerKind | AnswerReader) -> AnswerKind | AnswerReader:
    """A reader for one request where readers merge equivalent answers: those of other requests are not alike."""
    if answer != "math":
        return answer
    reader = reader_for(answer)
    return lambda text: reader.read_now(text).answer


def _check(prompts: Sequence[Prompt], names: Sequence[str], at_most: int, answer: object, verifier: object) -> None:
    if not prompts:
        raise BadInput("prompts", [], "is empty", "give at least one question")
    if len(names) != len(prompts):
        raise BadInput("ids", len(names), f"is not the number of prompts, {len(prompts)}", "give one a prompt")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput("ids", twice, "names two requests", "make each one unique")
    if at_most < 1:
        raise BadInput("at_most", at_most, "is below 1", "allow at least one sample a request")
    if answer == "text" and verifier is None:
        raise BadInput("answer", "text", "cannot be voted on", "use number, math, choice or json, or a verifier")


async def _run(
    plan: _Plan,
    engine: Engine,
    tariff: Tariff,
    store: SampleStore | None,
    options: dict[str, Any],
    opened: Callable[[Session], None] | None,
) -> BatchResult:
    """Draw samples until nothing pays or the budget ends, on the engine's own clock."""
    runner = VirtualRunner(engine) if is_simulated(engine) else LiveRunner(engine)
    began = runner.now()
    if isinstance(runner, LiveRunner):
        await engine.prepare(Call(plan.requests[0].messages, plan.requests[0].sampling))
    root = Session(runner, tariff, budget=plan.budget, began=began, **options)
    if opened is not None:
        opened(root)
    currency = next((name for name in ("usd", "joules") if plan.budget.limited == (name,)), "tokens")
    order = Allocation(plan.beliefs, lambda sample: _costs(sample, tariff)[currency], worth=plan.worth)
    caches = None
    if store is not None:
        caches = [Journal(store, request.problem or "", lambda: None) for request in plan.requests]
        _charge(root, store, plan.requests[0])
    batch = Batch(root, plan.requests, caches=caches, exact=plan.exact)
    work = batch.run(order, max(1, engine.concurrency))
    if isinstance(runner, LiveRunner):
        await drive_live(work, root, runner)
    else:
        drive_virtual(work, root, runner)
    return _result(plan, batch, root, tariff)


def _result(plan: _Plan, batch: Batch, root: Session, tariff: Tariff) -> BatchResult:
    results: list[Result] = []
    entries: list[Entry] = []
    notes = list(root.receipt().notes)
    for i, belief in enumerate(plan.beliefs):
        stopped = batch.sessions[i].stopped if belief.gain > 0 else None
        verdict = belief.verdict(stopped)
        receipt = batch.receipt(i)
        results.append(Result(verdict.answer, verdict.text, NAME, tariff.model, verdict.stopped, receipt))
        entries += receipt.entries
        notes += [note for note in receipt.notes if note not in notes]
    return BatchResult(tuple(results), Receipt(tuple(entries), root.receipt().seconds, tuple(notes)))


def _costs(sample: Sample, tariff: Tariff) -> dict[str, float | None]:
    """What a sample has cost, None where unknown."""
    prompt, generated = sample.prompt_tokens, sample.tokens
    if prompt is None or generated is None:
        return {"tokens": None, "usd": None, "joules": None}
    return {
        "tokens": float(prompt + generated),
        "usd": tariff.usd(prompt, 0, generated),
        "joules": tariff.joules(prompt, 0, generated),
    }


def _open(journal: Path, engine: Engine, requests: Sequence[Request]) -> SampleStore:
    """The journal of this batch; BadInput where it belongs to another."""
    content = [[request.problem, [message.wire() for message in request.messages]] for request in requests]
    sampling = requests[0].sampling
    described = json.dumps(
        {
            "model": engine.model,
            "requests": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
            "sampling": {name: getattr(sampling, name) for name in sampling.__slots__},
            "seed": requests[0].seed,
        },
        sort_keys=True,
    )
    store = SampleStore(journal, synchronous="FULL")
    if store.about("batch", described) != described:
        store.close()
        raise BadInput("journal", str(journal), "is of another batch", "remove it or give another file")
    return store


def _charge(root: Session, store: SampleStore, request: Request) -> None:
    """Count saved samples against the budget: one budget holds over all runs of a batch."""
    bound = byte_bound(Call(request.messages, request.sampling)) + request.sampling.max_tokens
    saved = 0
    for _, sample in store:
        costs = _costs(sample, root.tariff)
        for currency, most in (
            ("tokens", float(bound)),
            ("usd", root.tariff.usd_bound(bound, bound)),
            ("joules", root.tariff.joules_bound(bound, bound)),
        ):
            spent = costs[currency]
            root.account.spent[currency] += (most if spent is None else spent) or 0.0  # type: ignore[index]
        saved += 1
    if saved:
        root.note(f"{saved} samples of an earlier run were used again, and count against the budget")
