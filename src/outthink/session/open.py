"""From models at hand to a session that can be run: the only place that builds runners and sessions.

Knows: that simulated engines run on the virtual clock and all others live, how engines and verifier are
made ready under the session's own deadline, and what is left of a request that never finished. Does not
know strategies, how an engine is chosen, or what its model costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from outthink.core.errors import OutthinkError
from outthink.core.receipt import Receipt, Stopped, Verdict
from outthink.core.request import Budget, Request
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, Simulated, Speed, is_simulated
from outthink.session.calls import Retries
from outthink.session.live import LiveRunner
from outthink.session.live import drive as drive_live
from outthink.session.runner import Job, Member, Observer, Places, Runner, SampleCache
from outthink.session.session import Session
from outthink.session.virtual.runner import RateRunner, VirtualRunner
from outthink.session.virtual.runner import drive as drive_virtual
from outthink.session.virtual.steps import StepRunner
from outthink.verifiers.protocol import Verifier, complete

T = TypeVar("T")
_LATE = "the engine was not ready before the deadline"
_UNREAD = (
    "the verifier {} was still being read; its first use unpacks its model for later ones, "
    "so ask once without a limit in seconds"
)
_ENDED = "the engine was not ready when the request was ended"


@dataclass(frozen=True, slots=True)
class Source:
    """A model at hand.

    Args:
        tariff: what its calls cost; a function where the engine may have yet to tell its model's name.
        cache: its samples of earlier runs, None to reuse none.
        places: shared by all sessions on this engine, in turns by request; None where this is the only one.
    """

    engine: Engine
    tariff: Tariff | Callable[[], Tariff]
    cache: SampleCache | None = None
    places: Places | None = None

    def read_tariff(self) -> Tariff:
        """What its calls cost, now that the engine has told what it can tell."""
        return self.tariff() if callable(self.tariff) else self.tariff


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a session may be told besides its sources; see `Session`.

    Args:
        unread: name of a verifier that was still being read at the deadline, so that there is none.
        kind: class of the session, for one that keeps what is asked of it.
    """

    ahead: int = 4
    confidence_window: int = 2048
    verifier: Verifier | None = None
    observer: Observer | None = None
    retries: Retries | None = None
    unread: str | None = None
    kind: type[Session] = Session


class OpenSession:
    """A session with its runners. Made by `open_session`."""

    def __init__(
        self,
        sources: Sequence[Source],
        budget: Budget | None,
        seed: int | None,
        began: float | None,
        options: SessionOptions,
    ) -> None:
        self.sources, self._budget, self._seed, self._options = sources, budget, seed, options
        self.verifier = None if options.verifier is None else complete(options.verifier)
        simulated = [source.engine for source in sources if is_simulated(source.engine)]
        if len(simulated) == len(sources):
            self._virtual: VirtualRunner | None = _on_virtual_clock(simulated[0])
            self._runner: LiveRunner | VirtualRunner = self._virtual
            self._began = 0.0
        else:
            self._virtual = None
            self._runner = LiveRunner(sources[0].engine, places=sources[0].places)
            self._began = self._runner.now() if began is None else began
        self._session: Session | None = None
        self._limit: asyncio.Timeout | None = None
        self._ended: Stopped = "budget:seconds"
        self.late = False

    @property
    def session(self) -> Session:
        """The session; made when it is first asked for, because `prepare` may tell the models' names.

        Raises Unsupported for a budget that a model cannot be accounted for in, BadInput for a model given twice.
        """
        if self._session is None:
            self._session = self._build()
        return self._session

    async def prepare(self, request: Request, among: Collection[Source] | None = None) -> None:
        """Make engines and verifier ready for a request; generates nothing. See `deadline` for what comes too late.

        Args:
            among: sources whose engines are needed, None for all.
        """
        if self._virtual is not None:
            return
        async with self.deadline():
            for source in self.sources if among is None else among:
                await source.engine.prepare(Call(request.messages, request.sampling))
            if self.verifier is not None:
                await self.verifier.prepare()  # a judge learns its model's name, by which it is charged

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """What is awaited in the block ends at the session's deadline, or by `stop`; `late` and `stopped` say so."""
        limit = self._limit = asyncio.timeout(self._left())
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():  # somebody's own timeout within the block
                raise
            self.late = True
        finally:
            self._limit = None
        left = self._left()  # what never waits is not interrupted
        self.late = self.late or (left is not None and left <= 0)

    def _left(self) -> float | None:
        """Seconds to the deadline, None where there is none to be kept by the wall clock."""
        if self._budget is None or self._budget.seconds is None or self._virtual is not None:
            return None
        return self._began + self._budget.seconds - self._runner.now()

    async def run(self, work: Job[T]) -> T:
        """Carry a strategy out, live, or virtual inside an event loop; nothing stays in flight behind it."""
        if not isinstance(self._runner, LiveRunner):
            return self.run_now(work)
        return await drive_live(work, self.session, self._runner)

    def run_now(self, work: Job[T]) -> T:
        """Carry a strategy out on the virtual clock, in plain Python without an event loop."""
        if self._virtual is None:
            raise OutthinkError("engines that run in real time are awaited: use `run`")
        return drive_virtual(work, self.session, self._virtual)

    def stop(self, reason: Stopped) -> None:
        """End now; finished samples still count. What is not ready yet is not waited for."""
        if self._limit is None:
            self.session.stop(reason)
        else:
            self._ended = reason
            # There may be no session yet: an engine that is still being fetched is not waited for.
            self._limit.reschedule(0.0)

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[Session]:
        """The session, to be awaited in the block itself instead of in a strategy that is handed to `run`."""
        session = self.session
        session.hand_driven = False  # the virtual clock too then moves whenever the block waits
        try:
            yield session
        finally:
            session.close()
            if isinstance(self._runner, LiveRunner):
                await self._runner.drain()

    @property
    def partial(self) -> str:
        """The longest text of a call that was cancelled: what is left where nothing has finished."""
        return self._runner.partial if isinstance(self._runner, LiveRunner) else ""

    def salvage(self, request: Request) -> Verdict | None:
        """The longest unfinished text, and its answer only where it was stated as one; None without any text."""
        if not self.partial:
            return None
        reading = self._runner.reader(request.answer).read_now(self.partial)
        # In a text that was cut off the last number is a step on the way, so only a stated answer counts.
        stated = request.answer == "text" or reading.rule in ("boxed", "answer-is")
        return Verdict(reading.answer if stated else None, self.partial)

    # What a result is made of

    @property
    def model(self) -> str:
        """The models of the pool, the session's own first."""
        return self.sources[0].engine.model if self.late else ",".join(self.session.pool)

    @property
    def stopped(self) -> Stopped | None:
        """Why the session was ended, None where the strategy has come to its own end."""
        return self._ended if self.late else self.session.stopped

    def receipt(self) -> Receipt:
        """Everything spent, with what engines and verifier have to say."""
        if self.late:
            note = _LATE if self._ended == "budget:seconds" else _ENDED
            notes = (note,) if self._options.unread is None else (note, _UNREAD.format(self._options.unread))
            return Receipt((), self._runner.now() - self._began, notes)
        for note in self._notes():
            self.session.note(note)
        return self.session.receipt()

    def _notes(self) -> Iterator[str]:
        if isinstance(self._runner, LiveRunner):
            for source in self.sources:
                yield from source.engine.notes
        if self.verifier is not None:
            yield from self.verifier.notes

    def _build(self) -> Session:
        first, *others = self.sources
        options, runner = self._options, self._runner
        return options.kind(
            runner,
            first.read_tariff(),
            budget=self._budget,
            ahead=options.ahead,
            confidence_window=options.confidence_window,
            seed=self._seed,
            retries=options.retries,
            cache=first.cache,
            observer=options.observer,
            began=self._began,
            verifier=self.verifier,
            pool=[Member(self._beside(source), source.read_tariff(), source.cache) for source in others],
        )

    def _beside(self, source: Source) -> Runner:
        """A runner for a further model, on the clock of the first."""
        if isinstance(self._runner, LiveRunner):
            return LiveRunner(source.engine, places=source.places, beside=self._runner)
        assert is_simulated(source.engine)
        return _on_virtual_clock(source.engine, beside=self._runner)


def _on_virtual_clock(engine: Simulated, beside: VirtualRunner | None = None) -> VirtualRunner:
    """The runner for an engine's time model."""
    return (RateRunner if isinstance(engine.speed, Speed) else StepRunner)(engine, beside=beside)


_USUAL = SessionOptions()


def open_session(
    sources: Sequence[Source],
    *,
    budget: Budget | None = None,
    seed: int | None = None,
    began: float | None = None,
    options: SessionOptions = _USUAL,
) -> OpenSession:
    """A session over models at hand, the session's own first; live unless all of their engines are simulated.

    Args:
        budget: ceilings for everything done through the session.
        seed: of the session's own randomness.
        began: when the request began by `time.monotonic`, None for now; virtual time begins with the session.
    """
    return OpenSession(sources, budget, seed, began, options)
