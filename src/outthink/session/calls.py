"""One call to an engine on its way through a session: what was asked, reserved and received so far.

Knows: a call's own counts, the prompt it shares with others, and when a failed one is worth another
attempt. Who settles it (`CallOwner`, a session) and who receives its sample (`CallStream`) stand here as
protocols, so that runners need to know neither. Does not know budgets, time or any engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from outthink.answers import LocalReader
from outthink.core.errors import EngineError
from outthink.core.receipt import Entry, Role, Status
from outthink.core.request import Request
from outthink.core.sample import ConfidenceTrace, Decision, Progress, Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Delta
from outthink.engines.simulated import Outcome

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

    __slots__ = ("next", "request", "tokens")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.next = 0
        self.tokens: int | None = None


@dataclass(slots=True)
class CallReservation:
    """Upper bounds of one call; None where a currency is not bounded by anything known."""

    tokens: int
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
        self.seen = max(self.seen, arrived.pieces, len(arrived.logprobs), len(arrived.confidences))
        if delta.tokens is not None:
            self.tokens = self.seen = delta.tokens
        if delta.prompt_tokens is not None:
            self.prompt_tokens = delta.prompt_tokens
        return arrived

    @property
    def progress(self) -> Progress:
        """What a watch sees of it."""
        arrived = self.arrived or Arrived()
        return Progress(self.call.index, self.seen, arrived.confidences, 1, arrived.text)


def reread(sample: Sample, reader: LocalReader, before: str = "") -> Sample:
    """The sample with its answer read from its text (after `before`), as this request wants it read."""
    reading = reader.read_now(before + sample.text)
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
