"""The main path: request, controller, strategy, session, engine, answer and receipt, in one file.

Knows: how `decide`, `open_session` and `Result.of` make an answer, and which engines, verifiers and caches
it has opened and must close. Every part is a room of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from inspect import isawaitable
from pathlib import Path
from typing import Self, Unpack

from outthink.client.batch import BatchResult, plan_batch, run_batch
from outthink.client.options import (
    BatchOptions,
    Chosen,
    CommonOptions,
    Costs,
    Model,
    Options,
    Prompt,
    check_options,
    models_of,
    request_of,
)
from outthink.client.progress import AskEvent, EventQueue
from outthink.client.routers import Routers, named
from outthink.configuration.models import ModelChoice, choose_model
from outthink.controller.decide import (
    Auto,
    Runnable,
    StrategyFunction,
    decide,
    name_of,
    need_fitting,
    question_of,
    read_strategy,
    unaccounted,
)
from outthink.controller.router.chooser import RoutedChoice
from outthink.controller.verifier import open_verifier
from outthink.core.errors import BadInput
from outthink.core.receipt import Result, Verdict
from outthink.core.request import AnswerKind, AnswerReader, Budget, Request
from outthink.economics.tariff import Tariff
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.protocol import Engine, complete
from outthink.session.open import OpenSession, SessionOptions, Source, open_session
from outthink.session.runner import Places
from outthink.session.session import Session
from outthink.session.store import ResponseCache
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier, in_thread


class Client:
    """Answers requests with engines that it keeps: the second question finds them ready.

    Engines, verifiers and caches are opened on first use, and what was opened here is closed by `aclose` or
    at the end of `async with`; an engine object that was given is never closed. All requests share each
    engine's places, in turns by request. A client belongs to one event loop.

    Args:
        model: the option of that name, which may stand first without it.
        options: see `Options`; they hold for every call that does not say otherwise.
    """

    def __init__(self, model: Model | Sequence[Model] | None = None, /, **options: Unpack[Options]) -> None:
        check_options(options, Options)
        if model is not None:
            if "model" in options:
                raise BadInput("model", options["model"], "is a second one", "give several as one list")
            options = {"model": model, **options}
        self._options = options
        self._engines: dict[ModelChoice | int, _Held] = {}
        self._choose = cache(choose_model)  # what a name stood for at first, as its engine is the one of then
        self._routers = Routers()
        self._verifiers: dict[tuple[Hashable, ...], asyncio.Task[Verifier]] = {}
        self._running: set[OpenSession] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def __repr__(self) -> str:
        return f"Client(model={self._options.get('model', 'embedded')!r})"

    async def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Result:
        """Answer one request within its budget.

        Args:
            prompt: a question, or messages in OpenAI's form.
            options: see `Options`; they win over the client's.

        Raises BadInput, Unsupported or EngineError; never for a budget that ends: the result says so.
        """
        chosen = self._chosen(options, Options)
        began = time.monotonic()
        request = request_of(prompt, chosen)
        asked = _asked(request, chosen)
        try:
            chooser = self._routers.chooser(chosen, [asked.policy] if isinstance(asked, Auto) else [])
            sources, choice = self._sources(chosen), None
            if chooser is not None:
                at_hand = await named(sources, self._models(chosen), request, began, request.budget.seconds)
                choice = chooser.choose(question_of(request) or "", at_hand)
                sources = [sources[choice.place], *(s for at, s in enumerate(sources) if at != choice.place)]
            opened = await self._open(sources, request, chosen, began)
            with self._in_flight(opened):
                verdict, runs = await _answer(opened, request, asked, chosen, choice)
            result = Result.of(verdict, name_of(runs), opened)
            if choice is not None:
                result = replace(result, model=sources[0].engine.model)
            if isinstance(asked, Auto):
                asked.spent(result.receipt)
            return result
        finally:
            if isinstance(asked, Auto):
                asked.close()

    async def stream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncGenerator[AskEvent, None]:
        """Answer one request and yield what happens meanwhile; the last event holds the result.

        Leaving the loop cancels the request.
        """
        chosen = self._chosen(options, Options)
        queue, opened = EventQueue(chosen.get("observer")), chosen.get("opened")

        def watch(session: Session) -> None:
            queue.session = session
            if opened is not None:
                opened(session)

        watched: Options = {**options, "observer": queue, "opened": watch}
        task = asyncio.create_task(self.ask(prompt, **watched))
        task.add_done_callback(lambda _: queue.events.put_nowait(None))
        try:
            while (event := await queue.events.get()) is not None:
                yield event
            yield queue.answered(task.result())
        finally:
            task.cancel()
            await asyncio.wait([task])  # unlike awaiting the task, this raises nothing of its end

    async def ask_batch(self, prompts: Sequence[Prompt], **options: Unpack[BatchOptions]) -> BatchResult:
        """Answer many requests within one budget for all of them.

        Each request is answered by majority vote, or, with an exact verifier, by the first sample that
        passes. The next sample always goes to the request where it is expected to gain most per unit of cost.

        Args:
            prompts: questions, or messages in OpenAI's form.
            options: see `BatchOptions`; they win over the client's.

        Raises BadInput, Unsupported or EngineError; never for a budget that ends: the results say so.
        """
        chosen = self._chosen(options, BatchOptions)
        chosen.setdefault("answer", "number")
        began = time.monotonic()
        plan = plan_batch(prompts, chosen, options)
        sources = self._sources(chosen)
        chooser, choices = self._routers.chooser(chosen), None
        if chooser is not None:
            at_hand = await named(sources, self._models(chosen), plan.requests[0], began, plan.budget.seconds)
            choices = [chooser.choose(question_of(request) or "", at_hand) for request in plan.requests]
            for choice in choices:
                if (routed := chosen.get("routed")) is not None:
                    routed(choice)
        elif len(sources) > 1:
            raise BadInput("model", len(sources), "models are given", "a batch draws from one without a router")
        opened = await self._open(sources, plan.requests[0], chosen, began, budget=plan.budget)
        with self._in_flight(opened):
            return await run_batch(opened, plan, chosen.get("opened"), choices)

    @asynccontextmanager
    async def session(self, **options: Unpack[Options]) -> AsyncIterator[Session]:
        """A session to be used by hand, within one budget.

        `async with client.session(budget={"tokens": 500}) as session` gives what a strategy gets; its calls
        are awaited where they stand. `session.receipt()` tells what they took, after the block too.
        """
        chosen = self._chosen(options, Options)
        request = request_of("Hello", chosen)
        opened = await self._open(self._sources(chosen), request, chosen, time.monotonic())
        with self._in_flight(opened):
            await opened.prepare(request)
            async with opened.awaited() as session:
                if (on_open := chosen.get("opened")) is not None:
                    on_open(session)
                yield session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop what still runs, and close what was opened here; nothing can be asked any more."""
        if self._closed:
            return
        self._check_loop()
        self._closed = True
        for opened in self._running:
            opened.stop("interrupted")
        await self._idle.wait()
        # Verifiers before engines: a judge asks one of these.
        for task in self._verifiers.values():
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                await task.result().aclose()
        for held in self._engines.values():
            await held.aclose()

    # What requests share

    def _chosen(self, options: CommonOptions, allowed: type) -> Options:
        """The client's options with those of one call."""
        check_options(options, allowed)
        self._check_open()
        self._check_loop()
        return {**self._options, **options}

    def _check_open(self) -> None:
        if self._closed:
            raise BadInput("client", self, "is closed", "make a new one")

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            remedy = "make one in each event loop, or a SyncClient for code without async"
            raise BadInput("client", self, "belongs to another event loop", remedy)
        self._loop = loop

    @contextmanager
    def _in_flight(self, opened: OpenSession) -> Iterator[None]:
        """What `aclose` stops and waits for."""
        self._check_open()  # it may have been closed while a verifier was opened
        self._running.add(opened)
        self._idle.clear()
        try:
            yield
        finally:
            self._running.discard(opened)
            if not self._running:
                self._idle.set()

    def _models(self, options: Options) -> list[Chosen]:
        return [model for model, _ in models_of(options, self._choose)]

    def _sources(self, options: Options) -> list[Source]:
        cached = options.get("cache", False)
        return [self._hold(model).source(costs, cached) for model, costs in models_of(options, self._choose)]

    def _hold(self, model: Chosen) -> _Held:
        key = model if isinstance(model, ModelChoice) else id(model)
        held = self._engines.get(key)
        if held is None:
            owned = isinstance(model, ModelChoice) or callable(model)
            engine = model.open() if isinstance(model, ModelChoice) else _given(model() if callable(model) else model)
            # A given one is kept too: its number must not become that of another while it is known by it.
            held = self._engines[key] = _Held(engine, model, owned)
        return held

    async def _open(
        self,
        sources: Sequence[Source],
        request: Request,
        options: Options,
        began: float,
        budget: Budget | None = None,
    ) -> OpenSession:
        budget = budget or request.budget
        verifier, unread = options.get("verifier"), None
        if isinstance(verifier, str):
            answer, engine, unread = options.get("answer", "text"), sources[0].engine, verifier
            verifier = await self._verifier(verifier, answer, engine, began, budget.seconds)
        return open_session(
            sources,
            budget=budget,
            seed=request.seed,
            began=began,
            options=SessionOptions(
                ahead=options.get("ahead", 4),
                observer=options.get("observer"),
                verifier=verifier,
                unread=unread if verifier is None else None,
            ),
        )

    async def _verifier(
        self, text: str, answer: AnswerKind | AnswerReader, engine: Engine, began: float, seconds: float | None
    ) -> Verifier | None:
        """The verifier of this name, opened once; None where the deadline comes first, which ends the request too."""
        key = text, answer, id(engine)
        if key not in self._verifiers:  # reading a model's weights must not hold up the event loop
            opening = in_thread(lambda: open_verifier(text, answer=answer, engine=engine))
            self._verifiers[key] = asyncio.create_task(opening)
        task = self._verifiers[key]
        left = None if seconds is None else max(0.0, began + seconds - time.monotonic())
        await asyncio.wait([task], timeout=left)
        if not task.done():
            return None
        if task.exception() is not None:
            self._verifiers.pop(key, None)  # several requests may have waited for it
        return task.result()


def _given(model: Engine | Path) -> Engine:
    """An engine from outside. BadInput for what is none."""
    try:
        engine = complete(model)
        engine.model  # noqa: B018 - an engine has a name at least
    except NotImplementedError:
        raise BadInput("model", model, "is no engine", "give embedded, a URL, a GGUF file or an engine") from None
    return engine


@dataclass(slots=True, eq=False)
class _Held:
    """An engine that a client uses."""

    engine: Engine
    given: Chosen
    owned: bool
    places: Places | None = None
    responses: ResponseCache | None = None

    def source(self, costs: Costs, cached: bool) -> Source:
        engine = self.engine
        if self.places is None:
            self.places = Places(lambda: max(1, engine.concurrency))
        if cached and self.responses is None:
            self.responses = ResponseCache.default(self._name)
        return Source(
            engine,
            lambda: Tariff.of_engine(engine, **costs._asdict()),
            self.responses if cached else None,
            self.places,
        )

    def _name(self) -> str:
        """What its cached responses lie under: where it is, and the model that is asked there."""
        engine, given = self.engine, self.given
        where = engine.server.address.whole if isinstance(engine, OpenAIEngine) else engine.url
        if where is None and isinstance(given, ModelChoice):
            where = str(Path(given.where).resolve()) if Path(given.where).is_file() else given.where
        return f"{where or f'{type(engine).__module__}.{type(engine).__qualname__}'} {engine.model}"

    async def aclose(self) -> None:
        if self.responses is not None:
            self.responses.close()
        if self.owned:
            await self.engine.aclose()


def _asked(request: Request, options: Options) -> Spec | StrategyFunction | Auto:
    """What the options ask for. Raises BadInput for options that do not go together."""
    return read_strategy(
        request,
        options.get("strategy"),
        policy=options.get("policy"),
        planned=options.get("planned"),
        learn=options.get("learn"),
        verifier=options.get("verifier"),
    )


async def _answer(
    opened: OpenSession,
    request: Request,
    asked: Spec | StrategyFunction | Auto,
    options: Options,
    choice: RoutedChoice | None,
) -> tuple[Verdict, Runnable | Auto]:
    """Decide what runs and carry it out; of models that a router has chosen among, the first alone is made ready."""
    if choice is not None and (routed := options.get("routed")) is not None:
        routed(choice)
    await opened.prepare(request, None if choice is None else opened.sources[:1])
    decided: Runnable | None = None if isinstance(asked, Auto) else asked
    unpriced: str | None = None
    if isinstance(asked, Auto):  # a policy looks at the engine, and what is awaited is under the deadline
        first, *others = opened.sources
        pool, ahead = [source.engine.model for source in others], options.get("ahead", 4)
        judge = opened.verifier
        unpriced = None if judge is None else unaccounted(judge, request.budget)
        verifier = judge.id if judge is not None and judge.ready and unpriced is None else None
        async with opened.deadline():
            tariff = first.read_tariff()
            decided = await decide(request, asked, first.engine, tariff, ahead=ahead, pool=pool, verifier=verifier)
    if opened.late or decided is None:
        return Verdict(None, ""), asked
    session = opened.session
    if isinstance(asked, Auto) and unpriced is not None and asked.policy.verifiers:
        session.note(unpriced)
    if choice is not None:
        session.chosen(choice.entry(session.tariff.model), choice.notes)
    if isinstance(decided, Spec):
        need_fitting(decided, session.verifier)
    if (on_open := options.get("opened")) is not None:
        on_open(session)
    if not isawaitable(work := decided(session, request)):
        raise BadInput("strategy", name_of(decided), "is no async function", "see docs/write-a-strategy.md")
    verdict = await opened.run(work)
    if not isinstance(verdict, Verdict):
        raise BadInput("strategy", name_of(decided), "gave no Verdict", "see docs/write-a-strategy.md")
    if verdict.answer is None and not verdict.text:
        verdict = opened.salvage(request) or verdict
    return verdict, decided


async def ask(prompt: Prompt, **options: Unpack[Options]) -> Result:
    """Answer one request within its budget.

    Opens what it needs and closes it again; a `Client` keeps it for the next question.

    Args:
        prompt: a question, or messages in OpenAI's form.
        model: `embedded`, a server's URL, a GGUF file, or an engine; several of them make a pool, of
            which a strategy draws from the first unless it says `session.on(name)`.
        strategy: `name:k=v,...`, your own async function (session, request) -> Verdict, `auto` to let
            `policy` decide, or None for the default of the answer kind.
        budget: ceilings for the whole request, e.g. `tokens=4000,seconds=20` or `{"tokens": 4000}`.
        answer: kind of answer, or a function from completion text to canonical answer.
        max_tokens: cap of one completion.
        options: all others are those of `Options`.

    Raises BadInput, Unsupported or EngineError; never for a budget that ends: the result says so.
    """
    async with Client() as client:
        return await client.ask(prompt, **options)


async def ask_batch(prompts: Sequence[Prompt], **options: Unpack[BatchOptions]) -> BatchResult:
    """Answer many requests within one budget for all of them; see `Client.ask_batch`."""
    async with Client() as client:
        return await client.ask_batch(prompts, **options)
