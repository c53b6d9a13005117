"""What an arm of a policy did on problems that it had not been fitted on.

Knows: means over problems, their intervals, and the prediction interval of a mean yet to be seen.
Does not know how an arm decides or how it was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import sqrt
from typing import Any

from outthink.core.errors import BadInput

_Z = 1.959964  # of the normal distribution, 95 % two-sided


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Means per problem over held-out problems; None where a quantity is unknown.

    Args:
        problems: how many were held out, each in its turn.
        accuracy: share answered right, with its 95 % bootstrap interval over problems.
        spread: standard deviation of a problem's accuracy (mean over orders) between problems.
        tokens: generated, cancelled included; `prompt_tokens` are counted apart.
        seconds: on the time model of the calibration.
    """

    problems: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    spread: float
    tokens: float
    tokens_low: float
    tokens_high: float
    prompt_tokens: float | None
    samples: float
    seconds: float | None
    flops: float | None
    usd: float | None = None

    def cost(self, currency: str) -> float | None:
        """Mean of a problem in `tokens` (prompt included), `flops`, `usd` or `seconds`; None where unknown."""
        if currency == "tokens":
            return None if self.prompt_tokens is None else self.tokens + self.prompt_tokens
        value: float | None = getattr(self, currency)
        return value

    def predicted(self, problems: int) -> tuple[float, float]:
        """95 % prediction interval for the mean accuracy over so many new problems.

        It covers the error of both means: spread x sqrt(1/here + 1/there), with Student's quantile.
        Two problems, one right and one wrong, are added to the spread, so that a perfect record does
        not promise perfection.
        """
        if problems < 1:
            raise BadInput("problems", problems, "is below 1", "predict for at least one problem")
        here = self.problems
        mean = (self.accuracy * here + 1) / (here + 2)
        variance = (here * (self.spread**2 + (self.accuracy - mean) ** 2) + (1 - mean) ** 2 + mean**2) / (here + 2)
        freedom = max(here - 1, 1)
        quantile = _Z + (_Z**3 + _Z) / (4 * freedom)
        half = quantile * sqrt(variance * (1 / problems + 1 / here))
        return max(0.0, self.accuracy - half), min(1.0, self.accuracy + half)

    def json(self) -> dict[str, Any]:
        """Plain values, six significant digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> HeldOut:
        """From plain values. BadInput for a missing key, or a value that is no number."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            value = values.get(field.name)
            unknown = value is None and "None" in str(field.type)
            if not unknown and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise BadInput("policy", value, f"is no {field.name} of an arm", "calibrate again")
            found[field.name] = value
        return cls(**found)
