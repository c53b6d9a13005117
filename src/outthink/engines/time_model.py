"""How long generating takes, as the virtual clock asks for it, and what a batch that moves in steps needs for that.

Knows rates in tokens a second, the cost of a step as a sum of parts, time and steps of a batch as functions of each
other, and which part of a prompt a server has read before. Knows no engine and no device, and of calls only that each
reads, then writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Protocol, runtime_checkable

from outthink.core.request import Message


class TimeModel(Protocol):
    """What every time model tells: `protocol.Speed`, whose rates are constant, and a `StepModel`."""

    @property
    def stream(self) -> float:
        """Decode rate of a lone stream, in tokens a second."""

    @property
    def prefill(self) -> float:
        """Prompt tokens read a second."""

    @property
    def judge(self) -> float:
        """Tokens a second that a verifier reads."""

    @property
    def concurrency(self) -> int:
        """Calls that run at once; more of them queue."""

    @property
    def told(self) -> str:
        """What a report says of it."""


@runtime_checkable
class StepModel(TimeModel, Protocol):
    """A server that moves in steps: fixed(tokens in the step) + the other costs. `economics.StepProfile` is one."""

    @property
    def unit(self) -> str:
        """Of what the costs are; time is in `seconds`."""

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that a sequence reads in one step."""

    @property
    def per_sequence(self) -> float:
        """Cost of a sequence in the step."""

    @property
    def per_context(self) -> float:
        """Cost of a token in the cache of a sequence that writes."""

    @property
    def per_prefill(self) -> float:
        """Cost of a token of a prompt."""

    def fixed(self, tokens: float) -> float:
        """Cost of a step in which so many tokens are computed."""


class StepLoad:
    """A batch, and when its steps end.

    Between two changes of the batch every step adds one token to each sequence that writes, so the time of k steps is
    a quadratic in k. `time` is when step number `steps` ends, and the batch is what runs from there on.
    """

    def __init__(self, model: StepModel) -> None:
        self._model = model
        self.steps, self.time = 0, 0.0
        self.sequences = self.writing = self.contexts = 0
        self.reading = 0.0
        self._even = 0.0

    def change(self, *, sequences: int = 0, writing: int = 0, contexts: int = 0, reading: float = 0.0) -> None:
        """Add to the batch, or take from it.

        Args:
            contexts: tokens in the caches of those that write.
            reading: tokens of prompts read in each step.
        """
        model = self._model
        self.sequences += sequences
        self.writing += writing
        self.contexts += contexts
        # A sum of floats: where nobody reads any more, no rounding may stay.
        self.reading = self.reading + reading if self.sequences > self.writing else 0.0
        per_step = model.per_sequence * self.sequences + model.per_prefill * self.reading
        self._even = model.fixed(self.writing + self.reading) + per_step

    def seconds(self, steps: float) -> float:
        """How long the next so many steps take."""
        per_context = self._model.per_context
        return steps * (self._even + per_context * (self.contexts + self.writing * (steps + 1) / 2))

    def steps_in(self, seconds: float) -> float:
        """Steps in so much time: `seconds` the other way round."""
        per_context = self._model.per_context
        growth = per_context * self.writing
        first = self._even + per_context * self.contexts + growth / 2
        root = first + sqrt(first * first + 2 * growth * seconds)
        return 2 * seconds / root if self.sequences and root else 0.0

    def advance(self, steps: int) -> None:
        """Let so many steps pass."""
        self.time += self.seconds(steps)
        self.steps += steps
        self.contexts += self.writing * steps


class PromptCache:
    """What a server has in its cache of one request: chats with what an assistant has written there, in tokens."""

    def __init__(self) -> None:
        self._kept: list[tuple[Sequence[Message], str, str, int, int]] = []

    def keep(self, messages: Sequence[Message], prefix: str, written: str, prompt: int, tokens: int) -> None:
        """Messages and the text begun after them, `prompt` tokens together, and what was written behind in `tokens`."""
        self._kept.append((messages, prefix, written, prompt, tokens))

    def known(self, messages: Sequence[Message], prefix: str) -> int:
        """Tokens of a prompt that are there already; of a text that breaks off, by its share of the letters."""
        best = 0
        for other, begun, written, prompt, tokens in self._kept:
            if other == messages and prefix.startswith(begun):
                pairs = zip(written, prefix[len(begun) :], strict=False)
                same = next((at for at, (one, two) in enumerate(pairs) if one != two), None)
                shared = min(len(written), len(prefix) - len(begun)) if same is None else same
                best = max(best, prompt + (tokens * shared // len(written) if written else 0))
        return best
