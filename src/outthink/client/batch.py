"""Many requests under one budget: the next sample goes where it gains most.

Knows: what a batch may be told, its journal, and how its samples become results. Does not know engines or
who opens them; the client does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from outthink.answers import reader_for
from outthink.client.options import BatchOptions, Options, Prompt, sampling_of
from outthink.controller.allocation import Allocation, Belief, Checked, Voted
from outthink.controller.router.chooser import RoutedChoice
from outthink.core.errors import BadInput
from outthink.core.receipt import Entry, Receipt, Result
from outthink.core.request import AnswerKind, AnswerReader, Budget, Request
from outthink.core.sample import Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call
from outthink.session.batch import Batch
from outthink.session.calls import byte_bound
from outthink.session.open import OpenSession, Source
from outthink.session.session import Session
from outthink.session.store import Journal, Questions, SampleStore, journal_key, open_journal

NAME = "allocation"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One result a request, in the order given, and the receipt of them all."""

    results: tuple[Result, ...]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a batch was told, checked."""

    requests: tuple[Request, ...]
    beliefs: tuple[Belief, ...]
    budget: Budget
    worth: float | None
    exact: bool
    journal: Path | None


def plan_batch(prompts: Sequence[Prompt], options: Options, batch: BatchOptions) -> BatchPlan:
    """Check what a batch was told, before anything is opened. Raises BadInput.

    Args:
        options: its own with those of the client.
        batch: its own.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise BadInput("prompts", prompts, "is no list of questions", "give a list, of one question too")
    ids, at_most = batch.get("ids"), batch.get("at_most", 32)
    names = [str(i) for i in range(len(prompts))] if ids is None else list(ids)
    answer, verifier = options.get("answer", "number"), options.get("verifier")
    _check(prompts, names, at_most, answer, verifier)
    sampling, system, seed = sampling_of(options), options.get("system"), options.get("seed")
    requests = tuple(
        Request.of(prompt, system=system, answer=_own(answer), sampling=sampling, seed=seed, problem=name)
        for prompt, name in zip(prompts, names, strict=True)
    )
    gains, prior = batch.get("gains"), batch.get("prior", (1.0, 1.0))
    beliefs = tuple(Voted(gains, at_most) if verifier is None else Checked(prior, at_most) for _ in requests)
    budget = Budget.of(options.get("budget"))
    journal = None if (kept := batch.get("journal")) is None else Path(kept)
    return BatchPlan(requests, beliefs, budget, batch.get("worth"), verifier is not None, journal)


async def run_batch(
    opened: OpenSession,
    plan: BatchPlan,
    on_open: Callable[[Session], None] | None = None,
    choices: Sequence[RoutedChoice] | None = None,
) -> BatchResult:
    """Draw samples until nothing pays or the budget ends, on the engine's own clock.

    Args:
        on_open: receives the session of the whole batch before it starts.
        choices: of a router, one a request; each draws from its model, within the one budget.
    """
    sources, judge = opened.sources, opened.verifier
    places = [0] * len(plan.requests) if choices is None else [choice.place for choice in choices]
    used = [sources[place] for place in sorted(set(places))]
    if judge is not None and judge.kind != "exact":
        raise BadInput("verifier", judge.id, "is no exact check", "use exact, schema or code, or leave it out to vote")
    store = None if plan.journal is None else _open(plan.journal, sources, plan.requests, choices)
    try:
        await opened.prepare(plan.requests[0], used)
        if opened.late:
            late = opened.receipt()
            none = tuple(Result(None, "", NAME, opened.model, "budget:seconds", late) for _ in plan.requests)
            return BatchResult(none, late)
        root = opened.session
        if on_open is not None:
            on_open(root)
        tariffs = [root.tariff if choices is None else root.on(sources[place].engine.model).tariff for place in places]
        # A sample is weighed against what runs out: the one ceiling's currency, else tokens.
        currency = next((name for name in ("usd", "joules") if plan.budget.limited == (name,)), "tokens")
        order = Allocation(plan.beliefs, lambda i, sample: _costs(sample, tariffs[i])[currency], worth=plan.worth)
        caches = None
        if store is not None:
            caches = [Journal(store, question) for question in _names(plan.requests).values()]
            _charge(root, store, plan.requests, tariffs)
        models = None if choices is None else [tariff.model for tariff in tariffs]
        batch = Batch(root, plan.requests, caches=caches, exact=plan.exact, models=models)
        for session, tariff, choice in zip(batch.sessions, tariffs, choices or (), strict=False):
            session.chosen(choice.entry(tariff.model), choice.notes)
        await opened.run(batch.run(order, sum(max(1, source.engine.concurrency) for source in used)))
        return _result(plan, batch, root, tariffs)
    finally:
        if store is not None:
            store.close()


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


def _result(plan: BatchPlan, batch: Batch, root: Session, tariffs: Sequence[Tariff]) -> BatchResult:
    results: list[Result] = []
    entries: list[Entry] = []
    notes = list(root.receipt().notes)
    for i, belief in enumerate(plan.beliefs):
        # One that could gain nothing more had ended by itself, whatever ended the batch.
        stopped = batch.sessions[i].stopped if belief.gain > 0 else None
        verdict = belief.verdict(stopped)
        receipt = batch.receipt(i)
        results.append(Result(verdict.answer, verdict.text, NAME, tariffs[i].model, verdict.stopped, receipt))
        entries += receipt.entries
        notes += [note for note in receipt.notes if note not in notes]
    return BatchResult(tuple(results), Receipt(tuple(entries), root.receipt().seconds, tuple(notes)))


def _costs(sample: Sample, tariff: Tariff) -> dict[str, float | None]:
    """What a sample has cost, None where unknown."""
    prompt, generated = sample.prompt_tokens, sample.tokens
    if prompt is None or generated is None:
        return {"tokens": None, "usd": None, "joules": None}
    _, usd, joules = tariff.charge(prompt, 0, generated)
    return {"tokens": float(prompt + generated), "usd": usd, "joules": joules}


def _names(requests: Sequence[Request]) -> dict[str, str]:
    """Names of the questions in a journal, by the requests' own."""
    return Questions.names_by_problem((request.problem or "", request) for request in requests)


def _open(
    journal: Path, sources: Sequence[Source], requests: Sequence[Request], choices: Sequence[RoutedChoice] | None
) -> SampleStore:
    """The journal of this batch; BadInput where it belongs to another."""
    content = [[request.problem, [message.wire() for message in request.messages]] for request in requests]
    described: dict[str, Any] = {
        "model": ",".join(source.engine.model for source in sources),
        "requests": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "sampling": asdict(requests[0].sampling),
        "seed": requests[0].seed,
    }

    if choices is not None:  # at another operating point a question's samples may be another model's
        routing = choices[0].routing
        described["router"] = [choices[0].router, routing.way, routing.parameter]

    def adopt(store: SampleStore) -> bool:
        # One of 0.1 keeps samples by the requests' names, which are those of these questions only as long as the
        # requests are the same.
        if store.described("batch").get("requests") != described["requests"]:
            return False
        names = _names(requests)
        store.rename(lambda key: journal_key(names[key.partition(":")[2]], int(key.partition(":")[0])))
        return True

    # What was paid for survives a power loss. The questions may have been edited: samples belong to what was asked.
    return open_journal("journal", journal, "batch", described, ("requests",), adopt, "FULL")


def _charge(root: Session, store: SampleStore, requests: Sequence[Request], tariffs: Sequence[Tariff]) -> None:
    """Count saved samples against the budget: one budget holds over all runs of a batch."""
    request = requests[0]
    bound = byte_bound(Call(request.messages, request.sampling)) + request.sampling.max_tokens
    by_question = dict(zip(_names(requests).values(), tariffs, strict=True))
    saved = 0
    for key, sample in store:
        tariff = by_question.get(key.rpartition(":")[0], root.tariff)
        costs = _costs(sample, tariff)
        for currency, most in (
            ("tokens", float(bound)),
            ("usd", tariff.usd_bound(bound, bound)),
            ("joules", tariff.joules_bound(bound, bound)),
        ):
            spent = costs[currency]
            root.account.spent[currency] += (most if spent is None else spent) or 0.0  # type: ignore[index]
        saved += 1
    if saved:
        root.note(f"{saved} samples of an earlier run were used again, and count against the budget")
