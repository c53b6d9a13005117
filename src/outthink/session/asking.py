"""An engine as a plain function from a chat to its reply, for verifiers that ask a model.

Knows: how one completion is collected, tried again and counted, from real and simulated engines.
Does not know budgets: whoever asks through it charges what the reply says it took.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from outthink.core.errors import EngineError
from outthink.core.request import Message, Sampling
from outthink.economics.tariff import active_parameters
from outthink.engines.protocol import Call, Delta, Engine, Finish
from outthink.engines.simulated import Simulated, is_simulated
from outthink.session.retry import Retries
from outthink.verifiers.judge import JudgeReply


class Asking:
    """Completes chats on one engine; `complete` of a JudgeVerifier.

    A simulated engine answers at once, so that a judge on one runs on the virtual clock too.

    Args:
        owned: `aclose` closes the engine.
        seed: the n-th call is drawn with seed + n; None leaves the engine its own randomness.
        retries: how a call that failed is tried again.
    """

    def __init__(
        self, engine: Engine, *, owned: bool = False, seed: int | None = None, retries: Retries | None = None
    ) -> None:
        self.engine, self.owned, self.seed = engine, owned, seed
        self._retries = retries or Retries()
        self._numbers = itertools.count()
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @property
    def model(self) -> str:
        """The engine's model."""
        return self.engine.model

    @property
    def parameters(self) -> int | None:
        """Its weights: the engine's own count, else the known one of this name."""
        told: int | None = getattr(self.engine, "parameters", None)
        return told or active_parameters(self.engine.model)

    @property
    def concurrency(self) -> int:
        """Calls that run at once; one after another on a simulated engine, where they take no time."""
        return 1 if is_simulated(self.engine) else self.engine.concurrency

    async def __call__(self, messages: tuple[Message, ...], sampling: Sampling, top_logprobs: int) -> JudgeReply:
        """The reply to a chat. Raises EngineError when retries are used up, or none can help."""
        number = next(self._numbers)
        call = Call(
            messages,
            sampling,
            None if self.seed is None else self.seed + number,
            number,
            top_logprobs=top_logprobs,
            alternatives=top_logprobs > 0,
        )
        if is_simulated(self.engine):
            return _told(self.engine, call)
        async with self._place():
            for attempt in itertools.count(1):
                arrived: list[str] = []
                try:
                    return await self._generated(call, arrived)
                except EngineError as error:
                    delay = self._retries.delay(attempt, error)
                    if delay is None or arrived:  # what has been generated could not be charged again
                        raise
                await asyncio.sleep(delay)
        raise AssertionError  # pragma: no cover - the loop has no end

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engine has to say about itself."""
        told: tuple[str, ...] = getattr(self.engine, "notes", ())
        return told

    async def prepare(self) -> None:
        """Get the engine ready, so that its model's name is known before its first reply. Generates nothing."""
        await self.engine.prepare(Call((Message("user", "Hello"),), Sampling(max_tokens=1)))

    async def aclose(self) -> None:
        """Close the engine, if it is this one's own."""
        if self.owned:
            await self.engine.aclose()

    def _place(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = loop, asyncio.Semaphore(self.engine.concurrency)
        return self._slots[1]

    async def _generated(self, call: Call, text: list[str]) -> JudgeReply:
        """One attempt; `text` receives what arrives."""
        await self.engine.prepare(call)
        if self.engine.features.logprobs is False:
            call = replace(call, top_logprobs=None, alternatives=False)
        tokens: list[Any] = []
        counted: int | None = None
        prompt: int | None = None
        async with aclosing(self.engine.generate(call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    text.append(event.text)  # empty where it only thinks
                    tokens += event.alternatives
                    counted, prompt = event.tokens or counted, event.prompt_tokens or prompt
                elif isinstance(event, Finish):
                    counted = counted if event.completion_tokens is None else event.completion_tokens
                    prompt = prompt if event.prompt_tokens is None else event.prompt_tokens
                    return JudgeReply("".join(text), prompt, counted, event.cached_tokens, tokens)
        raise EngineError(f"{self.engine.model}: the stream ended without saying that it was finished")


def _told(engine: Simulated, call: Call) -> JudgeReply:
    """What a simulated engine would write, without its time."""
    outcome = engine.outcome(call)
    fault = outcome.fault
    if fault is not None and fault.after <= outcome.tokens:
        raise fault.error
    return JudgeReply(
        outcome.sample.text,
        outcome.prompt_tokens if outcome.told else None,
        outcome.tokens if outcome.told else None,
    )
