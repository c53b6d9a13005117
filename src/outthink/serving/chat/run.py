"""One strategy on one question: engines of the pool, a session over them, and what came of it.

Knows: how a policy or a named strategy is set to work, and that everything is settled whatever
happens. Does not know how the client is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from outthink.controller.decide import default_strategy, need_fitting, situation_of, unaccounted
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan, Situation, arms_at_hand, at_size, find_task
from outthink.controller.policy.plan import plan as plan_for
from outthink.controller.router.chooser import RoutedChoice
from outthink.controller.verifier import open_verifier
from outthink.core.errors import BadInput, EngineError
from outthink.core.receipt import Receipt, Verdict
from outthink.core.request import Budget, Request
from outthink.http.fields import JsonDict
from outthink.http.transport import Timeouts, TransportFault
from outthink.serving.accounting import Account
from outthink.serving.chat.backends import predicted
from outthink.serving.chat.calls import OnChunk, RawChoice
from outthink.serving.chat.engine import ChatEngine
from outthink.serving.chat.question import CallBounds, Question, RequestOptions, fitted, stricter
from outthink.serving.chat.votes import VoteProgress, VoteReader
from outthink.serving.failure import Failure, failure_of
from outthink.serving.pool.failover import Failover, KeyRefused, Turn
from outthink.serving.pool.pool import NoBackend
from outthink.serving.pool.pooled import CallRefused, EncodedChat, PooledTransport
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.session import Session
from outthink.strategies import Spec, Traits
from outthink.verifiers.protocol import Verifier

if TYPE_CHECKING:
    from outthink.serving.chat.backends import Backends


_SHORT_KINDS = ("number", "choice")
"""Kinds of answer that hold no words of a model."""
_MOMENT = 0.001
"""Seconds between a decided vote and the end of what is still in flight."""


class StrategyRun:
    """One request's work.

    Args:
        model: backend model that is drawn from.
        account: of the request; the requests take turns on the backends by its id.
        prefix: hash of the prompt, so that its samples meet one cache.
        on_chunk: gets every chunk of every call.
        choice: of the router, where it chose the model.
    """

    def __init__(
        self,
        backends: Backends,
        question: Question,
        options: RequestOptions,
        model: str,
        account: Account,
        prefix: int,
        on_chunk: OnChunk | None,
        choice: RoutedChoice | None = None,
    ) -> None:
        self._choice = choice
        self.backends, self.options, self.model = backends, options, model
        self._request_id, self._key, self._watchers = account.id, account.key.id, account.watchers
        self._names = backends.names(account.key)
        self._prefix, self._on_chunk = prefix, on_chunk
        self._original, self.encoded = question, EncodedChat(question.raw, question.extra)
        self._chosen = backends.policies.choose(account.id)
        self.shadowed: JsonDict | None = None
        """What a policy that is tried in the shadow would have done."""
        self.headers: dict[str, str] = {}
        """Sent with every call, besides what the engine sends."""
        self.engine = self._engine(model)
        self.others: list[ChatEngine] = []
        self._began = time.monotonic()
        self.session: Session | None = None
        self.plan: Spec | Plan
        self.judge: Verifier | None = None
        """The proxy's own verifier, where this is judged and names no other."""
        self._unjudged = False
        self.question, spec = fitted(question, options.strategy, backends.limits, options.where)
        self._spec = spec
        self.votes: VoteProgress

    async def prepare(self) -> None:
        """Decide what runs. Raises BadInput or Failure."""
        request, policy = self.question.request, self._chosen.policy
        self.backends.check_budget(self.model, request.budget)
        spec = self._spec
        if spec is None and policy is None:
            self.question, spec = fitted(self._original, default_strategy(request), self.backends.limits)
            assert spec is not None
        self.plan = spec if spec is not None else await self._planned()
        for name in self._further:
            self.backends.check_budget(name, request.budget)
        if spec is None or not spec.judges or self.options.verifier is not None:
            return
        served = self.backends.verifier
        if served is not None:
            self.judge, self._unjudged = served.verifier, served.at_hand is None
        elif spec.strategy.needs_verifier:
            raise BadInput("outthink.verifier", None, f"is missing, and {self.name} needs one", "name a verifier")

    def forget(self) -> None:
        """Let go of what the client has sent: what is left of a request refers to itself until it is collected."""
        self.encoded.forget()
        self.question.raw.clear()
        self.question.extra.clear()

    def forget_samples(self) -> None:
        """Let go of what came with the samples beside their texts: of long ones that takes time."""
        for choice in self.choices():
            choice.forget()

    async def prepare_reader(self) -> None:
        """Read the request's schemas, which may take a while: after its budget was asked. Raises Failure."""
        if isinstance(self.question.request.answer, VoteReader):
            await self.question.request.answer.prepare()

    @property
    def name(self) -> str:
        """What ran."""
        return str(self.plan) if isinstance(self.plan, Spec) else f"auto ({self.plan.name})"

    @property
    def stored_name(self) -> str:
        """The same for ledger, log and traces: without what a client has written for a model to read."""
        return str(self.plan.public) if isinstance(self.plan, Spec) else self.name

    async def go(self, decided: Callable[[Verdict], Awaitable[None]], ceiling: int | None = None) -> Verdict:
        """Carry it out; `decided` gets the verdict before what is still in flight has been closed."""
        request = self.question.request
        if ceiling is not None:
            request = replace(request, budget=stricter(request.budget, Budget(tokens=ceiling)))
        # Only where all samples count the same can it be told from outside that a vote is decided.
        known = self.plan.strategy if isinstance(self.plan, Spec) else Traits()
        plain = known.votes == "answers" and not known.stops_early
        # A shared call ends for all of its samples at once, so nothing that stops some of them early may share.
        if known.shares_call and self.plan.n > 1:
            self.engine.sharing = self.backends.call_sharing(self.model)
        n = self.plan.n if plain and self.question.choices == 1 else None
        self.votes = VoteProgress(n, self._enough, self._watchers, self._request_id)
        judge = self.judge
        if self.options.verifier is not None:
            asked = self._engine(self.model, plain=True)
            judge = open_verifier(self.options.verifier, answer=request.answer, engine=asked)
        if isinstance(self.plan, Spec):
            need_fitting(self.plan, judge)
        options = SessionOptions(observer=self.votes, verifier=judge)
        opened = open_session(
            self._sources(), budget=request.budget, seed=request.seed, began=self._began, options=options
        )
        self.session = session = opened.session
        if self._choice is not None:
            session.chosen(self._choice.entry(self.model), self._choice.notes)
        for note in self.question.notes:
            session.note(note)

        async def deciding() -> Verdict:
            verdict = await self.plan(session, request)
            if verdict.answer is None and not verdict.text and opened.partial:
                verdict = Verdict(None, opened.partial)
            await decided(verdict)
            return verdict

        try:
            return await opened.run(deciding())
        finally:
            self.votes.end()
            self._count_unjudged()
            for note in self.engine.notes:
                session.note(note)

    def _count_unjudged(self) -> None:
        """Count a request that wanted the proxy's verifier and was not judged by it, or not to its end."""
        failed = self.judge is not None and any(
            entry.role == "verifier" and entry.status == "failed" for entry in self.receipt().entries
        )
        if self.backends.verifier is not None and (self._unjudged or failed):
            self.backends.verifier.without += 1

    def sample(self, text: str) -> RawChoice | None:
        """The sample that a text belongs to, None for a text that a strategy has put together."""
        for engine in (self.engine, *self.others):
            if (sample := engine.samples.get(text)) is not None:
                return sample
        return None

    def choices(self) -> list[RawChoice]:
        """What every call has brought, also of those that did not finish."""
        return [choice for engine in (self.engine, *self.others) for choice in engine.choices]

    def receipt(self) -> Receipt:
        """Everything spent so far."""
        return Receipt((), 0.0) if self.session is None else self.session.receipt()

    def client_receipt(self, verdict: Verdict | None) -> JsonDict:
        """The receipt as the client gets it."""
        receipt = self.receipt()
        stopped = self.session.stopped if self.session is not None else None
        return {
            "id": self._request_id,
            "strategy": self.name,
            "model": self.model,
            "answer": verdict.answer if verdict is not None else None,
            "stopped": stopped or (verdict.stopped if verdict is not None else "error"),
            **receipt.json(),
        }

    def stored_receipt(self, receipt: JsonDict, *, content: bool) -> JsonDict:
        """The receipt as the ledger keeps it: without `content` nothing that clients, models or backends wrote.

        Numbers and letters may stay, and so may notes that are known to quote nobody.
        """
        kept = {**receipt, "strategy": self.stored_name}
        if self.shadowed is not None:  # for the operator: clients get the receipt without it
            kept["shadow"] = self.shadowed
        if content:
            return kept
        if self.question.request.answer not in _SHORT_KINDS:
            kept["answer"] = None
        plain = {*self.question.notes, *self.engine.notes, *(self._choice.notes if self._choice is not None else ())}
        if isinstance(self.plan, Plan):
            plain |= {self.plan.note, *self.plan.flags}
        kept["notes"] = [note for note in receipt["notes"] if note in plain]
        kept["entries"] = [{**entry, "error": None} for entry in receipt["entries"]]
        return kept

    def failure(self, error: Exception) -> Failure | None:
        """The client's error object for an engine that failed; a refusal of the request is the client's to mend."""
        if not isinstance(error, EngineError):
            return None
        if isinstance(error, KeyRefused):
            return failure_of(error)
        if isinstance(error, CallRefused):
            if error.status in (400, 404, 409, 413, 415, 422):
                message = f"the backend refused the request: {error.words or error}"
                return Failure(400, message, code="backend_refused")
            if error.status == 429 or (error.status == 503 and error.unread):
                return Failure(error.status, str(error), code="backend_busy", retry_after=error.retry_after or 1.0)
        if (no_backend := self.backends.why_no_backend(self.model, self._key)) is not None:
            return failure_of(no_backend)
        if isinstance(error.__cause__, (TransportFault, NoBackend)):
            return failure_of(error.__cause__)
        return Failure(502, str(error), code="backend_error")

    def _enough(self) -> None:
        """Stop, once what has arrived at this very moment has been read: cancelling it would cost connections."""
        asyncio.get_running_loop().call_later(_MOMENT, self._stop)

    def _stop(self) -> None:
        if self.session is not None:
            self.session.stop("consensus")

    def _engine(self, model: str, *, plain: bool = False) -> ChatEngine:
        question, backends = self._original, self.backends
        seconds = backends.queue_seconds
        failover = Failover(backends.pool, model, self._prefix, key=self._key, queue_seconds=seconds, patient=True)
        transport = PooledTransport(
            failover,
            backends.wire,
            backends.places(model),
            turn=Turn(self._key, self._request_id),
            headers=self.headers,
            queue_seconds=seconds,
            lengths=dict(backends.rules(model).lengths),
        )
        return ChatEngine(
            model,
            transport,
            backends.facts(model),
            messages=() if plain else question.request.messages,
            encoded=EncodedChat((), {}) if plain else self.encoded,
            top_logprobs=question.own.top_logprobs,
            bounds=CallBounds() if plain else question.bounds,
            timeouts=Timeouts(backends.limits.connect_seconds, backends.limits.backend_seconds),
            on_chunk=None if plain else self._on_chunk,
        )

    @property
    def _further(self) -> list[str]:
        """Models that the plan draws from besides the first."""
        return [name for name in self.plan.models if name != self.model] if isinstance(self.plan, Plan) else []

    def usd_bound(self, tokens: int) -> float | None:
        """Dollars that so many tokens of prompts and completions cannot exceed on any of the models."""
        bounds = [self.backends.tariffs.bound(name).usd_bound(tokens, tokens) for name in (self.model, *self._further)]
        return None if None in bounds else max(bound for bound in bounds if bound is not None)

    def _sources(self) -> list[Source]:
        self.others = [self._engine(name) for name in self._further]
        return [Source(engine, self.backends.tariffs.bound(engine.model)) for engine in (self.engine, *self.others)]

    async def _planned(self) -> Plan:
        request, policy = self.question.request, self._chosen.policy
        assert policy is not None
        others = [name for name in self._names if name != self.model]
        situation = await situation_of(request, self.engine, self.backends.tariffs.bound(self.model), pool=others)
        if policy.verifiers and self.options.verifier is None:
            self.judge = self._at_hand(request.budget)
            situation = replace(situation, verifier=None if self.judge is None else self.judge.id)
        effort = request.sampling.reasoning_effort
        if effort is not None:
            return self._by_effort(policy, effort, situation)
        plan = plan_for(policy, request, situation)
        if self._chosen.shadow is not None:
            self._compare(plan, self._chosen.shadow, request, situation)
        return plan

    def _at_hand(self, budget: Budget) -> Verifier | None:
        """The proxy's verifier for a policy that carries one; None while it is away, or where its price is unknown."""
        if (served := self.backends.verifier) is None:
            return None
        self._unjudged = served.at_hand is None
        verifier = served.at_hand
        if verifier is not None and (note := unaccounted(verifier, budget)) is not None:
            self.question = replace(self.question, notes=(*self.question.notes, note))
            return None
        return verifier

    def _compare(self, active: Plan, policy: Policy, request: Request, situation: Situation) -> None:
        """Note what the shadow policy would do: nothing is spent on it, and its failures stay its own."""
        compared = self.backends.policies.compared
        try:
            shadow = plan_for(policy, request, situation)
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, the request goes on
            compared.refused += 1
            self.shadowed = {"policy": policy.id, "plan": None, "tokens": None, "error": type(error).__name__}
            return
        compared.add(active, shadow)
        self.shadowed = {"policy": shadow.policy, "plan": shadow.name, "tokens": predicted(shadow)}

    def _by_effort(self, policy: Policy, effort: str, situation: Situation) -> Plan:
        """The size of the policy that an effort stands for; the backend's own effort stays as it is."""
        request = self.question.request
        task, reason = find_task(policy, situation, request.answer)
        sizes = [] if task is None else [arm.n for arm in arms_at_hand(task, situation)]
        if task is None or reason is not None or not sizes:
            return plan_for(policy, request, situation)
        # `low` is a quarter of the chosen size (docs/serve.md), or the next size below that.
        fewer = [n for n in sizes if n * 4 <= task.chosen] or sizes[:1]
        chosen = [n for n in sizes if n <= task.chosen] or sizes[:1]
        by_effort = {"none": sizes[0], "minimal": sizes[0], "low": fewer[-1], "medium": chosen[-1]}
        size = {**by_effort, "high": sizes[-1], "xhigh": sizes[-1], "max": sizes[-1]}.get(effort)
        if size is None:
            raise BadInput("reasoning_effort", effort, "is no size of the policy", "use minimal, low, medium or high")
        request = replace(request, sampling=replace(request.sampling, reasoning_effort=None))
        note = f"reasoning_effort: {effort} stands for {size} samples of the policy"
        self.question = replace(self.question, request=request, notes=(*self.question.notes, note))
        return at_size(task, size, situation, policy.id)
