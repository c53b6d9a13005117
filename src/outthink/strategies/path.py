"""A path of a search: the steps of one whole or partial solution.

Knows: its text, what it has cost to write, and what the verifier said. Does not know how it was
found or where the search goes next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from outthink.core.sample import Sample

_LETTERS = 4
"""Characters a token, for servers that tell no counts: it limits lengths and never enters a receipt."""


@dataclass(frozen=True, slots=True)
class Path:
    """Steps whose concatenation, with `opening`, is the text so far.

    Args:
        opening: blank text behind the last step; it opens the next one.
        tokens: generated tokens, estimated where `counted` is False.
        logprob: sum of the tokens' log-probabilities, None if unknown.
        finished: the model has ended it, or its length has.
        answer, rule: read from the whole text.
        value: the verifier's score, None while or where there is none.
        preview: the rollout that `value` judges instead of the path itself.
    """

    steps: tuple[str, ...] = ()
    opening: str = ""
    tokens: int = 0
    counted: bool = True
    logprob: float | None = 0.0
    finished: bool = False
    answer: str | None = None
    rule: str = "none"
    finish_reason: str = "stop"
    value: float | None = None
    preview: Path | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.steps) + self.opening

    @property
    def certainty(self) -> float | None:
        """Mean log-probability of its tokens, None if unknown."""
        return None if self.logprob is None or not self.tokens else self.logprob / self.tokens

    @property
    def rank(self) -> tuple[float, float, int]:
        """What the best path has most of: value, then certainty, then brevity."""
        certainty = self.certainty
        return (
            -1.0 if self.value is None else self.value,
            float("-inf") if certainty is None else certainty,
            -self.tokens,
        )

    def grown(self, sample: Sample, text: str, *, finished: bool) -> Path:
        """With a sample's text behind it: a step, or blank text that opens the next one."""
        count = sample.tokens if sample.tokens is not None else -(-len(sample.text) // _LETTERS)
        known = self.logprob is not None and sample.mean_logprob is not None
        blank = not text.strip()
        return replace(
            self,
            steps=self.steps if blank else (*self.steps, self.opening + text),
            opening=self.opening + text if blank else "",
            tokens=self.tokens + count,
            counted=self.counted and sample.tokens is not None,
            logprob=(self.logprob or 0.0) + (sample.mean_logprob or 0.0) * count if known else None,
            finished=finished,
            answer=sample.answer,
            rule=sample.rule,
            finish_reason=sample.finish_reason,
            value=None,
            preview=None,
        )

    def sample(self, index: int) -> Sample:
        """As a finished sample that may vote."""
        tokens = self.tokens if self.counted else None
        return Sample(index, self.text, self.answer, self.rule, tokens, self.finish_reason, mean_logprob=self.certainty)


ROOT = Path()
"""Where every search begins: nothing written."""
