"""Carries out the calls of a request on simulated engines, on a virtual clock.

Knows: an event heap an engine, how concurrent streams share its decode rate, and the deadline. Time moves
only when every branch waits; events of one instant are delivered together, in launch order. Does not know
asyncio or servers that move in steps (`steps`), and of sessions only that each call has an owner that settles it.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from outthink.answers import Reading
from outthink.core.errors import OutthinkError
from outthink.core.receipt import Status
from outthink.core.request import AnswerKind, AnswerReader
from outthink.engines.protocol import CHUNK, Call, Outcome, Simulated, Speed
from outthink.engines.time_model import TimeModel
from outthink.session.calls import RunningCall, byte_bound, reread
from outthink.session.runner import FOREIGN, HostSession, Job, Readers, Runner, Work

T = TypeVar("T")
_NOTHING = "the strategy waits although nothing is in flight; it may await only the session"


@dataclass(slots=True, eq=False)
class Clock:
    """What the runners of one request have in common: the time, its timers, one order of launches."""

    time: float = 0.0
    order: int = 0
    timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    runners: list[VirtualRunner] = field(default_factory=list)
    soon: list[Callable[[], None]] = field(default_factory=list)


class VirtualRunner(Runner):
    """Serves every active stream of an engine alike, so one counter of service (tokens a stream) orders its events.

    A stream that begins to write when the counter stands at s has written s' - s tokens at s', whatever the rates
    were in between; the heap holds counter values, not times. How service and time go together, subclasses say.

    Args:
        beside: a runner of the same request on another engine; the two keep one clock.
    """

    hand_driven = True
    engine: Simulated
    speed: TimeModel

    def __init__(self, engine: Simulated, *, beside: VirtualRunner | None = None) -> None:
        self.engine, self.speed = engine, engine.speed
        self._clock: Clock = beside._clock if beside else Clock()
        self._clock.runners.append(self)
        self.readers: Readers = beside.readers if beside else {}
        self._service = 0.0
        self._heap: list[tuple[float, int, int, RunningCall]] = []
        self._active = 0
        self._queue: deque[RunningCall] = deque()

    def now(self) -> float:
        """Virtual seconds since the runner was made."""
        return self._clock.time

    def wake(self) -> None:
        """Nothing to do: branches are resumed after every event."""

    async def wait(self) -> None:
        """Move to the next event: only where a session is awaited instead of driven by hand."""
        self.advance()

    def read(self, kind: AnswerKind | AnswerReader, text: str) -> Work[Reading]:
        """Read the answer in a text, in no time."""
        return Work(finished=True, result=self.reader(kind).read_now(text))

    def prompt_bound(self, call: Call) -> int | None:
        """The simulated engine tells the exact count only after the first answer; before, bytes."""
        return byte_bound(call)

    def alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Ring after so many virtual seconds."""
        clock = self._clock
        clock.order += 1
        timer = (clock.time + seconds, clock.order, ring)
        heapq.heappush(clock.timers, timer)

        def take_back() -> None:
            if timer in clock.timers:
                clock.timers.remove(timer)
                heapq.heapify(clock.timers)

        return take_back

    def launch(self, running: RunningCall, delay: float = 0.0) -> None:
        """Start a call, or queue it beyond the engine's concurrency."""
        if delay > 0:
            self.alarm(delay, lambda: None if running.settled else self.launch(running))
        elif self._active < self.speed.concurrency and not self._queue:
            self._start(running)
        else:
            self._queue.append(running)

    @abstractmethod
    def _start(self, running: RunningCall) -> None:
        """Let a call take a place, and begin to read its prompt."""

    @abstractmethod
    def _leave(self, running: RunningCall) -> None:
        """A call that was started has been settled."""

    @abstractmethod
    def _elapse(self, until: float) -> None:
        """Move the counter of service on to a time before the next event."""

    @abstractmethod
    def _when(self, service: float) -> float:
        """The time at which the counter will stand there, if nothing changes before."""

    def _expect(self, running: RunningCall, outcome: Outcome, begin: float, order: int) -> None:
        """Note its end, and when a watch first looks at it."""
        running.begin = begin
        tokens = outcome.tokens if outcome.fault is None else min(outcome.fault.after, outcome.tokens)
        # The number of the launch breaks ties, so that equal plans give equal receipts.
        heapq.heappush(self._heap, (begin + tokens, order, 0, running))
        if running.stream.watch is not None and tokens > CHUNK:
            heapq.heappush(self._heap, (begin + CHUNK, order, CHUNK, running))

    def perform(self, job: Job[T], seconds: float | Callable[[T], float] | None = None) -> Work[T]:
        """Carry out something that is no call to the engine; it may await nothing real, and ends after `seconds`."""
        work: Work[T] = Work(finished=True)
        try:
            job.send(None)
        except StopIteration as end:
            work.result = end.value
        except Exception as error:  # noqa: BLE001 - its owner decides, as in a live session
            work.error = error
        else:
            job.close()
            raise OutthinkError("this verifier awaits something real; it cannot judge on a virtual clock")
        if callable(seconds):
            seconds = None if work.result is None else seconds(work.result)
        if seconds:
            work.finished, work.stop = False, self.alarm(seconds, work.end)
        return work

    def soon(self, call: Callable[[], None]) -> None:
        """Call something before time moves on."""
        self._clock.soon.append(call)

    def cancel(self, running: RunningCall) -> None:
        """End a call; what it has generated so far is charged."""
        if running.settled:
            return
        outcome = running.outcome
        if outcome is None:
            running.owner.release(running)  # never sent
            return
        # The counter is a sum of floats: rounding must not take a token away that was complete.
        generated = self._service - running.begin + 1e-9
        self._settle(running, "cancelled", outcome, min(outcome.tokens, int(generated)) if generated > 0 else 0)

    def _settle(
        self,
        running: RunningCall,
        status: Status,
        outcome: Outcome,
        generated: int,
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        owner = running.owner
        if outcome.told:
            owner.settle(running, status, outcome.sample.prompt_tokens, generated, None, reason, error)
        else:
            running.seen = -(-generated // CHUNK)  # pieces of text, as live
            owner.settle(running, status, outcome.sample.prompt_tokens, None, None, reason, error)
        self._leave(running)

    def _admit_queued(self) -> None:
        """Start queued calls where places are free; not earlier, so that no call starts while others are cancelled."""
        queue = self._queue
        while queue and self._active < self.speed.concurrency:
            waiting = queue.popleft()
            if not waiting.settled:
                self._start(waiting)

    def advance(self) -> None:
        """Move to the next event and deliver everything that happens at that instant."""
        clock = self._clock
        if clock.soon:
            calls, clock.soon = clock.soon, []
            for call in calls:
                call()
            return
        if len(clock.runners) > 1:
            self._advance_all(clock)
            return
        when = self._next_event()
        if self._ring(clock, when):
            return
        if when is None:
            raise OutthinkError(_NOTHING)
        clock.time = when
        heap = self._heap
        self._service = service = heap[0][0]
        while heap and heap[0][0] <= service:
            _, order, tokens, running = heapq.heappop(heap)
            self._deliver(running, tokens, order)

    def _advance_all(self, clock: Clock) -> None:
        """The same over several engines, in launch order over all of them."""
        times = {runner: when for runner in clock.runners if (when := runner._next_event()) is not None}
        when = min(times.values(), default=None)
        if self._ring(clock, when):
            return
        if when is None:
            raise OutthinkError(_NOTHING)
        due: list[tuple[int, VirtualRunner, int, RunningCall]] = []
        for runner in clock.runners:
            if times.get(runner) != when:
                runner._elapse(when)
                continue
            heap = runner._heap
            runner._service = heap[0][0]
            while heap and heap[0][0] <= runner._service:
                _, order, tokens, running = heapq.heappop(heap)
                due.append((order, runner, tokens, running))
        clock.time = when
        for order, runner, tokens, running in sorted(due, key=lambda event: event[0]):
            runner._deliver(running, tokens, order)

    def _next_event(self) -> float | None:
        """When something of this engine's ends or is looked at; starts what has a place now."""
        if self._queue:
            self._admit_queued()
        heap = self._heap
        while heap and heap[0][3].settled:
            heapq.heappop(heap)
        return self._when(heap[0][0]) if heap else None

    @staticmethod
    def _ring(clock: Clock, when: float | None) -> bool:
        """Let the next timer ring if it comes before `when`."""
        timers = clock.timers
        # At the same instant a timer comes first, so that a deadline holds exactly.
        if not timers or (when is not None and timers[0][0] > when):
            return False
        time, _, ring = heapq.heappop(timers)
        for runner in clock.runners:
            runner._elapse(time)
        clock.time = time
        ring()
        return True

    def _deliver(self, running: RunningCall, tokens: int, order: int) -> None:
        if running.settled or running.outcome is None:
            return
        if tokens:
            self._look(running, running.outcome, tokens, order)
        else:
            self._finish(running, running.outcome)

    def _finish(self, running: RunningCall, outcome: Outcome) -> None:
        owner, sample, fault = running.owner, outcome.sample, outcome.fault
        if fault is not None and fault.after <= outcome.tokens:
            if fault.after:
                running.seen = fault.after
                self._settle(running, "failed", outcome, fault.after, error=fault.message)
            else:  # refused at the door: nothing was read or generated
                owner.settle(running, "failed", 0, 0, error=fault.message)
                self._leave(running)
            owner.failed(running, fault.error)
            return
        self._settle(running, "finished", outcome, outcome.tokens, sample.finish_reason)
        if outcome.read:
            sample = reread(sample, self.reader(running.stream.request.answer), running.stream.before)
        owner.deliver(running, sample)

    def _look(self, running: RunningCall, outcome: Outcome, tokens: int, order: int) -> None:
        watch = running.stream.watch
        if watch is not None and watch(outcome.progress(running.call.index, tokens)) == "stop":
            self._settle(running, "stopped", outcome, tokens, "stopped")
            running.owner.deliver(running, None)
        elif tokens + CHUNK < outcome.tokens:
            heapq.heappush(self._heap, (running.begin + tokens + CHUNK, order, tokens + CHUNK, running))


class RateRunner(VirtualRunner):
    """Streams that share constant rates. Reading a prompt is service of its own stream, before it writes."""

    speed: Speed

    def __init__(self, engine: Simulated, *, beside: VirtualRunner | None = None) -> None:
        super().__init__(engine, beside=beside)
        self._rate = self.speed.stream

    def _start(self, running: RunningCall) -> None:
        running.outcome = outcome = self.engine.outcome(running.call)
        running.started = self._clock.time
        speed = self.speed
        lead = (outcome.prompt_tokens / speed.prefill + outcome.delay) * speed.stream
        self._active = active = self._active + 1
        self._rate = speed.stream if active * speed.stream <= speed.total else speed.total / active
        self._clock.order = order = self._clock.order + 1
        self._expect(running, outcome, self._service + lead, order)

    def _leave(self, running: RunningCall) -> None:
        speed = self.speed
        self._active = active = self._active - 1
        self._rate = speed.stream if active * speed.stream <= speed.total else speed.total / active

    def _elapse(self, until: float) -> None:
        self._service += (until - self._clock.time) * self._rate

    def _when(self, service: float) -> float:
        left = service - self._service
        return self._clock.time + left / self._rate if left > 0 else self._clock.time


# By hand and not as a task: an event of the loop takes several times as long, and replay has millions of them.
def drive(strategy: Job[T], session: HostSession, runner: VirtualRunner) -> T:
    """Resume a strategy by hand until it returns, moving virtual time whenever it waits."""
    try:
        while True:
            try:
                waited_for = strategy.send(None)
            except StopIteration as end:
                value: T = end.value
                return value
            if waited_for is not None:
                raise OutthinkError(FOREIGN)
            runner.advance()
    finally:
        strategy.close()
        session.close()
