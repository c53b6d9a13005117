"""Who may come in: so many requests at once, in all and for each key; the others wait in a short line.

Knows: keys by their id, how fast places come free, the room for bodies, and what one request may ask for. Does not know
what a request does.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import monotonic

from outthink.core.errors import BadInput
from outthink.serving.protocols import ANYONE, Busy
from outthink.session.runner import Places

_MEMORY = 15.0  # seconds over which the rate of finished requests is averaged
_LONGEST = 60.0  # seconds; nobody is asked to stay away for longer


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """How many requests come in.

    Args:
        concurrency: requests at once.
        per_key: requests of one key at once; left out, three quarters of the places, and all of them without keys.
        queue: requests that wait for a place; 0 refuses at once.
        queue_seconds: that one waits at most, here and for a turn at a backend that takes no more calls.
    """

    concurrency: int = 1024
    per_key: int | None = None
    queue: int = 1024
    queue_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise BadInput("concurrency", self.concurrency, "lets nobody in", "give 1 or more")
        if self.per_key is not None and self.per_key < 1:
            raise BadInput("per_key", self.per_key, "lets nobody in", "give 1 or more, or leave it out")
        if self.queue < 0:
            raise BadInput("queue", self.queue, "is no length", "give 0 or more")
        if not 0 < self.queue_seconds <= 86_400:
            raise BadInput("queue_seconds", self.queue_seconds, "is no time", "give seconds above 0, at most 86400")


class Admission:
    """Places and the line before them. Keys take turns, so one that sends a thousand requests delays the others by one.

    The line is bounded. Where it is full, the newest request of the key that waits with the most makes room.
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self.settings = settings
        most, each = settings.concurrency, settings.per_key
        # Whatever the requests of one key wait for, others find places.
        share, exempt = each or max(1, most * 3 // 4), ANYONE.id if each is None else None
        self._places = Places(most, of=lambda key: key, each=share, exempt=exempt)
        self._rate = Rate(monotonic())
        self._empty: asyncio.Event | None = None

    @property
    def active(self) -> int:
        """Requests that have a place."""
        return self._places.active

    @property
    def waiting(self) -> int:
        """Requests that stand in line."""
        return self._places.waiting

    def enter(self, key: str) -> bool:
        """Come in at once if there is a place and nobody of this key waits."""
        return self._places.take_now(key)

    async def wait(self, key: str) -> None:
        """Stand in line for a place. Raises Busy where the line is full or moves too slowly."""
        if self.waiting >= self.settings.queue:
            self._make_room(key)
        place = self._places.enqueue(key)
        try:
            async with asyncio.timeout(self.settings.queue_seconds):
                await place
        except TimeoutError:
            if self._places.came(key, place):  # in the very moment in which its time was over
                return
            waited = f"no place came free within {self.settings.queue_seconds:g} s"
            raise Busy(f"{waited}; try again later", retry_after=self.retry_after()) from None
        except asyncio.CancelledError:
            if self._places.came(key, place):
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """Go; who is next comes in."""
        self._rate.add(monotonic())
        self._places.give(key)
        if self._empty is not None and not self.active:
            self._empty.set()

    def retry_after(self) -> float:
        """Seconds until the line that stands now will have been served, at the rate measured."""
        rate = self._rate.value(monotonic())
        return min(_LONGEST, max(1.0, math.ceil((self.waiting + 1) / rate))) if rate > 0 else _LONGEST / 6

    async def empty(self, seconds: float) -> bool:
        """Wait until everybody has gone; whether they have within so many seconds."""
        self._empty = asyncio.Event()
        if not self.active:
            return True
        with suppress(TimeoutError):  # whoever is still here is counted below
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        return not self.active

    def give_up(self) -> None:
        """Let nobody wait for `empty` any longer."""
        if self._empty is not None:
            self._empty.set()

    def refuse(self, error: Exception) -> None:
        """Send everybody home who stands in line."""
        self._places.refuse(error)

    def _make_room(self, key: str) -> None:
        """Turn the newest request of the greediest key away, be it this one. Raises Busy."""
        busy = Busy("too many requests are waiting already; try again later", retry_after=self.retry_after())
        greediest = self._places.greediest()
        # One more for the request that asks: among equals it is the newest, and goes itself.
        if greediest is None or self._places.queued(greediest) <= self._places.queued(key) + 1:
            raise busy
        self._places.turn_away(greediest, busy)


class ByteRoom:
    """Bytes of bodies or replies in flight. Keys take turns for them, and none has more than `each`."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each, self._used = total, each, 0
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()

    async def take(self, key: str, size: int) -> None:
        """Wait for room."""
        if key not in self._waiting and self._fits(key, size):
            self._grant(key, size)
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append((size, given))
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.give(key, size)
            raise

    def give(self, key: str, size: int) -> None:
        """Give room back, and hand it on."""
        self._used -= size
        left = self._held[key] - size
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        for key in list(self._waiting):
            while line := self._waiting.get(key):
                size, given = line[0]
                if not given.done():
                    if self._used + size > self._total:
                        return  # who came first is not overtaken
                    if not self._fits(key, size):
                        break
                    self._grant(key, size)
                    given.set_result(None)
                line.popleft()
                if not line:
                    del self._waiting[key]

    def _fits(self, key: str, size: int) -> bool:
        each = self._total if key == ANYONE.id else self._each
        return self._used + size <= self._total and self._held.get(key, 0) + size <= each

    def _grant(self, key: str, size: int) -> None:
        self._used += size
        self._held[key] = self._held.get(key, 0) + size


class Rate:
    """Events a second, the recent ones counted most."""

    __slots__ = ("_at", "_began", "_sum")

    def __init__(self, now: float) -> None:
        self._at = self._began = now
        self._sum = 0.0

    def add(self, now: float) -> None:
        """One event."""
        self._sum = self._sum * math.exp((self._at - now) / _MEMORY) + 1
        self._at = now

    def value(self, now: float) -> float:
        """The rate now; as long as the memory is not full, over the time there was."""
        seen = _MEMORY * -math.expm1(min(0.0, self._began - now) / _MEMORY)
        return self._sum * math.exp((self._at - now) / _MEMORY) / seen if seen > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and times of one request, and of the proxy's end.

    Args:
        body: bytes of a request.
        bodies: bytes of requests in flight, those of up to 64 KiB not counted; one key has half. The others wait.
        replies: bytes of whole replies in flight, up to 1 MiB each not counted; one key has four fifths. Others wait.
        values: values in a body; a text counts as two, a list as three, an object as five.
        messages: messages of a chat.
        body_seconds: to receive a body, and a second more for every 64 KiB of it.
        head_seconds: from a new connection to the end of its first head.
        idle_seconds: a client's connection is kept this long between requests; the next head must come within it.
        connect_seconds: to reach a backend.
        backend_seconds: between two bytes of a backend's reply.
        progress_seconds: between two signs of life in a stream.
        write_seconds: that a client has to take what is sent to it; who reads nothing for so long is left.
        max_tokens: of one completion where the request does not say.
        samples: the most that a strategy may draw for one request.
        calls: calls in flight for one backend model; the rest wait for their turn.
        stop_seconds: that running requests get to end when the proxy is stopped.
        drain_seconds: that the proxy says it is not ready, and serves on, before it is stopped: for load balancers.
    """

    body: int = 32 << 20
    bodies: int = 64 << 20
    replies: int = 160 << 20
    values: int = 1 << 20
    messages: int = 4096
    body_seconds: float = 20.0
    head_seconds: float = 20.0
    idle_seconds: float = 75.0
    connect_seconds: float = 10.0
    backend_seconds: float = 300.0
    progress_seconds: float = 4.0  # docs/contracts.md promises one every 5 s
    write_seconds: float = 20.0
    max_tokens: int = 1024
    samples: int = 256
    calls: int = 256
    stop_seconds: float = 7.0
    drain_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "drain_seconds":
                if not 0 <= value <= 86_400:
                    raise BadInput(name, value, "is no time", "give seconds from 0 to 86400")
            elif not name.endswith("_seconds"):
                if value < 1:
                    raise BadInput(name, value, "lets nothing through", "give 1 or more")
            elif not 0 < value <= 86_400:  # the event loop's clock takes no more than so many years
                raise BadInput(name, value, "is no time", "give seconds above 0, at most 86400")
