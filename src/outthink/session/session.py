"""The one object a strategy talks to.

Knows: streams, nested budgets, the models of a pool, and why the request stopped. It is sans-I/O: a
runner carries out the calls and keeps time, live or virtual. Does not know any strategy or engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar, Unpack

from outthink.answers import Reading
from outthink.core.errors import BadInput, EngineError, Unsupported, release_frames
from outthink.core.receipt import Entry, Receipt, Role, Status, Stopped
from outthink.core.request import Budget, Request
from outthink.core.sample import Candidate, Judged, Sample
from outthink.economics.tariff import Tariff
from outthink.session.calls import (
    BudgetAccount,
    CallStream,
    EntryLog,
    Retries,
    RunningCall,
    Watch,
    check_budget,
    reread,
)
from outthink.session.judging import JudgedStream
from outthink.session.runner import PAUSE, Job, Member, Observer, Runner, SampleCache, by_name, side_by_side
from outthink.session.scoring import judge
from outthink.session.stream import Order, SampleOptions, Stream
from outthink.verifiers.protocol import Score, Verifier, complete

T = TypeVar("T")
_UNLIMITED, _RETRIES = Budget(), Retries()  # shared: replay makes hundreds of thousands of sessions
_HOPELESS = 3
"""Calls that may fail for good before any has succeeded; then the engine counts as down."""


class Session:
    """Samples, budget and ledger of one request.

    Args:
        runner: carries out calls and keeps the clock.
        tariff: prices a call in dollars, joules and FLOPs, each None where unknown.
        budget: ceilings for everything done through this session.
        ahead: default number of calls in flight for strategies that may stop early.
        confidence_window: tokens in one of DeepConf's windows, unless a strategy is told otherwise.
        seed: of the session's own randomness (random ties).
        began: when the request began on the runner's clock, None for now.
        verifier: judges candidates for strategies that need one.
        pool: further models that `on` can draw from; their runners keep the same clock as `runner`.
    """

    def __init__(
        self,
        runner: Runner,
        tariff: Tariff,
        *,
        budget: Budget | None = None,
        ahead: int = 4,
        confidence_window: int = 2048,
        seed: int | None = None,
        retries: Retries | None = None,
        cache: SampleCache | None = None,
        observer: Observer | None = None,
        began: float | None = None,
        parent: Session | None = None,
        verifier: Verifier | None = None,
        pool: Sequence[Member] = (),
    ) -> None:
        budget = budget or _UNLIMITED
        self.pool: dict[str, Member] = parent.pool if parent else by_name([Member(runner, tariff, cache), *pool])
        for member in [self.pool[tariff.model]] if parent else self.pool.values():
            check_budget(budget, member.tariff)
        self.runner, self.ahead, self.seed = runner, ahead, seed
        self.tariff: Tariff = tariff
        self.confidence_window = confidence_window
        self.retries, self.cache, self.observer = retries or _RETRIES, cache, observer
        self.parent = parent
        self.verifier: Verifier | None = complete(verifier) if verifier else parent.verifier if parent else None
        self.account: BudgetAccount = BudgetAccount(budget, parent.account if parent else None)
        self.ledger: EntryLog = parent.ledger if parent else EntryLog()
        self.stopped: Stopped | None = parent.stopped if parent else None
        self._random: random.Random | None = None
        self._stream: Stream | None = None
        self._children: list[Session] = []
        self._views: dict[str, Session] = {}
        self._viewed: Session | None = None  # whose view of another model this is
        self.hand_driven = runner.hand_driven
        self._began = runner.now() if began is None else began
        self._take_back: Callable[[], None] | None = None
        if budget.seconds is not None:
            left = self._began + budget.seconds - runner.now()
            self._take_back = runner.alarm(max(0.0, left), lambda: self.stop("budget:seconds"))

    # What a strategy uses

    def sample(
        self,
        request: Request,
        *,
        n: int = 1,
        ahead: int | None = None,
        watch: Watch | None = None,
        order: Order = "launch",
        role: Role = "policy",
        top_logprobs: int | None = 0,
        judged: bool | Judged = False,
        prefix: str | None = None,
    ) -> Stream:
        """A stream of up to `n` samples, `ahead` of them in flight (default: the session's).

        Args:
            watch: sees each running sample and may stop that one; it is charged and does not vote.
            order: yield in launch order, or as they finish (biased towards short ones).
            top_logprobs: None for no log-probabilities, 0 for the chosen tokens', k for k alternatives.
            judged: have each sample judged by the session's verifier before it is yielded, in `scores`. One without a
                readable answer is not judged; one without a score has none and votes with the mean weight.
            prefix: assistant text to continue (see `extend`).

        Raises BadInput for n or ahead below 1 or where there is no verifier, Unsupported if the engine lacks what is
        asked for, or the verifier has no price in a currency that is limited.
        """
        if n < 1:
            raise BadInput("n", n, "is below 1", "ask for at least one sample")
        ahead = self.ahead if ahead is None else ahead
        if ahead < 1:
            raise BadInput("ahead", ahead, "is below 1", "allow at least one call in flight")
        if top_logprobs is not None and self.verifier is not None:  # one that reads confidences needs alternatives
            top_logprobs = max(top_logprobs, self.verifier.top_logprobs)
        prefix = prefix if request.opening is None else request.opening + (prefix or "")
        if prefix is not None and self.runner.features.prefix is False:
            raise Unsupported(f"{self.tariff.model} cannot continue a prefix; use an engine that can (see doctor)")
        self._close_stream()
        known = self.pool[self.tariff.model].prompt(request, prefix)
        base = self._viewed or self
        arguments = self, request, known, n, min(ahead, n), watch, order == "launch", role, prefix, top_logprobs
        stream = JudgedStream(_needed(self.verifier), judged, *arguments) if judged else Stream(*arguments)
        base._stream = stream
        stream.closed = self.stopped is not None
        return stream

    def extend(self, request: Request, prefix: str, **options: Unpack[SampleOptions]) -> Stream:
        """Like `sample`, continuing the assistant text `prefix`.

        Samples hold only what is new; their answers are read from prefix and new text together.
        """
        return self.sample(request, prefix=prefix, **options)

    async def score(
        self, request: Request, candidates: Sequence[Candidate | Sample | str], verifier: Verifier | None = None
    ) -> list[Score | None]:
        """Have candidates judged by `verifier` (default: the session's), charged as role `verifier`.

        Samples and texts are cut into steps as the verifier wants them. None stands for a candidate
        without a usable score: all of them where the budget ends first or the verifier fails, single
        ones where a score is no number between 0 and 1. The receipt's notes say so.

        Raises BadInput where there is no verifier, or it is misused.
        """
        self._close_stream()
        return await judge(self, request, candidates, _needed(complete(verifier) if verifier else self.verifier))

    async def read(self, request: Request, text: str) -> Reading:
        """The answer in a text, canonical as those of samples, and the rule that found it."""
        work = self.runner.read(request.answer, text)
        while not work.finished:
            await self.pause()
        if work.error is not None:
            raise work.error
        assert work.result is not None
        return work.result

    async def together(self, *branches: Callable[[Session], Job[T]]) -> list[T]:
        """Run branches side by side, each on a session of its own; results in the order given."""
        self._close_stream()
        children = [self._child(_UNLIMITED, hand_driven=True) for _ in branches]
        try:
            return await side_by_side(
                self, [(child, branch(child)) for child, branch in zip(children, branches, strict=True)]
            )
        finally:
            self._children = [child for child in self._children if child not in children]

    def on(self, model: str) -> Session:
        """This session with another model of its pool: one budget, one ledger, one clock.

        A call on either closes the stream of the other; `together` runs them side by side.

        Raises BadInput for a model that is not in the pool.
        """
        base = self._viewed or self
        if model == base.tariff.model:
            return base
        if model not in base._views:
            if model not in self.pool:
                raise BadInput("model", model, "is not in the pool", f"use one of {', '.join(self.pool)}")
            member = self.pool[model]
            for account in base.account.chain():
                check_budget(account.budget, member.tariff)
            view = base._views[model] = base._child(_UNLIMITED, hand_driven=base.hand_driven, member=member)
            view._viewed = base
        return base._views[model]

    @contextmanager
    def within(self, budget: Budget | str | Mapping[str, float]) -> Iterator[Session]:
        """A nested budget: calls of the inner session count against it and against this one's."""
        self._close_stream()
        inner = self._child(Budget.of(budget), hand_driven=self.hand_driven)
        try:
            yield inner
        finally:
            inner.close()
            self._children.remove(inner)

    def note(self, text: str) -> None:
        """Say something in the receipt, once."""
        self.ledger.note(text)

    def chosen(self, entry: Entry, notes: Sequence[str]) -> None:
        """Put into the receipt which model a router has chosen, and what it has to say of that."""
        self.ledger.entries.append(entry)
        for note in notes:
            self.note(note)

    @property
    def random(self) -> random.Random:
        """Randomness of this request, repeatable where it has a seed."""
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random

    # What the owner of the session uses

    def stop(self, reason: Stopped) -> None:
        """End now: cancel everything; finished samples still count. The first reason holds."""
        if self.stopped is None:
            self.stopped = reason
        for child in self._children:
            child.stop(reason)
        if self._stream is not None:
            self._stream.close()
        self.runner.wake()

    def close(self) -> None:
        """Close what is open; nothing stays in flight."""
        self._close_stream()
        for child in self._children:
            child.close()
        if self._take_back is not None:
            self._take_back()
            self._take_back = None

    def receipt(self) -> Receipt:
        """Everything spent so far through this session and its branches."""
        return Receipt(tuple(self.ledger.entries), self.elapsed, tuple(self.ledger.notes))

    @property
    def elapsed(self) -> float:
        """Seconds since the request began."""
        return self.runner.now() - self._began

    # What streams and runners use

    async def pause(self) -> None:
        """Wait until something has happened to one of the calls."""
        if self.hand_driven:
            await PAUSE
        else:
            await self.runner.wait()

    def notify(self, event: str, running: RunningCall, sample: Sample | None = None) -> None:
        """Tell the observer, if there is one."""
        if self.observer is not None:
            self.observer(event, running, sample)

    def from_cache(self, running: RunningCall, sample: Sample) -> None:
        """A sample of an earlier run: an entry that costs nothing, and a vote."""
        # The cache's key leaves the kind of answer out, so an earlier request may have read it as another kind.
        sample = reread(sample, self.runner.reader(running.stream.request.answer), running.stream.before)
        entry = Entry(
            running.role, self.tariff.model, "cached", cached=True, seconds=0.0, flops=0.0, usd=0.0, joules=0.0
        )
        self.ledger.entries.append(entry)
        self.ledger.succeeded += 1
        self.notify("cached", running, sample)
        running.stream.deliver(running, sample)

    def settle(
        self,
        running: RunningCall,
        status: Status,
        prompt: int | None,
        generated: int | None,
        prefix_cached: int | None = None,
        finish_reason: str | None = None,
        error: str | None = None,
    ) -> Entry:
        """Write a call's entry and turn its reservation into spending; None counts mark the entry `estimated`."""
        if prompt:  # a call that failed at the door reports 0, which is not the prompt's length
            running.stream.prompt.tokens = prompt
        seconds = 0.0 if running.started is None else self.runner.now() - running.started
        tariff, ended_well = self.tariff, status in ("finished", "stopped")
        entry = Entry(
            running.role,
            tariff.model,
            status,
            prompt,
            generated if ended_well else 0,
            0 if ended_well else generated,
            prefix_cached,
            seconds,
        )
        if prompt is None or generated is None:
            entry.estimated = True
            # Where nothing is limited no bound was worked out at the launch.
            read = running.prompt_bound or running.stream.prompt.bound(running.call)
            cap = running.call.sampling.max_tokens
            entry.reserved_tokens = read + cap
            entry.reserved_usd = tariff.usd_bound(read, cap)
            entry.reserved_joules = tariff.joules_bound(read, cap)
            entry.seen_tokens = running.seen
        else:
            entry.flops, entry.usd, entry.joules = tariff.charge(prompt, prefix_cached or 0, generated)
        entry.finish_reason, entry.error = finish_reason, error
        self.ledger.entries.append(entry)
        self.release(running, entry)
        return entry

    def release(self, running: RunningCall, entry: Entry | None = None) -> None:
        """Give a reservation back; without an entry nothing was sent and nothing is spent."""
        running.settled = True
        if running.reservation is not None:
            self.account.settle(running.reservation, entry)
            running.reservation = None

    def deliver(self, running: RunningCall, sample: Sample | None) -> None:
        """A settled call reaches its stream: with a sample, or None where watch has stopped it."""
        if sample is not None:
            self.ledger.succeeded += 1
            if self.cache is not None:
                ended = sample.finish_reason != "length"  # then a larger limit would have changed nothing
                self.cache.put(running.stream.uncapped(running.call) if ended else running.call, sample)
        if self.observer is not None:
            self.observer("stopped" if sample is None else "finished", running, sample)
        running.stream.deliver(running, sample)

    def failed(self, running: RunningCall, error: EngineError) -> None:
        """A settled attempt failed: try again where that may help, else go on without this sample."""
        self.notify("failed", running)
        stream = running.stream
        if stream.closed:  # nobody would take the sample, so the attempt is not repeated
            return
        begun = error.begun or running.seen or running.arrived is not None  # what was generated is not paid for twice
        delay = None if begun else self.retries.delay(running.attempt, error)
        if delay is not None and self._relaunch(running, delay):
            return
        self.ledger.failed += 1
        release_frames(error)  # they hold the stream
        stream.failure = error
        stream.deliver(running, None)
        if error.fatal or (not self.ledger.succeeded and self.ledger.failed >= _HOPELESS):
            stream.close()

    def check_failure(self, stream: CallStream) -> None:
        """Raise the engine's error if nothing has succeeded; else note that samples are missing.

        A session that was stopped does not raise: its end has another reason, and the first holds.
        """
        if stream.failure is None:
            return
        if not self.ledger.succeeded and self.stopped is None:
            raise stream.failure
        self.ledger.note(f"some calls failed: {stream.failure}")
        session: Session | None = self if stream.failure.fatal else None
        while session is not None and session.tariff.model == self.tariff.model:  # other branches would fail too
            session.stopped = session.stopped or "error"
            session = session.parent

    def out_of_budget(self) -> None:
        """No further call is admitted: wait for a settlement, or stop the session whose budget it is."""
        # A call in flight may use less than it has reserved, and what it gives back may admit the next one.
        if self.account.refusal is None or self.account.refusal[1].outstanding:
            return
        currency, account = self.account.refusal
        owner = self
        while owner.parent is not None and owner.account is not account:
            owner = owner.parent
        owner.stop(f"budget:{currency}")  # type: ignore[arg-type]

    def _relaunch(self, running: RunningCall, delay: float) -> bool:
        stream, call = running.stream, running.call
        again = RunningCall(
            self, stream, call, running.place, running.role, running.prompt_bound, attempt=running.attempt + 1
        )
        if not self.account.unlimited:
            bound, cap = running.prompt_bound, call.sampling.max_tokens
            count, tokens = self.account.admit(1, bound, cap, stream.request.min_tokens, self.tariff)
            if count == 0:
                self.out_of_budget()
                return False
            if tokens != cap:  # the failed attempt has used up a part
                again.call = replace(call, sampling=replace(call.sampling, max_tokens=tokens))
            again.reservation = self.account.reserve(bound, tokens, self.tariff)
        stream.in_flight[again.place] = again
        self.runner.launch(again, delay)
        return True

    def _child(self, budget: Budget, *, hand_driven: bool, member: Member | None = None) -> Session:
        child = type(self)(
            member.runner if member else self.runner,
            member.tariff if member else self.tariff,
            budget=budget,
            ahead=self.ahead,
            confidence_window=self.confidence_window,
            seed=self.seed,
            retries=self.retries,
            cache=member.cache if member else self.cache,
            observer=self.observer,
            parent=self,
        )
        child.hand_driven = hand_driven
        self._children.append(child)
        return child

    def _close_stream(self) -> None:
        base = self._viewed or self
        if base._stream is not None:
            base._stream.close()
            base._stream = None


def _needed(verifier: Verifier | None) -> Verifier:
    if verifier is None:
        raise BadInput("verifier", None, "is missing", "give one (--verifier NAME|PATH|URL)")
    return verifier
