"""The generating model's own certainty as a verifier that costs nothing.

Knows: how a measure in nats becomes a score between 0 and 1. Does not know where log-probabilities
come from. A score is a rank, not a probability that the answer is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from outthink.core.errors import Unsupported
from outthink.core.request import Request
from outthink.core.sample import Candidate, alternatives, certainty
from outthink.verifiers.protocol import Aggregation, Kind, Score


class ConfidenceVerifier:
    """Reads a finished sample's log-probabilities; generates and reads no token.

    `logprob` becomes exp(mean log-probability), the geometric mean of the token probabilities. The
    other measures are positive without bound: c becomes c / (1 + c), which keeps their order and
    compresses their differences, so a weighted vote over them is close to majority.

    Args:
        name: `confidence`, `tail`, `bottom`, `lowest`, `logprob` or `self-certainty` (see
            `core.certainty`).
        window: tokens in one of DeepConf's windows, for `tail`, `bottom` and `lowest`.

    Raises BadInput for an unknown name.
    """

    kind: Kind = "confidence"
    model = "confidence"
    parameters = 0
    separator = "\n\n"
    aggregation: Aggregation = "last"

    def __init__(self, name: str = "confidence", *, window: int = 2048) -> None:
        self.top_logprobs = alternatives(name)
        """Alternatives a token that samples must be drawn with to be judged."""
        self.name, self.window = name, window
        windowed = name in ("tail", "bottom", "lowest")
        self.id = f"{name}@{window}" if windowed else name

    def bound(self, request: Request, candidate: Candidate) -> int:
        """No tokens."""
        return 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a candidate. Raises Unsupported for a sample without the log-probabilities it needs."""
        return [Score((self._score(candidate),)) for candidate in candidates]

    def _score(self, candidate: Candidate) -> float:
        if candidate.sample is None:
            raise Unsupported(f"verifier {self.id} judges finished samples, not text: it reads their log-probabilities")
        found = certainty(candidate.sample, self.name, self.window)
        if found is None:
            needs = {"logprob": "log-probabilities", "self-certainty": "statistics of the whole vocabulary"}
            raise Unsupported(
                f"verifier {self.id}: the samples carry no {needs.get(self.name, 'top log-probabilities')}; "
                "use an engine that returns them (see `outthink doctor`) or another verifier"
            )
        # Rounding may lift either just over its bound.
        return math.exp(min(0.0, found)) if self.name == "logprob" else max(0.0, found) / (1 + max(0.0, found))
