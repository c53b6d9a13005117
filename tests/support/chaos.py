"""Carries out random plans, and checks what must hold for every one of them.

A Plan describes engine, budget, faults and a tree of steps (see `chaos_plans`). `run` carries it out on the virtual
clock, `run_live` with asyncio; both return the ways in which it broke an invariant.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from outthink import Budget, Completion, Fault, Message, Price, Request, Sampling, ScriptedEngine, Session, Speed
from outthink.core.errors import OutthinkError, Unsupported
from outthink.core.receipt import Entry, Receipt, Verdict
from outthink.core.sample import Decision, Judged, Progress
from outthink.economics.tariff import Energy, Tariff
from outthink.engines.protocol import Call, Delta, Event, Outcome, RealTimeEngine
from outthink.session.calls import BudgetAccount, CallReservation, Retries, RunningCall
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.virtual.runner import RateRunner, drive
from outthink.strategies import Spec
from support.chaos_plans import Plan
from support.chaos_verifier import ChaosVerifier

PROMPT = "How many?"
SPENT = ("tokens", "usd", "joules")


class Abandoned(Exception):
    """Raised by a plan's own strategy."""


Key = tuple[str | None, float, int]


def key_of(call: Call) -> Key:
    """What tells one sample of a request from another, whatever the attempt."""
    return call.prefix, call.sampling.temperature, call.index


class ChaosEngine(ScriptedEngine):
    """A scripted engine whose every attempt is a function of the plan; keeps its own account.

    `given` is what it has promised; `played` counts the tokens of each attempt that went out in real time.
    """

    def __init__(self, plan: Plan, *, speed: Speed, scale: float = 1.0) -> None:
        super().__init__(self._complete, prompt_tokens=plan.prompt_tokens, told=plan.told, speed=speed)
        self.plan, self.scale = plan, scale
        self.attempts: Counter[Key] = Counter()
        self.given: list[Outcome] = []
        self.played: dict[Key, list[int]] = {}

    def outcome(self, call: Call) -> Outcome:
        """Promise a completion."""
        self.given.append(super().outcome(call))
        return self.given[-1]

    def _complete(self, call: Call) -> Completion:
        plan = self.plan
        key = key_of(call)
        self.attempts[key] += 1
        draw = random.Random(f"{plan.seed}:{key}:{self.attempts[key]}")
        tokens, fault = draw.choice(plan.lengths), None
        if draw.random() < plan.fault_rate:
            fatal = draw.random() < plan.fatal_rate
            wait = draw.choice([None, 0.0, 1.5 * self.scale, 99.0])
            fault = Fault(draw.choice([0, 1, 17, 400]), fatal, retry_after=wait)
        confidence = [draw.uniform(0.1, 3) for _ in range(-(-tokens // 16))]
        delay = draw.uniform(0, 5) * self.scale if draw.random() < plan.slow_rate else 0.0
        return Completion(
            answer=draw.choice(plan.answers), tokens=tokens, confidence=confidence, delay=delay, fault=fault
        )

    async def generate(self, call: Call) -> AsyncIterator[Event]:  # type: ignore[override]
        """Play in real time, counting what goes out of the door."""
        attempts = self.played.setdefault(key_of(call), [])
        attempts.append(0)
        place = len(attempts) - 1
        async with aclosing(super().generate(call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    attempts[place] += len(event.confidences)
                yield event


class RecordingAccount(BudgetAccount):
    """An account that keeps what judging was charged to it."""

    def __init__(self, budget: Budget, parent: BudgetAccount | None = None) -> None:
        super().__init__(budget, parent)
        self.judged: list[Entry] = []

    def settle(self, reservation: CallReservation, entry: Entry | None) -> None:
        """Keep the entry, in all accounts that are charged."""
        super().settle(reservation, entry)
        if entry is not None and entry.role == "verifier":
            for account in self.chain():
                assert isinstance(account, RecordingAccount)
                account.judged.append(entry)


class AccountedSession(Session):
    """A session that also remembers which call each entry belongs to, and every second settlement."""

    account: RecordingAccount

    def __init__(self, *arguments: Any, parent: AccountedSession | None = None, **options: Any) -> None:
        super().__init__(*arguments, parent=parent, **options)
        self.account = RecordingAccount(self.account.budget, self.account.parent)
        self.by_call: dict[RunningCall, Entry] = parent.by_call if parent else {}
        self.twice: list[RunningCall] = parent.twice if parent else []

    def settle(self, running: RunningCall, *arguments: Any, **options: Any) -> Entry:
        """Write the entry; a call must come here once."""
        if running in self.by_call:
            self.twice.append(running)
        self.by_call[running] = entry = super().settle(running, *arguments, **options)
        return entry


@dataclass
class Chaos:
    """One run in progress: it plays the plan's steps and notes what it sees."""

    plan: Plan
    broken: list[str] = field(default_factory=list)
    launched: list[RunningCall] = field(default_factory=list)
    nested: list[tuple[Session, float]] = field(default_factory=list)
    overspend: float = 0.0

    def saw(self, running: RunningCall) -> None:
        """A call is launched: check its limits."""
        stream, call = running.stream, running.call
        if running not in self.launched:
            self.launched.append(running)
        if len(stream.in_flight) > stream.ahead:
            self.broken.append(f"{len(stream.in_flight)} in flight, {stream.ahead} allowed")
        cap = stream.request.sampling.max_tokens
        if not min(stream.request.min_tokens, cap) <= call.sampling.max_tokens <= cap:
            self.broken.append(f"max_tokens {call.sampling.max_tokens}")

    async def strategy(self, session: Session, request: Request) -> Verdict:
        """The plan's steps as a strategy."""
        await self._play(session, request, self.plan.steps)
        return Verdict(None, "")

    async def _play(self, session: Session, request: Request, steps: tuple[Any, ...]) -> None:
        for step in steps:
            await getattr(self, f"_{step[0]}")(session, request, *step[1:])

    async def _raise(self, session: Session, request: Request) -> None:
        raise Abandoned

    async def _strategy(self, session: Session, request: Request, text: str, n: int) -> None:
        await Spec.parse(text.format(n=n))(session, request)

    async def _sample(
        self,
        session: Session,
        request: Request,
        n: int,
        ahead: int,
        order: Any,
        leave: int | None,
        stop_at: int | None,
        prefix: str | None,
        judged: bool | float,
    ) -> None:
        def watch(progress: Progress) -> Decision:
            return "stop" if stop_at is not None and progress.tokens >= stop_at else "keep"

        options: Any = {"n": n, "ahead": ahead, "order": order, "prefix": prefix}
        options["watch"] = None if stop_at is None else watch
        options["judged"] = judged if isinstance(judged, bool) else Judged(judged)
        taken = 0
        async for _ in session.sample(request, **options):
            taken += 1
            if taken == leave:
                break

    async def _within(self, session: Session, request: Request, budget: Budget, inner: tuple[Any, ...]) -> None:
        plan = self.plan
        if (budget.usd and not plan.priced) or (budget.joules and not plan.metered):
            budget = Budget(tokens=budget.tokens, seconds=budget.seconds)
        with session.within(budget) as nested:
            self.nested.append((nested, session.runner.now()))
            await self._play(nested, request, inner)
            spent = session.runner.now() - self.nested[-1][1]
            if budget.seconds is not None and session.runner.hand_driven and spent > budget.seconds + 1e-9:
                self.broken.append(f"nested deadline {budget.seconds} passed: {spent}")

    async def _together(self, session: Session, request: Request, left: Any, right: Any) -> None:
        await session.together(
            *(lambda child, steps=steps: self._play(child, request, steps) for steps in (left, right))
        )

    # What must hold

    def check(self, session: AccountedSession, receipt: Receipt) -> None:
        """Everything that holds for virtual and live runs alike."""
        if session.twice:
            self.broken.append("a call was settled twice")
        if any(not running.settled for running in self.launched):
            self.broken.append("a call was never settled")
        for owner in (session, *(nested for nested, _ in self.nested)):
            if owner.account.outstanding or any(owner.account.reserved.values()):
                self.broken.append(f"still reserved: {owner.account.reserved}")
            entries = [e for running, e in session.by_call.items() if _belongs(running, owner)]
            assert isinstance(owner, AccountedSession)
            self._check_budget(owner.account.budget, Receipt((*entries, *owner.account.judged), 0.0))
        if isinstance(session.verifier, ChaosVerifier):
            self._check_verifier(session.verifier, [e for e in receipt.entries if e.role == "verifier"])
        first = [r for r in self.launched if r.attempt == 1]
        numbers = Counter(key_of(running.call) for running in first)
        if any(count > 1 for count in numbers.values()):
            self.broken.append("a sample number was used twice")
        self._check_unknown(receipt)

    def _check_budget(self, budget: Budget, receipt: Receipt) -> None:
        for currency in SPENT:
            limit, spent = budget.get(currency), receipt.at_most[currency]  # type: ignore[arg-type]
            if limit is None:
                continue
            if spent is None:
                self.broken.append(f"{currency} limited and unbounded")
                continue
            self.overspend = max(self.overspend, (spent - limit) / limit)
            if spent > limit * (1 + 1e-12):
                self.broken.append(f"{currency}: {spent} of {limit}")

    def _check_verifier(self, verifier: ChaosVerifier, entries: list[Entry]) -> None:
        """What it has taken is what its entries say, or at most what was reserved for them."""
        taken = sum(verifier.taken)
        at_most = sum((e.reserved_tokens or 0) if e.tokens is None else e.tokens for e in entries)
        if taken > at_most or (None not in [e.tokens for e in entries] and taken != at_most):
            self.broken.append(f"the verifier has taken {taken}, its entries say {at_most}")

    def _check_unknown(self, receipt: Receipt) -> None:
        entries = receipt.entries
        if any(e.tokens is None for e in entries) != (receipt.tokens is None):
            self.broken.append("unknown tokens are summed")
        if not self.plan.priced and entries and receipt.usd is not None:
            self.broken.append("dollars without a price")
        for entry in entries:
            if entry.tokens is None and not (entry.estimated and entry.known_tokens <= (entry.reserved_tokens or 0)):
                self.broken.append(f"an unknown count without bounds: {entry}")
        summed = receipt.total("tokens")
        if summed.at_most is None or summed.known > summed.at_most:
            self.broken.append("known exceeds at_most")

    def check_virtual(self, engine: ChaosEngine, session: AccountedSession) -> None:
        """Entries against what the engine was asked for and the time that each call had."""
        started = {running for running in self.launched if running.started is not None}
        promised = {id(running.outcome) for running in started}
        if started != set(session.by_call) or promised != {id(outcome) for outcome in engine.given}:
            self.broken.append("calls started and entries written differ")
        for running, entry in session.by_call.items():
            outcome = running.outcome
            assert outcome is not None
            fault = outcome.fault
            refused = entry.status == "failed" and fault is not None and fault.after == 0
            if not self.plan.told and not refused:
                if entry.tokens is not None:
                    self.broken.append(f"a count nobody told: {entry}")
                continue
            had = (entry.seconds or 0.0) - outcome.delay - outcome.prompt_tokens / engine.speed.prefill
            possible = min(outcome.tokens, max(0, int(had * engine.speed.stream + 1e-6)))
            ends = {"finished": outcome.tokens, "failed": fault.after if fault else -1}
            wanted, generated = ends.get(entry.status, possible), entry.completion_tokens + entry.cancelled_tokens
            prompt = 0 if refused else self.plan.prompt_tokens
            exact = entry.status in ends or not self.plan.shared
            if entry.prompt_tokens != prompt or (generated != wanted if exact else generated > wanted):
                self.broken.append(f"{entry} should have {prompt} + {wanted}")

    def check_live(self, engine: ChaosEngine, session: AccountedSession) -> None:
        """Entries against what the engine handed out."""
        for running, entry in session.by_call.items():
            generated = entry.cancelled_tokens if entry.status in ("cancelled", "failed") else entry.completion_tokens
            if generated is None:
                continue
            attempts = engine.played.get(key_of(running.call), [])
            handed = attempts[running.attempt - 1] if len(attempts) >= running.attempt else 0
            if generated != handed:
                self.broken.append(f"{entry.status} with {generated} tokens, the engine handed out {handed}")


def _belongs(running: RunningCall, owner: Session) -> bool:
    session: Session | None = running.owner
    while session is not None and session is not owner:
        session = session.parent
    return session is owner


def _request(plan: Plan, budget: Budget) -> Request:
    return Request(
        messages=(Message("user", PROMPT),),
        answer="number",
        budget=budget,
        sampling=Sampling(max_tokens=plan.cap),
        seed=plan.seed,
        min_tokens=plan.min_tokens,
    )


def _tariff(plan: Plan) -> Tariff:
    price = Price(1.0, 4.0, 0.5) if plan.priced else None
    return Tariff.of("scripted", price=price, energy=Energy(0.1, 2.0) if plan.metered else None)


@dataclass
class Report:
    """What one run showed."""

    broken: list[str]
    outcome: str
    calls: int
    overspend: float
    receipt: dict[str, Any] | None = None

    @property
    def judgements(self) -> int:
        """Entries of the verifier."""
        return sum(entry["role"] == "verifier" for entry in (self.receipt or {"entries": ()})["entries"])


def run(plan: Plan) -> Report:
    """Carry a plan out on the virtual clock."""
    chaos = Chaos(plan)
    rates = {"total": 120.0, "judge": 60.0} if plan.shared else {"total": 1e9, "judge": 400.0}
    speed = Speed(concurrency=plan.concurrency, **rates)
    engine = ChaosEngine(plan, speed=speed)

    class Runner(RateRunner):
        def launch(self, running: RunningCall, delay: float = 0.0) -> None:
            chaos.saw(running)
            super().launch(running, delay)

    runner, request = Runner(engine), _request(plan, plan.budget)
    try:
        session = AccountedSession(
            runner,
            _tariff(plan),
            budget=plan.budget,
            ahead=3,
            seed=plan.seed,
            retries=Retries(),
            verifier=None if plan.judge is None else ChaosVerifier(plan, plan.judge),
        )
    except Unsupported:
        refusable = (plan.budget.usd and not plan.priced) or (plan.budget.joules and not plan.metered)
        return Report([] if refusable and not engine.calls else ["refused for no reason"], "refused", 0, 0.0)
    if plan.interrupt is not None:
        runner.alarm(plan.interrupt, lambda: session.stop("interrupted"))
    outcome = "finished"
    try:
        drive(chaos.strategy(session, request), session, runner)
        outcome = session.stopped or outcome
    except (Abandoned, OutthinkError) as error:
        outcome = type(error).__name__
    receipt = session.receipt()
    chaos.check(session, receipt)
    chaos.check_virtual(engine, session)
    if plan.budget.seconds is not None and receipt.seconds > plan.budget.seconds:
        chaos.broken.append(f"deadline {plan.budget.seconds} passed: {receipt.seconds}")
    return Report(chaos.broken, outcome, len(engine.given), chaos.overspend, receipt.json())


LIVE_SCALE = 1e-3
"""Live runs last a thousandth of the virtual ones: 50,000 tokens a second."""


async def run_live(plan: Plan) -> Report:
    """Carry a plan out with asyncio; `interrupt` cancels the whole request from outside."""
    chaos = Chaos(plan)
    speed = Speed(stream=50_000, total=1e9, prefill=5e6, concurrency=plan.concurrency)
    engine = ChaosEngine(plan, speed=speed, scale=LIVE_SCALE)
    seconds = None if plan.budget.seconds is None else plan.budget.seconds * LIVE_SCALE + 0.001
    budget = Budget(
        tokens=plan.budget.tokens,
        seconds=seconds,
        usd=plan.budget.usd if plan.priced else None,
        joules=plan.budget.joules if plan.metered else None,
    )

    class Runner(LiveRunner):
        def launch(self, running: RunningCall, delay: float = 0.0) -> None:
            chaos.saw(running)
            super().launch(running, delay)

    runner, request = Runner(RealTimeEngine(engine)), _request(plan, budget)
    retries = Retries(first=0.25 * LIVE_SCALE, longest=30 * LIVE_SCALE)
    verifier = None if plan.judge is None else ChaosVerifier(plan, plan.judge, waits=True)
    session = AccountedSession(
        runner, _tariff(plan), budget=budget, ahead=3, seed=plan.seed, retries=retries, verifier=verifier
    )
    task = asyncio.create_task(drive_live(chaos.strategy(session, request), session, runner))
    if plan.interrupt is not None:
        asyncio.get_running_loop().call_later(plan.interrupt * LIVE_SCALE, task.cancel)
    outcome = "finished"
    try:
        await task
        outcome = session.stopped or outcome
    except asyncio.CancelledError:
        outcome = "cancelled"
    except (Abandoned, OutthinkError) as error:
        outcome = type(error).__name__
    receipt = session.receipt()
    chaos.check(session, receipt)
    chaos.check_live(engine, session)
    return Report(chaos.broken, outcome, len(engine.given), chaos.overspend, receipt.json())
