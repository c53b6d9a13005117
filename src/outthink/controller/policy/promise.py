"""What a policy promises of an arm: how much accuracy it loses at most, how surely, and on what evidence.

Knows: the figures of a promise, where they stand in a policy's file, and how they are said to somebody who decides
about money. Does not know how a bound is worked out or how an arm was chosen (evaluation/calibration does).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput

State = Literal["confirmed", "open", "broken"]
"""What new problems say of a promise."""
_AGAIN = "calibrate again (`outthink calibrate`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """At most `margin` of accuracy is lost, in all but a share `risk` of calibrations like this one.

    Args:
        margin: accuracy that may be lost against `against`, as a fraction.
        risk: share of calibrations that may break it.
        bound: one-sided upper bound of the arm's loss at `level`.
        level: at which the bound is taken, None where no level was reliable enough or nothing cheaper qualified.
        reliability: share of resampled calibrations whose arm kept the margin, None where none was made.
        problems: that it rests on.
        against: what is to be matched, such as `self-consistency@32`.
        needed: problems at which the cheapest promising arm would qualify, None where an arm qualified or none would.
    """

    margin: float
    risk: float
    bound: float
    level: float | None
    reliability: float | None
    problems: int
    against: str
    needed: int | None = None

    def __post_init__(self) -> None:
        for name, value in {"margin": self.margin, "reliability": self.reliability}.items():
            if value is not None and not 0 <= value <= 1:
                raise BadInput(name, value, "is no share", _AGAIN)
        if not 0 < self.risk < 0.5:
            raise BadInput("risk", self.risk, "is not between 0 and 0.5", _AGAIN)
        if self.problems < 1:
            raise BadInput("problems", self.problems, "is below 1", _AGAIN)

    @property
    def kept(self) -> bool:
        """Whether something cheaper than what is to be matched could be promised."""
        return self.level is not None

    def json(self) -> JsonObject:
        """Plain values, six significant digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }

    def words(self) -> list[str]:
        """The promise for people: what, how surely, on what evidence."""
        margin, points = f"{100 * self.margin:g} points", f"{100 * self.bound:.2f} points"
        if not self.kept:
            line = (
                f"{self.problems:,} problems cannot show that anything cheaper than {self.against} "
                f"loses at most {margin} of accuracy, so {self.against} itself is used: nothing is lost, nothing saved"
            )
            if self.needed is None:
                return [line, "no arm that was tried loses less than that; allow a larger --margin"]
            return [line, f"about {self.needed:,} problems would be needed, or a larger --margin"]
        loss = (
            f"the loss is at most {points}"
            if self.bound > 0
            else f"nothing is lost, and at least {points.lstrip('-')} are won"
        )
        trials = "" if self.reliability is None else f"; {self.reliability:.0%} of resampled calibrations kept it"
        return [
            f"at most {margin} of accuracy are lost against {self.against}, "
            f"in at least {1 - self.risk:.0%} of calibrations like this one{trials}",
            f"on {self.problems:,} problems {loss}, {1 - (self.level or 0):.1%} sure",
        ]


def weakest(promises: list[Promise]) -> Promise | None:
    """The promise that all of them keep: of several the least reliable; None where there is none."""
    if not promises:
        return None
    return min(promises, key=lambda promise: (promise.kept, promise.reliability or 0.0, -promise.bound))
