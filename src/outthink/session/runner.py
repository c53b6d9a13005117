"""The seam between a session and time: what carries out its calls, and what is shared between requests.

Knows: what a session asks of a runner, of which two exist: `live` (asyncio, real engines) and `virtual` (an event
heap over engines whose outcomes are known); what of a session is seen by all that works within it; branches that are
resumed by hand; and the places on an engine, which requests take in turns. Does not know engines or strategies.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from outthink.answers import LocalReader, Reading, reader_for
from outthink.core.errors import BadInput, OutthinkError
from outthink.core.receipt import Stopped
from outthink.core.request import AnswerKind, AnswerReader, Request
from outthink.core.sample import Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import Call, Engine, Features
from outthink.engines.time_model import TimeModel
from outthink.session.calls import BudgetAccount, CallOwner, CallStream, EntryLog, Prompt, RunningCall

T = TypeVar("T")
Job = Coroutine[Any, Any, T]
"""What a driver resumes: a strategy, a branch of one, or a verifier at work."""


Readers = dict[AnswerKind | AnswerReader, LocalReader]
"""Of one request, whose runners share them: each merges equivalent answers over all samples."""


class Runner(Protocol):
    """Carries out calls and keeps the clock. Every launched call ends in exactly one settlement."""

    hand_driven: bool
    """True where a strategy is resumed by hand from an event heap instead of by asyncio."""
    engine: Engine
    readers: Readers
    speed: TimeModel | None = None
    """How long things take on a virtual clock, None where time is real."""

    @property
    def features(self) -> Features:
        """What the engine behind it can do."""
        return self.engine.features

    def now(self) -> float:
        """Seconds on this runner's clock."""

    def launch(self, running: RunningCall, delay: float = 0.0) -> None:
        """Start a call, after `delay` seconds."""

    def cancel(self, running: RunningCall) -> None:
        """End a call at once and settle what it has consumed."""

    def perform(self, job: Job[T], seconds: float | Callable[[T], float] | None = None) -> Work[T]:
        """Start something that is no call to the engine, such as a verifier.

        Args:
            seconds: how long it takes on a virtual clock, or a function from its result to that; None for no time.
        """

    def soon(self, call: Callable[[], None]) -> None:
        """Call something once all that happens at this moment has happened."""

    def read(self, kind: AnswerKind | AnswerReader, text: str) -> Work[Reading]:
        """Read the answer in a text."""

    def alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Call `ring` after so many seconds; returns a function that takes the alarm back."""

    def prompt_bound(self, call: Call) -> int | None:
        """Upper bound on a prompt's tokens, None while it is being found out."""

    def reader(self, kind: AnswerKind | AnswerReader) -> LocalReader:
        """The answer reader of this request, one for all its samples."""
        readers = self.readers
        if kind not in readers:
            readers[kind] = reader_for(kind)
        return readers[kind]

    def wake(self) -> None:
        """Make `wait` return: something has happened outside the runner."""

    async def wait(self) -> None:
        """Return when something has happened."""


@dataclass(slots=True)
class Work(Generic[T]):
    """Something awaited outside the engine: it has a result, or an error that its owner raises.

    On a virtual clock the result is known before the work has finished.
    """

    finished: bool = False
    result: T | None = None
    error: Exception | None = None
    stop: Callable[[], object] | None = None
    then: Callable[[], None] | None = None
    """Called at its end, unless it was cancelled."""

    def end(self) -> None:
        """It has finished."""
        self.finished = True
        if self.then is not None:
            self.then()

    def cancel(self) -> None:
        """End it now if it still runs."""
        self.then = None
        if not self.finished and self.stop is not None:
            self.stop()


class Observer(Protocol):
    """Sees what happens, for a live display. It must not raise and cannot change anything."""

    def __call__(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        """`event` is launched, delta, finished, stopped, cancelled, failed or cached."""


class SampleCache(Protocol):
    """Finished samples of earlier runs, looked up by call."""

    def get(self, call: Call) -> Sample | None:
        """The sample this call gave before, None if it is not known."""

    def put(self, call: Call, sample: Sample) -> None:
        """Keep a finished sample."""


class HostSession(CallOwner, Protocol):
    """A session, of a whole request or of one branch, as its streams, its verifiers and its driver see it."""

    runner: Runner
    cache: SampleCache | None
    account: BudgetAccount
    ledger: EntryLog
    pool: dict[str, Member]
    stopped: Stopped | None
    hand_driven: bool

    def note(self, text: str) -> None:
        """Say something in the receipt."""

    def out_of_budget(self) -> None:
        """No further call is admitted."""

    def check_failure(self, stream: CallStream) -> None:
        """Raise the engine's error if nothing has succeeded."""

    def from_cache(self, running: RunningCall, sample: Sample) -> None:
        """A sample of an earlier run takes the place of a call."""

    async def pause(self) -> None:
        """Wait until something has happened to one of the calls."""

    def close(self) -> None:
        """Close what is open."""


@dataclass(slots=True, eq=False)
class Member:
    """A model of a session's pool.

    Args:
        runner: carries out its calls, on the clock of all runners of this request.
        tariff: names it and prices its calls.
        cache: its samples of earlier runs, None to reuse none.
        prompts: what has been learned of its prompts.
    """

    runner: Runner
    tariff: Tariff
    cache: SampleCache | None = None
    prompts: dict[tuple[object, ...], list[Prompt]] = field(default_factory=dict)

    def prompt(self, request: Request, prefix: str | None) -> Prompt:
        """What is known of a prompt on this model, shared by all streams and branches."""
        sampling = request.sampling  # chat templates may write the kind of thinking into the prompt
        thinking = sampling.reasoning_effort, sampling.thinking_tokens
        # Greedy samples have numbers of their own, as in a recording, where row 0 is the greedy one.
        known = self.prompts.setdefault((prefix, sampling.temperature == 0, *thinking), [])
        for prompt in known:
            if prompt.request.messages == request.messages:  # by value: new objects may ask the same
                return prompt
        known.append(Prompt(request))
        return known[-1]


def by_name(members: Sequence[Member]) -> dict[str, Member]:
    """The members by their models' names; BadInput where two have the same name."""
    pool: dict[str, Member] = {}
    for member in members:
        if pool.setdefault(member.tariff.model, member) is not member:
            raise BadInput("model", member.tariff.model, "is in the pool twice", "give each model once")
    return pool


# Branches of one strategy, resumed by hand, so that time moves only when every branch waits.

FOREIGN = "a strategy awaits nothing but its session; this one awaited something else"


class Pause:
    """Suspends a hand-driven coroutine until its driver resumes it."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


PAUSE = Pause()


async def side_by_side(parent: HostSession, branches: Sequence[tuple[HostSession, Job[T]]]) -> list[T]:
    """Drive every branch to its end; results in order. One that raises closes the others."""
    results: dict[int, T] = {}
    running = dict(enumerate(branches))
    try:
        while True:
            before = len(running)
            for i, (session, coroutine) in list(running.items()):
                try:
                    if coroutine.send(None) is not None:
                        raise OutthinkError(FOREIGN)
                except StopIteration as end:
                    results[i] = end.value
                    session.close()
                    del running[i]
            if not running:
                return [results[i] for i in range(len(branches))]
            if len(running) == before:  # else what an ended branch gave back may admit another one's call
                await parent.pause()
    finally:
        for session, coroutine in running.values():
            coroutine.close()
            session.close()


class Places:
    """So many at once, and a fair queue before them: a free place goes to the key that has the fewest.

    Of one key, whoever waits gets one place a round: one that wants thirty-two places gets one in each round, like one
    that wants a single place. Nobody starves, and many small requests are not held up by a large one. Knows who asks
    by a number or name; no calls. Belongs to one event loop.

    Args:
        limit: places, or a function that is asked anew every time, where they come and go (call `move` then).
        of: the key of an asker; left out, all askers are of one.
        each: places that one key may hold at a time, None for all of them.
        exempt: the one key that may hold all of them.
    """

    def __init__(
        self,
        limit: int | Callable[[], int],
        *,
        of: Callable[[Hashable], Hashable] = lambda who: None,
        each: int | None = None,
        exempt: Hashable | None = None,
    ) -> None:
        self._limit: Callable[[], int] = limit if callable(limit) else lambda: limit
        self._of, self._each, self._exempt = of, each, exempt
        self.active = self.waiting = 0
        self._held: dict[Hashable, int] = {}
        self._taken: dict[Hashable, int] = {}
        """Places that the askers of each key hold."""
        self._queue: OrderedDict[Hashable, OrderedDict[Hashable, deque[asyncio.Future[None]]]] = OrderedDict()
        """By key and asker."""
        self._gave: dict[Hashable, float] = {}
        """When those who wait gave their last place back, by the loop's clock."""

    def take_now(self, who: Hashable) -> bool:
        """Take a place if one is free and nobody who could have it waits; never overtakes."""
        if self._queue:
            self.move()  # places may have come meanwhile
        key = self._of(who)
        if self.active >= self._limit() or self._has_its_share(key) or key in self._queue:
            return False
        self._take(who, key)
        return True

    def _has_its_share(self, key: Hashable) -> bool:
        if self._each is None or self._taken.get(key, 0) < self._each:
            return False
        return self._exempt is None or key != self._exempt

    def _take(self, who: Hashable, key: Hashable) -> None:
        self.active += 1
        self._held[who] = self._held.get(who, 0) + 1
        self._taken[key] = self._taken.get(key, 0) + 1

    async def take(self, who: Hashable, seconds: float | None = None) -> None:
        """Wait for a place; cancelling gives the turn up.

        Args:
            seconds: that an asker may be without any place. Raises TimeoutError after them.
        """
        if self.take_now(who):
            return
        place = self.enqueue(who)
        try:
            if seconds is not None:
                await self._wait(who, place, seconds)
            await place
        except asyncio.CancelledError:
            if self.came(who, place):  # it came in the very turn that ended the waiting: the next one gets it
                self.give(who)
            raise

    async def _wait(self, who: Hashable, place: asyncio.Future[None], seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        since, left = clock(), seconds
        while not (await asyncio.wait((place,), timeout=left))[0]:
            # Calls of one request wait for each other: it is late only where none of them moves.
            left = seconds if who in self._held else self._gave.get(who, since) + seconds - clock()
            if left <= 0 and not self.came(who, place):
                raise TimeoutError

    def enqueue(self, who: Hashable) -> asyncio.Future[None]:
        """Stand in the queue; the future is done when the place has come, or fails if turned away.

        Whoever stops waiting for it says so with `came`.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.setdefault(self._of(who), OrderedDict()).setdefault(who, deque()).append(place)
        self.waiting += 1
        return place

    def came(self, who: Hashable, place: asyncio.Future[None]) -> bool:
        """Whether a place came at the very moment in which waiting ended; if not, out of the queue."""
        if place.done() and not place.cancelled():
            return place.exception() is None
        key = self._of(who)
        askers = self._queue.get(key)
        if askers is not None and place in (places := askers.get(who, deque())):
            places.remove(place)
            self._left(who, key)
        return False

    def _left(self, who: Hashable, key: Hashable) -> None:
        """One place less is waited for."""
        self.waiting -= 1
        askers = self._queue[key]
        if not askers[who]:
            del askers[who]
            self._gave.pop(who, None)
        if not askers:
            del self._queue[key]

    def give(self, who: Hashable) -> None:
        """Give a place back; the next one gets it."""
        key = self._of(who)
        self.active -= 1
        for held, name in ((self._held, who), (self._taken, key)):
            if held[name] > 1:
                held[name] -= 1
            else:
                del held[name]
        if self._queue:
            if who in self._queue.get(key, ()):
                self._gave[who] = asyncio.get_running_loop().time()
            self.move()

    def move(self) -> None:
        """Hand out what is free, one place an asker and round; keys with all their places are passed over."""
        while self._queue and self.active < self._limit():
            chosen = self._next()
            if not chosen:
                return
            (key,) = chosen
            self._queue.move_to_end(key)
            askers = self._queue[key]
            who, places = next(iter(askers.items()))
            askers.move_to_end(who)
            place = places.popleft()
            self._left(who, key)
            if not place.done():  # whoever waited may have left a moment ago
                self._take(who, key)
                place.set_result(None)

    def _next(self) -> tuple[Hashable, ...]:
        """Whose turn it is, if anybody's: of the keys with the fewest places the one that got its last one first."""
        chosen: tuple[Hashable, ...] = ()
        fewest = math.inf
        for key in self._queue:
            taken = self._taken.get(key, 0)
            if taken < fewest and not self._has_its_share(key):
                chosen, fewest = (key,), taken
                if not taken:  # nobody has fewer, and thousands may wait
                    break
        return chosen

    def queued(self, key: Hashable) -> int:
        """Places that one key waits for."""
        askers = self._queue.get(key)
        return 0 if askers is None else sum(map(len, askers.values()))

    def greediest(self) -> Hashable | None:
        """The key that waits for the most places, None where nobody waits."""
        return max(self._queue, key=self.queued, default=None)

    def turn_away(self, key: Hashable, error: Exception) -> None:
        """Refuse a place that a key waits for: the newest of the asker that came last."""
        who, places = next(reversed(self._queue[key].items()))
        newest = places.pop()
        self._left(who, key)
        if not newest.done():
            newest.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Refuse everybody who waits."""
        for askers in self._queue.values():
            for places in askers.values():
                for place in places:
                    if not place.done():
                        place.set_exception(error)
        self._queue.clear()
        self._gave.clear()
        self.waiting = 0
