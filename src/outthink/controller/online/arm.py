"""One thing that a policy may do, and what calibration says of it. Knows no request and no outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from outthink.core.errors import BadInput

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Arm:
    """A plan with its calibrated accuracy, 95 % interval, and mean cost a request in any one unit."""

    name: str
    mean: float
    low: float
    high: float
    cost: float

    def __post_init__(self) -> None:
        if not self.name:
            raise BadInput("arm", self.name, "has no name", "give it one")
        if not 0 <= self.low <= self.mean <= self.high <= 1:
            said = [self.low, self.mean, self.high]
            raise BadInput(
                f"arm {self.name}", said, "is no interval around a mean", "give 0 <= low <= mean <= high <= 1"
            )
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise BadInput(f"arm {self.name} cost", self.cost, "is no cost", "give a number from 0")

    def prior(self, most: float) -> tuple[float, float]:
        """Beta parameters with this mean and the interval's spread, worth at most `most` outcomes.

        The spread is (high - low) / (2 x 1.96); a mean of 0 or 1 is moved inside by half an outcome.
        """
        spread = max((self.high - self.low) / (2 * _Z), 1e-9)
        strength = min(most, max(1.0, self.mean * (1 - self.mean) / spread**2 - 1))
        return self.mean * strength + 0.5, (1 - self.mean) * strength + 0.5

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def arms_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Arm, ...]:
    """Arms from plain values; BadInput for fewer than one, two of a name, or a damaged one."""
    try:
        arms = tuple(
            Arm(str(row["name"]), *(float(row[key]) for key in ("mean", "low", "high", "cost"))) for row in rows
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            "arms", type(error).__name__, f"cannot be read ({error})", "give name, mean, low, high, cost"
        ) from None
    return checked(arms)


def checked(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms; BadInput where there is none, or two share a name."""
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise BadInput("arms", names, "are none, or two of one name", "give each arm its own name")
    return tuple(arms)
