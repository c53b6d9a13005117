"""Adaptive-consistency on weighted votes: stops once the leader leads by so many standard deviations.

Knows: a threshold and the vote weights. Does not know how they were chosen
(evaluation/calibration/fit.py, which computes the same lead over arrays; a test holds the two together).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from outthink.controller.gain import Scale, Shape, Stopping, pair_of, scale_of_json
from outthink.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Lead:
    """Draw until the leader leads by `limit`: (a - b) / sqrt(a + b + 1) of the two largest weights, which is
    what adaptive-consistency's probability depends on where votes are equal.

    Args:
        horizon: samples at which the calibration's votes ended.
        sway: how much the standardised log-probability and confidence sway a vote's weight, exp(s1 z1 + s2 z2).
    """

    scale: Scale
    horizon: int
    sway: tuple[float, float]
    limit: float
    kind: ClassVar[str] = "weighted-adaptive"
    carries: ClassVar[bool] = True

    def enough(self, shape: Shape) -> bool:
        """Whether the leader is far enough ahead."""
        return shape.drawn >= self.horizon or shape.lead >= self.limit

    def json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["scale"] = {name: list(v) if isinstance(v, tuple) else v for name, v in values["scale"].items()}
        return {"kind": self.kind, **values, "sway": list(self.sway)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Lead:
        """From plain values; BadInput for what is malformed."""
        try:
            scale = scale_of_json(values["scale"])
            return cls(scale, int(values["horizon"]), pair_of(values["sway"]), float(values["limit"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("policy", cls.kind, f"is malformed ({error!r})", "calibrate again") from None

    def start(self, n: int, features: Sequence[float] | None) -> Stopping:
        """The rule for one request of at most n samples; features of the question are not used."""
        return Stopping(self, n)
