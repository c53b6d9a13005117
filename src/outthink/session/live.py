"""Carries out the calls of a request on real engines, with asyncio.

Knows: one task a call, the engine's concurrency, cancellation and the answer reader. Does not know
budgets, sessions or strategies: it reports counts to each call's owner, which settles them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from outthink.answers import Reading
from outthink.core.errors import EngineError
from outthink.core.request import AnswerKind, AnswerReader
from outthink.core.sample import Sample
from outthink.core.text import writable
from outthink.engines.protocol import Call, Engine, Finish
from outthink.session.calls import Arrived, RunningCall, byte_bound, said
from outthink.session.runner import HostSession, Job, Places, Readers, Runner, Work

T = TypeVar("T")
_GRACE = 0.15
"""Seconds that cancelled calls get to close their connections, and late ones a third of it: within the 0.25 s after a
deadline of docs/contracts.md."""
_LONG = 1 << 16
"""Letters of a completion that are looked at beside the event loop."""


@dataclass(slots=True, eq=False)
class Common:
    """What the runners of one request share: its number, what wakes it, its longest unfinished text."""

    number: int = field(default_factory=itertools.count().__next__)
    happened: asyncio.Event = field(default_factory=asyncio.Event)
    crash: Exception | None = None
    partial: str = ""


class LiveRunner(Runner):
    """Carries out calls on an engine within one event loop.

    Args:
        places: shared by the requests that use one engine side by side, who take turns; None where there is one.
        beside: a runner of the same request on another engine.
    """

    hand_driven = False

    def __init__(self, engine: Engine, *, places: Places | None = None, beside: LiveRunner | None = None) -> None:
        self.engine = engine
        self._common: Common = beside._common if beside else Common()
        self._others: list[LiveRunner] = []
        """Those that were made beside this one."""
        if beside is not None:
            beside._others.append(self)
        self.readers: Readers = beside.readers if beside else {}
        self._counted = bool(engine.features.counted)
        self._places = places
        self._tasks: dict[RunningCall, asyncio.Task[None]] = {}
        self._waiting: deque[RunningCall] = deque()
        self._active = 0
        self._works: set[asyncio.Task[None]] = set()
        self._asking: dict[tuple[int, str | None], asyncio.Task[None]] = {}
        self._counts: dict[tuple[int, str | None], int | None] = {}
        self._bounds: dict[tuple[int, str | None], int] = {}

    @property
    def partial(self) -> str:
        """The longest text of a call that was cancelled: what is left when nothing finished."""
        return self._common.partial

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wake(self) -> None:
        """Make `wait` return."""
        self._common.happened.set()

    async def wait(self) -> None:
        """Return when a call has ended or a deadline has passed; raises what a call met with unforeseen."""
        common = self._common
        await common.happened.wait()
        common.happened.clear()
        if common.crash is not None:
            raise common.crash

    def alarm(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Ring after so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, ring).cancel

    def prompt_bound(self, call: Call) -> int | None:
        """The server's own count where it offers one (None until it has answered), else bytes."""
        # An id stands for one prompt as long as the session's `Prompt` keeps the messages that it was made with.
        key = (id(call.messages), call.prefix)
        if key in self._counts:
            count = self._counts[key]
            if count is not None:
                return count
            if key not in self._bounds:  # once for all calls: a prompt may be megabytes
                self._bounds[key] = byte_bound(call)
            return self._bounds[key]
        self._ask(key, call)
        return None

    def _ask(self, key: tuple[int, str | None], call: Call) -> asyncio.Task[None]:
        """The one question about a prompt, however many calls want to know."""
        if key not in self._asking:
            self._asking[key] = task = asyncio.create_task(self._ask_count(key, call))
            task.add_done_callback(lambda _: self._asking.pop(key))  # one that was broken off may be asked again
        return self._asking[key]

    async def _ask_count(self, key: tuple[int, str | None], call: Call) -> None:
        try:
            self._counts[key] = await self._count_prompt(call)
        except Exception as error:  # noqa: BLE001 - raised again where the strategy waits
            self._common.crash = error
        finally:
            self._common.happened.set()

    async def _count_prompt(self, call: Call) -> int | None:
        try:
            await self.engine.prepare(call)
            return await self.engine.count_prompt(call)
        except EngineError:
            return None  # the call itself meets and reports the same trouble

    def launch(self, running: RunningCall, delay: float = 0.0) -> None:
        """Start a call, or let it wait for a place on the engine."""
        running.owner.notify("launched", running)
        if delay or self._active < self.engine.concurrency:
            self._start(running, delay)
        else:
            self._waiting.append(running)

    def _start(self, running: RunningCall, delay: float = 0.0) -> None:
        self._active += 1
        self._tasks[running] = task = asyncio.create_task(self._work(running, delay))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task has ended, maybe cancelled before it began: another takes its place."""
        self._active -= 1
        if (waiting := self._next()) is not None:
            self._start(waiting)

    def _next(self) -> RunningCall | None:
        """The call that has waited longest and is still wanted."""
        while self._waiting:
            if not (running := self._waiting.popleft()).settled:
                return running
        return None

    def perform(self, job: Job[T], seconds: float | Callable[[T], float] | None = None) -> Work[T]:
        """Start something that is no call to the engine, in a task of its own."""
        work: Work[T] = Work()

        async def carry_out() -> None:
            try:
                work.result = await job
            except Exception as error:  # noqa: BLE001 - raised again where the strategy waits
                work.error = error
            self._do(work.end)

        task = asyncio.create_task(carry_out())
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        task.add_done_callback(lambda _: job.close())  # it was never awaited if the task ended before it began
        work.stop = task.cancel
        return work

    def soon(self, call: Callable[[], None]) -> None:
        """Call something in the next turn of the event loop."""
        asyncio.get_running_loop().call_soon(self._do, call)

    def _do(self, call: Callable[[], None]) -> None:
        """Call something that is of interest to whoever waits."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised again where the strategy waits
            self._common.crash = error
        finally:
            self._common.happened.set()

    def cancel(self, running: RunningCall) -> None:
        """Close the call's connection; its task settles what has been generated."""
        task = self._tasks.get(running)
        if running.arrived is not None:
            self._common.partial = max(self.partial, "".join(running.arrived.text), key=len)
        if running.settled:
            return
        if running.started is None:
            running.owner.release(running)  # nothing was sent
        running.owner.notify("cancelled", running)
        if task is not None:
            task.cancel()

    async def drain(self) -> None:
        """Wait for cancelled calls of this request to close; settle as estimated what does not close in time."""
        await asyncio.gather(self._drain(), *(runner.drain() for runner in self._others))

    async def _drain(self) -> None:
        idle = [task for running, task in self._tasks.items() if running.settled]  # at most reading an answer
        others = set(self._works)
        if len(idle) == len(self._tasks):  # else cancelled calls may be asking, and have their own deadline for it
            others |= set(self._asking.values())
        for task in (*idle, *others):
            task.cancel()
        tasks = {*self._tasks.values(), *others}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE)
            # The first cancellation lets a call count what came, which asks the server again; the second ends that.
            late |= set(self._asking.values())
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_GRACE / 3)
        # An engine that does not let go must not hold up the deadline: its calls are settled with what is known.
        for running in list(self._tasks):
            if not running.settled:
                running.owner.settle(running, "cancelled", self._prompt_of(running), running.tokens)

    async def _work(self, running: RunningCall, delay: float) -> None:
        """Carry out a call, then those that wait for its place, on the connection that is still warm.

        Handing the place to another task instead would leave many connections idle for one turn of
        the event loop, and HTTP clients look at every idle one before each request.
        """
        waiting: RunningCall | None = running
        while waiting is not None:
            await self._run(waiting, delay)
            waiting, delay = self._next(), 0.0
            task = asyncio.current_task()
            if waiting is not None and task is not None:
                self._tasks[waiting] = task

    async def _run(self, running: RunningCall, delay: float) -> None:
        try:
            await self._carry_out(running, delay)
        except asyncio.CancelledError:
            await self._settle_cancelled(running)
            raise
        except Exception as error:  # noqa: BLE001 - raised again where the strategy waits
            self._common.crash = error
            if not running.settled:
                running.owner.settle(running, "failed", self._prompt_of(running), running.tokens, error=repr(error))
        finally:
            del self._tasks[running]
            self._common.happened.set()

    async def _carry_out(self, running: RunningCall, delay: float) -> None:
        try:
            if delay:
                await asyncio.sleep(delay)
            if self._places is not None:
                await self._places.take(self._common.number)
            try:
                await self.engine.prepare(running.call)
                finish = await self._generate(running)
            finally:
                if self._places is not None:
                    self._places.give(self._common.number)
            if finish is not None:
                await self._finish(running, finish)
        except EngineError as error:
            if running.settled:
                return  # cancelled, and this is how the engine says so
            if running.started is None:
                running.started = self.now()
            # Refused it costs nothing; in mid-stream, what has arrived; begun and lost, nobody knows.
            refused = running.arrived is None and not error.begun
            prompt, generated = (0, 0) if refused else (self._prompt_of(running), running.tokens)
            running.owner.settle(running, "failed", prompt, generated, error=str(error))
            running.owner.failed(running, error)

    async def _generate(self, running: RunningCall) -> Finish | None:
        """Read the call to its end; None where watch has stopped it."""
        owner, watch = running.owner, running.stream.watch
        running.started = self.now()
        told = False
        # A watch may end the loop early, and only closing the iterator closes the connection at once.
        async with aclosing(self.engine.generate(running.call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Finish):
                    return event
                running.absorb(event)
                # A server that counts at the end alone tells nothing of a call that has not come to it.
                self._counted = self._counted or (told and bool(event.text or event.reasoning))
                told = told or event.tokens is not None
                owner.notify("delta", running)
                if watch is not None and watch(running.progress) == "stop":
                    break
            else:
                what = f"{self.engine.model}: the stream ended without saying that it was finished"
                raise EngineError(what, begun=True)
        generated = running.tokens if running.tokens is not None else await self._recount(running)
        owner.settle(running, "stopped", self._prompt_of(running), generated, finish_reason="stopped")
        owner.deliver(running, None)
        return None

    async def _finish(self, running: RunningCall, finish: Finish) -> None:
        owner = running.owner
        generated = finish.completion_tokens
        if generated is None:
            generated = running.tokens if running.tokens is not None else await self._recount(running)
        prompt = finish.prompt_tokens if finish.prompt_tokens is not None else running.prompt_tokens
        running.prompt_tokens = prompt
        reason = finish.finish_reason
        # Before the answer is read, which may take seconds: a deadline in between finds the call paid for.
        owner.settle(running, "finished", self._prompt_of(running), generated, finish.cached_tokens, reason)
        arrived = running.arrived or Arrived()
        text, reasoning = "".join(arrived.text), "".join(arrived.reasoning)
        if len(text) + len(reasoning) <= _LONG:  # half a surrogate pair could be neither shown nor kept
            text, reasoning = writable(text), writable(reasoning)
        else:
            text, reasoning = await asyncio.to_thread(lambda: (writable(text), writable(reasoning)))
        spoken = said(running.stream.before, reasoning, text)
        reading = await self.reader(running.stream.request.answer).read(spoken)
        sample = Sample(
            running.call.index,
            text,
            reading.answer,
            reading.rule,
            generated,
            reason,
            prompt,
            arrived.mean_logprob,
            arrived.confidence,
            finish.self_certainty,
            reasoning,
            tuple(arrived.logprobs),
            finish.stop,
        )
        owner.deliver(running, sample)

    def read(self, kind: AnswerKind | AnswerReader, text: str) -> Work[Reading]:
        """Read the answer in a text."""
        return self.perform(self.reader(kind).read(text))

    async def _recount(self, running: RunningCall) -> int | None:
        """Tokens of what has arrived, by the server's tokeniser; None where it has none."""
        arrived = running.arrived or Arrived()
        text = "".join(arrived.reasoning) + "".join(arrived.text)
        if not text:
            return None  # it may have generated something that had not arrived yet
        try:
            return await self.engine.count_text(text)
        except EngineError:
            return None

    async def _settle_cancelled(self, running: RunningCall) -> None:
        if running.settled:
            return
        try:
            # Counting asks the server, and has to end before `_drain` stops waiting.
            async with asyncio.timeout(_GRACE / 2):
                key = (id(running.call.messages), running.call.prefix)
                if self._prompt_of(running) is None and key not in self._counts:
                    await asyncio.shield(self._ask(key, running.call))  # others may wait for it longer
                if running.tokens is None and not running.seen and self._counted:
                    running.tokens = 0  # this server counts every piece, and none has come
                if running.tokens is None:
                    running.tokens = await self._recount(running)
        except (TimeoutError, asyncio.CancelledError):
            pass  # what is still unknown stays unknown in the receipt
        if not running.settled:
            running.owner.settle(running, "cancelled", self._prompt_of(running), running.tokens)

    def _prompt_of(self, running: RunningCall) -> int | None:
        """Tokens of a call's prompt; the same prompt may have been counted before."""
        prompt = running.prompt_tokens
        if prompt is None:
            prompt = running.stream.prompt.tokens
        if prompt is None:
            prompt = self._counts.get((id(running.call.messages), running.call.prefix))
        return prompt


async def drive(strategy: Job[T], session: HostSession, runner: LiveRunner) -> T:
    """Await a strategy; whatever happens, nothing stays in flight and everything is settled."""
    try:
        return await strategy
    finally:
        session.close()
        await runner.drain()
