"""Scores that were recorded with the samples, for replay.

Knows: that a sample carries them, and what the verifier read for them. Does not know files.
"""

from __future__ import annotations

from collections.abc import Sequence

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score


class RecordedVerifier:
    """Gives every sample the step scores it was recorded with, at the price that was paid for them.

    Args:
        id, kind, model, parameters, aggregation: of the verifier that gave the scores.
    """

    separator = "\n\n"

    def __init__(
        self,
        id: str,
        *,
        kind: Kind = "process",
        model: str | None = None,
        parameters: int | None = None,
        aggregation: Aggregation = "last",
    ) -> None:
        self.id, self.kind, self.model = id, kind, model or id
        self.parameters, self.aggregation = parameters, aggregation

    def bound(self, request: Request, candidate: Candidate) -> int:
        """What was paid for this candidate, 0 where it is not known."""
        return (candidate.sample.verifier_tokens or 0) if candidate.sample is not None else 0

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """The recorded scores, none where a sample has none. Raises BadInput for a text that was not recorded."""
        scores = []
        for candidate in candidates:
            sample = candidate.sample
            if sample is None:
                raise BadInput("verifier", self.id, "has no recorded score for this text", "score it: outthink verify")
            scores.append(Score(tuple(sample.scores), sample.verifier_tokens))
        return scores
