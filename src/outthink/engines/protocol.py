"""The seam between a session and whatever produces tokens: engines that run, and engines that are simulated.

Knows: the call, the events it yields, the features an engine declares; of a simulated engine (recorded samples,
scripted doubles) the outcome that is known before it runs, its time model, and how to play one in real time. Does not
know HTTP, budgets, strategies or virtual time. A strategy cannot tell one engine from another.
"""

from __future__ import annotations

import asyncio
import json
import math
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Protocol, TypeGuard

from outthink.core import defaults
from outthink.core.defaults import offered
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Message, Sampling
from outthink.core.sample import Progress, Sample
from outthink.engines.time_model import TimeModel


@dataclass(frozen=True, slots=True)
class Features:
    """What an engine can do. None means that it has not been found out yet.

    Args:
        logprobs: log-probabilities of the chosen tokens.
        top_logprobs: how many alternatives a token can come with (0 = none, DeepConf wants 20).
        full_logprobs: statistics of the whole vocabulary (self-certainty).
        prefix: a partial assistant message can be continued.
        seed: the same seed gives the same completion.
        counted: every piece of a stream tells the tokens so far, so that no piece means no token.
    """

    logprobs: bool | None = None
    top_logprobs: int | None = None
    full_logprobs: bool | None = False
    prefix: bool | None = None
    seed: bool | None = None
    counted: bool | None = None


@dataclass(slots=True)
class Call:
    """One completion to produce. Not frozen only because replay makes millions of them; nobody writes to it.

    Args:
        messages: the chat.
        sampling: parameters; `sampling.max_tokens` is already what the budget admits.
        seed: of this very sample, None for none.
        index: sample number for its prompt within the session; no number is used twice.
        prefix: assistant text to continue; events carry only new text.
        top_logprobs: None = no log-probabilities, 0 = chosen tokens only, k = k alternatives.
        problem: identifier of the recorded problem, for replay.
        alternatives: the text of those k alternatives is wanted too.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int | None = None
    index: int = 0
    prefix: str | None = None
    top_logprobs: int | None = None
    problem: str | None = None
    alternatives: bool = False


@dataclass(slots=True)
class Delta:
    """A piece of a running completion. Not frozen only because streams make one for every token.

    Args:
        text, reasoning: new text of either kind, maybe empty.
        tokens: generated tokens so far (cumulative, reasoning included), None if not told.
        logprobs: natural-log probabilities of new tokens, one a token, empty without them.
        confidences: DeepConf confidence of new tokens (minus the mean of their top-k
            log-probabilities), one a token, empty without top-k log-probabilities.
        prompt_tokens: tokens of the prompt as soon as the server tells, else None.
        alternatives: for each new token its text and the log-probabilities of its alternatives by
            their text, where the call asks for them.
        pieces: chunks of text that came together; a lower bound on new tokens.
    """

    text: str = ""
    reasoning: str = ""
    tokens: int | None = None
    logprobs: Sequence[float] = ()
    confidences: Sequence[float] = ()
    prompt_tokens: int | None = None
    alternatives: Sequence[tuple[str, Mapping[str, float]]] = ()
    pieces: int = 1

    @classmethod
    def of(cls, deltas: Sequence[Delta]) -> Delta | None:
        """What came together, as one; None for nothing. Counts are cumulative, so the last ones hold."""
        if len(deltas) < 2:
            return deltas[0] if deltas else None
        return cls(
            "".join([delta.text for delta in deltas]),
            "".join([delta.reasoning for delta in deltas]),
            deltas[-1].tokens,
            [value for delta in deltas for value in delta.logprobs],
            [value for delta in deltas for value in delta.confidences],
            deltas[-1].prompt_tokens,
            [alternatives for delta in deltas for alternatives in delta.alternatives],
            sum([delta.pieces for delta in deltas if delta.text or delta.reasoning]),
        )


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a completion, always the last event. Counts are None where the server is silent.

    `stop` is the stop sequence that was hit, empty if the model ended by itself, None if not told.
    """

    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    self_certainty: float | None = None
    stop: str | None = None


Event = Delta | Finish


class Engine(Protocol):
    """Where tokens come from. Subclass it and write `model` and `generate`; the rest has defaults.

    `generate` yields Deltas, then exactly one Finish. Closing the iterator cancels the work at
    once. It raises EngineError, with `fatal` where no call can succeed, `again=False` where this one may have been
    begun and `begun` where nobody knows what it has cost, and never retries by itself.
    """

    @offered
    def model(self) -> str:
        """Identifier for receipts and price look-up; may become more precise after `prepare`."""
        raise NotImplementedError(f"{type(self).__name__} names no model")

    @offered
    def features(self) -> Features:
        """What is known about this engine's abilities now."""
        return Features()

    @offered
    def concurrency(self) -> int:
        """How many calls may run at once."""
        return 8

    @offered
    def url(self) -> str | None:
        """Address of the server, without secrets, by which published prices are found; None for a local engine."""
        return None

    @offered
    def parameters(self) -> int | None:
        """Weights read per token, None as long as they are unknown."""
        return None

    @offered
    def parameters_told(self) -> bool:
        """Whether `parameters` is what a server says, and not what was read from the model's file."""
        return False

    @offered
    def revision(self) -> str | None:
        """Which version of the model this is, None if unknown; a policy of another version is refused."""
        return None

    @offered
    def speed(self) -> TimeModel | None:
        """The time model of an engine that runs on the virtual clock, None for any other."""
        return None

    @offered
    def notes(self) -> tuple[str, ...]:
        """What belongs into the receipt: parameters that the engine does not accept or heed."""
        return ()

    async def prepare(self, call: Call) -> None:
        """Get ready for calls like this one (start a server, discover features). Idempotent."""
        return

    @abstractmethod
    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Produce one completion."""

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens by the server's own tokeniser, None where it offers none."""
        return None

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text by the server's own tokeniser, None where it offers none."""
        return None

    async def aclose(self) -> None:
        """Release everything; no process or connection stays."""
        return


def complete(engine: object) -> Engine:
    """An engine of any kind as the whole protocol; for objects from outside, once, where they enter.

    One that subclasses `Engine` is returned as it is; a plain object gets the defaults of what it lacks.
    """
    return defaults.complete(engine, Engine)


# Simulated engines. The virtual runner of a session reads outcomes and keeps the clock.

_RATE = "give tokens a second"
_REMEDIES = {"stream": _RATE, "total": _RATE, "prefill": _RATE, "judge": _RATE, "concurrency": "give a number of calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rates in tokens a second: a stream decodes at min(stream, total / active streams).

    Prefill is charged to its own stream at `prefill`; calls beyond `concurrency` queue. A verifier reads, and writes,
    at `judge`, by default as fast as a prompt is read.
    """

    # The time model that docs/contracts.md states; every report of a replay names it.
    stream: float = 50.0
    total: float = 2000.0
    prefill: float = 5000.0
    judge: float = 5000.0
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

    @property
    def told(self) -> str:
        """What a report says of it."""
        return (
            f"{self.stream:g} tokens/s a stream, {self.total:g} in all, prefill {self.prefill:g}, "
            f"verifier {self.judge:g}, concurrency {self.concurrency}"
        )


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

    def progress(self, index: int, tokens: int) -> Progress:
        """What a watch sees of it after so many tokens, as sample number `index`."""
        sample = self.sample
        trace = sample.confidence
        shown = trace.values[: tokens // trace.stride] if trace is not None else ()
        text = sample.text[: len(sample.text) * tokens // max(1, self.tokens)]
        return Progress(index, tokens, shown, trace.stride if trace else 1, (text,))


class Simulated(Engine, Protocol):
    """An engine that can say what a call will produce; raises BadInput for a call it has no sample for."""

    speed: TimeModel

    @offered
    def concurrency(self) -> int:
        """Calls that the simulated server runs at once; more wait."""
        return self.speed.concurrency

    @abstractmethod
    def outcome(self, call: Call) -> Outcome:
        """The completion of this call, the same one every time."""

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
