"""Engines whose completions are known before they run (recorded samples, scripted doubles), and their time model.

Knows what an outcome is, how to play one in real time over the ordinary engine protocol, and how concurrent streams
share a server's rates. Does not know virtual time: the session's virtual runner reads outcomes and keeps the clock.
"""

from __future__ import annotations

import asyncio
import json
import math
from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Protocol, TypeGuard

from outthink.core.errors import BadInput, EngineError
from outthink.core.sample import Sample
from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish

_RATE = "give tokens a second"
_REMEDIES = {"stream": _RATE, "total": _RATE, "prefill": _RATE, "concurrency": "give a number of calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rates in tokens a second: a stream decodes at min(stream, total / active streams).

    Prefill is charged to its own stream at `prefill`; calls beyond `concurrency` queue.
    """

    stream: float = 50.0
    total: float = 2000.0
    prefill: float = 5000.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= 0:
                raise BadInput(f"speed {name}", value, "is not a positive number", _REMEDIES[name])

    @classmethod
    def parse(cls, text: str) -> Speed:
        """Read `stream=50,total=2000` or a JSON file with the same keys."""
        if "=" not in text:
            try:
                values = json.loads(Path(text).read_text())
            except (OSError, ValueError) as error:
                raise BadInput("speed", text, f"cannot be read ({error})", "give k=v,... or a JSON file") from None
        else:
            pairs = [part.partition("=") for part in text.split(",") if part.strip()]
            values = {name.strip(): value for name, _, value in pairs}
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - names:
            raise BadInput("speed", text, "has an unknown key", f"use {', '.join(sorted(names))}")
        try:
            numbers = {name: float(value) for name, value in values.items()}
            if "concurrency" in numbers:
                numbers["concurrency"] = int(numbers["concurrency"])
        except (TypeError, ValueError, OverflowError):
            raise BadInput("speed", text, "is not numeric", "give tokens a second") from None
        return replace(cls(), **numbers)  # type: ignore[arg-type]

    def rate(self, active: int) -> float:
        """Tokens a second for each of `active` streams."""
        return min(self.stream, self.total / active) if active else self.stream


CHUNK = 16
"""Tokens between two looks of a watch, as in the recorded confidences."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A call that fails after `after` generated tokens."""

    after: int = 0
    fatal: bool = False
    message: str = "the scripted engine failed as told"
    retry_after: float | None = None

    @property
    def error(self) -> EngineError:
        """What the session gets to see."""
        return EngineError(self.message, fatal=self.fatal, retry_after=self.retry_after)


@dataclass(slots=True)
class Outcome:
    """What a call will produce.

    Args:
        sample: the finished sample; its answer is used as it stands when `read` is False.
        tokens, prompt_tokens: true counts, whatever the engine tells of them (the prompt's: what
            `sample` has).
        delay: seconds before the first token, beyond prefill.
        fault: how the call fails, None if it does not.
        told: False where the engine tells no counts.
        read: True where the answer is still to be read from the text.
    """

    sample: Sample
    tokens: int
    prompt_tokens: int
    delay: float = 0.0
    fault: Fault | None = None
    told: bool = True
    read: bool = False


class Simulated(Engine, Protocol):
    """An engine that can say what a call will produce; raises BadInput for a call it has no sample for."""

    speed: Speed

    @abstractmethod
    def outcome(self, call: Call) -> Outcome:
        """The completion of this call, the same one every time."""
        ...

    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Play the completion in real time."""
        return play(self, call)


def is_simulated(engine: object) -> TypeGuard[Simulated]:
    """Whether an engine can run on the virtual clock."""
    return hasattr(engine, "outcome")


async def play(engine: Simulated, call: Call) -> AsyncIterator[Event]:
    """Play an outcome in real time: one Delta a chunk, the speed profile of a lone stream."""
    outcome = engine.outcome(call)
    sample, fault = outcome.sample, outcome.fault
    if fault is not None and fault.after > outcome.tokens:
        fault = None  # the completion ends before it could fail
    total = outcome.tokens if fault is None else fault.after
    await asyncio.sleep(outcome.delay + outcome.prompt_tokens / engine.speed.prefill)
    confidences = list(sample.confidence.values) if sample.confidence else []
    stride = sample.confidence.stride if sample.confidence else 1
    shown = 0
    for end in [*range(CHUNK, total, CHUNK), total] if total else []:
        begin = max(0, end - CHUNK) if end % CHUNK == 0 else end - end % CHUNK
        await asyncio.sleep((end - begin) / engine.speed.stream)
        text_end = len(sample.text) * end // max(1, outcome.tokens)
        yield Delta(
            text=sample.text[shown:text_end],
            tokens=end if outcome.told else None,
            logprobs=() if sample.mean_logprob is None else (sample.mean_logprob,) * (end - begin),
            confidences=[confidences[i // stride] for i in range(begin, end)] if confidences else (),
            prompt_tokens=sample.prompt_tokens,
        )
        shown = text_end
    if fault is not None:
        raise fault.error
    yield Finish(
        finish_reason=sample.finish_reason,
        prompt_tokens=sample.prompt_tokens,
        completion_tokens=outcome.tokens if outcome.told else None,
        self_certainty=sample.self_certainty,
        stop=sample.stop,
    )


class RealTimeEngine(Engine):
    """A simulated engine that says nothing in advance, so that it runs in real time like any other."""

    model: str
    features: Features
    concurrency: int

    def __init__(self, engine: Simulated) -> None:
        self._engine = engine
        self.model, self.features, self.concurrency = engine.model, engine.features, engine.concurrency

    async def prepare(self, call: Call) -> None:
        """Let the engine get ready."""
        await self._engine.prepare(call)

    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Play the completion in real time."""
        return self._engine.generate(call)

    async def count_prompt(self, call: Call) -> int | None:
        """The engine's own count."""
        return await self._engine.count_prompt(call)

    async def count_text(self, text: str) -> int | None:
        """The engine's own count."""
        return await self._engine.count_text(text)

    async def aclose(self) -> None:
        """Release the engine."""
        await self._engine.aclose()
