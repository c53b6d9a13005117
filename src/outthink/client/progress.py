"""What happens while a question is answered, as one event after another.

Knows: what a session tells its observer, and the words for it. Does not know terminals or how an answer
is found.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from outthink.core.receipt import Result
from outthink.core.sample import Sample
from outthink.session.calls import RunningCall
from outthink.session.runner import Observer
from outthink.session.session import Session


@dataclass(frozen=True, slots=True)
class AskEvent:
    """Something that has happened; printed as the command line prints it.

    Args:
        kind: launched, delta (new text of a sample), finished, stopped, cancelled, failed or cached of a
            sample, and answered at the end.
        sample: number of the sample for its prompt, from 1; None at the end.
        text: the new text of `delta`, the whole text of a finished or cached sample, the answer's at the end.
        answer: what was read from it, None if nothing was.
        tokens: of this sample so far, None where unknown.
        spent: tokens of the whole request so far, as far as they are known.
        seconds: since the request began.
        votes: finished samples by their answers.
        result: the outcome, at the end.
    """

    kind: str
    sample: int | None
    text: str = ""
    answer: str | None = None
    tokens: int | None = None
    spent: int = 0
    seconds: float = 0.0
    votes: Mapping[str, int] = field(default_factory=dict)
    result: Result | None = None

    def __str__(self) -> str:
        if self.sample is None:
            return self.answer or "no readable answer"
        if self.kind not in ("finished", "cached"):
            return f"sample {self.sample}: {self.text if self.kind == 'delta' else self.kind}"
        answer = "no readable answer" if self.answer is None else self.answer.replace("\n", " ")[:80]
        tokens = "unknown tokens" if self.tokens is None else f"{self.tokens} tokens"
        return f"sample {self.sample}: {answer} ({tokens}, {self.kind})"


def event_of(kind: str, running: RunningCall, sample: Sample | None, text: str = "") -> AskEvent:
    """The event of one call, without what concerns the whole request."""
    number = running.call.index + 1
    if sample is None:
        return AskEvent(kind, number, text, tokens=running.tokens)
    return AskEvent(kind, number, sample.text, sample.answer, sample.tokens)


class EventQueue:
    """An observer that keeps events until somebody takes them.

    Args:
        then: another observer that sees everything as well.
    """

    def __init__(self, then: Observer | None = None) -> None:
        self.events: asyncio.Queue[AskEvent | None] = asyncio.Queue()
        self.session: Session | None = None
        self._then = then
        self._shown: dict[RunningCall, int] = {}
        self._votes: Counter[str] = Counter()

    def __call__(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        """Take in what a session tells."""
        if self._then is not None:
            self._then(event, running, sample)
        text = ""
        if event == "delta":
            pieces = running.arrived.text if running.arrived is not None else []
            text = "".join(pieces[self._shown.get(running, 0) :])
            self._shown[running] = len(pieces)
        elif event == "launched":
            self._shown[running] = 0
        else:
            self._shown.pop(running, None)
            if sample is not None and sample.answer is not None:
                self._votes[sample.answer] += 1
        self.events.put_nowait(self._of_request(event_of(event, running, sample, text)))

    def answered(self, result: Result) -> AskEvent:
        """The last event."""
        receipt = result.receipt
        event = AskEvent("answered", None, result.text, result.answer, receipt.tokens, result=result)
        spent = int(receipt.known["tokens"])
        return replace(event, spent=spent, seconds=receipt.seconds, votes=dict(self._votes))

    def _of_request(self, event: AskEvent) -> AskEvent:
        """With what the whole request has come to so far."""
        session = self.session
        if session is None:
            return event
        spent = sum(entry.known_tokens for entry in session.ledger.entries)
        spent += sum(running.seen for running in self._shown)
        return replace(event, spent=spent, seconds=session.elapsed, votes=dict(self._votes))
