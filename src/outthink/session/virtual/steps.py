"""Carries out calls on a simulated continuous-batching server, step by step on the virtual clock.

Knows: who reads a prompt that several calls share, and when each begins to write. How long steps take is the time
model's (`engines.time_model`), how events are ordered and settled the virtual runner's.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from math import ceil, inf

from outthink.core.errors import BadInput
from outthink.engines.protocol import Call, Outcome, Simulated
from outthink.engines.time_model import PromptCache, StepLoad, StepModel
from outthink.session.calls import RunningCall
from outthink.session.virtual.runner import VirtualRunner


@dataclass(slots=True, eq=False)
class SharedPrompt:
    """One prompt on a server: who reads it, and who waits for that in launch order; read where nobody does."""

    call: Call
    reader: RunningCall | None = None
    read: bool = False
    waiting: list[tuple[int, RunningCall]] = field(default_factory=list)


_READ = -1
"""In the place of tokens: the prompt has been read."""


class StepRunner(VirtualRunner):
    """A continuous-batching server with a prefix cache. The counter of service counts steps.

    A call reads its prompt in chunks, one a step, and gains a token in each step after. Calls with one prompt share it:
    the first reads, the others wait, and then take one step for its last token. What changes during a step counts from
    the next one on.
    """

    speed: StepModel

    def __init__(self, engine: Simulated, *, beside: VirtualRunner | None = None) -> None:
        super().__init__(engine, beside=beside)
        if not isinstance(self.speed, StepModel):
            raise BadInput("speed", type(self.speed).__name__, "is no time model", "give a Speed or a StepProfile")
        if self.speed.unit != "seconds":
            raise BadInput("speed unit", self.speed.unit, "is no time", "give a step profile in seconds")
        self._load = StepLoad(self.speed)
        self._cache = PromptCache()
        self._prompts: dict[str, list[SharedPrompt]] = {}
        self._reading: dict[RunningCall, tuple[SharedPrompt, float]] = {}

    def _start(self, running: RunningCall) -> None:
        running.outcome = outcome = self.engine.outcome(running.call)
        running.started, running.begin = self._clock.time, inf
        self._active += 1
        self._clock.order = order = self._clock.order + 1
        if outcome.delay > 0:
            self.alarm(outcome.delay, lambda: None if running.settled else self._join(running, order))
        else:
            self._join(running, order)

    def _join(self, running: RunningCall, order: int) -> None:
        """Take part in the next step."""
        self._step_on()
        self._load.change(sequences=1)
        prompt = self._prompt_of(running.call)
        if prompt.read:
            self._read(running, prompt, 1, order)
        elif prompt.reader is None:
            self._read_first(running, prompt, order)
        else:
            self._reading[running] = prompt, 0.0
            prompt.waiting.append((order, running))

    def _prompt_of(self, call: Call) -> SharedPrompt:
        known = self._prompts.setdefault(call.prefix or "", [])
        for prompt in known:
            if prompt.call.messages == call.messages:
                return prompt
        known.append(SharedPrompt(call))
        return known[-1]

    def _read_first(self, running: RunningCall, prompt: SharedPrompt, order: int) -> None:
        assert running.outcome is not None
        prompt.reader = running
        new = running.outcome.prompt_tokens - self._cache.known(prompt.call.messages, prompt.call.prefix or "")
        self._read(running, prompt, max(1, new), order)

    def _read(self, running: RunningCall, prompt: SharedPrompt, tokens: int, order: int) -> None:
        # Evenly over its steps, so that the batch is the same in each of them.
        steps = ceil(tokens / self.speed.chunk)
        self._reading[running] = prompt, tokens / steps
        self._load.change(reading=tokens / steps)
        heapq.heappush(self._heap, (self._load.steps + steps, order, _READ, running))

    def _deliver(self, running: RunningCall, tokens: int, order: int) -> None:
        if tokens == _READ and running.outcome is not None and not running.settled:
            self._write(running, running.outcome, order)
        else:
            super()._deliver(running, tokens, order)

    def _finish(self, running: RunningCall, outcome: Outcome) -> None:
        if outcome.fault is None:
            self._keep(running.call, outcome, outcome.sample.reasoning + outcome.sample.text, outcome.tokens)
        super()._finish(running, outcome)

    def _keep(self, call: Call, outcome: Outcome, written: str, tokens: int) -> None:
        self._cache.keep(call.messages, call.prefix or "", written, outcome.prompt_tokens, tokens)

    def _write(self, running: RunningCall, outcome: Outcome, order: int) -> None:
        self._step_on()
        prompt, reading = self._reading.pop(running)
        self._load.change(writing=1, contexts=outcome.prompt_tokens, reading=-reading)
        self._expect(running, outcome, self._load.steps, order)
        if prompt.reader is running:
            prompt.reader, prompt.read = None, True
            self._keep(prompt.call, outcome, "", 0)
            waiting, prompt.waiting = prompt.waiting, []
            for number, other in waiting:
                if not other.settled:
                    self._read(other, prompt, 1, number)

    def _leave(self, running: RunningCall) -> None:
        self._active -= 1
        self._step_on()
        if running in self._reading:
            prompt, reading = self._reading.pop(running)
            self._load.change(sequences=-1, reading=-reading)
            if prompt.reader is running:
                self._pass_on(prompt)
        elif running.begin < inf and running.outcome is not None:
            context = running.outcome.prompt_tokens + self._load.steps - int(running.begin)
            self._load.change(sequences=-1, writing=-1, contexts=-context)

    def _pass_on(self, prompt: SharedPrompt) -> None:
        """Its reader has left: the next that waits reads it from its start."""
        prompt.reader = None
        prompt.waiting = [each for each in prompt.waiting if not each[1].settled]
        if prompt.waiting:
            order, running = prompt.waiting.pop(0)
            self._read_first(running, prompt, order)

    def _step_on(self) -> None:
        """Let the batch as it is run to the end of the step under way."""
        load = self._load
        if not load.sequences:
            load.time = max(load.time, self._clock.time)
        elif (steps := ceil(self._service - load.steps - 1e-9)) > 0:
            load.advance(steps)

    def _elapse(self, until: float) -> None:
        load = self._load
        if until >= load.time:
            self._service = load.steps + load.steps_in(until - load.time)

    def _when(self, service: float) -> float:
        load = self._load
        return max(self._clock.time, load.time + load.seconds(service - load.steps))
