"""A finished completion as a strategy sees it, a running one as `watch` sees it, and a candidate as a verifier does.

Knows text, canonical answer, length, steps, and the measures of how sure the model was. Does not know whether an answer
is right, how it is judged, or where log-probabilities come from: live engines give a confidence for every token,
recorded samples one for a chunk of 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from outthink.core.errors import BadInput, need_known


@dataclass(frozen=True, slots=True)
class ConfidenceTrace:
    """Confidences C_i = -(1/k) sum_j log P_i(j) over the k most likely tokens (arXiv 2508.15260).

    Args:
        values: mean confidence of tokens 0..stride-1, stride..2*stride-1, ...; the last may be short.
        stride: tokens behind each value.
        tokens: tokens of the whole completion.
    """

    values: Sequence[float]
    stride: int
    tokens: int
    _known: dict[tuple[str, int], float] = field(default_factory=dict, repr=False, compare=False)

    def _weights(self) -> list[int]:
        last = self.tokens - self.stride * (len(self.values) - 1)
        return [self.stride] * (len(self.values) - 1) + [max(1, last)]

    def _once(self, name: str, window: int, compute: Callable[[], float]) -> float:
        # Replay shares one trace between thousands of runs, so each figure is computed once.
        value = self._known.get((name, window))
        if value is None:
            value = self._known[name, window] = compute()
        return value

    def mean(self) -> float:
        """Token-weighted mean over the completion."""
        return self._once("mean", 0, lambda: self.tail(self.stride * len(self.values)))

    def tail(self, window: int) -> float:
        """Mean of the last `window` tokens (all of them if the completion is shorter)."""
        size = max(1, window // self.stride)
        weights = self._weights()[-size:]
        return sum(w * v for w, v in zip(weights, self.values[-size:], strict=True)) / sum(weights)

    def groups(self, window: int) -> list[float]:
        """Sliding means of `window` tokens, one stride apart; a shorter completion is one group."""
        size = max(1, window // self.stride)
        values = self.values
        if len(values) <= size:
            return [self.mean()]
        # A running sum: windows of 2,048 tokens would be added up anew for every token of a long trace.
        total = sum(values[:size])
        sums = [total]
        for old, new in zip(values, values[size:], strict=False):
            total += new - old
            sums.append(total)
        return [s / size for s in sums]

    def lowest(self, window: int) -> float:
        """The least confident group."""
        return self._once("lowest", window, lambda: min(self.groups(window)))

    def bottom(self, window: int) -> float:
        """Mean of the least confident tenth of the groups (at least one)."""

        def compute() -> float:
            groups = sorted(self.groups(window))
            count = max(1, len(groups) // 10)
            return sum(groups[:count]) / count

        return self._once("bottom", window, compute)


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
        scores: step scores of a verifier, recorded or of a judged stream; empty without any.
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
    def cut(self) -> bool:
        """Whether it was cut at the most tokens it might have."""
        return self.finish_reason == "length"

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


MEASURES = ("confidence", "tail", "bottom", "lowest", "logprob", "self-certainty")
TOP = 20
"""Alternatives a token that DeepConf's confidence averages over (arXiv 2508.15260)."""


def alternatives(measure: str) -> int:
    """How many alternatives a token the engine must return for this measure. Raises BadInput for an unknown one."""
    need_known("score", measure, MEASURES)
    return 0 if measure == "logprob" else TOP


def certainty(sample: Sample, measure: str, window: int) -> float | None:
    """The measure of one sample, in nats; None where the sample lacks what it needs.

    Args:
        measure: `confidence` mean token confidence; `tail` of the last `window` tokens; `bottom` mean
            of the least confident tenth of the windows; `lowest` least confident window; `logprob`
            mean log-probability; `self-certainty` (arXiv 2502.18581).
    """
    if measure == "self-certainty":
        return sample.self_certainty
    if measure == "logprob":
        return sample.mean_logprob
    trace = sample.confidence
    if trace is None:
        return None
    windowed = {"tail": trace.tail, "bottom": trace.bottom, "lowest": trace.lowest}.get(measure)
    return trace.mean() if windowed is None else windowed(window)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole or partial solution, cut into steps whose concatenation is its text.

    Args:
        steps: the text in order; a verifier of whole solutions gets one step.
        sample: the sample it came from, for verifiers that read its log-probabilities or recorded
            scores; None in search.
    """

    steps: tuple[str, ...]
    sample: Sample | None = None

    @property
    def text(self) -> str:
        """All steps as one text."""
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class Judged:
    """That the samples of a stream are judged before they are yielded, and what that takes.

    Args:
        ratio: tokens of the verifier for each token of a sample, prompt included; so much of the budget is kept aside
            for each call in flight. None where nobody knows.
    """

    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio < float("inf"):
            raise BadInput("judged", self.ratio, "is no ratio", "give the verifier's tokens a token, 0 or more")


def split_steps(text: str, separator: str) -> tuple[str, ...]:
    """Cut a text into steps whose concatenation is the text.

    Args:
        separator: a step ends after it. With a newline, a step ends at the newline after a line that
            is not blank; blank lines open the next step. Steps of white space alone are joined to
            the step before.

    Returns no step for a text without any visible character.
    """
    steps: list[str] = []
    start = 0
    while start < len(text):
        at = text.find(separator, start)
        while at >= 0 and not text[start:at].strip():
            at = text.find(separator, at + len(separator))
        end = len(text) if at < 0 else at + len(separator)
        piece = text[start:end]
        if piece.strip():
            steps.append(piece)
        elif steps:
            steps[-1] += piece
        start = end
    return tuple(steps)
