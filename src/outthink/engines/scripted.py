"""A public test double: an engine whose answers, lengths, delays and faults are known.

Knows: a script from call to completion, deterministic by seed and sample number. Does not know
any model. Runs on the virtual clock (exact, fast) and, like every engine, in real time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from outthink.core.errors import BadInput, EngineError
from outthink.core.sample import ConfidenceTrace, Sample
from outthink.engines.protocol import CHUNK, Call, Fault, Features, Outcome, RealTimeEngine, Simulated, Speed
from outthink.engines.time_model import TimeModel

EVERYTHING = Features(logprobs=True, top_logprobs=20, full_logprobs=True, prefix=True, seed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a scripted call produces.

    Args:
        answer: canonical answer; None for an unreadable completion.
        text: completion text; None writes "The answer is {answer}." (or "I do not know").
        tokens: generated tokens.
        logprob: log-probability of every token, None for an engine without log-probabilities.
        confidence: token confidence, one number or one a 16-token chunk.
        self_certainty: mean KL of uniform, for strategies that use full log-probabilities.
        delay: seconds before the first token.
        fault: how the call fails.
    """

    answer: str | None = None
    text: str | None = None
    tokens: int = 100
    logprob: float | None = -0.5
    confidence: float | Sequence[float] | None = None
    self_certainty: float | None = None
    delay: float = 0.0
    fault: Fault | None = None


class ScriptedEngine(Simulated):
    """Plays a script.

    Args:
        script: from a call to its completion; `call.index` is the sample number.
        prompt_tokens: true tokens of every prompt, or a function from call to them.
        told: False for a server that tells no token counts.
    """

    model: str
    features: Features

    def __init__(
        self,
        script: Callable[[Call], Completion],
        *,
        model: str = "scripted",
        prompt_tokens: int | Callable[[Call], int] = 20,
        speed: TimeModel | None = None,
        features: Features = EVERYTHING,
        told: bool = True,
    ) -> None:
        if features.counted is None:
            features = replace(features, counted=told)
        self.script, self.model, self.features = script, model, features
        self.prompt_tokens, self.told = prompt_tokens, told
        self.speed = speed or Speed()
        self.calls: list[Call] = []

    @classmethod
    def distribution(
        cls,
        answers: Mapping[str | None, float],
        *,
        tokens: int | Sequence[int] = 100,
        seed: int = 0,
        **options: object,
    ) -> ScriptedEngine:
        """Answers drawn with the given weights; lengths fixed, or drawn evenly from a sequence."""
        if not answers or min(answers.values()) < 0 or sum(answers.values()) <= 0:
            raise BadInput("answers", dict(answers), "is no distribution", "give weights that add up to more than 0")
        names, weights = list(answers), list(answers.values())

        def script(call: Call) -> Completion:
            draw = random.Random(f"{seed}:{call.problem}:{call.index}")
            answer = draw.choices(names, weights)[0]
            length = tokens if isinstance(tokens, int) else draw.choice(tokens)
            return Completion(answer=answer, tokens=length)

        return cls(script, **options)  # type: ignore[arg-type]

    @classmethod
    def sequence(
        cls, answers: Sequence[str | None], *, tokens: int | Sequence[int] = 100, **options: object
    ) -> ScriptedEngine:
        """Sample i gives answers[i] (and tokens[i]), starting over at the end."""

        def script(call: Call) -> Completion:
            length = tokens if isinstance(tokens, int) else tokens[call.index % len(tokens)]
            return Completion(answer=answers[call.index % len(answers)], tokens=length)

        return cls(script, **options)  # type: ignore[arg-type]

    def live(self) -> RealTimeEngine:
        """The same engine in real time, through the ordinary protocol."""
        return RealTimeEngine(self)

    def _prompt(self, call: Call) -> int:
        return self.prompt_tokens if isinstance(self.prompt_tokens, int) else self.prompt_tokens(call)

    def outcome(self, call: Call) -> Outcome:
        """The scripted completion, cut at a stop sequence and at the call's max_tokens (then it has no answer)."""
        self.calls.append(call)
        done = self.script(call)
        text = done.text
        if text is None:
            text = "I do not know" if done.answer is None else f"The answer is {done.answer}."
        cap = call.sampling.max_tokens
        tokens, answer, reason, prompt, stop = done.tokens, done.answer, "stop", self._prompt(call), ""
        stops = [(at, word) for word in call.sampling.stop if (at := text.find(word)) >= 0]
        if stops:
            at, stop = min(stops)
            tokens = max(1, -(-tokens * (at + len(stop)) // len(text)))
            text = text[:at]
        if tokens > cap:
            text = text[: len(text) * cap // tokens]
            tokens, answer, reason, stop = cap, None, "length", ""
        sample = Sample(
            call.index,
            text,
            answer,
            "none" if answer is None else "scripted",
            tokens if self.told else None,
            reason,
            prompt if self.told else None,
            done.logprob,
            _trace(done.confidence, tokens),
            done.self_certainty,
            stop=stop,
        )
        read = done.text is not None and done.answer is None and reason == "stop"
        return Outcome(sample, tokens, prompt, done.delay, done.fault, self.told, read)

    async def count_prompt(self, call: Call) -> int | None:
        """The scripted prompt length, unless the engine tells no counts."""
        return self._prompt(call) if self.told else None


def _trace(confidence: float | Sequence[float] | None, tokens: int) -> ConfidenceTrace | None:
    if confidence is None or tokens < 1:
        return None
    chunks = -(-tokens // CHUNK)
    if isinstance(confidence, (int, float)):
        return ConfidenceTrace((float(confidence),) * chunks, CHUNK, tokens)
    if len(confidence) < chunks:
        raise EngineError(
            f"scripted confidence has {len(confidence)} chunks, {tokens} tokens need {chunks}", fatal=True
        )
    return ConfidenceTrace(tuple(confidence[:chunks]), CHUNK, tokens)
