"""How much a verifier's score weighs in a vote: a fact of a policy, the same at a request as in its calibration.

Knows: the log-odds of a score and what is made of them. Does not know votes, rules, or how a verifier judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from outthink.core.errors import BadInput, need_known
from outthink.core.sample import Sample
from outthink.verifiers.protocol import AGGREGATIONS, aggregate

_AGAIN = "calibrate again (`outthink calibrate`)"
_SURE_SCORE = 1e-6  # nearer to 0 or 1 a score says no more


def log_odds(scores: Sequence[float], aggregation: str) -> float:
    """Of a sample's step scores, made one number; at most 14 in size."""
    value = min(1 - _SURE_SCORE, max(_SURE_SCORE, aggregate(scores, aggregation)))
    return math.log(value / (1 - value))


@dataclass(frozen=True, slots=True)
class Judging:
    """How a verifier's score weighs in a vote: exp(exponent x log-odds / temperature), beside what else sways it.

    Args:
        aggregation: how step scores become one number.
        temperature: divides the log-odds, so that they are those of a right answer on the calibration's samples.
        exponent: of these odds; 0 for no weight at all.
        tokens: of the verifier for each token of a sample, prompt included.
    """

    aggregation: str
    temperature: float
    exponent: float
    tokens: float

    def __post_init__(self) -> None:
        need_known("aggregation", self.aggregation, AGGREGATIONS)
        if not self.temperature > 0 or not 0 <= self.exponent < math.inf or not 0 <= self.tokens < math.inf:
            values = (self.temperature, self.exponent, self.tokens)
            raise BadInput("temperature, exponent, tokens", values, "are not above 0, and from 0", _AGAIN)

    def odds(self, sample: Sample) -> float | None:
        """What its score adds to the exponent of a vote's weight; None for a sample without a score."""
        if not sample.scores:
            return None
        return self.exponent * log_odds(sample.scores, self.aggregation) / self.temperature


JUDGING = tuple(field.name for field in fields(Judging))
