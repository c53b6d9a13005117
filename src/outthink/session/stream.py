"""The samples of one `session.sample`, as a strategy iterates over them.

Knows: launch order, how many may be in flight, and when the budget admits the next call. Does
not know time or engines: it asks the session's runner to launch and to cancel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Literal, TypedDict

from outthink.core.errors import EngineError
from outthink.core.receipt import Role
from outthink.core.request import Request
from outthink.core.sample import Judged, Sample
from outthink.engines.protocol import Call
from outthink.session.calls import CallReservation, Prompt, RunningCall, Watch
from outthink.session.runner import PAUSE, HostSession, SampleCache

Order = Literal["launch", "finished"]


class SampleOptions(TypedDict, total=False):
    """Options of `Session.sample`, where they stand."""

    n: int
    ahead: int | None
    watch: Watch | None
    order: Order
    role: Role
    top_logprobs: int | None
    judged: bool | Judged


class Stream:
    """An asynchronous iterator of samples. Not a generator: leaving its loop needs no clean-up.

    The next call on the session, or the end of the strategy, closes it: what is still in flight
    is cancelled and settled.
    """

    aside: CallReservation | None = None
    """What is kept aside besides each call, for each token of its bound."""

    def __init__(
        self,
        session: HostSession,
        request: Request,
        prompt: Prompt,
        n: int,
        ahead: int,
        watch: Watch | None,
        in_order: bool,
        role: Role,
        prefix: str | None,
        top_logprobs: int | None,
    ) -> None:
        self.session, self.request, self.prompt, self.n, self.ahead = session, request, prompt, n, ahead
        self.watch, self.in_order, self.role = watch, in_order, role
        self.prefix, self.top_logprobs = prefix, top_logprobs
        self.before = (prefix or "")[len(request.opening or "") :]
        self.launched = 0
        self.next_place = 0
        self.ready: deque[Sample] = deque()
        self.done: dict[int, Sample | None] = {}
        self.in_flight: dict[int, RunningCall] = {}
        self.closed = False
        self.failure: EngineError | None = None
        self._sampling = request.sampling

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Sample:
        while True:
            sample = self._take()
            if sample is not None:
                return sample
            if self.closed or (self.launched >= self.n and not self.in_flight):
                self.closed = True
                self.session.check_failure(self)
                raise StopAsyncIteration
            if self.launched < self.n and len(self.in_flight) < self.ahead and (self._refill() or self.closed):
                continue
            if self.session.hand_driven:
                await PAUSE
            else:
                await self.session.runner.wait()

    def _take(self) -> Sample | None:
        if self.ready:
            return self.ready.popleft()
        done = self.done
        while done:
            if self.closed:  # at a deadline the finished ones still count, whatever is missing between
                self.next_place = min(done)
            elif self.next_place not in done:
                return None
            sample = done.pop(self.next_place)
            self.next_place += 1
            if sample is not None:
                return sample
        return None

    def _refill(self) -> bool:
        """Launch what may be launched; True if the cache has delivered something at once."""
        session = self.session
        room = min(self.ahead - len(self.in_flight), self.n - self.launched)
        if session.cache is not None:
            return self._refill_from(session.cache, room)
        self._admit(room)
        return False

    def _refill_from(self, cache: SampleCache, room: int) -> bool:
        """The next `room` numbers in their order, from the cache where it has them."""
        first, cap = self.prompt.next, self._sampling.max_tokens
        calls = [self.call(cap, number) for number in range(first, first + room)]
        samples = [cache.get(call) for call in calls]
        free = samples.count(None)
        served = False
        for call, sample in zip(calls, samples, strict=True):
            if sample is not None:
                self.prompt.next += 1
                running = RunningCall(self.session, self, call, self.launched, self.role, 0)
                self.launched += 1
                self.session.from_cache(running, sample)
                served = True
            elif self.closed or not self._admit(1, share=free):
                break  # numbers stay in order: the rest waits with this one
            else:
                free -= 1
        return served

    def _admit(self, wanted: int, share: int = 1) -> int:
        """Launch up to `wanted` calls, as many as the budget admits now; 0 while it admits none."""
        session, cap = self.session, self._sampling.max_tokens
        if session.account.unlimited:
            for _ in range(wanted):
                self._launch(cap, 0)
            return wanted
        bound = self.prompt.tokens
        if bound is None:
            bound = session.runner.prompt_bound(self.call(cap, self.prompt.next))
        if bound is None:  # the server is still counting; its answer ends the stream's wait
            return 0
        wants = bound, cap, self.request.min_tokens, session.tariff, self.aside
        count, tokens = session.account.admit(max(wanted, share), *wants)
        for _ in range(min(count, wanted)):
            self._launch(tokens, bound)
        if count == 0:
            short = session.account.shortage(*wants)
            if short is not None:
                session.note(f"budget {short}")
            session.out_of_budget()
        return count

    def call(self, max_tokens: int, number: int) -> Call:
        """The call for sample `number` of this stream's prompt."""
        request, sampling = self.request, self._sampling
        if max_tokens != sampling.max_tokens:
            sampling = replace(sampling, max_tokens=max_tokens)
        return Call(
            request.messages,
            sampling,
            None if request.seed is None else request.seed + number,
            number,
            self.prefix,
            self.top_logprobs,
            request.problem,
        )

    def uncapped(self, call: Call) -> Call:
        """The same call under the request's own limit instead of the budget's."""
        return call if call.sampling is self._sampling else replace(call, sampling=self._sampling)

    def _launch(self, max_tokens: int, bound: int) -> None:
        session = self.session
        number = self.prompt.next
        self.prompt.next += 1
        running = RunningCall(session, self, self.call(max_tokens, number), self.launched, self.role, bound)
        self.launched += 1
        if not session.account.unlimited:
            running.reservation = session.account.reserve(bound, max_tokens, session.tariff)
        self.in_flight[running.place] = running
        session.runner.launch(running)

    def deliver(self, running: RunningCall, sample: Sample | None) -> None:
        """A call has ended: with a sample that may vote, or with None (failed, or stopped by watch)."""
        self.in_flight.pop(running.place, None)
        if self.in_order:  # by default: short samples that vote first bias the vote and cost accuracy
            self.done[running.place] = sample
        elif sample is not None:
            self.ready.append(sample)

    def close(self) -> None:
        """Cancel what is in flight; samples that have already finished can still be taken."""
        self.closed = True
        for running in list(self.in_flight.values()):
            self.session.runner.cancel(running)
        self.in_flight.clear()
