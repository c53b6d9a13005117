"""One finished completion as a strategy sees it, and a running one as `watch` sees it.

Knows: text, canonical answer, length and confidence. Does not know whether it is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from outthink.core.confidence import ConfidenceTrace

Decision = Literal["keep", "stop"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion that may vote.

    Args:
        index: launch order in its stream (recorded number in replay).
        text: what the model wrote after any separate reasoning.
        answer: canonical answer; None where none could be read, which is never a vote.
        rule: which extraction rule found the answer (`boxed`, `answer-is`, ...; `none`).
        tokens: generated tokens, reasoning included; None if the server did not tell.
        mean_logprob: mean natural-log probability of the chosen tokens, None if unknown.
        confidence: token confidences, None without top-k log-probabilities.
        self_certainty: mean KL of uniform from the full distribution (arXiv 2502.18581), None without it.
        finish_reason: why the completion ended: `stop`, `length`, `stopped` (by the strategy's watch),
            `tool_calls`, `content_filter` or `unknown`.
        reasoning: separately returned thinking text.
        logprobs: natural-log probability of each chosen token, empty if unknown or not kept.
        stop: the stop sequence that ended it, empty if the model ended by itself, None if the server
            did not tell.
        scores: recorded step scores of a verifier, empty without any.
        verifier_tokens: what that verifier read and generated, None if unknown.
    """

    index: int
    text: str
    answer: str | None
    rule: str
    tokens: int | None
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    mean_logprob: float | None = None
    confidence: ConfidenceTrace | None = None
    self_certainty: float | None = None
    reasoning: str = ""
    logprobs: Sequence[float] = ()
    stop: str | None = None
    scores: Sequence[float] = ()
    verifier_tokens: int | None = None

    @property
    def certainty(self) -> float | None:
        """The best general confidence at hand: mean token confidence, else mean log-probability."""
        return self.confidence.mean() if self.confidence is not None else self.mean_logprob


@dataclass(slots=True)
class Progress:
    """A running completion. `confidences` grows; each value stands for `stride` tokens."""

    index: int
    tokens: int
    confidences: Sequence[float]
    stride: int
    pieces: Sequence[str] = ()

    @property
    def text(self) -> str:
        """What it has written so far; joined only for a watch that reads it."""
        return "".join(self.pieces)

    def window(self, tokens: int) -> float | None:
        """Mean confidence of the last `tokens` tokens, None until that many exist."""
        size = max(1, tokens // self.stride)
        if len(self.confidences) < size:
            return None
        return sum(self.confidences[-size:]) / size
