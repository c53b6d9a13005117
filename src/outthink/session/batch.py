"""Many requests under one budget, on one engine.

Knows: sessions side by side whose calls are all charged to the session around them, each with a
ledger of its own. Does not know who gets a sample next: an `Order` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from outthink.core.errors import EngineError, OutthinkError
from outthink.core.receipt import Receipt
from outthink.core.request import Budget, Request
from outthink.core.sample import Sample
from outthink.session.calls import EntryLog
from outthink.session.runner import FOREIGN, Job, Member, SampleCache, by_name
from outthink.session.session import Session

_HOPELESS = 3
"""Requests that may fail before any sample has come; then the engine counts as down."""


class Drawn(NamedTuple):
    """What came of one sample: None where there will be no more of this request."""

    sample: Sample | None
    passed: bool | None = None


class Order(Protocol):
    """Says which request gets the next sample."""

    def next(self) -> int | None:
        """The request, None while no open one waits."""

    def add(self, i: int, sample: Sample | None, passed: bool | None = None) -> None:
        """What came of it."""


class Batch:
    """Sessions of many requests within `root`, whose budget holds for all of them together.

    Args:
        caches: a cache for each request, None for none.
        exact: whether the session's verifier is an exact check that every sample is to pass.
        models: of each request, by name in the pool of `root`; None for the session's own.
    """

    def __init__(
        self,
        root: Session,
        requests: Sequence[Request],
        *,
        caches: Sequence[SampleCache] | None = None,
        exact: bool = False,
        models: Sequence[str] | None = None,
    ) -> None:
        self.root, self.requests, self.exact = root, requests, exact
        self.sessions: list[Session] = []
        for i in range(len(requests)):
            base = root if models is None else root.on(models[i])
            session = base._child(Budget(), hand_driven=True)
            cache = None if caches is None else caches[i]
            session.ledger, session.cache = EntryLog(), cache
            # prompts of its own: equal ones may recur
            session.pool = by_name([Member(base.runner, base.tariff, cache)])
            self.sessions.append(session)
        self._ended = [0.0] * len(requests)
        self._drawn = self._lost = 0

    async def run(self, order: Order, ahead: int) -> None:
        """Draw samples, `ahead` at a time, until the order or the budget ends."""
        running: list[tuple[int, Job[Drawn]]] = []
        root = self.root
        try:
            while True:
                while len(running) < ahead and root.stopped is None and (i := order.next()) is not None:
                    running.append((i, self._draw(i)))
                if not running:
                    return
                waiting, ended = [], []
                for i, draw in running:
                    drawn = self._resume(i, draw)
                    if drawn is None:
                        waiting.append((i, draw))
                    else:
                        ended.append((i, drawn))
                running = waiting
                for i, drawn in ended:
                    order.add(i, drawn.sample, drawn.passed)
                if not ended:  # else the order is asked first: what has ended left a place and a part of the budget
                    await root.pause()
        finally:
            for _, draw in running:
                draw.close()

    def receipt(self, i: int) -> Receipt:
        """What request i has spent, and the seconds from the start of the batch to its last sample."""
        ledger = self.sessions[i].ledger
        return Receipt(tuple(ledger.entries), self._ended[i], tuple(ledger.notes))

    def _resume(self, i: int, draw: Job[Drawn]) -> Drawn | None:
        """Let a sample go on; its outcome if it has ended."""
        try:
            if draw.send(None) is not None:
                raise OutthinkError(FOREIGN)
            return None
        except StopIteration as end:
            drawn: Drawn = end.value
        except EngineError as error:
            self._lost += 1
            # Once a sample has come the engine works, and a failure is that of one request.
            if not self._drawn and (error.fatal or self._lost >= min(_HOPELESS, len(self.requests))):
                raise
            self.sessions[i].note(f"no sample came: {error}")
            self.sessions[i].stop("error")
            drawn = Drawn(None)
        self._drawn += drawn.sample is not None
        self._ended[i] = self.root.receipt().seconds
        return drawn

    async def _draw(self, i: int) -> Drawn:
        """One sample of request i, and what the check says of it."""
        request = self.requests[i]
        # A session of its own: another draw of the same request would close this one's stream.
        with self.sessions[i].within(Budget()) as session:
            async for sample in session.sample(request, n=1, ahead=1):
                if not self.exact:
                    return Drawn(sample)
                score = (await session.score(request, [sample]))[0]
                return Drawn(sample, score is not None and score.value("last") >= 1)
        return Drawn(None)
