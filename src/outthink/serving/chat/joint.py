"""Samples of one prompt in one call: `n` choices, where the backends are known to count each of them.

Knows: which calls may share a request, and whose choice a chunk belongs to. The prompt is read once and
charged once, with the sample that ends last. Does not know sessions, votes or how servers are found out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from outthink.core.errors import EngineError
from outthink.engines.openai.engine import drain
from outthink.engines.openai.reading import CompletionReader
from outthink.engines.openai.tokens import Counts
from outthink.engines.protocol import Call, Event, Finish
from outthink.http.events import Decoder, NotJson
from outthink.http.transport import TransportFault

if TYPE_CHECKING:
    from outthink.serving.chat.engine import ChatCallEngine

_REFUSED = (400, 422)


class SharedCalls:
    """The calls of one request that start together and want the same.

    Args:
        disproved: called where a backend gives fewer choices than were asked for, or does not count them all.
    """

    def __init__(self, disproved: Callable[[], None]) -> None:
        self.disproved = disproved
        self.used = False
        self._open: dict[tuple[Any, ...], SharedCall] = {}

    def seat(self, one: ChatCallEngine, call: Call) -> SharedChoice | None:
        """A place in a call that is about to be sent, None for a call that must go by itself."""
        if call.seed is not None or call.top_logprobs is None:  # a seed is for one sample; tokens must be counted
            return None
        key = (call.sampling, call.prefix, call.top_logprobs, call.alternatives)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = SharedCall(self)
            asyncio.get_running_loop().call_soon(self._begin, key)  # after every call of this turn has come
        seat = SharedChoice(one, call, group)
        group.seats.append(seat)
        return seat

    def _begin(self, key: tuple[Any, ...]) -> None:
        self._open.pop(key).begin()


class SharedChoice:
    """One sample of a shared call."""

    def __init__(self, one: ChatCallEngine, call: Call, group: SharedCall) -> None:
        self.one, self.call, self.group = one, call, group
        self.reading = CompletionReader(call, repeats=one.facts.repeats)
        self.heard = self.ended = self.left = False
        self._queue: deque[Event] = deque()
        self._error: Exception | None = None
        self._alone = self._refused = False
        self._waiter: asyncio.Future[None] | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """What the sample says; a call of its own where the shared one has nothing for it."""
        try:
            while True:
                while self._queue:
                    event = self._queue.popleft()
                    yield event
                    if isinstance(event, Finish):
                        return
                if self._error is not None:
                    raise self._error
                if self._alone:
                    break
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self.left = True
            await self.group.abandoned()
        async with aclosing(self.one.generate(self.call)) as events:
            async for event in events:
                if self._refused and isinstance(event, Finish):
                    self.group.joint.disproved()  # it was `n` that was refused, and not what the client asks
                yield event

    def put(self, event: Event) -> None:
        """Say something to whoever reads."""
        self._queue.append(event)
        self._wake()

    def fail(self, error: Exception) -> None:
        """The shared call is over, and this sample is not."""
        self.ended, self._error = True, error
        self._wake()

    def send_alone(self, *, refused: bool = False) -> None:
        """The shared call has nothing for this sample, or was refused."""
        self.ended = self._alone = True
        self._refused = refused
        self._wake()

    def finish(self, decoder: Decoder, prompt: int | None, cached: int | None, tokens: int | None) -> None:
        """The end, with what is counted for this sample."""
        self.ended = True
        try:
            if (rest := self.reading.rest()) is not None:
                self.put(rest)
            told = self.one.conclude(self.call, self.reading, decoder)
        except EngineError as error:
            self.fail(error)
        else:
            self.put(replace(told, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=tokens))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SharedCall:
    """A call that several samples share."""

    def __init__(self, joint: SharedCalls) -> None:
        self.joint = joint
        self.seats: list[SharedChoice] = []
        self._totals = Counts()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Send it, or let a single sample go by itself."""
        self.seats = [seat for seat in self.seats if not seat.left]
        if len(self.seats) > 1:
            self._task = asyncio.create_task(self._run())
        elif self.seats:
            self.seats[0].send_alone()

    async def abandoned(self) -> None:
        """Close the connection if nobody reads any more."""
        task = self._task
        if task is not None and not task.done() and all(seat.left for seat in self.seats):
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        first = self.seats[0].one
        try:
            self._conclude(await self._read(first))
        except EngineError as error:
            refused = first.refused_with in _REFUSED and not any(seat.heard for seat in self.seats)
            for seat in self._unfinished:
                seat.send_alone(refused=True) if refused else seat.fail(error)
        except Exception as error:  # noqa: BLE001 - raised where the samples are waited for
            for seat in self._unfinished:
                seat.fail(error)

    @property
    def _unfinished(self) -> list[SharedChoice]:
        return [seat for seat in self.seats if not seat.ended]

    async def _read(self, first: ChatCallEngine) -> Decoder:
        """Send the call and hear it out."""
        first.choices = len(self.seats)
        try:
            reply = await first.start(self.seats[0].call)
        finally:
            first.choices = 1
        decoder = first.decoder()
        try:
            async for piece in reply:
                self._take(decoder.feed(piece), decoder)
                if decoder.done:
                    await drain(reply)
                    break
            else:
                self._take(decoder.close(), decoder)
        except NotJson as error:
            raise first.server.voice.garbled(str(error).encode(), fatal=False) from error
        except TransportFault as fault:
            if not all(seat.reading.ended for seat in self.seats):
                raise first.server.voice.fault(fault) from fault
        finally:
            await reply.aclose()
        return decoder

    def _take(self, chunks: list[dict[str, Any]], decoder: Decoder) -> None:
        """Deal out chunks that came together, and end the samples whose tokens are counted."""
        mine: dict[int, list[dict[str, Any]]] = {}
        for chunk in chunks:
            usage, choices = chunk.pop("usage", None), chunk.get("choices")
            if isinstance(usage, dict):
                self._totals.usage(usage)
            rows = [row for row in choices if isinstance(row, dict)] if isinstance(choices, list) else []
            if not rows:
                self.seats[0].one.check(chunk)
            for row in rows:
                at = row.get("index") or 0
                row["index"] = 0
                if type(at) is int and 0 <= at < len(self.seats):
                    mine.setdefault(at, []).append(chunk if len(rows) == 1 else {**chunk, "choices": [row]})
        for at, some in mine.items():
            self._tell(self.seats[at], some)
        if self.seats[-1].heard:  # or else somebody else has to answer for the prompt
            for seat in self.seats[:-1]:
                counts = seat.reading.counts
                if seat.reading.ended and not seat.ended and counts.entries and not counts.gaps:
                    seat.finish(decoder, 0, 0, counts.entries)

    def _tell(self, seat: SharedChoice, chunks: list[dict[str, Any]]) -> None:
        if seat.ended:
            return
        seat.heard = True
        delta, broken = seat.one.hear(chunks, seat.reading)
        if delta is not None:
            delta.prompt_tokens = self._totals.prompt if seat is self.seats[-1] else 0
            seat.put(delta)
        if broken is not None:
            raise broken

    def _conclude(self, decoder: Decoder) -> None:
        """End what has not ended: the tokens that nothing else tells of are shared, the prompt goes to the last."""
        for seat in self._unfinished:
            if not seat.heard:
                seat.send_alone()
        total = self._totals.completion(text=True)
        counted = sum(seat.reading.counts.entries for seat in self.seats)
        if total is None or total < counted or not all(seat.heard for seat in self.seats):
            self.joint.disproved()
        left = self._unfinished
        if not left:  # no sample has heard anything
            return
        self.joint.used = True
        shares = _shares([seat.reading.counts.entries for seat in left], total and max(0, total - counted))
        for seat, tokens in zip(left, shares, strict=True):
            last = seat is left[-1]
            seat.finish(decoder, self._totals.prompt if last else 0, self._totals.cached if last else 0, tokens)


def _shares(counted: list[int], rest: int | None) -> list[int | None]:
    """Tokens of each sample: `rest` belongs to those of which none were counted, or else to the last."""
    if rest is None:
        return [count or None for count in counted]
    silent = [at for at, count in enumerate(counted) if not count] or [len(counted) - 1]
    found: list[int | None] = list(counted)
    for turn, at in enumerate(silent):
        found[at] = counted[at] + rest // len(silent) + (turn < rest % len(silent))
    return found
