"""Serves recorded samples as if a model produced them now.

Knows: the order in which a seed deals out a problem's samples. Does not know whether they are
right. Sample 0 is the greedy one and serves only calls at temperature 0.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace

from outthink.core.errors import BadInput
from outthink.core.sample import Sample
from outthink.engines.protocol import Call, Event, Features
from outthink.engines.simulated import Outcome, play
from outthink.engines.speed import Speed
from outthink.engines.traces import Recorded, Traces


class ReplayEngine:
    """Recorded samples of one model on one data set.

    Args:
        traces: the samples; a call's `problem` selects among them.
        seed: each (problem, seed) has one permutation, shared by all strategies and sizes.
        speed: the time model of the simulated server.
    """

    def __init__(self, traces: Traces, *, seed: int = 0, speed: Speed | None = None) -> None:
        self.traces, self.seed = traces, seed
        self.speed = speed or Speed()
        first = next(iter(traces.problems.values()))
        sample = first.sampled[0] if first.sampled else first.greedy
        has_confidence = sample is not None and sample.confidence is not None
        self.features = Features(
            logprobs=sample is not None and sample.mean_logprob is not None,
            top_logprobs=20 if has_confidence else 0,
            full_logprobs=sample is not None and sample.self_certainty is not None,
            prefix=False,
            seed=True,
        )
        self._dealt: dict[str, list[Outcome]] = {}

    @property
    def model(self) -> str:
        """The recorded model."""
        return self.traces.model

    @property
    def concurrency(self) -> int:
        """Calls that the simulated server runs at once."""
        return self.speed.concurrency

    def outcome(self, call: Call) -> Outcome:
        """Sample number `call.index` of this seed's order; BadInput for what was not recorded."""
        key = call.problem
        dealt = self._dealt.get(key) if key is not None else None
        if dealt is None:
            dealt = self._deal(key)
        sampling = call.sampling
        if sampling.temperature == 0:
            outcome = self._greedy(key)
        elif call.index < len(dealt):
            outcome = dealt[call.index]
        else:
            raise BadInput(
                "n", call.index + 1, f"is more than the {len(dealt)} samples recorded of {key}", "ask for fewer"
            )
        return outcome if outcome.tokens <= sampling.max_tokens else _cut(outcome, sampling.max_tokens)

    def _greedy(self, key: str | None) -> Outcome:
        greedy = self._problem(key).greedy
        if greedy is None:
            raise BadInput("greedy", key, "has no recorded greedy sample", "record with --greedy")
        return _outcome(greedy)

    def reseed(self, seed: int) -> None:
        """Deal out every problem anew."""
        self.seed = seed
        self._dealt.clear()

    def _problem(self, key: str | None) -> Recorded:
        recorded = self.traces.problems.get(key or "")
        if recorded is None:
            raise BadInput(
                "problem", key, f"is not recorded in {self.traces.name}", "set request.problem to one that is"
            )
        return recorded

    def _deal(self, key: str | None) -> list[Outcome]:
        recorded = self._problem(key)
        order = [_outcome(sample) for sample in recorded.sampled]
        random.Random(f"{self.seed}:{key}").shuffle(order)
        self._dealt[recorded.problem] = order
        return order

    async def prepare(self, call: Call) -> None:
        """Nothing to prepare."""

    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Play a recorded sample in real time."""
        return play(self, call)

    async def count_prompt(self, call: Call) -> int | None:
        """The recorded prompt length."""
        recorded = self._problem(call.problem)
        sample = recorded.sampled[0] if recorded.sampled else recorded.greedy
        return None if sample is None else sample.prompt_tokens

    async def count_text(self, text: str) -> int | None:
        """Recorded samples bring no tokeniser."""
        return None

    async def aclose(self) -> None:
        """Nothing to release."""


def _outcome(sample: Sample) -> Outcome:
    return Outcome(sample, sample.tokens or 0, sample.prompt_tokens or 0, told=sample.tokens is not None)


def _cut(outcome: Outcome, cap: int) -> Outcome:
    """A recorded sample under a smaller limit: what its first tokens answered is not known."""
    sample = outcome.sample
    text = sample.text[: len(sample.text) * cap // outcome.tokens]
    trace = sample.confidence
    if trace is not None:
        trace = replace(trace, values=trace.values[: -(-cap // trace.stride)], tokens=cap, _known={})
    short = replace(sample, text=text, answer=None, rule="none", tokens=cap, finish_reason="length", confidence=trace)
    return replace(outcome, sample=short, tokens=cap)
