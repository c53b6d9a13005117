"""Calls to an engine on their way through a session, and the budget account that they reserve from.

Knows: a call's own counts, the prompt it shares with others, when a failed one is worth another attempt; one budget and
the accounts that enclose it: a call reserves its bound before it runs and settles after it, so that parallel calls
cannot overspend together. Who settles a call (`CallOwner`, a session) and who receives its sample (`CallStream`) stand
here as protocols, so that runners need to know neither. Does not know time (seconds are a deadline, kept by the
session), any engine, or what a call is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from outthink.answers import LocalReader, visible
from outthink.core.errors import EngineError, Unsupported
from outthink.core.receipt import Entry, Role, Status
from outthink.core.request import Budget, Currency, Request, chat_bound
from outthink.core.sample import ConfidenceTrace, Decision, Progress, Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Delta, Outcome

Watch = Callable[[Progress], Decision]


class CallOwner(Protocol):
    """Settles a call and decides what follows: the session that launched it."""

    tariff: Tariff

    def notify(self, event: str, running: RunningCall, sample: Sample | None = None) -> None:
        """Something has happened to a call."""

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
        """Write a call's entry and turn its reservation into spending."""

    def release(self, running: RunningCall) -> None:
        """A call was never sent: give its reservation back."""

    def deliver(self, running: RunningCall, sample: Sample | None) -> None:
        """A settled call has given a sample, or None where its watch has stopped it."""

    def failed(self, running: RunningCall, error: EngineError) -> None:
        """A settled call has failed."""


class CallStream(Protocol):
    """What a call shares with the others of its stream, and where its sample goes.

    `before` is the text that an answer is read from before the completion's own.
    """

    request: Request
    prompt: Prompt
    before: str
    watch: Watch | None
    in_flight: dict[int, RunningCall]
    closed: bool
    failure: EngineError | None

    def deliver(self, running: RunningCall, sample: Sample | None) -> None:
        """A call has ended: with a sample that may vote, or with None."""

    def uncapped(self, call: Call) -> Call:
        """The same call under the request's own limit instead of the budget's."""

    def close(self) -> None:
        """Cancel what is in flight."""


class Prompt:
    """State of one prompt (messages, prefix, greedy or not) within a session.

    `next` numbers its samples: seeds and recorded samples never repeat. `tokens` is the real
    prompt count after the first answer, None before.
    """

    __slots__ = ("_bound", "next", "request", "tokens")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.next = 0
        self.tokens: int | None = None
        self._bound: int | None = None

    def bound(self, call: Call) -> int:
        """The most tokens that the prompt of one of its calls can have; worked out once, for it may be megabytes."""
        if self._bound is None:
            self._bound = byte_bound(call)
        return self._bound


class CallReservation(NamedTuple):
    """Upper bounds of one call, or of judging, in the order of `SPENT`; None where nothing known bounds a currency."""

    tokens: float
    usd: float | None
    joules: float | None


@dataclass(slots=True)
class Arrived:
    """What a live call has received. `pieces` of text are a lower bound on tokens, no count."""

    pieces: int = 0
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of the tokens that came with one."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    @property
    def confidence(self) -> ConfidenceTrace | None:
        """Token confidences so far, None without any."""
        return ConfidenceTrace(self.confidences, 1, len(self.confidences)) if self.confidences else None


@dataclass(slots=True, eq=False)
class RunningCall:
    """A call in flight. `place` is its launch order in its stream.

    `tokens` are the generated tokens counted so far, None while the engine tells none; `seen` is
    a lower bound on them. `started` is None until the call is sent. `arrived` belongs to the live
    runner; `outcome` and `begin` (of decoding, on the scale of service) to the virtual one.
    """

    owner: CallOwner
    stream: CallStream
    call: Call
    place: int
    role: Role
    prompt_bound: int
    reservation: CallReservation | None = None
    attempt: int = 1
    started: float | None = None
    settled: bool = False
    tokens: int | None = None
    seen: int = 0
    prompt_tokens: int | None = None
    arrived: Arrived | None = None
    outcome: Outcome | None = None
    begin: float = 0.0

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self.owner.tariff.model

    def absorb(self, delta: Delta) -> Arrived:
        """Take in a piece of a live completion."""
        arrived = self.arrived
        if arrived is None:
            arrived = self.arrived = Arrived()
        if delta.text:
            arrived.text.append(delta.text)
        if delta.reasoning:
            arrived.reasoning.append(delta.reasoning)
        if delta.logprobs:
            arrived.logprobs.extend(delta.logprobs)
        if delta.confidences:
            arrived.confidences.extend(delta.confidences)
        if delta.text or delta.reasoning:
            arrived.pieces += delta.pieces
        # Pieces are no count: llama.cpp was seen to send 75 tokens in 25 of them.
        self.seen = max(self.seen, arrived.pieces, len(arrived.logprobs), len(arrived.confidences))
        if delta.tokens is not None:
            self.tokens = self.seen = delta.tokens
        elif delta.text or delta.reasoning:
            self.tokens = None  # what was counted before does not cover it
        if delta.prompt_tokens is not None:
            self.prompt_tokens = delta.prompt_tokens
        return arrived

    @property
    def progress(self) -> Progress:
        """What a watch sees of it."""
        arrived = self.arrived or Arrived()
        return Progress(self.call.index, self.seen, arrived.confidences, 1, arrived.text)


def said(before: str, reasoning: str, text: str) -> str:
    """What an answer is read from: the text with what it goes on from.

    A server that tells thinking apart ends a thought without a mark: what was only thought before stays out.
    """
    return text if reasoning and visible(before) is None else before + text


def reread(sample: Sample, reader: LocalReader, before: str = "") -> Sample:
    """The sample with its answer read from its text (after `before`), as this request wants it read."""
    reading = reader.read_now(said(before, sample.reasoning, sample.text))
    return replace(sample, answer=reading.answer, rule=reading.rule)


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential backoff: `first`, twice that, ... seconds, or what the server asks for."""

    attempts: int = 3
    first: float = 0.25
    longest: float = 30.0

    def delay(self, attempt: int, error: EngineError) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up."""
        if error.fatal or not error.again or attempt >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.longest else None
        return float(min(self.longest, self.first * 2.0 ** (attempt - 1)))


# The budget account.

SPENT: tuple[Currency, ...] = ("tokens", "usd", "joules")


class BudgetAccount:
    """A budget's account. A call is charged to it and to every account around it."""

    def __init__(self, budget: Budget, parent: BudgetAccount | None = None) -> None:
        self.budget = budget
        self.parent = parent
        self.spent = dict.fromkeys(SPENT, 0.0)
        self.reserved = dict.fromkeys(SPENT, 0.0)
        self.outstanding = 0
        self.refusal: tuple[Currency, BudgetAccount] | None = None
        limited = budget.tokens is not None or budget.usd is not None or budget.joules is not None
        self.unlimited: bool = not limited and (parent is None or parent.unlimited)

    def chain(self) -> Iterator[BudgetAccount]:
        """This account and those around it, innermost first."""
        account: BudgetAccount | None = self
        while account is not None:
            yield account
            account = account.parent

    def left(self, currency: Currency) -> float | None:
        """What this account alone still allows, None if unlimited."""
        limit = self.budget.get(currency)
        return None if limit is None else limit - self.spent[currency] - self.reserved[currency]

    def admit(
        self, wanted: int, prompt: int, cap: int, floor: int, tariff: Tariff, aside: CallReservation | None = None
    ) -> tuple[int, int]:
        """How many of `wanted` calls may start now, and the max_tokens of each.

        Args:
            prompt: upper bound on a call's prompt tokens.
            cap: the most tokens a call may generate.
            floor: the least a call is worth starting with (min_tokens, docs/contracts.md).
            aside: what is kept aside besides, for each token of a call's bound.

        Returns (0, 0) and sets `refusal` (currency, account) where not even one fits.
        """
        floor = min(floor, cap)
        limits = [
            (name, account, left, *_linear(name, prompt, tariff, aside))
            for account in self.chain()
            for name in SPENT
            if (left := account.left(name)) is not None
        ]
        # Equal shares of what is left, and fewer calls rather than any below min_tokens (docs/contracts.md).
        for count in range(wanted, 0, -1):
            tokens = cap
            for name, account, left, fixed, slope in limits:
                fits = cap if slope <= 0 else int((left / count - fixed) / slope)
                if left < fixed * count:
                    fits = -1  # not even the prompt
                if fits < floor:
                    self.refusal = name, account
                tokens = min(tokens, fits)
            if tokens >= floor:
                return count, tokens
        return 0, 0

    def has_room(self, bounds: CallReservation) -> bool:
        """Whether so much may be reserved now; sets `refusal` where it may not."""
        for account in self.chain():
            for name, amount in zip(SPENT, bounds, strict=True):
                if (left := account.left(name)) is not None and amount and left < amount:
                    self.refusal = name, account
                    return False
        return True

    def shortage(
        self, prompt: int, cap: int, floor: int, tariff: Tariff, aside: CallReservation | None = None
    ) -> str | None:
        """What the whole budget would have to be for one call; arguments as for `admit`.

        None where it has room for one, or where something of it has been used already.
        """
        *_, whole = self.chain()
        if any(whole.spent.values()) or any(whole.reserved.values()):
            return None
        short = []
        for name in SPENT:
            if (limit := whole.budget.get(name)) is None:
                continue
            need = _least(name, prompt, min(floor, cap), tariff, aside)
            if limit < need:
                short.append(f"{name}={limit:.12g} is below the least that works here: {need:.12g}")
        return "; ".join(short) or None

    def reserve(self, prompt: int, generated: int, tariff: Tariff) -> CallReservation:
        """Set aside the upper bound of one call on this account and all around it."""
        return self.hold(
            CallReservation(
                prompt + generated, tariff.usd_bound(prompt, generated), tariff.joules_bound(prompt, generated)
            )
        )

    def hold(self, reservation: CallReservation) -> CallReservation:
        """Set these amounts aside, on this account and all around it."""
        for account in self.chain():
            account.outstanding += 1
            for name, held in zip(SPENT, reservation, strict=True):
                account.reserved[name] += held or 0.0
        return reservation

    def settle(self, reservation: CallReservation, entry: Entry | None) -> None:
        """Replace a reservation by what the entry says; unknown amounts are charged as reserved."""
        known = (0.0,) * len(SPENT) if entry is None else (entry.tokens, entry.usd, entry.joules)
        for account in self.chain():
            account.outstanding -= 1
            for name, held, amount in zip(SPENT, reservation, known, strict=True):
                account.reserved[name] -= held or 0.0
                account.spent[name] += (held if amount is None else amount) or 0.0
            if account.outstanding == 0:  # rounding must not accumulate over thousands of calls
                account.reserved = dict.fromkeys(SPENT, 0.0)


def _linear(name: Currency, prompt: int, tariff: Tariff, aside: CallReservation | None = None) -> tuple[float, float]:
    """Cost of a prompt and of each generated token in one currency, both from above, with what is kept aside."""
    each = 0.0 if aside is None else aside[SPENT.index(name)] or 0.0
    if name == "tokens":
        return prompt + each * prompt, 1.0 + each
    bound = tariff.usd_bound if name == "usd" else tariff.joules_bound
    fixed, more = bound(prompt, 0), bound(prompt, 1000)
    if fixed is None or more is None:
        raise Unsupported(f"budget {name}: model {tariff.model!r} cannot be bounded in it")  # see check_budget
    return fixed + each * prompt, (more - fixed) / 1000 + each


def _least(name: Currency, prompt: int, generated: int, tariff: Tariff, aside: CallReservation | None) -> float:
    """The least amount that admits a call: tokens exactly, money and energy to three digits and never less."""
    fixed, slope = _linear(name, prompt, tariff, aside)
    need = fixed + slope * generated
    if name == "tokens" or need <= 0:
        return math.ceil(need)
    step = 10.0 ** (math.floor(math.log10(need)) - 2)
    count = math.ceil(need / step)
    # `admit` divides where this multiplies, and rounding may cost it a token.
    while slope > 0 and int((float(f"{count * step:.12g}") - fixed) / slope) < generated:
        count += 1
    return float(f"{count * step:.12g}")


def check_budget(budget: Budget, tariff: Tariff) -> None:
    """Refuse a budget in a currency that cannot be accounted for; Unsupported names the remedy."""
    if budget.usd is not None and tariff.usd_bound(1, 1) is None:
        raise Unsupported(
            f"budget usd: no price is known for model {tariff.model!r}; give one with --price IN,OUT "
            "(dollars per million tokens) or drop the dollar budget"
        )
    if budget.joules is not None and tariff.joules_bound(1, 1) is None:
        raise Unsupported(
            f"budget joules: model {tariff.model!r} has no energy meter and no bound on joules a token; "
            "give joules a token with --energy PROMPT,COMPLETION or drop the joule budget"
        )


def byte_bound(call: Call) -> int:
    """The most tokens that a call's prompt can have, what it continues included."""
    return chat_bound(call.messages) + len((call.prefix or "").encode())


class EntryLog:
    """The append-only ledger of one request: entries in the order in which their calls ended."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self.succeeded = 0
        self.failed = 0

    def note(self, text: str) -> None:
        """Remember something unusual for the receipt, once."""
        if text not in self.notes:
            self.notes.append(text)
