"""Buys samples one step at a time, as a rule says; the strategy behind `auto`.

Knows: steps, and that every sample is counted once. Does not know how a rule decides, which models
there are or what they cost.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session


class Step(NamedTuple):
    """What to buy next.

    Args:
        model: which model of the session's pool, None for the session's own.
        n: samples at most.
        ahead: of them in flight at once, None for the session's default.
        alternatives: alternatives a token that the log-probabilities come with (0 = chosen tokens only).
    """

    model: str | None
    n: int
    ahead: int | None = None
    alternatives: int = 0


class Rule(Protocol):
    """Decides for one request what to buy, when to stop and who has won. It holds the state of that request."""

    def next(self) -> Step | None:
        """What to buy now, None when nothing more is worth it."""
        ...

    def add(self, sample: Sample, model: str | None) -> bool:
        """Count a sample; True to leave the present step now (what is in flight is cancelled)."""
        ...

    def verdict(self) -> Verdict:
        """The answer by all samples so far, and why it stopped."""
        ...


async def allocate(session: Session, request: Request, *, rule: Rule) -> Verdict:
    """Carry out a rule. Its first samples are probes and votes at once: nothing sampled is thrown away."""
    fruitless: Step | None = None
    while session.stopped is None and (step := rule.next()) is not None:
        if step == fruitless:
            break  # its calls failed; the same again would fail again
        fruitless = step
        buyer = session if step.model is None else session.on(step.model)
        async for sample in buyer.sample(request, n=step.n, ahead=step.ahead, top_logprobs=step.alternatives):
            fruitless = None
            if rule.add(sample, step.model):
                break
    return rule.verdict()
