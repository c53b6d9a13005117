"""One call on its way: what was asked, what is reserved, and what has arrived so far.

Knows: its own counts. Does not know who decides about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outthink.core.receipt import Role
from outthink.core.sample import ConfidenceTrace, Progress
from outthink.engines.protocol import Call, Delta
from outthink.engines.simulated import Outcome
from outthink.session.desk import Reservation

if TYPE_CHECKING:
    from outthink.session.stream import Stream


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
class Running:
    """A call in flight. `place` is its launch order in its stream.

    `tokens` are the generated tokens counted so far, None while the engine tells none; `seen` is
    a lower bound on them. `started` is None until the call is sent. `arrived` belongs to the live
    runner; `outcome` and `begin` (of decoding, on the scale of service) to the virtual one.
    """

    stream: Stream
    call: Call
    place: int
    role: Role
    prompt_bound: int
    reservation: Reservation | None = None
    attempt: int = 1
    started: float | None = None
    settled: bool = False
    tokens: int | None = None
    seen: int = 0
    prompt_tokens: int | None = None
    arrived: Arrived | None = None
    outcome: Outcome | None = None
    begin: float = 0.0

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
