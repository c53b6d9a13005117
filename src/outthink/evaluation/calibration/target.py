"""What a calibration aims at: to match a strategy, to reach an accuracy, or to stay under a cost.

Knows: how a target is written, and which size meets it at the least cost on held-out problems. Does not know how rules
are fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from outthink.controller.policy.artefact import HeldOut
from outthink.core.errors import BadInput
from outthink.evaluation.sample_file import JsonObject
from outthink.strategies.defaults import BASELINE

COSTS = ("tokens", "flops", "usd", "seconds")
_FORMS = "use match=self-consistency@32, accuracy=0.7, or a mean cost a problem such as tokens=1500"


@dataclass(frozen=True, slots=True)
class Target:
    """An aim.

    Args:
        kind: `match` the accuracy of self-consistency at size n, reach `accuracy` value, or the highest
            accuracy at a mean `cost` of value a problem in `currency` (tokens include the prompt's).
        margin: accuracy that may be lost against it.
        by: currency in which the cheapest is chosen.
    """

    kind: Literal["match", "accuracy", "cost"]
    value: float
    currency: str | None = None
    margin: float = 0.005
    by: str = "tokens"

    @classmethod
    def parse(cls, text: str, *, margin: float = 0.005, by: str = "tokens") -> Target:
        """Read `match=self-consistency@32`, `accuracy=0.7` or `tokens=1500`; BadInput for anything else."""
        if by not in COSTS:
            raise BadInput("--by", by, "is no cost", f"use one of {', '.join(COSTS)}")
        if not 0 <= margin < 1:
            raise BadInput("--margin", margin, "is no share of problems", "give for example 0.005")
        name, _, value = text.partition("=")
        if name == "match":
            strategy, _, size = value.partition("@")
            if strategy != BASELINE or not size.isdecimal() or int(size) < 1:
                raise BadInput("--target", text, "cannot be matched", _FORMS)
            return cls("match", int(size), None, margin, by)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name == "accuracy" and 0 < number <= 1:
            return cls("accuracy", number, None, margin, by)
        if name in COSTS and 0 < number < math.inf:
            return cls("cost", number, name, margin, by)
        raise BadInput("--target", text, "is no target", _FORMS)

    @property
    def text(self) -> str:
        """As it was written."""
        if self.kind == "match":
            return f"match={BASELINE}@{self.value:.0f}"
        return f"{self.currency or self.kind}={self.value:g}"

    def json(self) -> JsonObject:
        """Plain values."""
        return {**asdict(self), "text": self.text}

    @classmethod
    def of(cls, values: JsonObject) -> Target:
        """From plain values."""
        return cls.parse(values["text"], margin=values["margin"], by=values["by"])

    def choose(self, rungs: Mapping[int, HeldOut], baseline: Mapping[int, HeldOut]) -> int:
        """The size that meets it at the least cost.

        Args:
            rungs: held-out figures of the arms by size.
            baseline: those of self-consistency.

        A match that no size reaches is the most accurate size. Raises BadInput where no size has the
        accuracy or is below the cost; the line names the nearest one.
        """
        if self.kind == "cost":
            return self._under(rungs)
        goal = self.value if self.kind == "accuracy" else self._matched(baseline)
        meeting = {n: held for n, held in rungs.items() if held.accuracy >= goal - self.margin}
        if not meeting and self.kind == "match":  # every arm lost more than the margin: the widest loses least
            return max(rungs, key=lambda n: (rungs[n].accuracy, n))
        if not meeting:
            best = max(rungs, key=lambda n: rungs[n].accuracy)
            raise BadInput(
                "--target",
                self.text,
                f"is reached by no size (the best, {best}, has {rungs[best].accuracy:.1%} on held-out problems)",
                "aim lower, or allow a larger --margin",
            )
        return min(meeting, key=lambda n: (self._cost(meeting[n], self.by), n))

    def _matched(self, baseline: Mapping[int, HeldOut]) -> float:
        n = int(self.value)
        if n not in baseline:
            most = max(baseline)
            problem = f"is more than the {most} samples recorded"
            if n < most:
                problem = f"is no size that is compared ({', '.join(map(str, baseline))})"
            raise BadInput("--target", self.text, problem, f"give --target match={BASELINE}@{most}, or record more")
        return baseline[n].accuracy

    def _under(self, rungs: Mapping[int, HeldOut]) -> int:
        currency = str(self.currency)
        costs = {n: self._cost(held, currency, "--target") for n, held in rungs.items()}
        fitting = {n: held for n, held in rungs.items() if costs[n] <= self.value}
        if not fitting:
            least = min(costs.values())
            raise BadInput(
                "--target", self.text, f"is met by no arm (the cheapest needs {least:.4g} {currency})", "allow more"
            )
        return max(fitting, key=lambda n: (fitting[n].accuracy, -costs[n]))

    @staticmethod
    def _cost(held: HeldOut, currency: str, flag: str = "--by") -> float:
        cost = held.cost(currency)
        if cost is None:
            raise BadInput(flag, currency, "is unknown for these samples", "use tokens, or give --price IN,OUT")
        return cost
